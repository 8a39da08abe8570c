//! Limits of control groups, controller by controller.

use std::fs;

use serde_json::json;

use super::Table;
use super::cgroups::{available, limited, offered, place, read, sets};
use crate::cgroup::Layout;
use crate::lab::Lab;
use crate::verdict::{Finding, holds, needs, same, skip};

pub(super) const CASES: Table = &[
    ("C12", memory_limits_are_set),
    ("C14", memory_settings_of_version_1_are_set),
    ("C16", cpu_shares_quota_and_period_are_set),
    ("C17", cpu_burst_is_set),
    ("C18", realtime_budget_is_set),
    ("C19", cpus_and_memory_nodes_are_set),
    ("C20", cpu_idle_is_set),
    ("C21", block_io_weight_is_set),
    ("C22", device_weights_need_a_weight),
    ("C23", block_io_throttles_are_set),
    ("C24", huge_page_limits_are_set),
    ("C25", network_class_and_priorities_are_set),
    ("C26", pids_limit_is_set),
    ("C27", rdma_limits_are_set),
];

pub(super) const MEGABYTE: i64 = 1 << 20;

fn memory_limits_are_set(lab: &Lab) -> Finding {
    let limits = json!({ "limit": 64 * MEGABYTE, "reservation": 32 * MEGABYTE });
    let old = [("memory.limit_in_bytes", "67108864"), ("memory.soft_limit_in_bytes", "33554432")];
    let new = [("memory.max", "67108864"), ("memory.low", "33554432")];
    sets(lab, "memory", ("memory", limits), &old, &new)?;
    let (old_file, new_file) = ("memory.memsw.limit_in_bytes", "memory.swap.max");
    let file = if available(lab, "memory")? == 1 { old_file } else { new_file };
    if !offered(lab, "memory", file)? {
        return Ok(());
    }
    // Version 1 counts memory and swap together, as the configuration does; version 2 counts swap alone.
    let limits = json!({ "limit": 64 * MEGABYTE, "swap": 96 * MEGABYTE });
    sets(lab, "memory", ("memory", limits), &[(old_file, "100663296")], &[(new_file, "33554432")])?;
    let limits = json!({ "limit": 64 * MEGABYTE, "swap": -1 });
    sets(lab, "memory", ("memory", limits), &[("memory.limit_in_bytes", "67108864")], &[(new_file, "max")])
}

fn memory_settings_of_version_1_are_set(lab: &Lab) -> Finding {
    needs(available(lab, "memory")? == 1, "needs version 1")?;
    let (_, pid) = limited(
        lab,
        "memory",
        json!({ "limit": 64 * MEGABYTE, "swappiness": 33, "disableOOMKiller": true, "useHierarchy": true }),
    )?;
    let directory = place(lab, pid, "memory")?;
    same("memory.swappiness", "33", read(&directory, "memory.swappiness")?.as_str())?;
    let oom = read(&directory, "memory.oom_control")?;
    holds("oom_kill_disable 1", oom.contains("oom_kill_disable 1"), oom)?;
    lab.refuses("a swappiness of 101", |config| {
        config["linux"]["resources"]["memory"] = json!({ "swappiness": 101 })
    })
}

fn cpu_shares_quota_and_period_are_set(lab: &Lab) -> Finding {
    let given = json!({ "shares": 2000, "quota": 50_000, "period": 200_000 });
    let old = [("cpu.shares", "2000"), ("cpu.cfs_quota_us", "50000"), ("cpu.cfs_period_us", "200000")];
    sets(lab, "cpu", ("cpu", given.clone()), &old, &[("cpu.max", "50000 200000")])?;
    if available(lab, "cpu")? == 2 {
        // How shares become a weight is the runtime's choice; that they do is not.
        let (_, pid) = limited(lab, "cpu", given)?;
        let weight = read(&place(lab, pid, "cpu")?, "cpu.weight")?;
        holds("a weight other than the default 100", weight != "100", weight)?;
    }
    Ok(())
}

