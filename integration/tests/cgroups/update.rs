//! `update` of a running container: every option and every member of the document, read back from the kernel. Where this
//! machine's kernel has no file for a limit, the refusal that names it is what is looked at.

use super::*;

/// One call of `update`: its arguments, the controller and file on version 1 and what is in it afterwards, and the file
/// and content on version 2.
type Change =
    (&'static [&'static str], (&'static str, &'static str, &'static str), (&'static str, &'static str));

/// How version 1 writes a limit that is none.
const UNLIMITED: &str = "9223372036854771712";

const CHANGES: [Change; 17] = [
    (&["--memory", "64M"], ("memory", "memory.limit_in_bytes", "67108864"), ("memory.max", "67108864")),
    (
        &["--memory", "64M", "--memory-swap", "96M"],
        ("memory", "memory.memsw.limit_in_bytes", "100663296"),
        ("memory.swap.max", "33554432"),
    ),
    (
        &["--memory-reservation", "32M"],
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("memory.low", "33554432"),
    ),
    (
        &["--memory-swap", "-1"],
        ("memory", "memory.memsw.limit_in_bytes", UNLIMITED),
        ("memory.swap.max", "max"),
    ),
    (&["--memory", "-1"], ("memory", "memory.limit_in_bytes", UNLIMITED), ("memory.max", "max")),
    (&["--cpu-share", "512"], ("cpu", "cpu.shares", "512"), ("cpu.weight", "59")),
    (&["--cpu-share", "1024"], ("cpu", "cpu.shares", "1024"), ("cpu.weight", "100")),
    (&["--cpu-share", "2"], ("cpu", "cpu.shares", "2"), ("cpu.weight", "1")),
    (&["--cpu-share", "262144"], ("cpu", "cpu.shares", "262144"), ("cpu.weight", "10000")),
    (
        &["--cpu-period", "50000", "--cpu-quota", "20000"],
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu.max", "20000 50000"),
    ),
    (&["--cpu-quota", "30000"], ("cpu", "cpu.cfs_period_us", "50000"), ("cpu.max", "30000 50000")),
    (&["--cpu-burst", "5000"], ("cpu", "cpu.cfs_burst_us", "5000"), ("cpu.max.burst", "5000")),
    (&["--cpuset-cpus", "0"], ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    (&["--cpuset-mems", "0"], ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0")),
    (&["--pids-limit", "20"], ("pids", "pids.max", "20"), ("pids.max", "20")),
    (&["--pids-limit", "-1"], ("pids", "pids.max", "max"), ("pids.max", "max")),
    (&["--cpu-idle", "1", "--cpu-share", "512"], ("cpu", "cpu.idle", "1"), ("cpu.idle", "1")),
];

#[test]
fn every_option_of_update_reaches_the_kernel() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let container = runtime.start(&bundle);
    for (arguments, v1, v2) in CHANGES {
        let outcome = container.call("update", arguments);
        outcome.done();
        // An idle group has no weight on version 2: shares beside it are left out, and the caller is told.
        let told = outcome.stderr.contains("unable to apply both cpu.idle and cpu.weight");
        assert!(told == (is_v2() && arguments[0] == "--cpu-idle") || ours().is_err(), "{outcome:?}");
        let (controller, name, expected) = if is_v2() { ("", v2.0, v2.1) } else { v1 };
        assert_eq!(peek(file(&bundle, controller, name)), expected, "{arguments:?}");
    }
    assert_eq!(container.status(), "running");
}

/// Version 2 has quota and period in one file, and counts swap apart: one of two is written with the other, which the kernel
/// knows, however it got there.
#[test]
fn what_is_not_asked_for_stays_as_the_kernel_has_it() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let container = runtime.start(&bundle);
    let bandwidth = || match is_v2() {
        true => peek(file(&bundle, "", "cpu.max")),
        false => {
            ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|name| peek(file(&bundle, "cpu", name))).join(" ")
        }
    };
    container.call("update", &["--cpu-quota", "50000"]).done();
    // Managers that fill in whole documents write 0 for what they leave.
    update(&runtime, &bundle, &json!({ "cpu": { "quota": 0, "period": 0, "shares": 512 } }));
    container.call("update", &["--cpu-period", "200000"]).done();
    assert_eq!(bandwidth(), "50000 200000");
    let limits = json!({ "memory": { "limit": 67_108_864, "swap": 134_217_728 } });
    update(&runtime, &bundle, &limits);
    update(&runtime, &bundle, &json!({ "memory": { "limit": 0, "swap": 0, "reservation": 33_554_432 } }));
    container.call("update", &["--memory-swap", "96M"]).done();
    let (name, expected) =
        if is_v2() { ("memory.swap.max", "33554432") } else { ("memory.memsw.limit_in_bytes", "100663296") };
    assert_eq!(peek(file(&bundle, "memory", name)), expected);
    if !is_v2() {
        return;
    }
    update(&runtime, &bundle, &json!({ "unified": { "cpu.max": "20000 40000" } }));
    container.call("update", &["--cpu-period", "50000"]).done();
    assert_eq!(bandwidth(), "20000 50000");
    fs::write(file(&bundle, "", "cpu.max"), "30000 60000").expect("write the file by hand");
    container.call("update", &["--cpu-quota", "40000"]).done();
    assert_eq!(bandwidth(), "40000 60000");
}

