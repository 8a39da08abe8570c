//! Configurations that cannot be carried out: one row, one rule.

mod common;

use common::{
    assert_refused, assert_refused_for, changed, config, facts, plan, plan_for, with, with_user_namespace,
};
use hull_plan::HostFacts;
use serde_json::{Value, json};

#[test]
fn namespaces() {
    let twice = changed("/linux/namespaces/-", json!({"type": "ipc"}));
    assert_refused(&twice, "/linux/namespaces/5", "ipc namespace is listed twice");
    let relative = changed("/linux/namespaces/1/path", json!("ns/net"));
    assert_refused(&relative, "/linux/namespaces/1/path", "not absolute");
    let none = changed("/linux/namespaces/-", json!({"type": "user"}));
    assert_refused(&none, "/linux/namespaces", "no namespace path to join nor mappings");
    let map = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    assert_refused(&changed("/linux/gidMappings", map.clone()), "/linux/gidMappings", "isn't enabled");
    assert_refused(&with(none, "/linux/uidMappings", map), "/linux", "needs gidMappings");
}

#[test]
fn id_mappings() {
    let row = |inside: u64, outside: u64, size: u64| json!({"containerID": inside, "hostID": outside, "size": size});
    for (map, field, phrase) in [
        (json!([row(0, 1, 0)]), "/linux/uidMappings/0", "empty"),
        (json!([row(1, 1, 10)]), "/linux/uidMappings", "uid 0 is not mapped"),
        (json!([row(0, 1, 10), row(9, 100, 10)]), "/linux/uidMappings/1", "overlaps"),
        (json!([row(0, 1, 10), row(20, 5, 10)]), "/linux/uidMappings/1", "overlaps"),
        (json!([row(0, 1, 4_294_967_295)]), "/linux/uidMappings/0", "past the last id"),
        (json!((0..341).map(|id| row(id, id, 1)).collect::<Vec<_>>()), "/linux/uidMappings", "more than 340"),
    ] {
        let config = with(with_user_namespace(config()), "/linux/uidMappings", map);
        assert_refused(&config, field, phrase);
    }
}

#[test]
fn time_offsets() {
    let offsets = json!({"monotonic": {"secs": 1}});
    assert_refused(&changed("/linux/timeOffsets", offsets.clone()), "/linux/timeOffsets", "isn't enabled");
    let joined = changed("/linux/namespaces/-", json!({"type": "time", "path": "/proc/1/ns/time"}));
    assert_refused(&with(joined, "/linux/timeOffsets", offsets), "/linux/timeOffsets", "joined by path");
    let own = changed("/linux/namespaces/-", json!({"type": "time"}));
    let clock = with(own.clone(), "/linux/timeOffsets", json!({"realtime": {"secs": 1}}));
    assert_refused(&clock, "/linux/timeOffsets/realtime", "monotonic and boottime only");
    let long = with(own, "/linux/timeOffsets", json!({"boottime": {"nanosecs": 1_000_000_000}}));
    assert_refused(&long, "/linux/timeOffsets/boottime/nanosecs", "1000000000");
}

#[test]
fn what_belongs_to_a_namespace_needs_it() {
    let table = [
        (
            "uts",
            "/hostname",
            json!("box"),
            "/hostname",
            "unable to set hostname without a private UTS namespace",
        ),
        ("uts", "/domainname", json!("dom"), "/domainname", "unable to set domainname without a private UTS"),
        (
            "mount",
            "/linux/maskedPaths",
            json!(["/proc/kcore"]),
            "/linux/maskedPaths",
            "without a private MNT",
        ),
        (
            "mount",
            "/linux/readonlyPaths",
            json!(["/proc/sys"]),
            "/linux/readonlyPaths",
            "without a private MNT",
        ),
        ("network", "/linux/netDevices", json!({"eth0": {}}), "/linux/netDevices", "without a NET namespace"),
    ];
    for (kind, pointer, value, field, phrase) in table {
        let mut config = with(config(), "/hostname", Value::Null);
        config = with(config, pointer, value);
        assert!(plan(&config).is_ok(), "{pointer}");
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        assert_refused(&config, field, phrase);
    }
}

