//! Further processes on their way in: below the container's groups, and where its own are gone.
#![allow(clippy::unwrap_used, reason = "test code")]

mod bed;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bed::{Bed, Process, soon};
use hull_cgroup::{Cgroup, CgroupError, Hierarchies, Layout, SubPaths};
use hull_testkit::{gate, needs};

#[test]
fn a_further_process_can_go_into_a_group_below() {
    needs!(gate::root());
    let bed = Bed::new("sub");
    let cgroup = bed.make("{}");
    let process = Process::sleep();
    let join = |value| cgroup.join_sub(process.pid(), &SubPaths::parse(&[value]).unwrap(), 0, false);
    let missing = join("nowhere").unwrap_err();
    let expected = format!("error adding pid {} to cgroups ", process.pid());
    assert!(
        missing.to_string().starts_with(&expected) && missing.to_string().ends_with("/nowhere"),
        "{missing}"
    );
    assert_eq!(missing.errno(), Some(libc::ENOENT));
    let unknown = join("whaaat:/").unwrap_err();
    assert_eq!(unknown.to_string(), "unknown controller whaaat in sub cgroup path");
    let (value, controller) = if bed.layout() == Layout::V2 { ("inner", "") } else { ("pids:inner", "pids") };
    fs::create_dir(bed.file(controller, "inner")).unwrap();
    join(value).unwrap();
    let text = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
    let inner: Vec<_> = text.lines().filter(|line| line.ends_with(&format!("{}/inner", bed.path))).collect();
    assert_eq!(inner.len(), 1, "{text}");
    assert!(text.lines().all(|line| line.contains(&bed.path)), "{text}");
    cgroup.kill_all(soon()).unwrap();
}

fn v2_tree() -> gate::Gate {
    let found = Hierarchies::probe().unwrap().facts().v2();
    found.map(drop).ok_or_else(|| "needs a version 2 tree".to_owned())
}

/// A group beside the bed's own, in one hierarchy, which ends with the test.
struct Beside(PathBuf);

impl Beside {
    fn make(own: &Path) -> Self {
        let path = own.with_file_name(format!("{}-beside", own.file_name().unwrap().to_str().unwrap()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let emptied = Instant::now() + Duration::from_secs(10);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < emptied {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_group_that_is_gone_is_refused_where_it_was_asked_for_and_else_left_for_that_of_the_first_process() {
    needs!(gate::root());
    let bed = Bed::new("gone");
    let cgroup = bed.make("{}");
    let controller = if bed.layout() == Layout::V2 { "" } else { "pids" };
    let beside = Beside::make(&bed.file(controller, ""));
    let (init, process) = (Process::sleep(), Process::sleep());
    fs::write(beside.0.join("cgroup.procs"), init.pid().to_string()).unwrap();
    fs::remove_dir(bed.file(controller, "")).unwrap();
    let later = || Cgroup::open(&cgroup.saved_paths());
    let inside =
        |pid: i32| fs::read_to_string(beside.0.join("cgroup.procs")).unwrap().contains(&pid.to_string());

    let here = |rootless| {
        let value = if controller.is_empty() { "/".to_owned() } else { format!("{controller}:/") };
        later().join_sub(process.pid(), &SubPaths::parse(&[value]).unwrap(), init.pid(), rootless)
    };
    for error in [here(false).unwrap_err(), here(true).unwrap_err()] {
        assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
        assert!(error.to_string().ends_with(&bed.path), "{error}");
    }
    assert!(!inside(process.pid()));

    if controller.is_empty() {
        later().follow(process.pid(), init.pid()).unwrap();
    } else {
        let elsewhere = SubPaths::parse(&["memory:/"]).unwrap();
        later().join_sub(process.pid(), &elsewhere, init.pid(), false).unwrap();
    }
    assert!(inside(process.pid()));
}

#[test]
fn one_hierarchy_that_cannot_be_followed_does_not_keep_a_process_out_of_the_others() {
    needs!(gate::root());
    let bed = Bed::new("follow");
    let mut paths = bed.make("{}").saved_paths();
    let mut lost = paths.places[0].clone();
    "/tmp".clone_into(&mut lost.mount_point);
    paths.places.insert(0, lost);
    let own = bed.file(if bed.layout() == Layout::V2 { "" } else { "pids" }, "");
    let beside = Beside::make(&own);
    let (init, process) = (Process::sleep(), Process::sleep());
    let procs = beside.0.join("cgroup.procs");
    fs::write(&procs, init.pid().to_string()).unwrap();
    let error = Cgroup::open(&paths).follow(process.pid(), init.pid()).unwrap_err();
    assert!(matches!(&error, CgroupError::NotCgroup { path } if path == "/tmp"), "{error}");
    let there = fs::read_to_string(&procs).unwrap();
    assert_eq!(there.lines().count(), 2, "{there}");
}

#[test]
fn a_process_goes_below_a_version_2_group_that_hands_controllers_on_and_nowhere_else_below() {
    needs!(gate::root(), v2_tree());
    let bed = Bed::new("below");
    let pages = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#;
    let mut cgroup = bed.make(if bed.layout() == Layout::Hybrid { pages } else { "{}" });
    let (init, process) = (Process::sleep(), Process::sleep());
    cgroup.attach(init.pid()).unwrap();
    let inner = bed.file("", "inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("cgroup.procs"), init.pid().to_string()).unwrap();
    let offered = bed.read("", "cgroup.controllers");
    let handed =
        format!("+{}", offered.split(' ').find(|name| ["memory", "hugetlb"].contains(name)).unwrap());
    fs::write(bed.file("", "cgroup.subtree_control"), handed).unwrap();
    Cgroup::open(&cgroup.saved_paths()).attach_beside(process.pid(), init.pid()).unwrap();
    let groups = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(groups(process.pid()), groups(init.pid()));
    let below = groups(process.pid()).lines().filter(|line| line.ends_with("/inner")).count();
    assert_eq!(below, 1, "{}", groups(process.pid()));
    cgroup.kill_all(soon()).unwrap();
}
