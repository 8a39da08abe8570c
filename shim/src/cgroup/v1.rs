//! `io.containerd.cgroups.v1.Metrics`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::fields::{Fields, lookup, read, read_number};

/// Nanoseconds of one tick of `cpuacct.stat` (USER_HZ is 100 everywhere Linux runs).
const TICK: u64 = 10_000_000;
/// `memory.stat` in the order of the message's fields, from 1.
const MEMORY: [&str; 17] = [
    "cache",
    "rss",
    "rss_huge",
    "mapped_file",
    "dirty",
    "writeback",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "hierarchical_memory_limit",
    "hierarchical_memsw_limit",
];
/// Fields 18 to 32 are the first 15 again with this before their names.
const TOTAL: &str = "total_";
/// Files of blkio by the message's fields; of each the first that has anything is taken.
const BLKIO: [(u32, &[&str]); 8] = [
    (1, &["blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"]),
    (2, &["blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"]),
    (3, &["blkio.bfq.io_queued_recursive", "blkio.io_queued_recursive"]),
    (4, &["blkio.bfq.io_service_time_recursive", "blkio.io_service_time_recursive"]),
    (5, &["blkio.bfq.io_wait_time_recursive", "blkio.io_wait_time_recursive"]),
    (6, &["blkio.bfq.io_merged_recursive", "blkio.io_merged_recursive"]),
    (7, &["blkio.bfq.time_recursive", "blkio.time_recursive"]),
    (8, &["blkio.bfq.sectors_recursive", "blkio.sectors_recursive"]),
];

/// Reads every controller there is.
pub fn metrics(controllers: &BTreeMap<String, PathBuf>) -> Vec<u8> {
    let mut all = Fields::default();
    if let Some(directory) = controllers.get("hugetlb") {
        all = hugetlb(directory).into_iter().fold(all, |all, page| all.message(1, page));
    }
    if let Some(directory) = controllers.get("pids") {
        let limit = Some(read_number(directory, "pids.max")).filter(|limit| *limit != u64::MAX);
        let pids = Fields::default().number(1, read_number(directory, "pids.current"));
        all = all.message(2, pids.number(2, limit.unwrap_or(0)));
    }
    if controllers.contains_key("cpuacct") || controllers.contains_key("cpu") {
        all = all.message(3, cpu(controllers));
    }
    if let Some(directory) = controllers.get("memory") {
        all = all.message(4, memory(directory));
    }
    if let Some(directory) = controllers.get("blkio") {
        all = all.message(5, blkio(directory));
    }
    if let Some(directory) = controllers.get("memory") {
        let control = read(directory, "memory.oom_control");
        let names = [(1, "oom_kill_disable"), (2, "under_oom"), (3, "oom_kill")];
        all = all.message(9, Fields::default().table(&control, &names));
    }
    all.finish()
}

fn cpu(controllers: &BTreeMap<String, PathBuf>) -> Fields {
    let mut cpu = Fields::default();
    if let Some(directory) = controllers.get("cpuacct") {
        let split = read(directory, "cpuacct.stat");
        let mut each = Vec::new();
        for value in read(directory, "cpuacct.usage_percpu").split_whitespace() {
            prost::encoding::encode_varint(value.parse().unwrap_or(0), &mut each);
        }
        let mut usage = Fields::default()
            .number(1, read_number(directory, "cpuacct.usage"))
            .number(2, lookup(&split, "system").saturating_mul(TICK))
            .number(3, lookup(&split, "user").saturating_mul(TICK));
        if !each.is_empty() {
            usage = usage.bytes(4, &each);
        }
        cpu = cpu.message(1, usage);
    }
    if let Some(directory) = controllers.get("cpu") {
        let names = [(1, "nr_periods"), (2, "nr_throttled"), (3, "throttled_time")];
        cpu = cpu.message(2, Fields::default().table(&read(directory, "cpu.stat"), &names));
    }
    cpu
}

fn memory(directory: &Path) -> Fields {
    let table = read(directory, "memory.stat");
    let mut memory = Fields::default();
    for (name, field) in MEMORY.iter().zip(1..) {
        memory = memory.number(field, lookup(&table, name));
    }
    for (name, field) in MEMORY[..15].iter().zip(18..) {
        memory = memory.number(field, lookup(&table, &format!("{TOTAL}{name}")));
    }
    let entries = [(33, "memory"), (34, "memory.memsw"), (35, "memory.kmem"), (36, "memory.kmem.tcp")];
    for (field, prefix) in entries {
        let files = ["limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt"];
        let entry = files.iter().zip(1..).fold(Fields::default(), |entry, (file, number)| {
            entry.number(number, read_number(directory, &format!("{prefix}.{file}")))
        });
        memory = memory.message(field, entry);
    }
    memory
}

fn blkio(directory: &Path) -> Fields {
    let mut all = Fields::default();
    for (field, files) in BLKIO {
        let text = files.iter().map(|file| read(directory, file)).find(|text| text.lines().count() > 1);
        for entry in text.unwrap_or_default().lines().filter_map(blkio_entry) {
            all = all.message(field, entry);
        }
    }
    all
}

/// Reads `MAJOR:MINOR [OPERATION] VALUE`; the line of the sum has no device and is left out.
fn blkio_entry(line: &str) -> Option<Fields> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    let rest: Vec<&str> = words.collect();
    let (operation, value) = match rest[..] {
        [value] => ("", value),
        [operation, value] => (operation, value),
        _ => return None,
    };
    let mut entry = Fields::default();
    if !operation.is_empty() {
        entry = entry.bytes(1, operation.as_bytes());
    }
    Some(entry.number(3, major).number(4, minor).number(5, value.parse().ok()?))
}

fn hugetlb(directory: &Path) -> Vec<Fields> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let size_of =
        |name: &str| Some(name.strip_prefix("hugetlb.")?.strip_suffix(".usage_in_bytes")?.to_owned());
    let sizes = entries.flatten().filter_map(|entry| size_of(&entry.file_name().to_string_lossy()));
    let mut sizes: Vec<String> = sizes.filter(|size| !size.contains("rsvd")).collect();
    sizes.sort();
    let read_of = |size: &str, what: &str| read_number(directory, &format!("hugetlb.{size}.{what}"));
    sizes
        .iter()
        .map(|size| {
            Fields::default()
                .number(1, read_of(size, "usage_in_bytes"))
                .number(2, read_of(size, "max_usage_in_bytes"))
                .number(3, read_of(size, "failcnt"))
                .bytes(4, size.as_bytes())
        })
        .collect()
}
