//! `io.containerd.cgroups.v2.Metrics`.

use std::path::Path;

use super::fields::{Fields, lookup, read, read_number};

/// `memory.stat` in the order of the message's fields, from 1.
const MEMORY: [&str; 31] = [
    "anon",
    "file",
    "kernel_stack",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "file_dirty",
    "file_writeback",
    "anon_thp",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
    "slab_reclaimable",
    "slab_unreclaimable",
    "pgfault",
    "pgmajfault",
    "workingset_refault",
    "workingset_activate",
    "workingset_nodereclaim",
    "pgrefill",
    "pgscan",
    "pgsteal",
    "pgactivate",
    "pgdeactivate",
    "pglazyfree",
    "pglazyfreed",
    "thp_fault_alloc",
    "thp_collapse_alloc",
];

/// Reads every controller there is.
pub fn metrics(directory: &Path) -> Vec<u8> {
    let limit = Some(read_number(directory, "pids.max")).filter(|limit| *limit != u64::MAX);
    let pids =
        Fields::default().number(1, read_number(directory, "pids.current")).number(2, limit.unwrap_or(0));
    let cpu = [
        (1, "usage_usec"),
        (2, "user_usec"),
        (3, "system_usec"),
        (4, "nr_periods"),
        (5, "nr_throttled"),
        (6, "throttled_usec"),
        (8, "nr_bursts"),
        (9, "burst_usec"),
    ];
    let events = [(1, "low"), (2, "high"), (3, "max"), (4, "oom"), (5, "oom_kill"), (6, "oom_group_kill")];
    Fields::default()
        .message(1, pids)
        .message(2, Fields::default().table(&read(directory, "cpu.stat"), &cpu))
        .message(4, memory(directory))
        .message(6, io(directory))
        .message(8, Fields::default().table(&read(directory, "memory.events"), &events))
        .finish()
}

fn memory(directory: &Path) -> Fields {
    let table = read(directory, "memory.stat");
    let mut memory = Fields::default();
    for (name, field) in MEMORY.iter().zip(1..) {
        // Kernels since 5.9 count refaults and activations of anonymous memory and of files apart.
        let split = || lookup(&table, &format!("{name}_anon")) + lookup(&table, &format!("{name}_file"));
        let value = if name.starts_with("workingset_re") || name.starts_with("workingset_a") {
            lookup(&table, name).max(split())
        } else {
            lookup(&table, name)
        };
        memory = memory.number(field, value);
    }
    memory
        .number(32, read_number(directory, "memory.current"))
        .number(33, read_number(directory, "memory.max"))
        .number(34, read_number(directory, "memory.swap.current"))
        .number(35, read_number(directory, "memory.swap.max"))
        .number(36, read_number(directory, "memory.peak"))
        .number(37, read_number(directory, "memory.swap.peak"))
}

fn io(directory: &Path) -> Fields {
    let mut all = Fields::default();
    for line in read(directory, "io.stat").lines() {
        let Some((device, counters)) = line.split_once(' ') else { continue };
        let Some((major, minor)) = device.split_once(':') else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        let value = |name: &str| {
            let found =
                counters.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        let entry = Fields::default().number(1, major).number(2, minor);
        let names = ["rbytes", "wbytes", "rios", "wios"];
        let entry =
            names.iter().zip(3..).fold(entry, |entry, (name, field)| entry.number(field, value(name)));
        all = all.message(1, entry);
    }
    all
}