#[test]
fn sysctl() {
    for (key, missing, phrase) in [
        ("net.ipv4.ip_forward", "network", "not allowed in host network namespace"),
        ("net/ipv4/ip_forward", "network", "not allowed in host network namespace"),
        ("kernel.msgmax", "ipc", "is not allowed in the hosts ipc namespace"),
        ("kernel.shm_rmid_forced", "ipc", "is not allowed in the hosts ipc namespace"),
        ("fs.mqueue.msg_max", "ipc", "is not allowed in the hosts ipc namespace"),
        ("kernel.domainname", "uts", "is not allowed in the hosts uts namespace"),
        ("user.max_user_namespaces", "user", "without a user namespace"),
        ("kernel.hostname", "", "conflicts with the field hostname"),
        ("kernel.core_pattern", "", "not in a separate kernel namespace"),
        ("kernel.msgmaxx", "", "not in a separate kernel namespace"),
        ("fs.mqueue", "", "not in a separate kernel namespace"),
        ("network.x", "", "not in a separate kernel namespace"),
        ("net/../kernel/core_pattern", "", "not the name of a kernel parameter"),
        ("net.//.kernel", "", "not the name of a kernel parameter"),
        ("vm.overcommit_memory", "", "not in a separate kernel namespace"),
    ] {
        let mut config = with(with_user_namespace(config()), "/hostname", Value::Null);
        config["linux"]["sysctl"] = json!({key: "1"});
        if !missing.is_empty() {
            assert!(plan(&config).is_ok(), "{key}");
        }
        config["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .retain(|namespace| namespace["type"] != missing);
        if missing == "user" {
            config = with(with(config, "/linux/uidMappings", Value::Null), "/linux/gidMappings", Value::Null);
        }
        assert_refused(&config, &format!("/linux/sysctl/{}", key.replace('/', "~1")), phrase);
    }
}

#[test]
fn nothing_is_mounted_over_proc() {
    let mount = |destination: &str, kind: &str, source: &str, options: Value| json!({"destination": destination, "type": kind, "source": source, "options": options});
    for (mount, phrase) in [
        (mount("/proc", "tmpfs", "tmpfs", json!([])), "is not of type proc"),
        (mount("/proc", "bind", "/srv/proc", json!(["rbind"])), "is not of type proc"),
        (mount("/proc/self/attr", "bind", "/x", json!(["bind"])), "inside /proc"),
        (mount("/proc/net/dev", "bind", "/x", json!(["bind"])), "inside /proc"),
        (mount("/a/../proc//self", "tmpfs", "x", json!([])), "inside /proc"),
        (mount("proc/sys", "tmpfs", "x", json!([])), "inside /proc"),
        (mount("/proc/sys/kernel", "proc", "proc", json!([])), "inside /proc"),
        (mount("/proc/cpuinfo/x", "bind", "/x", json!(["bind"])), "inside /proc"),
    ] {
        assert_refused(&changed("/mounts/-", mount), "/mounts/1/destination", phrase);
    }
    for accepted in [
        mount("/proc", "proc", "proc", json!(["ro"])),
        mount("/proc", "none", "/proc", json!(["rbind"])),
        mount("/proc/cpuinfo", "bind", "/var/lib/lxcfs/proc/cpuinfo", json!(["bind"])),
        mount("/proc/sys/kernel/ns_last_pid", "bind", "/x", json!(["bind"])),
        mount("/processes", "tmpfs", "tmpfs", json!([])),
    ] {
        assert!(plan(&changed("/mounts/-", accepted.clone())).is_ok(), "{accepted}");
    }
}

#[test]
fn mounts() {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    for (mount, field, phrase) in [
        (json!({"destination": "", "type": "tmpfs"}), "/mounts/1/destination", "empty"),
        (json!({"destination": "/a", "options": ["bind"]}), "/mounts/1", "needs a source"),
        (
            json!({"destination": "/a", "source": "/b"}),
            "/mounts/1",
            "neither a file system type nor a bind mount",
        ),
        (
            json!({"destination": "/a", "type": "none", "options": []}),
            "/mounts/1",
            "neither a file system type",
        ),
        (
            json!({"destination": "/a", "type": "tmpfs", "options": ["idmap"]}),
            "/mounts/1",
            "id-mapped mounts are only supported for bind-mounts",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind", "idmap"]}),
            "/mounts/1",
            "must have both uid and gid mappings specified",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind"], "uidMappings": map}),
            "/mounts/1",
            "must have both uid and gid mappings specified",
        ),
        (
            json!({"destination": "/a", "source": "/b", "options": ["bind"], "gidMappings": [
                {"containerID": 0, "hostID": 0, "size": 0}
            ]}),
            "/mounts/1/gidMappings/0",
            "empty",
        ),
    ] {
        assert_refused(&changed("/mounts/-", mount), field, phrase);
    }
}

#[test]
fn devices() {
    let device = |path: &str, kind: &str, major: i64, minor: i64| json!([{"path": path, "type": kind, "major": major, "minor": minor}]);
    for (devices, field, phrase) in [
        (device("/dev/x", "a", 1, 3), "/linux/devices/0/type", "one of c, b, u, p"),
        (device("/dev/x", "z", 1, 3), "/linux/devices/0/type", "unknown variant"),
        (device("dev/x", "c", 1, 3), "/linux/devices/0/path", "not absolute"),
        (device("/dev/..", "c", 1, 3), "/linux/devices/0/path", "root"),
        (device("/proc/kcore", "c", 1, 3), "/linux/devices/0/path", "inside /proc"),
        (device("/dev/x", "b", -1, 3), "/linux/devices/0/major", "-1 is not a number from 0 to 4095"),
        (device("/dev/x", "u", 1, 1 << 20), "/linux/devices/0/minor", "is not a number from 0 to 1048575"),
    ] {
        assert_refused(&changed("/linux/devices", devices), field, phrase);
    }
}

#[test]
fn the_process() {
    for (pointer, value, field, phrase) in [
        ("/process/args", json!([]), "/process/args", "args must not be empty"),
        ("/process/args", Value::Null, "/process", "args must not be empty"),
        ("/process/cwd", json!("tmp"), "/process/cwd", "not an absolute path"),
        ("/process/cwd", json!(""), "/process/cwd", "not an absolute path"),
        ("/process/env/1", json!("TERM"), "/process/env/1", "'=' is missing"),
        ("/process/env/1", json!("=x"), "/process/env/1", "the name is empty"),
        ("/process/user/uid", json!(u32::MAX), "/process/user/uid", "is no uid"),
        ("/process/user/gid", json!(u32::MAX), "/process/user/gid", "is no gid"),
        ("/process/user/additionalGids", json!([1, u32::MAX]), "/process/user/additionalGids/1", "is no gid"),
        ("/process/user/umask", json!(0o1000), "/process/user/umask", "beyond 0777"),
        ("/process/oomScoreAdj", json!(1001), "/process/oomScoreAdj", "-1000..1000"),
        ("/process/oomScoreAdj", json!(-1001), "/process/oomScoreAdj", "-1000..1000"),
        (
            "/process/consoleSize",
            json!({"height": 65536, "width": 1}),
            "/process/consoleSize/height",
            "above 65535",
        ),
        (
            "/process/apparmorProfile",
            json!("docker-default"),
            "/process/apparmorProfile",
            "AppArmor is not enabled",
        ),
        ("/process/selinuxLabel", json!("u:r:t:s0"), "/process/selinuxLabel", "selinux is disabled"),
        (
            "/process/execCPUAffinity",
            json!({"initial": "0-"}),
            "/process/execCPUAffinity/initial",
            "CPU list",
        ),
        ("/process/execCPUAffinity", json!({"final": "x"}), "/process/execCPUAffinity/final", "CPU list"),
    ] {
        assert_refused(&changed(pointer, value), field, phrase);
    }
}

#[test]
fn rlimits() {
    let limit = |soft: u64, hard: u64| json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard});
    assert_refused(
        &changed("/process/rlimits/-", limit(1, 1)),
        "/process/rlimits/1",
        "RLIMIT_NOFILE is listed twice",
    );
    assert_refused(
        &changed("/process/rlimits", json!([limit(2, 1)])),
        "/process/rlimits/0",
        "above the hard limit",
    );
}

