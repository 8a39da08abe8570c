//! hull where systemd is process 1: its scopes, and the managers that ask for them; as root and as an ordinary user.
#![forbid(unsafe_code)]

mod legacy;
mod rootless;

use std::fs;
use std::path::{Path, PathBuf};

use hull_integration::containerd::Containerd;
use hull_integration::image;
use hull_integration::systemd::{Slice, property, unified};
use hull_integration::user::{self, User};
use hull_testkit::call::{PATIENCE, eventually, quick};
use hull_testkit::place::unique;
use hull_testkit::runtime::peek;
use hull_testkit::{Bundle, Outcome, Runtime, Scratch, gate, needs};
use serde_json::json;

/// The options of `hull run` for a scope of the bundle's name; the unit's name.
fn scoped(arguments: &[&str], slice: &str) -> (Bundle, String) {
    let bundle = Bundle::new(arguments)
        .with_id(|id, config| config["linux"]["cgroupsPath"] = json!(format!("{slice}:pod:{id}")));
    let unit = format!("pod-{}.scope", bundle.id);
    (bundle, unit)
}

fn run_detached(runtime: &Runtime, bundle: &Bundle) -> Outcome {
    let path = bundle.path().to_str().expect("UTF-8");
    runtime.call(&["--systemd-cgroup", "run", "--detach", "--bundle", path, &bundle.id])
}

fn group_of(runtime: &Runtime, bundle: &Bundle) -> String {
    let state: serde_json::Value =
        serde_json::from_str(runtime.call(&["state", &bundle.id]).text()).expect("JSON");
    peek(format!("/proc/{}/cgroup", state["pid"])).trim_start_matches("0::").to_owned()
}

fn limit(config: &mut serde_json::Value) {
    config["linux"]["resources"]["memory"] =
        json!({ "limit": 67_108_864, "swap": 100_663_296, "reservation": 1_048_576 });
    config["linux"]["resources"]["cpu"] =
        json!({ "shares": 512, "quota": 30_000, "period": 100_000, "cpus": "0", "mems": "0" });
    config["linux"]["resources"]["pids"] = json!({ "limit": 40 });
}