/// The kernel refuses the last of them: the limit on processes.
#[test]
fn an_update_that_is_refused_halfway_changes_nothing() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let container = runtime.start(&bundle);
    container.call("update", &["--memory", "64M", "--memory-swap", "64M", "--cpu-share", "512"]).done();
    container.call("update", &["--cpu-quota", "50000", "--cpu-burst", "1000", "--pids-limit", "30"]).done();
    let names: &[(&str, &str)] = match is_v2() {
        true => &[
            ("", "memory.max"),
            ("", "memory.swap.max"),
            ("", "cpu.weight"),
            ("", "cpu.max"),
            ("", "cpu.max.burst"),
            ("", "cpuset.cpus.effective"),
            ("", "memory.high"),
            ("", "pids.max"),
        ],
        false => &[
            ("memory", "memory.limit_in_bytes"),
            ("memory", "memory.memsw.limit_in_bytes"),
            ("cpu", "cpu.shares"),
            ("cpu", "cpu.cfs_quota_us"),
            ("cpu", "cpu.cfs_period_us"),
            ("cpu", "cpu.cfs_burst_us"),
            ("cpuset", "cpuset.cpus"),
            ("pids", "pids.max"),
        ],
    };
    let values =
        || names.iter().map(|(controller, name)| peek(file(&bundle, controller, name))).collect::<Vec<_>>();
    let before = values();
    let mut document = json!({
        "memory": { "limit": 134_217_728, "swap": 134_217_728 },
        "cpu": { "shares": 2048, "quota": 90_000, "period": 200_000, "burst": 70_000, "cpus": "0" },
        "pids": { "limit": 9_999_999_999_u64 }
    });
    if is_v2() {
        document["pids"] = json!({ "limit": 40 });
        document["unified"] = json!({ "memory.high": "67108864", "pids.max": "many" });
    }
    try_update(&runtime, &bundle, &document).failed(1, "pids.max");
    assert_eq!(values(), before);
}

/// The document may come from a stream that its writer keeps open.
#[test]
fn an_update_that_waits_for_its_document_holds_nobody_up() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let container = runtime.start(&bundle);
    let mut waiting = runtime
        .command(&["update", "--resources", "-", &bundle.id])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("start the runtime");
    let mut stream = waiting.stdin.take().expect("piped");
    // It waits for more when it has taken all there was.
    std::io::Write::write_all(&mut stream, b"{").expect("write");
    assert!(eventually(PATIENCE, || rustix::io::ioctl_fionread(&stream).is_ok_and(|unread| unread == 0)));
    container.call("pause", &[]).done();
    container.call("resume", &[]).done();
    std::io::Write::write_all(&mut stream, br#""pids":{"limit":17}}"#).expect("write");
    drop(stream);
    assert!(waiting.wait().expect("wait for the update").success());
    assert_eq!(peek(file(&bundle, "pids", "pids.max")), "17");
}

/// On a machine with one memory node the value above is there before; that it is written, a node that no machine has tells.
#[test]
fn sets_that_the_parent_does_not_have_are_refused_by_the_kernel() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let container = runtime.start(&bundle);
    container.call("update", &["--cpuset-mems", "0"]).done();
    for (option, name, list) in
        [("--cpuset-mems", "cpuset.mems", "0,1023"), ("--cpuset-cpus", "cpuset.cpus", "0,8191")]
    {
        let before = peek(file(&bundle, "cpuset", name));
        let outcome = container.call("update", &[option, list]);
        outcome.failed(1, "must be part of what the parent group has");
        assert!(outcome.stderr.contains(&format!("/{name}")), "{outcome:?}");
        assert_eq!(peek(file(&bundle, "cpuset", name)), before);
    }
}