#[test]
fn ids_have_to_be_mapped() {
    let config = with_user_namespace(config());
    for (pointer, value, field, phrase) in [
        ("/process/user/uid", json!(65536), "/process/user/uid", "cannot set uid to unmapped user"),
        ("/process/user/gid", json!(70000), "/process/user/gid", "cannot set gid to unmapped user"),
        (
            "/process/user/additionalGids",
            json!([5, 70000]),
            "/process/user/additionalGids/1",
            "cannot set gid",
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/f", "type": "p", "uid": 70000}]),
            "/linux/devices/0/uid",
            "uid 70000 is not mapped",
        ),
    ] {
        assert_refused(&with(config.clone(), pointer, value), field, phrase);
    }
}

#[test]
fn the_scheduler() {
    for (scheduler, field, phrase) in [
        (json!({"policy": "SCHED_ISO"}), "/policy", "no kernel implements SCHED_ISO"),
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "/nice", "invalid scheduler.nice"),
        (
            json!({"policy": "SCHED_BATCH", "priority": 1}),
            "/priority",
            "can only be specified for SCHED_FIFO",
        ),
        (json!({"policy": "SCHED_FIFO", "priority": -1}), "/priority", "below 0"),
        (json!({"policy": "SCHED_RR", "period": 1}), "/period", "can only be specified for SCHED_DEADLINE"),
        (
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_RESET_ON_FORK"]}),
            "/flags/0",
            "unknown scheduler flag",
        ),
        (json!({"policy": "sched_other"}), "/policy", "unknown variant"),
    ] {
        let field = format!("/process/scheduler{field}");
        assert_refused(&changed("/process/scheduler", scheduler), &field, phrase);
    }
    let deadline = json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 2});
    let config = changed("/process/scheduler", deadline);
    assert!(plan(&config).is_ok());
    let pinned = with(config, "/linux/resources", json!({"cpu": {"cpus": "0"}}));
    assert_refused(
        &pinned,
        "/process/scheduler",
        "process scheduler can't be used together with AllowedCPUs",
    );
    let priority =
        |priority| changed("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": priority}));
    assert_refused(&priority(8), "/process/ioPriority/priority", "invalid ioPriority.priority: 8");
    assert_refused(&priority(-1), "/process/ioPriority/priority", "invalid ioPriority.priority: -1");
}

