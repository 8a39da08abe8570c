//! Control groups as the kernel shows them from outside: on whatever this machine has, version 1 or 2.
#![forbid(unsafe_code)]

mod update;

use std::fs;
use std::path::{Path, PathBuf};

use hull_testkit::call::{Outcome, PATIENCE, eventually};
use hull_testkit::gate::Gate;
use hull_testkit::runtime::{cgroup_dir, ours, peek};
use hull_testkit::{Bundle, Runtime, Scratch, gate, needs};
use rustix::fs::inotify;
use serde_json::{Value, json};

const TREE: &str = "/sys/fs/cgroup";

fn is_v2() -> bool {
    Path::new(TREE).join("cgroup.controllers").exists()
}

fn pure_v2() -> Gate {
    if is_v2() { Ok(()) } else { Err("needs pure version 2 control groups".to_owned()) }
}

/// A file of the container's group: by controller on version 1, in the one tree on version 2.
fn file(bundle: &Bundle, controller: &str, name: &str) -> PathBuf {
    cgroup_dir(controller, bundle).join(name)
}

/// Updates by document, for what has no option of its own.
fn update(runtime: &Runtime, bundle: &Bundle, resources: &Value) {
    try_update(runtime, bundle, resources).done();
}

fn try_update(runtime: &Runtime, bundle: &Bundle, resources: &Value) -> Outcome {
    let path = runtime.beside("resources.json");
    fs::write(&path, resources.to_string()).expect("write the document");
    let path = path.to_str().expect("UTF-8");
    runtime.call(&["update", "--resources", path, &bundle.id])
}

#[test]
fn unified_values_are_written_as_they_are() {
    needs!(gate::root(), gate::program("busybox"), pure_v2());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]).with(|config| {
        config["linux"]["resources"]["unified"] =
            json!({ "memory.high": "50331648", "memory.oom.group": "1", "cpu.weight": "77" });
    });
    let _container = runtime.start(&bundle);
    let value = |name: &str| peek(file(&bundle, "", name));
    assert_eq!(
        [value("memory.high"), value("memory.oom.group"), value("cpu.weight")],
        ["50331648", "1", "77"]
    );
    update(&runtime, &bundle, &json!({ "unified": { "memory.high": "max", "pids.max": "12" } }));
    assert_eq!([value("memory.high"), value("pids.max")], ["max", "12"]);
}

#[test]
fn limits_stop_the_container_and_are_told() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let limited = |script: &str, resources: Value| {
        let bundle = Bundle::shell(script).with(|config| {
            for (name, value) in resources.as_object().expect("an object") {
                config["linux"]["resources"][name] = value.clone();
            }
        });
        runtime.run(&bundle)
    };
    let hungry = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo survived";
    let outcome = limited(hungry, json!({ "memory": { "limit": 20_971_520, "swap": 20_971_520 } }));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (137, ""), "{outcome:?}");
    let forks = "sleep 9 & sleep 9 & sleep 9 & sleep 9 & echo all; kill $(jobs -p) 2>/dev/null";
    let outcome = limited(forks, json!({ "pids": { "limit": 3 } }));
    assert!(outcome.stderr.contains("fork") && !outcome.stdout.contains("all"), "{outcome:?}");
}

