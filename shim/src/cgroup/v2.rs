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

/// What kernels since 5.9 count apart; the two numbers before them have the sums.
const SPLIT: [(u32, &str); 4] = [
    (39, "workingset_refault_anon"),
    (40, "workingset_refault_file"),
    (41, "workingset_activate_anon"),
    (42, "workingset_activate_file"),
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
    let cpu = Fields::default().table(&read(directory, "cpu.stat"), &cpu);
    let all = Fields::default()
        .message(1, pids)
        .message(2, with_pressure(cpu, 7, directory, "cpu.pressure"))
        .message(4, with_pressure(memory(directory), 38, directory, "memory.pressure"))
        .message(6, with_pressure(io(directory), 2, directory, "io.pressure"));
    huge_pages(directory)
        .into_iter()
        .fold(all, |all, size| all.message(7, size))
        .message(8, Fields::default().table(&read(directory, "memory.events"), &events))
        .finish()
}

/// Adds how long processes had to wait (Documentation/accounting/psi.rst): containerd 2 asks for it. A kernel without it has
/// no such file, or one that cannot be read.
fn with_pressure(fields: Fields, field: u32, directory: &Path, file: &str) -> Fields {
    let text = read(directory, file);
    if text.is_empty() {
        return fields;
    }
    let kinds = [(1, "some"), (2, "full")];
    let lines = kinds.into_iter().filter_map(|(number, kind)| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        Some((number, waits(line)))
    });
    fields.message(field, lines.fold(Fields::default(), |all, (number, one)| all.message(number, one)))
}

/// Reads `avg10=0.00 avg60=0.00 avg300=0.00 total=0`: percents, and microseconds.
fn waits(line: &str) -> Fields {
    let value = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    };
    let averages = [(1, "avg10"), (2, "avg60"), (3, "avg300")];
    averages
        .into_iter()
        .fold(Fields::default(), |all, (field, name)| all.fraction(field, value(name).parse().unwrap_or(0.0)))
        .number(4, value("total").parse().unwrap_or(0))
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
        .table(&table, &SPLIT)
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
            .number(4, lookup(&read(directory, &format!("hugetlb.{size}.events")), "max"))
    };
    sizes.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_huge_pages_and_pressure_are_told_as_by_the_go_shim() {
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
            ("hugetlb.1GB.events", "max 9\n"),
            (
                "memory.stat",
                "workingset_refault_anon 3\nworkingset_refault_file 4\nworkingset_activate_file 5\n",
            ),
            (
                "cpu.pressure",
                "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 total=1\n",
            ),
            ("io.pressure", "some avg10=0.00 avg60=0.00 avg300=2.00 total=5\n"),
        ] {
            std::fs::write(directory.join(file), text).unwrap();
        }
        let empty = Fields::default;
        let huge =
            |current, max, size: &str| empty().number(1, current).number(2, max).bytes(3, size.as_bytes());
        let some = empty().fraction(1, 1.5).fraction(2, 0.25).number(4, 77);
        let cpu = empty().message(1, some).message(2, empty().number(4, 1));
        let io = empty().message(1, empty().fraction(3, 2.0).number(4, 5));
        let memory = empty().number(20, 7).number(21, 5).number(39, 3).number(40, 4).number(42, 5);
        let wanted = empty()
            .message(1, empty().number(1, 3).number(2, u64::MAX))
            .message(2, empty().message(7, cpu))
            .message(4, memory)
            .message(6, empty().message(2, io))
            .message(7, huge(0, 7, "1GB").number(4, 9))
            .message(7, huge(4_194_304, u64::MAX, "2MB"))
            .message(8, empty());
        assert_eq!(metrics(&directory), wanted.finish());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
