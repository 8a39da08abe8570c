//! systemd with the controllers of version 1.

use std::path::Path;

use hull_integration::systemd::{Slice, here, property};
use hull_testkit::call::{PATIENCE, eventually, quick};
use hull_testkit::gate::Gate;
use hull_testkit::runtime::peek;
use hull_testkit::{Bundle, Runtime, gate, needs};

use super::{limit, run_detached, scoped};

fn legacy() -> Gate {
    here().and(gate::cgroup_v1())
}

/// A running container in a scope, with limits.
struct Scoped {
    runtime: Runtime,
    bundle: Bundle,
    unit: String,
    /// Below the mount point of each hierarchy.
    directory: String,
    _slice: Slice,
}

impl Scoped {
    fn start() -> Self {
        let slice = Slice("testkit1.slice");
        let runtime = Runtime::under_test();
        let (bundle, unit) = scoped(&["/bin/sleep", "1000"], "testkit1-hull.slice");
        let bundle = bundle.with(limit);
        run_detached(&runtime, &bundle).done();
        let directory = format!("/testkit1.slice/testkit1-hull.slice/{unit}");
        Self { runtime, bundle, unit, directory, _slice: slice }
    }

    /// A file by its controller and name.
    fn file(&self, path: &str) -> String {
        let (controller, name) = path.split_once('/').expect("a controller and a file");
        peek(format!("/sys/fs/cgroup/{controller}{}/{name}", self.directory))
    }

    fn limits(&self) -> [String; 4] {
        let files =
            ["memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us", "cpu/cpu.shares", "pids/pids.max"];
        files.map(|path| self.file(path))
    }

    fn of_systemd(&self, expected: &[(&str, &str)]) {
        for (name, value) in expected {
            assert_eq!(property(&self.unit, name), *value, "{name}");
        }
    }

    fn hull(&self, words: &[&str]) {
        self.runtime.call(&[words, &[self.bundle.id.as_str()]].concat()).done();
    }
}

impl Drop for Scoped {
    fn drop(&mut self) {
        // Gone already, where the test came to its end.
        let _ = self.runtime.call(&["delete", "--force", &self.bundle.id]);
    }
}

#[test]
fn on_version_1_limits_and_device_rules_outlive_a_reload_of_systemd() {
    needs!(legacy());
    let scoped = Scoped::start();
    scoped.of_systemd(&[
        ("MemoryLimit", "67108864"),
        ("CPUShares", "512"),
        ("CPUQuotaPerSecUSec", "300ms"),
        ("TasksMax", "40"),
        ("Delegate", "yes"),
        ("Slice", "testkit1-hull.slice"),
    ]);
    assert_eq!(scoped.limits(), ["67108864", "30000", "512", "40"]);
    assert_eq!(scoped.file("cpuset/cpuset.cpus"), "0");
    let devices = scoped.file("devices/devices.list");
    assert!(!devices.lines().any(|line| line.starts_with('a')), "{devices}");
    // systemd writes what it knows once more.
    quick("systemctl", &["daemon-reload"]).done();
    assert_eq!(scoped.limits(), ["67108864", "30000", "512", "40"]);

    scoped.hull(&["update", "--memory", "32M", "--memory-swap", "32M", "--cpu-quota", "50000"]);
    scoped.hull(&["update", "--pids-limit", "50"]);
    quick("systemctl", &["daemon-reload"]).done();
    assert_eq!(scoped.limits(), ["33554432", "50000", "512", "50"]);
    scoped.hull(&["update", "--cpu-period", "200000"]);
    scoped.of_systemd(&[("MemoryLimit", "33554432"), ("TasksMax", "50"), ("CPUQuotaPerSecUSec", "250ms")]);
    assert_eq!(scoped.file("devices/devices.list"), devices, "the device rules have changed");
}

#[test]
fn on_version_1_a_container_is_a_scope_in_every_hierarchy() {
    needs!(legacy());
    let scoped = Scoped::start();
    let state = scoped.runtime.call(&["state", &scoped.bundle.id]);
    let state: serde_json::Value = serde_json::from_str(state.text()).expect("JSON");
    let groups = peek(format!("/proc/{}/cgroup", state["pid"]));
    let elsewhere: Vec<_> = groups.lines().filter(|line| !line.ends_with(&scoped.directory)).collect();
    assert_eq!(elsewhere, [""; 0], "a hierarchy where the container is elsewhere");

    let inside = scoped.runtime.call(&["exec", &scoped.bundle.id, "cat", "/proc/self/cgroup"]);
    let outside: Vec<_> = inside.text().lines().filter(|line| !line.ends_with(":/")).collect();
    assert_eq!(outside, [""; 0], "exec is elsewhere");
    scoped.hull(&["pause"]);
    assert_eq!(scoped.file("freezer/freezer.state"), "FROZEN");
    scoped.hull(&["resume"]);
    let stopped = || scoped.runtime.call(&["state", &scoped.bundle.id]).stdout.contains("\"stopped\"");
    scoped.runtime.call(&["kill", &scoped.bundle.id, "KILL"]).done();
    assert!(eventually(PATIENCE, stopped));
    scoped.hull(&["delete"]);
    assert_eq!(property(&scoped.unit, "LoadState"), "not-found");
    for controller in ["memory", "freezer", "devices", "cpuset", "systemd"] {
        let left = format!("/sys/fs/cgroup/{controller}{}", scoped.directory);
        assert!(!Path::new(&left).exists(), "{left} is left");
    }
}