#[test]
fn only_listed_devices_can_be_used() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let script = "mknod /kmsg c 1 11; mknod /null2 c 1 3; echo > /null2 && echo null; (: > /kmsg) 2>/dev/null && echo kmsg; true";
    let bundle = |rules: Value| {
        Bundle::shell(script).with(|config| {
            config["linux"]["resources"]["devices"] = rules;
            let sets = config["process"]["capabilities"].as_object_mut().expect("an object");
            sets.values_mut().for_each(|set| set.as_array_mut().expect("a list").push(json!("CAP_MKNOD")));
        })
    };
    let listed = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "access": "m" },
        { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" }
    ]);
    assert_eq!(runtime.run(&bundle(listed)).text(), "null");
    let both = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "access": "m" },
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "w" }
    ]);
    assert_eq!(runtime.run(&bundle(both.clone())).text(), "null\nkmsg", "the default devices need no rule");
    // Updated while it runs: the same node opens before and not after.
    let bundle = bundle(both).with(|config| {
        config["process"]["args"] = json!(["/bin/sh", "-c", "mknod /kmsg c 1 11; exec sleep 1000"]);
    });
    let container = runtime.start(&bundle);
    assert!(eventually(PATIENCE, || bundle.root().join("kmsg").exists()));
    let write = ["sh", "-c", ": > /kmsg"];
    container.exec(&[], &write).done();
    update(&runtime, &bundle, &json!({ "devices": [{ "allow": false, "access": "rwm" }] }));
    container.exec(&[], &write).failed(1, "Operation not permitted");
    container.exec(&[], &["sh", "-c", "echo > /dev/null"]).done();
}

#[test]
fn a_paused_container_stands_still_and_can_be_killed() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("while :; do echo >> /beats; sleep 0.05; done");
    let container = runtime.start(&bundle);
    let beats = || fs::metadata(bundle.root().join("beats")).map(|file| file.len()).unwrap_or_default();
    assert!(eventually(PATIENCE, || beats() > 2));
    container.call("pause", &[]).done();
    assert_eq!(container.status(), "paused");
    let frozen = if is_v2() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    assert_eq!(peek(file(&bundle, "freezer", frozen.0)), frozen.1);
    let still = beats();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(beats(), still);
    container.call("resume", &[]).done();
    assert!(eventually(PATIENCE, || beats() > still));
    container.call("pause", &[]).done();
    container.call("kill", &["KILL"]).done();
    assert!(container.becomes("stopped"));
    container.call("delete", &[]).done();
    assert!(!file(&bundle, "freezer", "").exists());
}

#[test]
fn statistics_show_pressure_and_memory_on_version_2() {
    needs!(gate::root(), gate::program("busybox"), pure_v2(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"])
        .with(|config| config["linux"]["resources"]["memory"] = json!({ "limit": 67_108_864 }));
    let container = runtime.start(&bundle);
    let event: Value = serde_json::from_str(container.call("events", &["--stats"]).text()).expect("JSON");
    let data = &event["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert_eq!(data["pids"]["current"], 1);
    for part in ["cpu", "memory", "blkio"] {
        assert!(data[part]["psi"]["some"]["total"].is_u64(), "{part}: {data}");
    }
}

#[test]
fn running_out_of_memory_is_an_event() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let hungry = "read go < /go; (x=$(head -c 90000000 /dev/zero | tr '\\0' x)); sleep 1000";
    let bundle = Bundle::shell(hungry).with(|config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 20_971_520, "swap": 20_971_520 });
    });
    let go = bundle.root().join("go");
    hull_testkit::call::quick("mkfifo", &[go.to_str().expect("UTF-8")]).done();
    let container = runtime.start(&bundle);
    let log = Scratch::new("events");
    let mut events = runtime
        .command(&["events", "--interval", "1h", &bundle.id])
        .stdout(fs::File::create(log.join("log")).expect("make a file"))
        .spawn()
        .expect("start events");
    // The watch has to be there before the memory is gone.
    assert!(eventually(PATIENCE, || {
        let fds = fs::read_dir(format!("/proc/{}/fd", events.id())).into_iter().flatten().flatten();
        let mut links = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        links.any(|link| {
            let link = link.to_string_lossy().into_owned();
            link.contains("inotify") || link.contains("eventfd")
        })
    }));
    fs::write(&go, "\n").expect("let it go");
    let seen = || peek(log.join("log")).lines().any(|line| line.contains(r#""type":"oom""#));
    assert!(eventually(PATIENCE, seen), "{}", peek(log.join("log")));
    container.call("kill", &["KILL"]).done();
    events.wait().expect("events ends with the container");
}

/// CVE-2025-47291: a user namespace of its own takes nobody out of the groups, neither the first process nor what joins it.
#[test]
fn a_container_with_its_own_users_is_in_every_group() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]).with(|config| {
        let maps = json!([{ "containerID": 0, "hostID": 300_000, "size": 65536 }]);
        config["linux"]["uidMappings"] = maps.clone();
        config["linux"]["gidMappings"] = maps;
        config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
    });
    hull_testkit::call::quick("chown", &["-R", "300000:300000", bundle.root().to_str().expect("UTF-8")])
        .done();
    let container = runtime.start(&bundle);
    let groups = |pid: &str| peek(format!("/proc/{pid}/cgroup"));
    let of_init = groups(&container.pid().to_string());
    let outside: Vec<_> =
        of_init.lines().filter(|line| !line.ends_with(&format!("/{}", bundle.id))).collect();
    assert_eq!(outside, [""; 0], "of {of_init}");
    container.exec(&["--detach"], &["/bin/sleep", "1001"]).done();
    let listed = runtime.call(&["ps", "--format", "json", &bundle.id]);
    let pids: Vec<i32> = serde_json::from_str(listed.text()).expect("a list of numbers");
    let joined = pids.iter().find(|pid| **pid != container.pid()).expect("the joined process");
    assert_eq!(groups(&joined.to_string()), of_init);
}