/// The file of a setting if the kernel was built with it.
fn built(lab: &Lab, controller: &str, old: &str, new: &str) -> Finding {
    let file = if available(lab, controller)? == 1 { old } else { new };
    needs(offered(lab, controller, file)?, format!("needs a kernel with {file}"))
}

fn cpu_burst_is_set(lab: &Lab) -> Finding {
    built(lab, "cpu", "cpu.cfs_burst_us", "cpu.max.burst")?;
    let given = json!({ "quota": 50_000, "period": 100_000, "burst": 20_000 });
    sets(lab, "cpu", ("cpu", given), &[("cpu.cfs_burst_us", "20000")], &[("cpu.max.burst", "20000")])
}

/// Microseconds of real time in each period.
pub(super) const REAL_TIME: i64 = 1000;

/// Whether the group above a container's has real time to give away.
pub(super) fn real_time(lab: &Lab) -> Finding<bool> {
    let bundle = lab.waiting(|_| ())?;
    lab.create(&bundle)?;
    let above = place(lab, lab.pid(&bundle)?, "cpu")?.join("..");
    Ok(read(&above, "cpu.rt_runtime_us")
        .is_ok_and(|budget| budget.parse().is_ok_and(|us: i64| us >= REAL_TIME)))
}

fn realtime_budget_is_set(lab: &Lab) -> Finding {
    built(lab, "cpu", "cpu.rt_runtime_us", "cpu.rt_runtime_us")?;
    let given = json!({ "realtimePeriod": 500_000, "realtimeRuntime": REAL_TIME });
    needs(real_time(lab)?, "needs a parent with a budget of real time")?;
    sets(lab, "cpu", ("cpu", given), &[("cpu.rt_period_us", "500000"), ("cpu.rt_runtime_us", "1000")], &[])
}

fn cpus_and_memory_nodes_are_set(lab: &Lab) -> Finding {
    let values = [("cpuset.cpus", "0"), ("cpuset.mems", "0")];
    sets(lab, "cpuset", ("cpu", json!({ "cpus": "0", "mems": "0" })), &values, &values)
}

fn cpu_idle_is_set(lab: &Lab) -> Finding {
    built(lab, "cpu", "cpu.idle", "cpu.idle")?;
    sets(lab, "cpu", ("cpu", json!({ "idle": 1 })), &[("cpu.idle", "1")], &[("cpu.idle", "1")])
}

/// The block controller's name, which differs between the versions.
fn block(lab: &Lab) -> Finding<&'static str> {
    let name = if lab.suite.layout == Layout::V2 { "io" } else { "blkio" };
    available(lab, name).map(|_| name)
}

fn block_io_weight_is_set(lab: &Lab) -> Finding {
    let controller = block(lab)?;
    for (file, wanted) in [
        ("blkio.weight", "123"),
        ("blkio.bfq.weight", "123"),
        ("io.bfq.weight", "default 123"),
        ("io.weight", ""),
    ] {
        if offered(lab, controller, file)? {
            let (_, pid) = limited(lab, "blockIO", json!({ "weight": 123 }))?;
            let seen = read(&place(lab, pid, controller)?, file)?;
            // io.weight has a range of its own, to which the value is converted.
            let right =
                if wanted.is_empty() { seen != "default 100" } else { seen == wanted || seen == "123" };
            return holds(format!("{file} made from 123"), right, seen);
        }
    }
    skip("needs a kernel with weights for block devices (bfq)")
}

fn device_weights_need_a_weight(lab: &Lab) -> Finding {
    block(lab)?;
    lab.refuses("a weightDevice with neither weight nor leafWeight", |config| {
        config["linux"]["resources"]["blockIO"] = json!({ "weightDevice": [{ "major": 7, "minor": 0 }] });
    })
}

/// A block device of the machine, as `major:minor`.
fn disk() -> Option<String> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| fs::read_to_string(entry.path().join("dev")).ok());
    numbers.map(|number| number.trim().to_owned()).min()
}

