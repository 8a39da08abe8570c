//! Freezing, killing and removing groups with processes in them.
#![allow(clippy::unwrap_used, reason = "test code")]

mod bed;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use bed::{Bed, Process, soon};
use hull_cgroup::{Cgroup, CgroupError, Layout};
use hull_testkit::{gate, needs};

#[test]
fn a_frozen_container_does_not_run() {
    needs!(gate::root());
    let bed = Bed::new("freeze");
    let mut cgroup = bed.make("{}");
    let mut process = Process::shell("while :; do :; done");
    cgroup.attach(process.pid()).unwrap();
    process.start();
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.freeze(soon()).unwrap();
    assert!(cgroup.is_frozen().unwrap());
    let ticks = cpu_ticks(process.pid());
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(cpu_ticks(process.pid()), ticks);
    cgroup.thaw(soon()).unwrap();
    assert!(!cgroup.is_frozen().unwrap());
}

fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_signal_reaches_everybody_and_leaves_nobody_stopped() {
    needs!(gate::root());
    let bed = Bed::new("signal");
    let mut cgroup = bed.make("{}");
    let mut processes = [Process::sleep(), Process::sleep(), Process::sleep()];
    for process in &mut processes {
        cgroup.attach(process.pid()).unwrap();
        process.start();
    }
    cgroup.signal_all(libc::SIGUSR1).unwrap();
    assert!(!cgroup.is_frozen().unwrap());
    for process in &mut processes {
        assert_eq!(process.0.wait().unwrap().signal(), Some(libc::SIGUSR1));
    }
}

#[test]
fn a_signal_for_a_frozen_container_waits_until_it_is_thawed() {
    needs!(gate::root());
    let bed = Bed::new("frozen-signal");
    let mut cgroup = bed.make("{}");
    let mut process = Process::sleep();
    cgroup.attach(process.pid()).unwrap();
    process.start();
    cgroup.freeze(soon()).unwrap();
    for signal in [0, libc::SIGUSR1] {
        cgroup.signal_all(signal).unwrap();
        assert!(cgroup.is_frozen().unwrap(), "signal {signal} thawed it");
    }
    cgroup.thaw(soon()).unwrap();
    assert_eq!(process.0.wait().unwrap().signal(), Some(libc::SIGUSR1));
}

#[test]
fn a_container_is_occupied_by_whoever_is_in_one_of_its_groups() {
    needs!(gate::root());
    let bed = Bed::new("occupied");
    let mut cgroup = bed.make("{}");
    assert!(!cgroup.is_occupied().unwrap());
    let process = Process::sleep();
    // In one hierarchy only, the last one, as while it is on its way in.
    let directory = bed.directories().pop().unwrap();
    fs::write(directory.join("cgroup.procs"), process.pid().to_string()).unwrap();
    assert!(cgroup.is_occupied().unwrap());
    cgroup.attach(process.pid()).unwrap();
    assert!(cgroup.is_occupied().unwrap());
    cgroup.kill_all(soon()).unwrap();
    drop(process);
    assert!(!cgroup.is_occupied().unwrap());
}

#[test]
fn a_hierarchy_that_is_not_mounted_any_more_has_nobody() {
    needs!(gate::root());
    let bed = Bed::new("unmounted");
    let mut paths = bed.make("{}").saved_paths();
    for (mount_point, place) in ["/tmp", "/nowhere"].iter().cycle().zip(&mut paths.places) {
        (*mount_point).clone_into(&mut place.mount_point);
    }
    let mut cgroup = Cgroup::open(&paths);
    assert!(!cgroup.is_occupied().unwrap());
    cgroup.destroy(soon()).unwrap();
}

#[test]
fn a_frozen_container_can_be_killed_and_removed() {
    needs!(gate::root());
    let bed = Bed::new("frozen");
    let mut cgroup = bed.make("{}");
    let mut process = Process::sleep();
    cgroup.attach(process.pid()).unwrap();
    cgroup.freeze(soon()).unwrap();
    cgroup.kill_all(soon()).unwrap();
    assert_eq!(process.0.wait().unwrap().signal(), Some(libc::SIGKILL));
    cgroup.destroy(soon()).unwrap();
    assert_eq!(bed.directories().len(), 0);
}