#[test]
fn the_memory_policy() {
    for (policy, field, phrase) in [
        (json!({}), "", "invalid memory policy mode"),
        (json!({"mode": "INTERLEAVE"}), "/mode", "invalid memory policy mode"),
        (json!({"nodes": "0-7"}), "", "invalid memory policy mode"),
        (json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}), "/nodes", "mode requires 0 nodes but got 8"),
        (json!({"mode": "MPOL_BIND"}), "", "mode requires at least one node but got 0"),
        (json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}), "/nodes", "invalid memory policy node"),
        (json!({"mode": "MPOL_PREFERRED", "flags": ["badflag"]}), "/flags/0", "invalid memory policy flag"),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
            "/flags",
            "exclude each other",
        ),
    ] {
        let field = format!("/linux/memoryPolicy{field}");
        assert_refused(&changed("/linux/memoryPolicy", policy), &field, phrase);
    }
}

#[test]
fn hooks() {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        let hooks = |second: Value| changed("/hooks", json!({kind: [{"path": "/bin/true"}, second]}));
        let field = format!("/hooks/{kind}/1");
        assert_refused(&hooks(json!({"path": "bin/true"})), &format!("{field}/path"), "not absolute");
        assert_refused(&hooks(json!({"path": "/x", "timeout": 0})), &format!("{field}/timeout"), "above 0");
        assert_refused(&hooks(json!({"path": "/x", "timeout": -1})), &format!("{field}/timeout"), "above 0");
        assert_refused(&hooks(json!({})), &field, "path");
    }
}

