use oci_spec::runtime::LinuxResources;

use super::*;

const V1: &str = "cpu,cpuacct cpuset memory pids blkio hugetlb net_cls net_prio rdma devices freezer";
const V2: &str = "cpuset cpu io memory hugetlb pids rdma misc";

/// A host with these version 1 hierarchies (one a word), and a version 2 tree with these controllers.
fn host(v1: &str, v2: Option<&str>) -> Facts {
    let (mut mounts, mut own) = (String::new(), String::new());
    for name in v1.split_whitespace() {
        mounts += &format!("1 0 0:1 / /cg/{name} rw - cgroup c rw,{name}\n");
        own += &format!("1:{name}:/\n");
    }
    if v2.is_some() {
        mounts += "1 0 0:2 / /cg/unified rw - cgroup2 c rw\n";
        own += "0::/\n";
    }
    let mut facts = Facts::parse(&mounts, &own);
    facts.set_v2_controllers(v2.unwrap_or_default());
    facts
}

fn v1() -> Facts {
    host(V1, None)
}

fn v2() -> Facts {
    host("", Some(V2))
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// One line a write: `controller file=value|file=value`, `+` when it is tried again, `?` when it may be missing.
fn lines(json: &str, current: &str, facts: &Facts) -> Vec<String> {
    let writes = writes_of(&resources(json), &resources(current), facts).unwrap();
    writes
        .iter()
        .map(|write| {
            assert!(facts.hierarchies[write.place].controllers.contains(&write.controller), "{write:?}");
            let files: Vec<_> = write.files.iter().map(|(file, value)| format!("{file}={value}")).collect();
            let marks =
                format!("{}{}", if write.retry { "+" } else { "" }, if write.optional { "?" } else { "" });
            format!("{} {}{marks}", write.controller, files.join("|"))
        })
        .collect()
}

fn refusal(json: &str, facts: &Facts) -> Refusal {
    writes_of(&resources(json), &LinuxResources::default(), facts).unwrap_err()
}

/// A configuration, and the writes that it becomes.
type Row = (&'static str, &'static [&'static str]);

const V1_ROWS: [Row; 17] = [
    ("{}", &[]),
    (
        r#"{"memory":{"limit":1048576,"swap":2097152,"reservation":524288,"swappiness":60}}"#,
        &[
            "memory memory.limit_in_bytes=1048576+",
            "memory memory.memsw.limit_in_bytes=2097152",
            "memory memory.soft_limit_in_bytes=524288",
            "memory memory.swappiness=60",
        ],
    ),
    (
        r#"{"memory":{"limit":-1}}"#,
        &["memory memory.limit_in_bytes=-1+", "memory memory.memsw.limit_in_bytes=-1?"],
    ),
    (
        r#"{"memory":{"limit":4096,"swap":-1}}"#,
        &["memory memory.limit_in_bytes=4096+", "memory memory.memsw.limit_in_bytes=-1"],
    ),
    (
        r#"{"memory":{"kernel":4096,"kernelTCP":8192,"disableOOMKiller":true,"useHierarchy":true}}"#,
        &[
            "memory memory.use_hierarchy=1?",
            "memory memory.kmem.limit_in_bytes=4096?",
            "memory memory.kmem.tcp.limit_in_bytes=8192?",
            "memory memory.oom_control=1",
        ],
    ),
    (r#"{"memory":{"limit":0,"swap":0,"swappiness":18446744073709551615,"disableOOMKiller":false}}"#, &[]),
    (
        r#"{"cpu":{"shares":512,"quota":20000,"period":100000,"burst":5000,"idle":0}}"#,
        &[
            "cpu cpu.idle=0?",
            "cpu cpu.shares=512",
            "cpu cpu.cfs_period_us=100000+",
            "cpu cpu.cfs_burst_us=5000+",
            "cpu cpu.cfs_quota_us=20000+",
        ],
    ),
    (r#"{"cpu":{"shares":2,"idle":1}}"#, &["cpu cpu.shares=2", "cpu cpu.idle=1"]),
    (
        r#"{"cpu":{"realtimePeriod":1000000,"realtimeRuntime":950000,"quota":-1}}"#,
        &["cpu cpu.rt_period_us=1000000+", "cpu cpu.rt_runtime_us=950000+", "cpu cpu.cfs_quota_us=-1+"],
    ),
    (r#"{"cpu":{"cpus":"0-1,3","mems":"0"}}"#, &["cpuset cpuset.cpus=0-1,3", "cpuset cpuset.mems=0"]),
    (r#"{"pids":{"limit":0}}"#, &["pids pids.max=1"]),
    (r#"{"pids":{"limit":-1}}"#, &["pids pids.max=max"]),
    (
        r#"{"blockIO":{"weight":500,"leafWeight":300,"weightDevice":[{"major":8,"minor":0,"weight":10,"leafWeight":20}],
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}],
                "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2000}],
                "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":30},{"major":8,"minor":16,"rate":40}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#,
        &[
            "blkio blkio.bfq.weight=500|blkio.weight=500",
            "blkio blkio.leaf_weight=300",
            "blkio blkio.bfq.weight_device=8:0 10|blkio.weight_device=8:0 10",
            "blkio blkio.leaf_weight_device=8:0 20",
            "blkio blkio.throttle.read_bps_device=8:0 1000",
            "blkio blkio.throttle.write_bps_device=8:0 2000",
            "blkio blkio.throttle.read_iops_device=8:0 30",
            "blkio blkio.throttle.read_iops_device=8:16 40",
            "blkio blkio.throttle.write_iops_device=8:16 0",
        ],
    ),
    (
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
        &["hugetlb hugetlb.2MB.rsvd.limit_in_bytes=4194304?", "hugetlb hugetlb.2MB.limit_in_bytes=4194304"],
    ),
    (
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":-1}]}"#,
        &["hugetlb hugetlb.2MB.rsvd.limit_in_bytes=-1?", "hugetlb hugetlb.2MB.limit_in_bytes=-1"],
    ),
    (
        r#"{"network":{"classID":1048577,"priorities":[{"name":"lo","priority":500}]}}"#,
        &["net_cls net_cls.classid=1048577", "net_prio net_prio.ifpriomap=lo 500"],
    ),
    (
        r#"{"rdma":{"mlx5_1":{"hcaObjects":9},"mlx5_0":{"hcaHandles":3,"hcaObjects":10000}}}"#,
        &["rdma rdma.max=mlx5_0 hca_handle=3 hca_object=10000", "rdma rdma.max=mlx5_1 hca_object=9"],
    ),
];

#[test]
fn settings_become_version_1_writes() {
    for (json, expected) in V1_ROWS {
        assert_eq!(lines(json, "{}", &v1()), expected, "{json}");
    }
}

#[test]
fn settings_become_version_2_writes() {
    let cases: [(&str, &[&str]); 15] = [
        (
            r#"{"memory":{"limit":1048576,"swap":2097152,"reservation":524288}}"#,
            &["memory memory.swap.max=1048576", "memory memory.max=1048576", "memory memory.low=524288"],
        ),
        (
            r#"{"memory":{"limit":1048576,"swap":1048576}}"#,
            &["memory memory.swap.max=0?", "memory memory.max=1048576"],
        ),
        (r#"{"memory":{"limit":-1}}"#, &["memory memory.swap.max=max?", "memory memory.max=max"]),
        (
            r#"{"memory":{"limit":4096,"swap":-1}}"#,
            &["memory memory.swap.max=max?", "memory memory.max=4096"],
        ),
        (
            r#"{"cpu":{"shares":1024,"quota":20000,"period":50000,"burst":1000}}"#,
            &["cpu cpu.weight=100", "cpu cpu.max.burst=1000+", "cpu cpu.max=20000 50000+"],
        ),
        (r#"{"cpu":{"quota":-1}}"#, &["cpu cpu.max=max 100000+"]),
        (r#"{"cpu":{"idle":1,"shares":512}}"#, &["cpu cpu.idle=1"]),
        (r#"{"cpu":{"idle":0,"shares":512}}"#, &["cpu cpu.idle=0?", "cpu cpu.weight=59"]),
        (
            r#"{"blockIO":{"weight":1000,"weightDevice":[{"major":8,"minor":0,"weight":10}],
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}],
                "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2000}],
                "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":30},{"major":8,"minor":16,"rate":40}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":0}]}}"#,
            &[
                "io io.bfq.weight=1000|io.weight=10000",
                "io io.bfq.weight=8:0 10|io.weight=8:0 1",
                "io io.max=8:0 rbps=1000",
                "io io.max=8:0 wbps=2000",
                "io io.max=8:0 riops=30",
                "io io.max=8:16 riops=40",
                "io io.max=8:16 wiops=max",
            ],
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"1GB","limit":0}],"pids":{"limit":7}}"#,
            &["pids pids.max=7", "hugetlb hugetlb.1GB.rsvd.max=0?", "hugetlb hugetlb.1GB.max=0"],
        ),
        (r#"{"network":{"classID":0}}"#, &[]),
        (r#"{"memory":{"kernel":4096,"kernelTCP":8192,"useHierarchy":true}}"#, &[]),
        (r#"{"cpu":{"cpus":"0-1,3","mems":"0"}}"#, &["cpuset cpuset.cpus=0-1,3", "cpuset cpuset.mems=0"]),
        (
            r#"{"rdma":{"mlx5_1":{"hcaObjects":9},"mlx5_0":{"hcaHandles":3,"hcaObjects":10000}}}"#,
            &["rdma rdma.max=mlx5_0 hca_handle=3 hca_object=10000", "rdma rdma.max=mlx5_1 hca_object=9"],
        ),
        (r#"{"memory":{"limit":0},"cpu":{"cpus":"","shares":0}}"#, &[]),
    ];
    for (json, expected) in cases {
        assert_eq!(lines(json, "{}", &v2()), expected, "{json}");
    }
}

#[test]
fn unified_keys_are_files_in_order_of_their_names() {
    let json = r#"{"unified":{"memory.max":"9","cgroup.max.depth":"3","hugetlb.1GB.max":"0"}}"#;
    let facts = v2();
    let writes = writes_of(&resources(json), &LinuxResources::default(), &facts).unwrap();
    let found: Vec<_> = writes.into_iter().map(|write| (write.files[0].clone(), write.field)).collect();
    let expected = [
        ("cgroup.max.depth", "3", "/linux/resources/unified/cgroup.max.depth"),
        ("hugetlb.1GB.max", "0", "/linux/resources/unified/hugetlb.1GB.max"),
        ("memory.max", "9", "/linux/resources/unified/memory.max"),
    ];
    let expected =
        expected.map(|(file, value, field)| ((file.to_owned(), value.to_owned()), field.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn hybrid_hosts_use_the_tree_that_has_the_controller() {
    let facts = host("memory pids", Some("hugetlb"));
    let json = r#"{"memory":{"limit":4096},"hugepageLimits":[{"pageSize":"2MB","limit":-1}],
                   "unified":{"hugetlb.2MB.max":"0"}}"#;
    let expected = [
        "memory memory.limit_in_bytes=4096+",
        "hugetlb hugetlb.2MB.rsvd.max=max?",
        "hugetlb hugetlb.2MB.max=max",
        "hugetlb hugetlb.2MB.max=0",
    ];
    assert_eq!(lines(json, "{}", &facts), expected);
    let refused = refusal(r#"{"unified":{"memory.max":"0"}}"#, &facts);
    assert_eq!(refused.reason, "controller \"memory\" is in a cgroup v1 hierarchy on this host");
}

#[test]
fn updates_convert_with_what_is_in_force() {
    let cases: [(&str, &str, &[&str]); 7] = [
        (r#"{"memory":{"swap":5000}}"#, r#"{"memory":{"limit":4000}}"#, &["memory memory.swap.max=1000"]),
        (
            r#"{"memory":{"limit":3000}}"#,
            r#"{"memory":{"limit":4000,"swap":5000}}"#,
            &["memory memory.swap.max=2000", "memory memory.max=3000"],
        ),
        (
            r#"{"memory":{"limit":3000}}"#,
            r#"{"memory":{"limit":4000,"swap":-1}}"#,
            &["memory memory.swap.max=max?", "memory memory.max=3000"],
        ),
        (r#"{"memory":{"limit":3000}}"#, r#"{"memory":{"limit":4000}}"#, &["memory memory.max=3000"]),
        (r#"{"memory":{"reservation":9}}"#, r#"{"memory":{"limit":4,"swap":5}}"#, &["memory memory.low=9"]),
        (r#"{"cpu":{"period":50000}}"#, r#"{"cpu":{"quota":10000}}"#, &["cpu cpu.max=10000 50000+"]),
        (r#"{"cpu":{"quota":10000}}"#, r#"{"cpu":{"period":50000}}"#, &["cpu cpu.max=10000 50000+"]),
    ];
    for (json, current, expected) in cases {
        assert_eq!(lines(json, current, &v2()), expected, "{json}");
    }
    let (new, current) =
        (resources(r#"{"memory":{"limit":6000}}"#), resources(r#"{"memory":{"swap":5000}}"#));
    let refused = writes_of(&new, &current, &v2()).unwrap_err();
    assert_eq!(refused.field, "/linux/resources/memory/limit");
    assert!(refused.reason.contains("above memory/swap, 5000"), "{}", refused.reason);
}

#[test]
fn impossible_values_are_refused_with_their_field() {
    let v1 = v1();
    let v2 = v2();
    let bare = host("pids", None);
    let cases = [
        (&v1, r#"{"memory":{"limit":-2}}"#, "memory/limit", "neither a number of bytes nor -1"),
        (&v1, r#"{"memory":{"swappiness":101}}"#, "memory/swappiness", "not in 0..=100"),
        (&v2, r#"{"memory":{"swap":10}}"#, "memory/swap", "needs a limit of memory"),
        (&v2, r#"{"memory":{"swap":10,"limit":20}}"#, "memory/swap", "below memory/limit"),
        (&v1, r#"{"cpu":{"shares":1}}"#, "cpu/shares", "the minimum allowed cpu-shares is 2"),
        (&v1, r#"{"cpu":{"shares":262145}}"#, "cpu/shares", "the maximum allowed cpu-shares is 262144"),
        (&v1, r#"{"cpu":{"burst":2,"quota":1}}"#, "cpu/burst", "above cpu/quota"),
        (&v1, r#"{"cpu":{"idle":2}}"#, "cpu/idle", "neither 0 nor 1"),
        (&v1, r#"{"cpu":{"cpus":"0-"}}"#, "cpu/cpus", "not a list"),
        (&v1, r#"{"cpu":{"mems":"3-1"}}"#, "cpu/mems", "not a list"),
        (&v1, r#"{"blockIO":{"weight":9}}"#, "blockIO/weight", "not in 10..=1000"),
        (&v1, r#"{"blockIO":{"weightDevice":[{"major":1,"minor":1}]}}"#, "blockIO/weightDevice/0", "neither"),
        (
            &v1,
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":1,"rate":1}]}}"#,
            "blockIO/throttleReadBpsDevice/0",
            "no device number",
        ),
        (
            &v1,
            r#"{"hugepageLimits":[{"pageSize":"3","limit":1}]}"#,
            "hugepageLimits/0/pageSize",
            "not a size",
        ),
        (
            &v1,
            r#"{"hugepageLimits":[{"pageSize":"02MB","limit":1}]}"#,
            "hugepageLimits/0/pageSize",
            "not a size",
        ),
        (&bare, r#"{"network":{"classID":1}}"#, "network/classID", "no cgroup controller \"net_cls\""),
        (&bare, r#"{"memory":{"limit":1}}"#, "memory/limit", "no cgroup controller \"memory\""),
        (&v1, r#"{"rdma":{"a/b":{}}}"#, "rdma/a~1b", "neither"),
        (&v1, r#"{"unified":{"memory.max":"1"}}"#, "unified/memory.max", "cannot use unified on cgroup v1"),
        (&v2, r#"{"unified":{"../memory.max":"1"}}"#, "unified/..~1memory.max", "not a file name"),
        (&v2, r#"{"unified":{"cgroup.procs":"1"}}"#, "unified/cgroup.procs", "acts on processes"),
        (&v2, r#"{"unified":{"nope.max":"1"}}"#, "unified/nope.max", "controller \"nope\" is not available"),
    ];
    for (facts, json, field, reason) in cases {
        let refused = refusal(json, facts);
        assert_eq!(refused.field, format!("/linux/resources/{field}"), "{json}");
        assert!(refused.reason.contains(reason), "{json}: {}", refused.reason);
    }
}

#[test]
fn what_version_2_has_not_is_refused() {
    let cases = [
        (r#"{"memory":{"swappiness":10}}"#, "memory/swappiness"),
        (r#"{"memory":{"disableOOMKiller":true}}"#, "memory/disableOOMKiller"),
        (r#"{"cpu":{"realtimeRuntime":1}}"#, "cpu/realtimeRuntime"),
        (r#"{"cpu":{"realtimePeriod":1}}"#, "cpu/realtimePeriod"),
        (r#"{"blockIO":{"leafWeight":10}}"#, "blockIO/leafWeight"),
        (
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"leafWeight":10}]}}"#,
            "blockIO/weightDevice/0/leafWeight",
        ),
        (r#"{"network":{"classID":1}}"#, "network/classID"),
        (r#"{"network":{"priorities":[{"name":"lo","priority":5}]}}"#, "network/priorities/0"),
    ];
    for (json, field) in cases {
        let refused = refusal(json, &v2());
        assert_eq!(refused.field, format!("/linux/resources/{field}"), "{json}");
        assert!(refused.reason.contains("no equivalent"), "{json}: {}", refused.reason);
    }
}

#[test]
fn no_limit_needs_no_controller() {
    let facts = host("memory", None);
    assert_eq!(lines(r#"{"pids":{"limit":-1},"cpu":{},"memory":{}}"#, "{}", &facts), Vec::<String>::new());
}

#[test]
fn shares_keep_their_meaning_at_both_ends_and_at_the_default() {
    let cases = [(0, 1), (2, 1), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000), (u64::MAX, 10_000)];
    for (shares, weight) in cases {
        assert_eq!(cpu::weight_of(shares), weight, "{shares}");
    }
    let weights: Vec<_> = (2..=4096).map(cpu::weight_of).collect();
    assert!(weights.is_sorted());
}

#[test]
fn an_idle_group_gets_no_weight_and_it_is_said() {
    let json = r#"{"unified":{"cpu.idle":"1","cpu.weight":"8","cpu.weight.nice":"1","cpu.max":"max 1000"}}"#;
    assert_eq!(lines(json, "{}", &v2()), ["cpu cpu.idle=1", "cpu cpu.max=max 1000"]);
    let cases = [
        (json, v2(), true),
        (r#"{"cpu":{"idle":1,"shares":512}}"#, v2(), true),
        (r#"{"cpu":{"idle":1,"shares":512}}"#, v1(), false),
        (r#"{"cpu":{"idle":0,"shares":512}}"#, v2(), false),
        (r#"{"unified":{"cpu.idle":"0","cpu.weight":"8"}}"#, v2(), false),
        (r#"{"cpu":{"idle":1}}"#, v2(), false),
    ];
    for (json, facts, said) in cases {
        assert_eq!(left_out(&resources(json), &facts).is_some(), said, "{json}");
    }
}
