//! Directories and limits on this host's own hierarchies.
#![allow(clippy::unwrap_used, reason = "test code")]

mod bed;

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bed::{Bed, Process, soon};
use hull_cgroup::{Cgroup, CgroupError, Hierarchies, Layout, SavedPaths};
use hull_sys::process::{CloneRequest, exit_now, pidfd_send_signal, spawn, wait};
use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::{gate, needs};

/// Configuration, controller, file, and what the kernel then shows.
type Row = (&'static str, &'static str, &'static str, &'static str);

const V1_ROWS: [Row; 17] = [
    (r#"{"memory":{"limit":8388608}}"#, "memory", "memory.limit_in_bytes", "8388608"),
    (r#"{"memory":{"limit":8388608,"swap":16777216}}"#, "memory", "memory.memsw.limit_in_bytes", "16777216"),
    (r#"{"memory":{"limit":-1}}"#, "memory", "memory.limit_in_bytes", "9223372036854771712"),
    (r#"{"memory":{"reservation":4194304}}"#, "memory", "memory.soft_limit_in_bytes", "4194304"),
    (r#"{"memory":{"swappiness":7}}"#, "memory", "memory.swappiness", "7"),
    (
        r#"{"memory":{"disableOOMKiller":true}}"#,
        "memory",
        "memory.oom_control",
        "oom_kill_disable 1\nunder_oom 0\noom_kill 0",
    ),
    (r#"{"memory":{"kernel":8388608,"useHierarchy":true}}"#, "memory", "memory.use_hierarchy", "1"),
    (r#"{"cpu":{"shares":512}}"#, "cpu", "cpu.shares", "512"),
    (r#"{"cpu":{"quota":20000,"period":50000}}"#, "cpu", "cpu.cfs_period_us", "50000"),
    (r#"{"cpu":{"quota":2000,"period":50000}}"#, "cpu", "cpu.cfs_quota_us", "2000"),
    (r#"{"cpu":{"quota":20000,"burst":10000}}"#, "cpu", "cpu.cfs_burst_us", "10000"),
    (r#"{"cpu":{"idle":1}}"#, "cpu", "cpu.idle", "1"),
    (r#"{"cpu":{"cpus":"0","mems":"0"}}"#, "cpuset", "cpuset.cpus", "0"),
    (r#"{"pids":{"limit":0}}"#, "pids", "pids.max", "1"),
    (r#"{"pids":{"limit":17}}"#, "pids", "pids.max", "17"),
    (r#"{"pids":{"limit":-1}}"#, "pids", "pids.max", "max"),
    (r#"{"blockIO":{"weight":300}}"#, "blkio", "blkio.bfq.weight", "300"),
];

const V2_ROWS: [Row; 13] = [
    (r#"{"memory":{"limit":8388608}}"#, "memory", "memory.max", "8388608"),
    (r#"{"memory":{"limit":8388608,"swap":16777216}}"#, "memory", "memory.swap.max", "8388608"),
    (r#"{"memory":{"limit":-1}}"#, "memory", "memory.max", "max"),
    (r#"{"memory":{"reservation":4194304}}"#, "memory", "memory.low", "4194304"),
    (r#"{"cpu":{"shares":512}}"#, "cpu", "cpu.weight", "59"),
    (r#"{"cpu":{"quota":20000,"period":50000}}"#, "cpu", "cpu.max", "20000 50000"),
    (r#"{"cpu":{"quota":20000,"burst":10000}}"#, "cpu", "cpu.max.burst", "10000"),
    (r#"{"cpu":{"idle":1}}"#, "cpu", "cpu.idle", "1"),
    (r#"{"cpu":{"cpus":"0","mems":"0"}}"#, "cpuset", "cpuset.cpus", "0"),
    (r#"{"pids":{"limit":0}}"#, "pids", "pids.max", "1"),
    (r#"{"pids":{"limit":-1}}"#, "pids", "pids.max", "max"),
    (r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#, "hugetlb", "hugetlb.2MB.max", "4194304"),
    (r#"{"unified":{"memory.high":"16777216","cgroup.max.depth":"5"}}"#, "", "cgroup.max.depth", "5"),
];

#[test]
fn the_kernel_shows_every_limit() {
    needs!(gate::root());
    let bed = Bed::new("limits");
    let rows: &[Row] = if bed.layout() == Layout::V2 { &V2_ROWS } else { &V1_ROWS };
    for (json, controller, file, expected) in rows {
        let _cgroup = match bed.try_make(json) {
            // Weights of block devices come with BFQ, which a kernel may lack.
            Err(CgroupError::Limit(limit))
                if limit.controller == "blkio" && limit.source.is(libc::ENOENT) =>
            {
                continue;
            }
            made => made.unwrap(),
        };
        assert_eq!(bed.read(controller, file), *expected, "{json}");
    }
}

#[test]
fn hugepages_of_a_hybrid_host_are_limited_in_the_version_2_tree() {
    let bed = Bed::new("huge");
    needs!(gate::root(), has(&bed, "hugetlb"));
    let mut cgroup = bed.make(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#);
    cgroup.keep();
    let v2 = bed.hierarchies.facts().index_of("hugetlb") == bed.hierarchies.facts().v2();
    let file = if v2 { "hugetlb.2MB.max" } else { "hugetlb.2MB.limit_in_bytes" };
    assert_eq!(bed.read("hugetlb", file), "4194304");
    let unknown = bed.try_make(r#"{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#);
    let text = unknown.unwrap_err().to_string();
    assert!(text.starts_with("cannot set hugetlb limit: write \"1\" to /sys/fs/cgroup/"), "{text}");
    assert!(
        text.contains("for /linux/resources/hugepageLimits/0/limit (the kernel has no pages of that size"),
        "{text}"
    );
}

fn has(bed: &Bed, controller: &str) -> gate::Gate {
    match bed.hierarchies.facts().index_of(controller) {
        Some(_) => Ok(()),
        None => Err(format!("needs the controller {controller}")),
    }
}

#[test]
fn what_was_made_is_removed_unless_it_is_kept() {
    needs!(gate::root());
    let bed = Bed::new("guard");
    let plan = bed.plan("/sub/group", "{}").unwrap();
    drop(Cgroup::make(&plan, &bed.hierarchies).unwrap());
    assert_eq!(bed.directories().len(), 0, "parents are removed too");
    let mut cgroup = bed.make("{}");
    assert_eq!(bed.directories().len(), bed.hierarchies.facts().hierarchies.len());
    cgroup.keep();
    let saved = cgroup.saved_paths();
    drop(cgroup);
    assert_eq!(bed.directories().len(), saved.places.len());
    let text = serde_json::to_string(&saved).unwrap();
    assert_eq!(serde_json::from_str::<SavedPaths>(&text).unwrap(), saved);
    Cgroup::open(&saved).destroy(soon()).unwrap();
    Cgroup::open(&saved).destroy(soon()).unwrap();
    assert_eq!(bed.directories().len(), 0);
}

#[test]
fn a_refused_limit_leaves_nothing_and_names_everything() {
    needs!(gate::root());
    let bed = Bed::new("refused");
    let error = bed.try_make(r#"{"pids":{"limit":5},"cpu":{"cpus":"4090"}}"#).unwrap_err();
    let CgroupError::Limit(limit) = &error else { panic!("{error}") };
    let found = [limit.controller.as_str(), &limit.value, &limit.field];
    assert_eq!(found, ["cpuset", "4090", "/linux/resources/cpu/cpus"]);
    assert_eq!(limit.file, bed.file("cpuset", "cpuset.cpus").display().to_string());
    assert!(limit.hint.contains("must be part of what the parent group has"), "{}", limit.hint);
    assert!(error.errno().is_some());
    assert_eq!(bed.directories().len(), 0);
}

#[test]
fn a_process_is_put_into_every_hierarchy() {
    needs!(gate::root());
    let bed = Bed::new("attach");
    let mut cgroup = bed.make("{}");
    let process = Process::sleep();
    cgroup.attach(process.pid()).unwrap();
    let text = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
    let outside: Vec<_> = text.lines().filter(|line| !line.ends_with(&bed.path)).collect();
    assert_eq!(outside, Vec::<&str>::new());
    assert_eq!(cgroup.processes(true).unwrap(), [process.pid()]);
    drop(process);
    assert_eq!(cgroup.attach(i32::MAX).unwrap_err().errno(), Some(libc::ESRCH));
}

#[test]
fn a_group_in_use_is_refused() {
    needs!(gate::root());
    let bed = Bed::new("used");
    let mut cgroup = bed.make("{}");
    cgroup.keep();
    let process = Process::sleep();
    cgroup.attach(process.pid()).unwrap();
    let text = bed.try_make("{}").unwrap_err().to_string();
    assert!(text.starts_with("container's cgroup is not empty: 1 process(es) found in /"), "{text}");
    drop(process);
    cgroup.freeze(soon()).unwrap();
    let text = bed.try_make("{}").unwrap_err().to_string();
    assert!(text.starts_with("container's cgroup unexpectedly frozen: /"), "{text}");
    cgroup.thaw(soon()).unwrap();
    drop(bed.make("{}"));
    assert_eq!(bed.directories().len(), cgroup.saved_paths().places.len(), "what was there before stays");
}

#[test]
fn a_group_below_a_frozen_one_is_refused_and_not_left_behind() {
    needs!(gate::root());
    let bed = Bed::new("below");
    let above = bed.make("{}");
    above.freeze(soon()).unwrap();
    let text = Cgroup::make(&bed.plan("/new", "{}").unwrap(), &bed.hierarchies).unwrap_err().to_string();
    assert!(
        text.starts_with("container's cgroup unexpectedly frozen: /") && text.ends_with("/new"),
        "{text}"
    );
    assert!(bed.directories().iter().all(|directory| !directory.join("new").exists()));
    above.thaw(soon()).unwrap();
    drop(Cgroup::make(&bed.plan("/new", "{}").unwrap(), &bed.hierarchies).unwrap());
}

#[test]
fn directories_of_a_group_that_is_gone_are_no_error() {
    needs!(gate::root());
    let bed = Bed::new("gone");
    let mut cgroup = Cgroup::open(&Cgroup::planned_paths(&bed.plan("", "{}").unwrap()));
    assert_eq!(cgroup.processes(true).unwrap(), Vec::<i32>::new());
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.kill_all(soon()).unwrap();
    cgroup.signal_all(15).unwrap();
    cgroup.destroy(soon()).unwrap();
    assert!(cgroup.v2_fd().is_none());
}

#[test]
fn a_group_without_forks_holds_one_process() {
    needs!(gate::root());
    let bed = Bed::new("forks");
    let mut cgroup = bed.make(r#"{"pids":{"limit":0}}"#);
    let mut process = Process::shell("(echo forked); true");
    cgroup.attach(process.pid()).unwrap();
    assert_eq!(process.output(), "");
    let mut free = Process::shell("(echo forked); true");
    assert_eq!(free.output(), "forked\n");
}

#[test]
fn a_process_enters_every_group_by_itself() {
    needs!(gate::root());
    let bed = Bed::new("door");
    let cgroup = bed.make("{}");
    let door = cgroup.door().unwrap().unwrap();
    let request = CloneRequest { into_cgroup: cgroup.v2_fd(), ..CloneRequest::default() };
    let child = spawn(&request, || match door.enter() {
        Ok(()) => loop {
            let _signal = hull_sys::poll::wait_for_signal();
        },
        Err(_) => exit_now(3),
    })
    .unwrap();
    let pid = child.pid.as_raw().to_string();
    let inside =
        |directory: &PathBuf| fs::read_to_string(directory.join("cgroup.procs")).unwrap().trim() == pid;
    let directories = bed.directories();
    assert_eq!(directories.len(), bed.hierarchies.facts().hierarchies.len());
    let all_inside = eventually(PATIENCE, || directories.iter().all(inside));
    pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL).unwrap();
    wait(child.pidfd.as_fd()).unwrap();
    assert!(all_inside, "{pid} is not in all of {directories:?}");
}

#[test]
fn every_hierarchy_that_is_found_can_be_used() {
    needs!(gate::root());
    let probed = Hierarchies::probe().unwrap();
    let facts = probed.facts();
    assert!(facts.layout().is_some());
    for hierarchy in &facts.hierarchies {
        assert!(fs::metadata(format!("{}/cgroup.procs", hierarchy.mount_point)).is_ok(), "{hierarchy:?}");
    }
}

#[test]
fn a_maker_waits_for_a_delete_in_the_same_place_and_a_delete_for_a_maker() {
    needs!(gate::root());
    let bed = Bed::new("turns");
    let mut ended = bed.make("{}");
    ended.keep();
    let paths = ended.saved_paths();
    drop(ended);
    let (turn, taken) = mpsc::channel();
    let deleter = std::thread::spawn(move || {
        let mut deleting = Cgroup::open(&paths);
        turn.send(deleting.take_turn(soon()).unwrap()).unwrap();
        // Time for a maker that does not wait to get into the directories that are about to go.
        std::thread::sleep(Duration::from_millis(50));
        deleting.destroy(soon()).unwrap();
    });
    assert!(taken.recv().unwrap());
    let mut made = bed.make("{}");
    deleter.join().unwrap();
    assert_eq!(bed.directories().len(), bed.hierarchies.facts().hierarchies.len());

    let deleting = || Cgroup::open(&made.saved_paths()).take_turn(Instant::now() + Duration::from_millis(20));
    assert!(!deleting().unwrap(), "its maker is at work");
    let process = Process::sleep();
    made.attach(process.pid()).unwrap();
    made.keep();
    let paths = made.saved_paths();
    drop(made);
    let mut deleting = Cgroup::open(&paths);
    assert!(deleting.take_turn(Instant::now()).unwrap());
    assert!(deleting.is_occupied().unwrap());
    deleting.kill_all(soon()).unwrap();
}
