//! Limits changed, use measured and memory watched while processes run.
#![allow(clippy::unwrap_used, reason = "test code")]

mod bed;

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use bed::{Bed, Process, resources, soon};
use hull_cgroup::{CgroupError, Layout, Oom};
use hull_testkit::{gate, needs};
use serde_json::Value;

/// What is in force, what is asked for, and the files after it: (controller, file, value).
type Step = (&'static str, &'static [(&'static str, &'static str, &'static str)]);

const V1_STEPS: [Step; 8] = [
    (
        r#"{"memory":{"limit":67108864,"swap":134217728}}"#,
        &[
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory.memsw.limit_in_bytes", "134217728"),
        ],
    ),
    (
        r#"{"memory":{"limit":268435456,"swap":268435456}}"#,
        &[
            ("memory", "memory.limit_in_bytes", "268435456"),
            ("memory", "memory.memsw.limit_in_bytes", "268435456"),
        ],
    ),
    (
        r#"{"memory":{"limit":33554432,"swap":33554432}}"#,
        &[
            ("memory", "memory.limit_in_bytes", "33554432"),
            ("memory", "memory.memsw.limit_in_bytes", "33554432"),
        ],
    ),
    (
        r#"{"memory":{"limit":-1}}"#,
        &[
            ("memory", "memory.limit_in_bytes", "9223372036854771712"),
            ("memory", "memory.memsw.limit_in_bytes", "9223372036854771712"),
        ],
    ),
    (
        r#"{"cpu":{"quota":5000,"period":5000,"burst":2000}}"#,
        &[("cpu", "cpu.cfs_quota_us", "5000"), ("cpu", "cpu.cfs_burst_us", "2000")],
    ),
    (
        r#"{"cpu":{"quota":1000,"burst":500}}"#,
        &[("cpu", "cpu.cfs_quota_us", "1000"), ("cpu", "cpu.cfs_burst_us", "500")],
    ),
    (
        r#"{"cpu":{"quota":40000,"burst":30000,"period":1000000}}"#,
        &[("cpu", "cpu.cfs_quota_us", "40000"), ("cpu", "cpu.cfs_burst_us", "30000")],
    ),
    (
        r#"{"cpu":{"idle":1,"shares":300},"pids":{"limit":-1},"devices":[{"allow":true}]}"#,
        &[("cpu", "cpu.idle", "1"), ("pids", "pids.max", "max"), ("devices", "devices.list", "a *:* rwm")],
    ),
];

const V2_STEPS: [Step; 5] = [
    (
        r#"{"memory":{"limit":67108864,"swap":134217728}}"#,
        &[("memory", "memory.max", "67108864"), ("memory", "memory.swap.max", "67108864")],
    ),
    (r#"{"memory":{"limit":-1}}"#, &[("memory", "memory.max", "max"), ("memory", "memory.swap.max", "max")]),
    (
        r#"{"cpu":{"quota":5000,"period":5000,"burst":2000}}"#,
        &[("cpu", "cpu.max", "5000 5000"), ("cpu", "cpu.max.burst", "2000")],
    ),
    (
        r#"{"cpu":{"quota":1000,"burst":500}}"#,
        &[("cpu", "cpu.max", "1000 5000"), ("cpu", "cpu.max.burst", "500")],
    ),
    (
        r#"{"cpu":{"idle":1,"shares":300},"pids":{"limit":-1}}"#,
        &[("cpu", "cpu.idle", "1"), ("pids", "pids.max", "max")],
    ),
];

#[test]
fn updates_reach_the_kernel_whatever_the_order_of_values() {
    needs!(gate::root());
    let bed = Bed::new("update");
    let cgroup = bed.make(r#"{"pids":{"limit":9}}"#);
    let steps: &[Step] = if bed.layout() == Layout::V2 { &V2_STEPS } else { &V1_STEPS };
    for (json, files) in steps {
        cgroup.update(&resources(json), &resources("{}"), false).unwrap();
        for (controller, file, expected) in *files {
            assert_eq!(bed.read(controller, file), *expected, "{json} {file}");
        }
    }
}

#[test]
fn an_update_below_what_is_in_use_is_rejected_when_asked() {
    needs!(gate::root());
    let bed = Bed::new("check");
    let mut cgroup = bed.make("{}");
    let mut process = Process::shell("x=$(head -c 300000 /dev/zero | tr '\\0' x); echo ready; read end");
    cgroup.attach(process.pid()).unwrap();
    process.start();
    let mut ready = [0; 5];
    std::io::Read::read_exact(process.0.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let json = r#"{"memory":{"limit":8192,"checkBeforeUpdate":true}}"#;
    let error = cgroup.update(&resources(json), &resources("{}"), false).unwrap_err();
    assert!(error.to_string().starts_with("rejecting memory limit 8192 < usage "), "{error}");
    let json = r#"{"memory":{"limit":8192,"swap":16384,"checkBeforeUpdate":true}}"#;
    let error = cgroup.update(&resources(json), &resources("{}"), false).unwrap_err();
    assert!(error.to_string().starts_with("rejecting memory+swap limit 16384 < usage "), "{error}");
    let refused = cgroup.update(&resources(r#"{"cpu":{"idle":5}}"#), &resources("{}"), false).unwrap_err();
    assert!(matches!(refused, CgroupError::Refused(_)), "{refused}");
}

#[test]
fn statistics_show_what_was_used() {
    needs!(gate::root());
    let bed = Bed::new("stats");
    let mut cgroup =
        bed.make(r#"{"memory":{"limit":67108864},"pids":{"limit":30},"cpu":{"cpus":"0","mems":"0"}}"#);
    let mut process = Process::shell("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo done; read end");
    cgroup.attach(process.pid()).unwrap();
    process.start();
    std::io::Read::read_exact(process.0.stdout.as_mut().unwrap(), &mut [0; 4]).unwrap();
    let found = cgroup.statistics().unwrap();
    assert_eq!(found.pids.current, 1);
    assert_eq!(found.pids.limit, 30);
    assert_eq!(found.memory.usage.limit, 67_108_864);
    assert!(found.memory.usage.usage > 0 && found.memory.usage.max >= found.memory.usage.usage);
    assert!(found.cpu.usage.total > 1_000_000, "{:?}", found.cpu);
    assert_eq!((found.cpuset.cpus.clone(), found.cpuset.mems.clone()), (vec![0], vec![0]));
    assert_eq!(found.cpu.psi.is_some(), bed.layout() == Layout::V2);
    if bed.layout() != Layout::V2 {
        let usage = &found.cpu.usage;
        assert_eq!(usage.percpu.iter().sum::<u64>(), usage.total);
        assert!(usage.percpu[0] > 0 && usage.percpu_user[0] > 0);
        assert_eq!(found.memory.raw["hierarchical_memory_limit"], 67_108_864);
    }
}

/// Every member's path in a JSON value.
fn members(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        members(value, &path, found);
        found.insert(path);
    }
}

#[test]
fn statistics_have_the_members_of_the_reference_runtime() {
    needs!(gate::root(), gate::program("runc"), gate::program("busybox"));
    let bed = Bed::new("shape");
    needs!(if bed.layout() == Layout::V2 { Err("compares version 1".to_owned()) } else { Ok(()) });
    let id = bed.path.trim_start_matches('/').to_owned();
    let bundle = hull_testkit::place::Scratch::new("shape");
    fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
    let busybox =
        String::from_utf8(Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap().stdout);
    fs::copy(busybox.unwrap().trim(), bundle.join("rootfs/bin/sleep")).unwrap();
    assert!(Command::new("runc").arg("spec").current_dir(bundle.path()).status().unwrap().success());
    let mut config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    config["process"]["args"] = serde_json::json!(["sleep", "1000"]);
    config["process"]["terminal"] = false.into();
    config["process"]["rlimits"] = serde_json::json!([]);
    config["linux"]["cgroupsPath"] = bed.path.clone().into();
    config["linux"]["resources"]["memory"] = serde_json::json!({"limit": 33_554_432});
    config["linux"]["resources"]["pids"] = serde_json::json!({"limit": 20});
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let root = bundle.join("state");
    let runc = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command
            .args(["-s", "KILL", "30", "runc", "--root"])
            .arg(&root)
            .args(arguments)
            .current_dir(bundle.path());
        command.stdin(std::process::Stdio::null());
        command
    };
    let quiet = || std::process::Stdio::null();
    assert!(runc(&["run", "-d", &id]).stdout(quiet()).stderr(quiet()).status().unwrap().success());
    let event = runc(&["events", "--stats", &id]).output().unwrap().stdout;
    let ours = bed.only(bed.layout(), |_| true).statistics().unwrap();
    assert!(runc(&["delete", "-f", &id]).status().unwrap().success());
    let theirs: Value = serde_json::from_slice(&event).unwrap();
    let (mut expected, mut found) = (BTreeSet::new(), BTreeSet::new());
    members(&theirs["data"], "", &mut expected);
    members(&serde_json::to_value(&ours).unwrap(), "", &mut found);
    // Huge pages of a hybrid host are counted in the version 2 tree, which the other does not read.
    let facts = bed.hierarchies.facts();
    let side = facts.index_of("hugetlb").is_some() && facts.index_of("hugetlb") == facts.v2();
    found.retain(|path| !side || !path.starts_with("/hugetlb/"));
    assert_eq!(found, expected);
    for same in [
        "/memory/usage/limit",
        "/memory/swap/limit",
        "/pids",
        "/cpuset",
        "/memory/raw/hierarchical_memory_limit",
    ] {
        assert_eq!(
            serde_json::to_value(&ours).unwrap().pointer(same),
            theirs["data"].pointer(same),
            "{same}"
        );
    }
}

#[test]
fn running_out_of_memory_is_noticed_and_so_is_the_end() {
    needs!(gate::root());
    let bed = Bed::new("oom");
    let mut cgroup = bed.make(r#"{"memory":{"limit":4194304,"swap":4194304}}"#);
    let mut watch = cgroup.oom_events().unwrap().unwrap();
    let stay = Process::sleep();
    cgroup.attach(stay.pid()).unwrap();
    let mut process = Process::shell("exec tail /dev/zero");
    cgroup.attach(process.pid()).unwrap();
    assert_eq!(watch.take().unwrap(), Oom::Nothing);
    process.start();
    assert_eq!(process.0.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(hull_sys::poll::wait_readable(watch.as_fd(), Some(soon())).unwrap());
    assert_eq!(watch.take().unwrap(), Oom::Happened);
    let death = cgroup.memory_death().unwrap().unwrap();
    assert_eq!((death.kills, death.limit), (1, Some(4_194_304)));
    drop(stay);
    cgroup.destroy(soon()).unwrap();
    assert!(hull_sys::poll::wait_readable(watch.as_fd(), Some(soon())).unwrap());
    assert_eq!(watch.take().unwrap(), Oom::Gone);
}