#[test]
fn parts_of_the_host() {
    for (pointer, value, field, phrase) in [
        ("/linux/netDevices", json!({"a b": {}}), "/linux/netDevices/a b", "invalid network device name"),
        (
            "/linux/netDevices",
            json!({"eth0": {"name": "../x"}}),
            "/linux/netDevices/eth0/name",
            "invalid network",
        ),
        (
            "/linux/netDevices",
            json!({"a123456789012345": {}}),
            "/linux/netDevices/a123456789012345",
            "invalid",
        ),
        (
            "/linux/netDevices",
            json!({"a": {"name": "x"}, "b": {"name": "x"}}),
            "/linux/netDevices/b",
            "two network",
        ),
        ("/linux/intelRdt", json!({"closID": "x"}), "/linux/intelRdt", "Intel RDT is not enabled"),
        (
            "/linux/personality",
            json!({"domain": "LINUX", "flags": ["X"]}),
            "/linux/personality/flags",
            "no personality",
        ),
        ("/linux/personality", json!({"domain": "BSD"}), "/linux/personality/domain", "unknown variant"),
        ("/linux/rootfsPropagation", json!("sharedd"), "/linux/rootfsPropagation", "unknown propagation"),
        ("/linux/maskedPaths", json!(["/a", "b"]), "/linux/maskedPaths/1", "not absolute"),
        ("/linux/readonlyPaths", json!(["/.."]), "/linux/readonlyPaths/0", "the root itself"),
        ("/linux/mountLabel", json!("system_u:object_r:x:s0"), "/linux/mountLabel", "selinux is disabled"),
        ("/annotations", json!({"": "x"}), "/annotations", "a key is empty"),
        ("/hostname", json!("x".repeat(65)), "/hostname", "longer than 64"),
    ] {
        assert_refused(&changed(pointer, value), field, phrase);
    }
}

#[test]
fn resource_director_classes() {
    let facts = HostFacts { resctrl: true, ..facts() };
    for (rdt, field, phrase) in [
        (json!({"closID": "a/b"}), "/closID", "invalid intelRdt.closID"),
        (json!({"closID": ".."}), "/closID", "invalid intelRdt.closID"),
        (json!({"closID": "info"}), "/closID", "invalid intelRdt.closID"),
        (json!({"l3CacheSchema": "L3:0=f\nL3:1=f"}), "/l3CacheSchema", "one line"),
        (json!({"schemata": ["a", "b\n"]}), "/schemata/1", "one line"),
    ] {
        let field = format!("/linux/intelRdt{field}");
        assert_refused_for(&changed("/linux/intelRdt", rdt), &facts, &field, phrase);
    }
    let root_class = changed("/linux/intelRdt", json!({"closID": "/", "schemata": ["MB:0=10"]}));
    assert!(plan_for(&root_class, &facts).unwrap().intel_rdt.is_some());
}

#[test]
fn a_caller_that_is_not_root() {
    let facts = HostFacts { rootless: true, uid: 1000, gid: 1000, ..facts() };
    assert_refused_for(&config(), &facts, "/linux/namespaces", "rootless container requires user namespaces");
    let mapped = with_user_namespace(config());
    assert!(plan_for(&mapped, &facts).is_ok());
    let mount = json!({"destination": "/a", "type": "tmpfs", "options": ["mode=755,uid=70000"]});
    assert_refused_for(
        &with(mapped.clone(), "/mounts/-", mount),
        &facts,
        "/mounts/1/options",
        "cannot specify uid=70000 mount option for rootless container",
    );
    let map = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    let mount = json!({"destination": "/a", "source": "/b", "options": ["bind"], "uidMappings": map, "gidMappings": map});
    let id_mapped = with(mapped.clone(), "/mounts/-", mount);
    assert_refused_for(&id_mapped, &facts, "/mounts/1", "not supported for rootless containers");
    let device = with(mapped, "/linux/netDevices", json!({"eth0": {}}));
    assert_refused_for(&device, &facts, "/linux/netDevices", "not supported for rootless containers");
}
