//! The systemd driver, where systemd is process 1.
#![allow(clippy::unwrap_used, reason = "test code")]

mod bed;

use std::collections::BTreeMap;
use std::process::Command;

use bed::{Process, resources, soon};
use hull_cgroup::{Cgroup, CgroupSpec, Hierarchies, Layout, Manager, plan};
use hull_testkit::place::unique;
use hull_testkit::{gate, needs};

fn property(unit: &str, name: &str) -> String {
    let output = Command::new("systemctl").args(["show", "-P", name, unit]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn make(path: &str, json: &str) -> Cgroup {
    try_make(path, json).unwrap()
}

fn try_make(path: &str, json: &str) -> hull_cgroup::Result<Cgroup> {
    let hierarchies = Hierarchies::probe().unwrap();
    let resources = resources(json);
    let spec = CgroupSpec {
        path: Some(path),
        id: "c1",
        resources: Some(&resources),
        rootless: false,
        manager: Manager::Systemd,
        annotations: &BTreeMap::new(),
    };
    Cgroup::make(&plan(&spec, hierarchies.facts()).unwrap(), &hierarchies)
}

fn of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

#[test]
fn the_container_is_a_scope_with_its_limits() {
    needs!(gate::root(), gate::path("/run/systemd/system"), gate::path("/run/dbus/system_bus_socket"));
    let name = unique("hull-unit");
    let unit = format!("pod-{name}.scope");
    let json = r#"{"memory":{"limit":67108864},"pids":{"limit":31},"cpu":{"quota":25000,"period":50000}}"#;
    let mut cgroup = make(&format!(":pod:{name}"), json);
    let process = Process::sleep();
    cgroup.attach(process.pid()).unwrap();
    assert!(of(process.pid()).contains(&format!("/system.slice/{unit}")), "{}", of(process.pid()));
    assert_eq!(cgroup.processes(true).unwrap(), [process.pid()]);
    assert_eq!((property(&unit, "TasksMax"), property(&unit, "Delegate")), ("31".into(), "yes".into()));
    if Hierarchies::probe().unwrap().facts().layout() == Some(Layout::V2) {
        assert_eq!(property(&unit, "MemoryMax"), "67108864");
        assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "500ms");
        assert_eq!(cgroup.statistics().unwrap().memory.usage.limit, 67_108_864);
    }
    let again = try_make(&format!(":pod:{name}"), "{}").unwrap_err().to_string();
    assert!(again.starts_with("container's cgroup is not empty"), "{again}");

    cgroup.keep();
    let saved = cgroup.saved_paths();
    let mut later = Cgroup::open(&saved);
    later.update(&resources(r#"{"pids":{"limit":17}}"#), &resources(json), false).unwrap();
    assert_eq!(property(&unit, "TasksMax"), "17");
    assert_eq!(later.statistics().unwrap().pids.limit, 17);
    later.kill_all(soon()).unwrap();
    later.destroy(soon()).unwrap();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    drop(process);
}

#[test]
fn a_failed_create_leaves_no_unit() {
    needs!(gate::root(), gate::path("/run/systemd/system"), gate::path("/run/dbus/system_bus_socket"));
    let name = unique("hull-unit");
    let mut cgroup = make(&format!(":pod:{name}"), "{}");
    let process = Process::sleep();
    cgroup.attach(process.pid()).unwrap();
    assert_eq!(property(&format!("pod-{name}.scope"), "ActiveState"), "active");
    drop(cgroup);
    assert_eq!(property(&format!("pod-{name}.scope"), "LoadState"), "not-found");
    drop(process);
}

#[test]
fn a_host_without_a_bus_says_so() {
    needs!(gate::root());
    needs!(match gate::path("/run/dbus/system_bus_socket") {
        Ok(()) => Err("needs a host without a system bus".to_owned()),
        Err(_) => Ok(()),
    });
    let mut cgroup = make(":pod:testkit-hull-none", "{}");
    let error = cgroup.attach(std::process::id().cast_signed()).unwrap_err().to_string();
    let expected = "unable to apply cgroup configuration: start unit pod-testkit-hull-none.scope: ";
    assert!(error.starts_with(expected), "{error}");
}
