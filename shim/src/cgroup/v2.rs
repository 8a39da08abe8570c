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
    let pids = Fields::default()
        .number(1, read_number(directory, "pids.current"))
        .number(2, read_number(directory, "pids.max"));
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
    let all = Fields::default()
        .message(1, pids)
        .message(2, Fields::default().table(&read(directory, "cpu.stat"), &cpu))
        .message(4, memory(directory))
        .message(6, io(directory));
    huge_pages(directory)
        .into_iter()
        .fold(all, |all, size| all.message(7, size))
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

/// One message for each size of huge pages there is.
fn huge_pages(directory: &Path) -> Vec<Fields> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let size_of = |name: String| Some(name.strip_prefix("hugetlb.")?.strip_suffix(".current")?.to_owned());
    let mut sizes: Vec<String> = names.filter_map(size_of).filter(|size| !size.contains('.')).collect();
    sizes.sort();
    let read_of = |size: &str, what: &str| read_number(directory, &format!("hugetlb.{size}.{what}"));
    let entry = |size: &String| {
        Fields::default()
            .number(1, read_of(size, "current"))
            .number(2, read_of(size, "max"))
            .bytes(3, size.as_bytes())
    };
    sizes.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_not_set_and_huge_pages_are_told_as_by_the_go_shim() {
        let directory = std::env::temp_dir().join(format!("hull-metrics-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        for (file, text) in [
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.current", "4194304\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("hugetlb.2MB.rsvd.current", "1\n"),
            ("hugetlb.1GB.current", "0\n"),
            ("hugetlb.1GB.max", "7\n"),
        ] {
            std::fs::write(directory.join(file), text).unwrap();
        }
        let huge = |current, max, size: &str| {
            Fields::default().number(1, current).number(2, max).bytes(3, size.as_bytes())
        };
        let empty = Fields::default;
        let wanted = empty()
            .message(1, empty().number(1, 3).number(2, u64::MAX))
            .message(2, empty())
            .message(4, empty())
            .message(6, empty())
            .message(7, huge(0, 7, "1GB"))
            .message(7, huge(4_194_304, u64::MAX, "2MB"))
            .message(8, empty());
        assert_eq!(metrics(&directory), wanted.finish());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
