//! Statistics of version 1 hierarchies (cpuacct.rst, memory.rst, blkio-controller.rst).

use super::read::{block_entries, limit, list, number, pairs, row, text, usage_all};
use super::{BlkioEntry, Hugetlb, MemoryEntry, Statistics};
use crate::cgroup::Cgroup;
use crate::error::Result;
use crate::node::Node;

/// Nanoseconds of a clock tick in `cpuacct.stat`: USER_HZ is 100 on every architecture we know.
const TICK: u64 = 10_000_000;

/// Reads what one controller counts.
type Collect = fn(&Node, &mut Statistics) -> Result<()>;

pub(super) fn collect(cgroup: &Cgroup, statistics: &mut Statistics) -> Result<()> {
    let collectors: [(&str, Collect); 7] = [
        ("cpuacct", cpu_time),
        ("cpu", throttling),
        ("cpuset", sets),
        ("memory", memory),
        ("pids", pids),
        ("blkio", block),
        ("hugetlb", hugetlb),
    ];
    for (controller, collect) in collectors {
        if let Some(node) = cgroup.v1(controller) {
            collect(node, statistics)?;
        }
    }
    Ok(())
}

fn cpu_time(node: &Node, statistics: &mut Statistics) -> Result<()> {
    let usage = &mut statistics.cpu.usage;
    let ticks = pairs(&text(node, "cpuacct.stat")?);
    let time = |name: &str| ticks.get(name).map_or(0, |ticks| ticks * TICK);
    (usage.kernel, usage.user) = (time("system"), time("user"));
    usage.total = number(node, "cpuacct.usage")?;
    usage.percpu = row(&text(node, "cpuacct.usage_percpu")?);
    (usage.percpu_kernel, usage.percpu_user) = usage_all(&text(node, "cpuacct.usage_all")?);
    Ok(())
}

fn throttling(node: &Node, statistics: &mut Statistics) -> Result<()> {
    let counters = pairs(&text(node, "cpu.stat")?);
    let counter = |name: &str| counters.get(name).copied().unwrap_or(0);
    let throttling = &mut statistics.cpu.throttling;
    throttling.periods = counter("nr_periods");
    throttling.throttled_periods = counter("nr_throttled");
    throttling.throttled_time = counter("throttled_time");
    Ok(())
}

fn sets(node: &Node, statistics: &mut Statistics) -> Result<()> {
    let set = &mut statistics.cpuset;
    set.cpus = list(&text(node, "cpuset.cpus")?);
    set.mems = list(&text(node, "cpuset.mems")?);
    set.cpu_exclusive = number(node, "cpuset.cpu_exclusive")?;
    set.mem_hardwall = number(node, "cpuset.mem_hardwall")?;
    set.mem_exclusive = number(node, "cpuset.mem_exclusive")?;
    set.memory_migrate = number(node, "cpuset.memory_migrate")?;
    set.memory_spread_page = number(node, "cpuset.memory_spread_page")?;
    set.memory_spread_slab = number(node, "cpuset.memory_spread_slab")?;
    set.memory_pressure = number(node, "cpuset.memory_pressure")?;
    set.sched_load_balance = number(node, "cpuset.sched_load_balance")?;
    set.sched_relax_domain_level = text(node, "cpuset.sched_relax_domain_level")?.trim().parse().unwrap_or(0);
    Ok(())
}

fn memory(node: &Node, statistics: &mut Statistics) -> Result<()> {
    let memory = &mut statistics.memory;
    memory.raw = pairs(&text(node, "memory.stat")?);
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    memory.usage = memory_entry(node, "memory")?;
    memory.swap = memory_entry(node, "memory.memsw")?;
    memory.kernel = memory_entry(node, "memory.kmem")?;
    memory.kernel_tcp = memory_entry(node, "memory.kmem.tcp")?;
    Ok(())
}

fn memory_entry(node: &Node, prefix: &str) -> Result<MemoryEntry> {
    let read = |name: &str| number(node, &format!("{prefix}.{name}"));
    Ok(MemoryEntry {
        limit: read("limit_in_bytes")?,
        usage: read("usage_in_bytes")?,
        max: read("max_usage_in_bytes")?,
        failcnt: read("failcnt")?,
    })
}

fn pids(node: &Node, statistics: &mut Statistics) -> Result<()> {
    statistics.pids.current = number(node, "pids.current")?;
    statistics.pids.limit = limit(node, "pids.max")?.unwrap_or(0);
    Ok(())
}

/// Reads the counters of whoever counts: BFQ, the schedulers before it, else the throttling layer.
fn block(node: &Node, statistics: &mut Statistics) -> Result<()> {
    let blkio = &mut statistics.blkio;
    let entries = |file: String| -> Result<Vec<BlkioEntry>> { Ok(block_entries(&text(node, &file)?)) };
    for (prefix, suffix) in [
        ("blkio.bfq", "_recursive"),
        ("blkio", "_recursive"),
        ("blkio.throttle", "_recursive"),
        ("blkio.throttle", ""),
    ] {
        blkio.io_serviced_recursive = entries(format!("{prefix}.io_serviced{suffix}"))?;
        if blkio.io_serviced_recursive.is_empty() {
            continue;
        }
        blkio.io_service_bytes_recursive = entries(format!("{prefix}.io_service_bytes{suffix}"))?;
        if prefix != "blkio.throttle" {
            blkio.io_queued_recursive = entries(format!("{prefix}.io_queued_recursive"))?;
            blkio.io_service_time_recursive = entries(format!("{prefix}.io_service_time_recursive"))?;
            blkio.io_wait_time_recursive = entries(format!("{prefix}.io_wait_time_recursive"))?;
            blkio.io_merged_recursive = entries(format!("{prefix}.io_merged_recursive"))?;
            blkio.io_time_recursive = entries(format!("{prefix}.time_recursive"))?;
            blkio.sectors_recursive = entries(format!("{prefix}.sectors_recursive"))?;
        }
        return Ok(());
    }
    Ok(())
}

fn hugetlb(node: &Node, statistics: &mut Statistics) -> Result<()> {
    for size in node.files_between("hugetlb.", ".limit_in_bytes")? {
        if size.ends_with(".rsvd") {
            continue;
        }
        let read = |name: &str| number(node, &format!("hugetlb.{size}.{name}"));
        let entry = Hugetlb {
            usage: read("usage_in_bytes")?,
            max: read("max_usage_in_bytes")?,
            failcnt: read("failcnt")?,
        };
        statistics.hugetlb.insert(size, entry);
    }
    Ok(())
}