/// A weight goes to the first of these files that the kernel has: on version 1, and on version 2 with its own range.
#[test]
fn a_block_weight_is_updated_where_the_kernel_has_one() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let container = runtime.start(&bundle);
    let outcome = container.call("update", &["--blkio-weight", "300"]);
    let files = if is_v2() {
        [("io.bfq.weight", "300"), ("io.weight", "2930")]
    } else {
        [("blkio.bfq.weight", "300"), ("blkio.weight", "300")]
    };
    match files.into_iter().find(|(name, _)| file(&bundle, "blkio", name).exists()) {
        Some((name, value)) => {
            outcome.done();
            let seen = peek(file(&bundle, "blkio", name));
            assert_eq!(seen.strip_prefix("default ").unwrap_or(&seen), value, "{name}");
        }
        None => outcome.failed(1, "/linux/resources/blockIO/weight"),
    }
    // Devices have a weight while the scheduler that knows weights drives them.
    let Some((major, minor)) = weighed() else { return };
    let entry = json!([{ "major": major, "minor": minor, "weight": 200 }]);
    update(&runtime, &bundle, &json!({ "blockIO": { "weightDevice": entry } }));
    let name = if is_v2() { "io.bfq.weight" } else { "blkio.bfq.weight_device" };
    let lines = peek(file(&bundle, "blkio", name));
    assert!(lines.lines().any(|line| line == format!("{major}:{minor} 200")), "{lines}");
}

/// Number of a disk that the scheduler BFQ drives.
fn weighed() -> Option<(u64, u64)> {
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|entry| entry.path());
    let driven = |disk: &PathBuf| peek(disk.join("queue/scheduler")).contains("[bfq]");
    disks.filter(driven).find_map(|disk| numbers(&peek(disk.join("dev"))))
}

fn numbers(device: &str) -> Option<(u64, u64)> {
    let (major, minor) = device.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Version 1 has a budget of real time where the kernel was built with it (CONFIG_RT_GROUP_SCHED), out of the parent's.
#[test]
fn a_real_time_budget_is_updated_or_refused_with_the_reason() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let container = runtime.start(&bundle);
    let of = |name: &str| peek(file(&bundle, "cpu", name));
    for (option, value, name, field) in [
        ("--cpu-rt-period", "500000", "cpu.rt_period_us", "cpu/realtimePeriod"),
        ("--cpu-rt-runtime", "1000", "cpu.rt_runtime_us", "cpu/realtimeRuntime"),
    ] {
        let outcome = container.call("update", &[option, value]);
        let budget = peek(file(&bundle, "cpu", "").parent().expect("a tree").join("cpu.rt_runtime_us"));
        match (is_v2(), budget.as_str()) {
            (true, _) => outcome.failed(1, "cgroup version 2 has no equivalent"),
            (false, "") => outcome.failed(1, "has no such file"),
            (false, "0") if name == "cpu.rt_runtime_us" => outcome.failed(1, "as much real-time bandwidth"),
            (false, _) => {
                outcome.done();
                assert_eq!(of(name), value, "{option}");
            }
        }
        assert!(outcome.code == 0 || outcome.stderr.contains(field), "{outcome:?}");
    }
}

#[test]
fn huge_pages_and_block_devices_are_limited_by_a_document() {
    needs!(gate::root(), gate::program("busybox"));
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").map(Iterator::count).unwrap_or_default();
    needs!(if sizes == 0 { Err("needs huge pages".to_owned()) } else { Ok(()) });
    let disk = disk();
    needs!(disk.as_ref().map(drop).ok_or_else(|| "needs a block device".to_owned()));
    let (major, minor) = disk.expect("looked at above");
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let _container = runtime.start(&bundle);
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let document = json!({
        "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }],
        "blockIO": {
            "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(50)
        }
    });
    update(&runtime, &bundle, &document);
    let huge = |end: &str| {
        let own = cgroup_dir("hugetlb", &bundle).join(format!("hugetlb.2MB.{end}_in_bytes"));
        let side =
            cgroup_dir("unified", &bundle).join(format!("hugetlb.2MB.{}", end.replace("limit", "max")));
        [own, side].into_iter().find(|path| path.exists()).map(peek)
    };
    assert_eq!(huge("limit").as_deref(), Some("4194304"));
    // Reservations are limited as well, where the kernel counts them (since Linux 5.7).
    assert!(matches!(huge("rsvd.limit").as_deref(), Some("4194304") | None));
    if is_v2() {
        let expected = format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=300 wiops=50");
        assert_eq!(peek(file(&bundle, "", "io.max")), expected);
        return;
    }
    for (name, rate) in
        [("read_bps", 1_048_576), ("write_bps", 2_097_152), ("read_iops", 300), ("write_iops", 50)]
    {
        let throttle = peek(file(&bundle, "blkio", &format!("blkio.throttle.{name}_device")));
        assert_eq!(throttle, format!("{major}:{minor} {rate}"), "{name}");
    }
}

