//! Statistics of the version 2 tree, in version 1's terms where those exist (cgroup-v2.rst).

use super::read::{io_stat, limit, list, number, pairs, pressure, text};
use super::{Hugetlb, MemoryEntry, Statistics};
use crate::error::Result;
use crate::node::Node;

/// Nanoseconds of a microsecond.
const MICRO: u64 = 1000;

pub(super) fn collect(node: &Node, statistics: &mut Statistics) -> Result<()> {
    cpu(node, statistics)?;
    memory(node, statistics)?;
    statistics.pids.current = number(node, "pids.current")?;
    statistics.pids.limit = limit(node, "pids.max")?.unwrap_or(0);
    let blkio = &mut statistics.blkio;
    (blkio.io_service_bytes_recursive, blkio.io_serviced_recursive) = io_stat(&text(node, "io.stat")?);
    blkio.psi = pressure(&text(node, "io.pressure")?);
    statistics.cpuset.cpus = list(&text(node, "cpuset.cpus.effective")?);
    statistics.cpuset.mems = list(&text(node, "cpuset.mems.effective")?);
    Ok(())
}

fn cpu(node: &Node, statistics: &mut Statistics) -> Result<()> {
    let counters = pairs(&text(node, "cpu.stat")?);
    let counter = |name: &str| counters.get(name).copied().unwrap_or(0);
    let cpu = &mut statistics.cpu;
    cpu.usage.total = counter("usage_usec") * MICRO;
    cpu.usage.user = counter("user_usec") * MICRO;
    cpu.usage.kernel = counter("system_usec") * MICRO;
    cpu.throttling.periods = counter("nr_periods");
    cpu.throttling.throttled_periods = counter("nr_throttled");
    cpu.throttling.throttled_time = counter("throttled_usec") * MICRO;
    cpu.psi = pressure(&text(node, "cpu.pressure")?);
    Ok(())
}

fn memory(node: &Node, statistics: &mut Statistics) -> Result<()> {
    let memory = &mut statistics.memory;
    memory.raw = pairs(&text(node, "memory.stat")?);
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    memory.usage = entry(node, "memory")?;
    memory.usage.failcnt = pairs(&text(node, "memory.events")?).get("max").copied().unwrap_or(0);
    let swap = entry(node, "memory.swap")?;
    memory.swap = MemoryEntry {
        limit: swap.limit.saturating_add(memory.usage.limit),
        usage: swap.usage + memory.usage.usage,
        max: swap.max,
        failcnt: 0,
    };
    memory.psi = pressure(&text(node, "memory.pressure")?);
    Ok(())
}

fn entry(node: &Node, prefix: &str) -> Result<MemoryEntry> {
    Ok(MemoryEntry {
        limit: limit(node, &format!("{prefix}.max"))?.unwrap_or(u64::MAX),
        usage: number(node, &format!("{prefix}.current"))?,
        max: number(node, &format!("{prefix}.peak"))?,
        failcnt: 0,
    })
}

/// Huge pages; of a hybrid host too, where they are in this tree only.
pub(super) fn collect_hugetlb(node: &Node, statistics: &mut Statistics) -> Result<()> {
    for size in node.files_between("hugetlb.", ".current")? {
        if size.ends_with(".rsvd") {
            continue;
        }
        let usage = number(node, &format!("hugetlb.{size}.current"))?;
        let events = pairs(&text(node, &format!("hugetlb.{size}.events"))?);
        let failcnt = events.get("max").copied().unwrap_or(0);
        statistics.hugetlb.insert(size, Hugetlb { usage, max: 0, failcnt });
    }
    Ok(())
}