fn block_io_throttles_are_set(lab: &Lab) -> Finding {
    let controller = block(lab)?;
    let Some(disk) = disk() else { return skip("needs a block device") };
    let (major, minor) = disk.split_once(':').unwrap_or_default();
    let number = |word: &str| word.parse::<u64>().unwrap_or(0);
    let entry = |rate: u64| json!([{ "major": number(major), "minor": number(minor), "rate": rate }]);
    let given = json!({
        "throttleReadBpsDevice": entry(1_048_576), "throttleWriteBpsDevice": entry(2_097_152),
        "throttleReadIOPSDevice": entry(300), "throttleWriteIOPSDevice": entry(400)
    });
    let file = if controller == "io" { "io.max" } else { "blkio.throttle.read_bps_device" };
    needs(offered(lab, controller, file)?, format!("needs a kernel with {file}"))?;
    let (_, pid) = limited(lab, "blockIO", given)?;
    let directory = place(lab, pid, controller)?;
    if controller == "io" {
        return same(
            "io.max",
            format!("{disk} rbps=1048576 wbps=2097152 riops=300 wiops=400").as_str(),
            read(&directory, "io.max")?.as_str(),
        );
    }
    for (name, rate) in
        [("read_bps", 1_048_576), ("write_bps", 2_097_152), ("read_iops", 300), ("write_iops", 400)]
    {
        let file = format!("blkio.throttle.{name}_device");
        same(&file, format!("{disk} {rate}").as_str(), read(&directory, &file)?.as_str())?;
    }
    Ok(())
}

fn huge_page_limits_are_set(lab: &Lab) -> Finding {
    lab.refuses("a size of huge pages that does not exist", |config| {
        config["linux"]["resources"]["hugepageLimits"] = json!([{ "pageSize": "3MB", "limit": 0 }]);
    })?;
    let version = available(lab, "hugetlb")?;
    let (_, pid) = limited(lab, "hugepageLimits", json!([{ "pageSize": "2MB", "limit": 4_194_304 }]))?;
    let directory = place(lab, pid, "hugetlb")?;
    let end = if version == 1 { "limit_in_bytes" } else { "max" };
    let reserved = format!("hugetlb.2MB.rsvd.{end}");
    let file = if directory.join(&reserved).exists() { reserved } else { format!("hugetlb.2MB.{end}") };
    same(&file, "4194304", read(&directory, &file)?.as_str())
}

fn network_class_and_priorities_are_set(lab: &Lab) -> Finding {
    sets(
        lab,
        "net_cls",
        ("network", json!({ "classID": 1_048_577 })),
        &[("net_cls.classid", "1048577")],
        &[],
    )?;
    let given = json!({ "priorities": [{ "name": "lo", "priority": 3 }] });
    available(lab, "net_prio")?;
    let (_, pid) = limited(lab, "network", given)?;
    let seen = read(&place(lab, pid, "net_prio")?, "net_prio.ifpriomap")?;
    holds("lo 3 in net_prio.ifpriomap", seen.lines().any(|line| line == "lo 3"), seen)
}

fn pids_limit_is_set(lab: &Lab) -> Finding {
    for (limit, wanted) in [(7, "7"), (-1, "max")] {
        let values = [("pids.max", wanted)];
        sets(lab, "pids", ("pids", json!({ "limit": limit })), &values, &values)?;
    }
    let (_, pid) = limited(lab, "pids", json!({ "limit": 0 }))?;
    let seen = read(&place(lab, pid, "pids")?, "pids.max")?;
    // With a process in it a limit of 1 allows as little as one of 0, and systemd has no other word for it.
    holds("0 in pids.max for a limit of 0, or 1", seen == "0" || seen == "1", seen)
}

fn rdma_limits_are_set(lab: &Lab) -> Finding {
    available(lab, "rdma")?;
    let mut cards = fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten();
    let Some(card) = cards.next() else { return skip("needs a device for remote direct memory access") };
    let name = card.file_name().to_string_lossy().into_owned();
    let value = format!("{name} hca_handle=3 hca_object=10000");
    let given = json!({ name: { "hcaHandles": 3, "hcaObjects": 10_000 } });
    sets(lab, "rdma", ("rdma", given), &[("rdma.max", &value)], &[("rdma.max", &value)])
}