/// Without a cgroup namespace the paths of /proc/self/cgroup are the host's, and so is what the mount shows: a program that
/// was given the host's view finds itself there, and may go elsewhere.
#[test]
fn without_a_cgroup_namespace_the_mount_shows_the_hosts_tree() {
    needs!(gate::root(), gate::program("busybox"), pure_v2());
    let runtime = Runtime::under_test();
    let group = Path::new(TREE).join(hull_testkit::place::unique("elsewhere"));
    fs::create_dir(&group).expect("make a group");
    let script = format!("echo 1 > {}/cgroup.procs && exec sleep 1000", group.display());
    let bundle = |option: &str| {
        Bundle::shell(&script).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
            namespaces.retain(|namespace| namespace["type"] != "cgroup");
            let mounts = config["mounts"].as_array_mut().expect("a list");
            mounts.last_mut().expect("the cgroup mount")["options"] =
                json!(["nosuid", "noexec", "nodev", option]);
        })
    };
    let free = bundle("rw");
    let container = runtime.start(&free);
    let procs = group.join("cgroup.procs");
    assert!(eventually(PATIENCE, || peek(&procs) == container.pid().to_string()));
    fs::remove_dir(file(&free, "", "")).expect("nobody is in the container's own group");
    container.exec(&[], &["grep", "-q", "elsewhere", "/proc/self/cgroup"]).done();
    drop(container);
    assert_eq!(peek(&procs), "", "what left its group ends with the container");
    let bound = bundle("ro");
    let outcome = runtime.call(&["run", "-b", bound.path().to_str().expect("UTF-8"), &bound.id]);
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    fs::remove_dir(&group).expect("nobody is in it");
}

/// The options of version 2 are one for all its mounts in the host's namespace: another mount would take nsdelegate and
/// memory_recursiveprot away from everybody.
#[test]
fn a_joined_cgroup_namespace_that_is_the_hosts_gets_no_mount_of_its_own() {
    needs!(gate::root(), gate::program("busybox"), pure_v2(), ours());
    let runtime = Runtime::under_test();
    let kind_and_options = |pid: &str| {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("the mounts");
        let line = table.lines().find(|line| line.contains(" - cgroup2 ")).expect("the tree").to_owned();
        line.split_once(" - ").expect("what is mounted").1.to_owned()
    };
    let before = kind_and_options("self");
    let bundle = Bundle::new(&["/bin/sleep", "1000"]).with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        namespaces.push(json!({ "type": "cgroup", "path": "/proc/self/ns/cgroup" }));
    });
    let container = runtime.start(&bundle);
    assert_eq!(kind_and_options(&container.pid().to_string()), before, "inside");
    assert_eq!(kind_and_options("self"), before, "outside");
}