#[test]
fn a_container_is_a_scope_through_its_whole_life() {
    needs!(unified());
    let _slice = Slice("testkit.slice");
    let runtime = Runtime::under_test();
    let (bundle, unit) = scoped(&["/bin/sleep", "1000"], "testkit-hull.slice");
    let bundle = bundle.with(limit);
    run_detached(&runtime, &bundle).done();
    let directory = format!("/testkit.slice/testkit-hull.slice/{unit}");
    assert_eq!(group_of(&runtime, &bundle), directory);
    let expected = [
        ("MemoryMax", "67108864"),
        ("MemorySwapMax", "33554432"),
        ("MemoryLow", "1048576"),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "300ms"),
        ("CPUQuotaPeriodUSec", "100ms"),
        ("AllowedCPUs", "0"),
        ("AllowedMemoryNodes", "0"),
        ("TasksMax", "40"),
        ("Delegate", "yes"),
        ("Slice", "testkit-hull.slice"),
    ];
    for (name, value) in expected {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    let file = |name: &str| peek(format!("/sys/fs/cgroup{directory}/{name}"));
    assert_eq!([file("memory.max"), file("cpu.max"), file("pids.max")], ["67108864", "30000 100000", "40"]);

    let inside = runtime.call(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
    assert_eq!(inside.text(), "0::/", "exec is in the scope, at the root of its cgroup namespace");
    let update = |words: &[&str]| runtime.call(&[&["update"], words, &[&bundle.id]].concat()).done();
    update(&["--memory", "32M", "--memory-swap", "32M", "--pids-limit", "50", "--cpu-quota", "50500"]);
    // A whole percent from the start, not only when systemd next writes it.
    assert_eq!(file("cpu.max"), "51000 100000");
    quick("systemctl", &["daemon-reload"]).done();
    assert_eq!(
        [file("memory.max"), file("memory.swap.max"), file("pids.max"), file("cpu.max")],
        ["33554432", "0", "50", "51000 100000"]
    );
    assert_eq!([property(&unit, "MemoryMax"), property(&unit, "TasksMax")], ["33554432", "50"]);
    update(&["--cpu-period", "50000", "--blkio-weight", "300", "--cpu-idle", "1"]);
    assert_eq!([property(&unit, "CPUQuotaPeriodUSec"), property(&unit, "IOWeight")], ["50ms", "2930"]);
    quick("systemctl", &["daemon-reload"]).done();
    assert_eq!([property(&unit, "CPUWeight"), file("cpu.idle")], ["idle", "1"]);

    runtime.call(&["pause", &bundle.id]).done();
    assert_eq!(file("cgroup.freeze"), "1");
    runtime.call(&["resume", &bundle.id]).done();
    runtime.call(&["kill", &bundle.id, "KILL"]).done();
    let stopped = || runtime.call(&["state", &bundle.id]).stdout.contains("\"stopped\"");
    assert!(eventually(PATIENCE, stopped));
    runtime.call(&["delete", &bundle.id]).done();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    assert!(!Path::new("/sys/fs/cgroup").join(&directory[1..]).exists());
}

#[test]
fn a_unit_that_failed_is_forgotten_at_delete() {
    needs!(unified());
    let runtime = Runtime::under_test();
    let (bundle, unit) = scoped(&["/bin/sleep", "1000"], "");
    let bundle = bundle.with(|config| {
        config["annotations"] = json!({
            "org.systemd.property.RuntimeMaxUSec": "uint64 1000000",
            "org.systemd.property.TimeoutStopUSec": "uint64 1000000"
        });
    });
    run_detached(&runtime, &bundle).done();
    assert!(
        eventually(PATIENCE, || property(&unit, "ActiveState") == "failed"),
        "{}",
        property(&unit, "ActiveState")
    );
    assert!(runtime.call(&["state", &bundle.id]).stdout.contains("\"stopped\""));
    runtime.call(&["delete", &bundle.id]).done();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    // The name is free again.
    let again = bundle.with(|config| config["annotations"] = json!({}));
    run_detached(&runtime, &again).done();
    runtime.call(&["delete", "--force", &again.id]).done();
}

#[test]
fn a_scope_that_is_in_use_or_frozen_is_refused() {
    needs!(unified());
    let runtime = Runtime::under_test();
    let (bundle, unit) = scoped(&["/bin/sleep", "1000"], "");
    run_detached(&runtime, &bundle).done();
    let path = format!(":pod:{}", bundle.id);
    let second = Bundle::new(&["/bin/true"]).with(|config| config["linux"]["cgroupsPath"] = json!(path));
    run_detached(&runtime, &second).failed(1, "container's cgroup is not empty");
    assert_eq!(property(&unit, "ActiveState"), "active");
    runtime.call(&["delete", "--force", &bundle.id]).done();

    let group = Path::new("/sys/fs/cgroup/system.slice").join(&unit);
    fs::create_dir(&group).expect("make the group");
    fs::write(group.join("cgroup.freeze"), "1").expect("freeze it");
    let frozen = run_detached(&runtime, &bundle);
    fs::remove_dir(&group).expect("remove the group");
    frozen.failed(1, "container's cgroup unexpectedly frozen");
}

#[test]
fn annotations_that_act_on_the_host_are_refused() {
    needs!(unified());
    let runtime = Runtime::under_test();
    let (bundle, unit) = scoped(&["/bin/true"], "");
    let bundle = bundle.with(|config| {
        config["annotations"] = json!({ "org.systemd.property.ExecStop": "'/bin/sh'" });
    });
    run_detached(&runtime, &bundle).failed(1, "may not set this property");
    assert_eq!(property(&unit, "LoadState"), "not-found");
}

/// Every property that a configuration may set, as an annotation, and as systemd shows it.
const PROPERTIES: [(&str, &str, &str); 31] = [
    ("CPUQuotaPerSecUSec", "uint64 500000", "500ms"),
    ("CPUQuotaPeriodUSec", "uint64 200000", "200ms"),
    ("CPUWeight", "uint64 77", "77"),
    ("CollectMode", "'inactive-or-failed'", "inactive-or-failed"),
    ("DefaultDependencies", "false", "no"),
    ("DefaultMemoryLow", "uint64 1048576", "1048576"),
    ("DefaultMemoryMin", "uint64 2097152", "2097152"),
    ("Description", "\"a container's own words\"", "a container's own words"),
    ("FinalKillSignal", "int32 6", "6"),
    ("IOWeight", "uint64 55", "55"),
    ("IPAccounting", "true", "yes"),
    ("IgnoreOnIsolate", "true", "yes"),
    ("JobRunningTimeoutUSec", "uint64 60000000", "1min"),
    ("KillMode", "'mixed'", "mixed"),
    ("KillSignal", "int32 10", "10"),
    ("ManagedOOMMemoryPressure", "'kill'", "kill"),
    ("ManagedOOMPreference", "'avoid'", "avoid"),
    ("ManagedOOMSwap", "'kill'", "kill"),
    ("MemoryHigh", "uint64 104857600", "104857600"),
    ("MemoryLow", "uint64 3145728", "3145728"),
    ("MemoryMax", "uint64 209715200", "209715200"),
    ("MemoryMin", "uint64 4194304", "4194304"),
    ("MemorySwapMax", "uint64 5242880", "5242880"),
    ("OOMPolicy", "'continue'", "continue"),
    ("RuntimeMaxUSec", "uint64 7200000000", "2h"),
    ("SendSIGHUP", "true", "yes"),
    ("SendSIGKILL", "false", "no"),
    ("StartupCPUWeight", "uint64 33", "33"),
    ("StartupIOWeight", "uint64 44", "44"),
    ("TasksMax", "uint64 99", "99"),
    ("TimeoutStopUSec", "double 0.25", "250ms"),
];

#[test]
fn annotations_set_properties_of_every_type() {
    needs!(unified());
    let runtime = Runtime::under_test();
    let (bundle, unit) = scoped(&["/bin/sleep", "1000"], "");
    let bundle = bundle.with(|config| {
        let asked =
            |(name, text, _): &(&str, &str, _)| property_of(&name.replace("StopUSec", "StopSec"), text);
        config["annotations"] = PROPERTIES.iter().map(asked).collect();
        config["annotations"]["org.systemd.property.After"] = json!("['dbus.service', 'basic.target']");
        config["annotations"]["org.systemd.property.Before"] = json!("['shutdown.target']");
    });
    run_detached(&runtime, &bundle).done();
    for (name, _, value) in PROPERTIES {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    let after = property(&unit, "After");
    assert!(["dbus.service", "basic.target"].iter().all(|unit| after.contains(unit)), "{after}");
    assert_eq!(property(&unit, "Before"), "shutdown.target");
    runtime.call(&["delete", "--force", &bundle.id]).done();
}

/// systemd sets this one and then says that it cannot, in every version so far.
#[test]
fn a_property_that_systemd_refuses_is_told_and_leaves_no_unit() {
    needs!(unified());
    let runtime = Runtime::under_test();
    let (bundle, unit) = scoped(&["/bin/sleep", "1000"], "");
    let bundle = bundle.with(|config| {
        config["annotations"] = [property_of("JobTimeoutUSec", "uint64 60000000")].into_iter().collect();
    });
    run_detached(&runtime, &bundle).failed(1, "Cannot set property JobTimeoutUSec");
    assert_eq!(property(&unit, "LoadState"), "not-found");
    runtime.call(&["state", &bundle.id]).failed(1, "does not exist");
}

fn property_of(name: &str, text: &str) -> (String, serde_json::Value) {
    (format!("org.systemd.property.{name}"), json!(text))
}

#[test]
fn a_create_that_fails_leaves_no_unit() {
    needs!(unified());
    let runtime = Runtime::under_test();
    let (bundle, unit) = scoped(&["/no/such/program"], "");
    run_detached(&runtime, &bundle).failed(1, "no such file");
    assert_eq!(property(&unit, "LoadState"), "not-found");
    let (bundle, unit) = scoped(&["/bin/true"], "");
    let bundle = bundle.with(|config| config["linux"]["resources"]["cpu"] = json!({ "cpus": "4000" }));
    let outcome = run_detached(&runtime, &bundle);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_eq!(property(&unit, "LoadState"), "not-found");
}

/// podman with systemd's control groups and the runtime under test; as root, or as a user.
struct Podman<'a> {
    user: Option<&'a User>,
    place: PathBuf,
}

const IMAGE: &str = "localhost/bb:latest";

impl<'a> Podman<'a> {
    fn start(user: Option<&'a User>, scratch: &Scratch) -> Self {
        let place = user.map_or(scratch.path(), User::place).to_path_buf();
        fs::write(place.join("containers.conf"), image::drop_in("podman.conf"))
            .expect("write containers.conf");
        let archive = image::tarball(scratch);
        let archive_here = place.join("image.tar");
        fs::copy(archive, &archive_here).expect("copy the image");
        let podman = Self { user, place };
        podman.call(&["import", archive_here.to_str().expect("UTF-8"), IMAGE]).done();
        podman
    }

    #[track_caller]
    fn call(&self, arguments: &[&str]) -> Outcome {
        let place = self.place.display();
        let settings = format!("CONTAINERS_CONF={place}/containers.conf");
        let (root, run) = (format!("{place}/storage"), format!("{place}/run"));
        let mut all = vec![settings.as_str(), "podman", "--root", &root, "--runroot", &run];
        all.extend(["--storage-driver", "vfs", "--cgroup-manager", "systemd", "--events-backend", "file"]);
        all.extend(arguments);
        match self.user {
            Some(user) => user.call(Path::new("/usr/bin/env"), &all),
            None => quick("/usr/bin/env", &all),
        }
    }

    fn life(&self, slice: &str) {
        let name = unique("p");
        let limits = ["--memory", "64m", "--pids-limit", "30", "--cpus", "0.5"];
        let all =
            [&["run", "-d", "--name", &name, "--network", "none"], &limits[..], &[IMAGE, "sleep", "1000"]]
                .concat();
        self.call(&all).done();
        let pid = self.call(&["inspect", "-f", "{{.State.Pid}} {{.OCIRuntime}}", &name]);
        let (pid, runtime) = pid.text().split_once(' ').expect("two words");
        assert_eq!(runtime, "hull");
        let group = peek(format!("/proc/{pid}/cgroup"));
        assert!(group.contains(slice) && group.contains("libpod-"), "{group}");
        let directory =
            format!("/sys/fs/cgroup{}", group.trim_start_matches("0::").trim_end_matches("/container"));
        let file = |name: &str| peek(format!("{directory}/{name}"));
        assert_eq!(
            [file("memory.max"), file("pids.max"), file("cpu.max")],
            ["67108864", "30", "50000 100000"]
        );
        assert_eq!(self.call(&["exec", &name, "echo", "inside"]).text(), "inside");
        self.call(&["update", "--memory", "32m", "--memory-swap", "32m", &name]).done();
        assert_eq!(file("memory.max"), "33554432");
        self.call(&["pause", &name]).done();
        assert_eq!(file("cgroup.freeze"), "1");
        self.call(&["unpause", &name]).done();
        self.call(&["stop", "--time", "0", &name]).done();
        self.call(&["rm", "--force", "--time", "0", &name]).done();
        assert!(!Path::new(&directory).exists(), "{directory} is left");
        assert_eq!(self.call(&["run", "--rm", "--network", "none", IMAGE, "sh", "-c", "exit 7"]).code, 7);
    }
}

#[test]
fn podman_runs_containers_in_scopes_of_systemd() {
    needs!(unified(), gate::program("podman"));
    let scratch = Scratch::new("podman");
    Podman::start(None, &scratch).life("/machine.slice/");
}

#[test]
fn rootless_podman_runs_containers_in_scopes_of_the_users_systemd() {
    needs!(unified(), gate::program("podman"), user::known(1000));
    let scratch = Scratch::new("podman");
    let user = User::new(1000);
    Podman::start(Some(&user), &scratch).life("/user@1000.service/");
}

#[test]
fn containerd_runs_containers_in_scopes_of_systemd() {
    needs!(unified(), gate::program("containerd"), gate::program("ctr"), gate::program("podman"));
    let _slice = Slice("testkitctr.slice");
    let containerd = Containerd::start();
    let name = unique("scope");
    let path = format!("testkitctr-a.slice:ctr:{name}");
    let options =
        ["-d", "--runc-systemd-cgroup", "--cgroup", &path, "--memory-limit", "33554432", "--cpus", "0.5"];
    containerd.run(&options, &name, &["sleep", "1000"]).done();
    let unit = format!("ctr-{name}.scope");
    assert_eq!([property(&unit, "MemoryMax"), property(&unit, "CPUQuotaPerSecUSec")], ["33554432", "500ms"]);
    assert_eq!(containerd.ctr(&["task", "exec", "--exec-id", "e", &name, "echo", "inside"]).text(), "inside");
    let listed = containerd.ctr(&["task", "ls"]);
    assert!(
        listed.text().lines().any(|line| line.starts_with(&name) && line.ends_with("RUNNING")),
        "{listed:?}"
    );
    containerd.ctr(&["task", "rm", "--force", &name]).done();
    assert_eq!(property(&unit, "LoadState"), "not-found");
}