/// Number of a whole disk.
fn disk() -> Option<(u64, u64)> {
    let name = ["vda", "sda", "nvme0n1", "xvda"]
        .into_iter()
        .find(|name| Path::new("/sys/block").join(name).exists())?;
    numbers(&peek(format!("/sys/block/{name}/dev")))
}

/// What version 2 has no word for: settings of the out-of-memory killer and of swap are refused, limits of kernel memory
/// mean nothing, since all of it counts.
#[test]
fn memory_settings_of_version_1_are_updated_by_a_document() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let _container = runtime.start(&bundle);
    let of = |name: &str| peek(file(&bundle, "memory", name));
    let kernel = json!({ "memory": { "kernel": 33_554_432, "kernelTCP": 16_777_216 } });
    if is_v2() {
        for (name, value) in [("swappiness", json!(40)), ("disableOOMKiller", json!(true))] {
            let outcome = try_update(&runtime, &bundle, &json!({ "memory": { name: value } }));
            outcome.failed(1, "cgroup version 2 has no equivalent");
            assert!(outcome.stderr.contains(name), "{outcome:?}");
        }
        return update(&runtime, &bundle, &kernel);
    }
    update(&runtime, &bundle, &json!({ "memory": { "swappiness": 40, "disableOOMKiller": true } }));
    assert_eq!(of("memory.swappiness"), "40");
    assert!(of("memory.oom_control").contains("oom_kill_disable 1"), "{}", of("memory.oom_control"));
    update(&runtime, &bundle, &kernel);
    assert_eq!(of("memory.kmem.tcp.limit_in_bytes"), "16777216");
    // Kernels since 5.16 have given this one up, and take a write without an effect: it is left as a write by hand leaves it.
    let left = of("memory.kmem.limit_in_bytes");
    let _ = fs::write(file(&bundle, "memory", "memory.kmem.limit_in_bytes"), "33554432");
    assert_eq!(left, of("memory.kmem.limit_in_bytes"));
}

/// Controllers that few kernels have, devices that few machines have, and classes of service, which no machine at hand has:
/// there a container without a class is told so.
#[test]
fn limits_of_what_the_machine_lacks_are_refused_at_update() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let container = runtime.start(&bundle);
    for (controller, resources, field) in [
        ("net_cls", json!({ "network": { "classID": 7 } }), "network/classID"),
        (
            "net_prio",
            json!({ "network": { "priorities": [{ "name": "lo", "priority": 3 }] } }),
            "network/priorities/0",
        ),
        ("rdma", json!({ "rdma": { "no_such_card": { "hcaHandles": 3 } } }), "rdma/no_such_card"),
    ] {
        if !is_v2() && Path::new(TREE).join(controller).exists() {
            continue;
        }
        let outcome = try_update(&runtime, &bundle, &resources);
        outcome.failed(1, &format!("/linux/resources/{field}"));
        let reasons = ["no cgroup controller", "cgroup version 2 has no equivalent", "no such device"];
        assert!(reasons.iter().any(|reason| outcome.stderr.contains(reason)), "{outcome:?}");
    }
    for option in [["--l3-cache-schema", "L3:0=f"], ["--mem-bw-schema", "MB:0=50"]] {
        let outcome = container.call("update", &[&option[..], &["--pids-limit", "20"]].concat());
        outcome.failed(1, "the container has no class of service");
        assert_ne!(peek(file(&bundle, "pids", "pids.max")), "20", "refused before anything is written");
    }
    assert_eq!(container.status(), "running");
}