/// The container's own group may be gone: somebody moved its first process, and systemd removes what is empty.
#[test]
fn exec_goes_where_the_first_process_was_moved_to() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let container = runtime.start(&bundle);
    let init = container.pid().to_string();
    let name = hull_testkit::place::unique("moved");
    let owns = ["pids", "unified"].map(|hierarchy| file(&bundle, hierarchy, ""));
    let owns: Vec<_> = owns.into_iter().filter(|own| own.exists()).collect();
    // On version 2 both names mean the one tree.
    for own in &owns[..if is_v2() { 1 } else { owns.len() }] {
        let moved = own.parent().expect("it is below the tree").join(&name);
        fs::create_dir(&moved).expect("make a group");
        fs::write(moved.join("cgroup.procs"), &init).expect("move the process");
        fs::remove_dir(own).expect("remove the container's group");
    }
    let pid_file = runtime.beside("pid");
    let path = pid_file.to_str().expect("UTF-8");
    container.exec(&["--detach", "--pid-file", path], &["/bin/sleep", "1001"]).done();
    let below = if is_v2() { "/" } else { "pids:/" };
    let refused = container.exec(&["--cgroup", below], &["true"]);
    let joined = peek(format!("/proc/{}/cgroup", peek(&pid_file)));
    let of_init = peek(format!("/proc/{init}/cgroup"));
    drop(container);
    for own in &owns {
        let _ = fs::remove_dir(own.parent().expect("it is below the tree").join(&name));
    }
    assert!(of_init.contains(&name), "{of_init}");
    assert_eq!(joined, of_init);
    refused.failed(255, "no such file or directory");
}

#[test]
fn a_delegated_group_belongs_to_the_containers_user() {
    needs!(gate::root(), gate::program("busybox"), pure_v2());
    let runtime = Runtime::under_test();
    let bundle = |options: Value| {
        Bundle::shell(
            "mkdir /sys/fs/cgroup/own && echo $$ > /sys/fs/cgroup/own/cgroup.procs && echo moved; sleep 1000",
        )
        .with(|config| {
            let mounts = config["mounts"].as_array_mut().expect("a list");
            mounts.last_mut().expect("the cgroup mount")["options"] = options;
            config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            let maps = json!([{ "containerID": 0, "hostID": 300_000, "size": 65536 }]);
            config["linux"]["uidMappings"] = maps.clone();
            config["linux"]["gidMappings"] = maps;
            config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
        })
    };
    use std::os::unix::fs::MetadataExt;
    let owner = |bundle: &Bundle, name: &str| {
        fs::metadata(file(bundle, "", name)).map(|meta| meta.uid()).expect("look at a file of the group")
    };
    let own = bundle(json!(["nosuid", "noexec", "nodev", "rw"]));
    hull_testkit::call::quick("chown", &["-R", "300000:300000", own.root().to_str().expect("UTF-8")]).done();
    let container = runtime.start(&own);
    assert_eq!(
        [owner(&own, ""), owner(&own, "cgroup.procs"), owner(&own, "cgroup.subtree_control")],
        [301_000; 3]
    );
    assert_eq!(owner(&own, "memory.max"), 0, "the container does not own its limits");
    assert!(eventually(PATIENCE, || peek(file(&own, "", "own/cgroup.procs")) == container.pid().to_string()));
    // exec goes into the group that the first process went to: the upper one may hand controllers on and hold nobody.
    fs::write(file(&own, "", "cgroup.subtree_control"), "+pids").expect("hand a controller on");
    container.exec(&[], &["true"]).done();

    let shown = bundle(json!(["nosuid", "noexec", "nodev", "ro"]));
    hull_testkit::call::quick("chown", &["-R", "300000:300000", shown.root().to_str().expect("UTF-8")])
        .done();
    let _container = runtime.start(&shown);
    assert_eq!(owner(&shown, "cgroup.procs"), 0, "a read-only mount delegates nothing");
}