#[test]
fn a_fork_bomb_is_killed() {
    needs!(gate::root(), gate::program("bash"));
    let bed = Bed::new("bomb");
    for side in [None, Some(Layout::V1)] {
        let mut cgroup = bed.make(r#"{"pids":{"limit":400}}"#);
        let mut process = Process::shell("exec bash -c 'bomb() { while :; do bomb & done; }; bomb'");
        cgroup.attach(process.pid()).unwrap();
        process.start();
        let full = Instant::now() + Duration::from_secs(20);
        while cgroup.processes(true).unwrap().len() < 50 && Instant::now() < full {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(cgroup.processes(true).unwrap().len() >= 50, "the bomb went off");
        // A host without a version 2 tree has to do it by signals alone.
        let seen = match side {
            Some(layout) if bed.layout() == Layout::Hybrid => bed.only(layout, |name| !name.is_empty()),
            _ => Cgroup::open(&cgroup.saved_paths()),
        };
        seen.kill_all(soon()).unwrap();
        assert_eq!(cgroup.processes(true).unwrap(), Vec::<i32>::new());
        process.0.wait().unwrap();
        cgroup.destroy(soon()).unwrap();
    }
}

#[test]
fn nested_groups_are_removed_however_deep() {
    needs!(gate::root());
    let bed = Bed::new("deep");
    let mut cgroup = bed.make("{}");
    cgroup.keep();
    for top in bed.directories() {
        for branch in 0..3 {
            let mut path = top.join(branch.to_string());
            for level in 0..100 {
                fs::create_dir(&path).unwrap();
                path = path.join((level % 10).to_string());
            }
        }
    }
    cgroup.destroy(soon()).unwrap();
    assert_eq!(bed.directories().len(), 0);
}

#[test]
fn a_busy_group_is_named_when_the_deadline_passes() {
    needs!(gate::root());
    let bed = Bed::new("busy");
    let mut cgroup = bed.make("{}");
    let process = Process::sleep();
    cgroup.attach(process.pid()).unwrap();
    let mut deep = bed.directories()[0].clone();
    for _ in 0..80 {
        deep = deep.join("d");
        fs::create_dir(&deep).unwrap();
    }
    let error = cgroup.destroy(Instant::now() + Duration::from_millis(30)).unwrap_err();
    assert!(matches!(&error, CgroupError::Late { what: "remove", .. }), "{error}");
    assert!(error.to_string().contains(&bed.path), "{error}");
    assert!(fs::metadata(format!("/proc/{}", process.pid())).is_ok(), "nobody is killed or moved for it");
    assert_eq!(cgroup.processes(true).unwrap(), [process.pid()]);
}

#[test]
fn processes_of_inner_groups_belong_to_the_container() {
    needs!(gate::root());
    let bed = Bed::new("inner");
    let cgroup = bed.make("{}");
    let process = Process::sleep();
    let hierarchies = bed.directories();
    for directory in &hierarchies {
        let inner = directory.join("inner");
        fs::create_dir(&inner).unwrap();
        if let Some(parent) = directory.file_name().filter(|_| directory.join("cpuset.cpus").exists()) {
            assert!(!parent.is_empty());
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if directory.join("cgroup.clone_children").exists() {
                    fs::write(inner.join(file), fs::read(directory.join(file)).unwrap()).unwrap();
                }
            }
        }
        fs::write(inner.join("cgroup.procs"), process.pid().to_string()).unwrap();
    }
    assert_eq!(cgroup.processes(false).unwrap(), Vec::<i32>::new());
    assert_eq!(cgroup.processes(true).unwrap(), [process.pid()]);
    cgroup.kill_all(soon()).unwrap();
}