#[test]
fn a_threaded_group_is_refused_with_the_reason() {
    needs!(gate::root(), gate::program("busybox"), pure_v2(), ours());
    let runtime = Runtime::under_test();
    let parent = Path::new(TREE).join(hull_testkit::place::unique("threaded"));
    fs::create_dir(&parent).expect("make a group");
    fs::create_dir(parent.join("threads")).expect("make a group");
    fs::write(parent.join("threads/cgroup.type"), "threaded").expect("make it threaded");
    let path = format!("/{}/threads/c", parent.file_name().and_then(|name| name.to_str()).expect("UTF-8"));
    let bundle = Bundle::new(&["/bin/true"]).with(|config| config["linux"]["cgroupsPath"] = json!(path));
    let outcome = runtime.run(&bundle);
    let left = parent.join("threads/c").exists();
    fs::remove_dir(parent.join("threads")).expect("remove the group");
    fs::remove_dir(&parent).expect("remove the group");
    outcome.failed(1, "threaded");
    assert!(!left, "the container's group is left");
}

#[test]
fn a_limit_that_version_2_has_no_word_for_is_refused() {
    needs!(gate::root(), gate::program("busybox"), pure_v2(), ours());
    let runtime = Runtime::under_test();
    let table = [
        (json!({ "memory": { "swappiness": 10 } }), "memory/swappiness"),
        (json!({ "memory": { "disableOOMKiller": true } }), "memory/disableOOMKiller"),
        (json!({ "cpu": { "realtimeRuntime": 1000 } }), "cpu/realtimeRuntime"),
        (json!({ "network": { "classID": 7 } }), "network/classID"),
    ];
    for (resources, field) in table {
        let bundle =
            Bundle::new(&["/bin/true"]).with(|config| config["linux"]["resources"] = resources.clone());
        let outcome = runtime.run(&bundle);
        outcome.failed(1, "cgroup version 2 has no equivalent");
        assert!(outcome.stderr.contains(field), "{outcome:?}");
        assert!(!file(&bundle, "", "").exists());
    }
}

/// The file that kills is written, and nobody is stopped to be signalled one by one.
#[test]
fn all_processes_are_killed_by_one_write_on_version_2() {
    needs!(gate::root(), gate::program("busybox"), pure_v2(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("sleep 1000 & sleep 1000 & wait").with(|config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let container = runtime.start(&bundle);
    let members = || peek(file(&bundle, "", "cgroup.procs")).lines().count();
    assert!(eventually(PATIENCE, || members() == 3));
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).expect("watch files");
    let [kill, _freeze] = ["cgroup.kill", "cgroup.freeze"].map(|name| {
        inotify::add_watch(&watch, file(&bundle, "", name), inotify::WatchFlags::MODIFY)
            .expect("watch a file")
    });
    container.call("kill", &["--all", "KILL"]).done();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
    let mut written = inotify::Reader::new(&watch, &mut buffer);
    assert_eq!(written.next().expect("a file was written").wd(), kill);
    assert!(written.next().is_err(), "another file was written");
    assert!(eventually(PATIENCE, || members() == 0));
    assert!(container.becomes("stopped"));
}

#[test]
fn nothing_that_forks_outlives_its_container() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle =
        Bundle::shell("i=0; while [ $i -lt 60 ]; do (while :; do sleep 0.1; done) & i=$((i+1)); done; wait")
            .with(|config| {
                config["linux"]["resources"]["pids"] = json!({ "limit": 200 });
                let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
                namespaces.retain(|namespace| namespace["type"] != "pid");
            });
    let _container = runtime.start(&bundle);
    let members = || peek(file(&bundle, "pids", "cgroup.procs")).lines().count();
    assert!(eventually(PATIENCE, || members() > 50));
    runtime.call(&["delete", "--force", &bundle.id]).done();
    assert!(!file(&bundle, "pids", "").exists());
}
