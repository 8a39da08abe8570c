//! The life of one container, seen from its caller: statuses, exit codes, signals, what is left behind.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::runtime::{cgroup_dir, ours, peek};
use hull_testkit::{Bundle, Runtime, gate, needs};
use serde_json::json;

#[test]
fn run_prints_the_output_and_passes_the_exit_status() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let outcome = runtime.run(&Bundle::shell("echo out; echo err >&2; exit 7"));
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "err\n"));
}

#[test]
fn run_reports_a_death_by_signal_as_128_and_the_signal() {
    needs!(gate::root(), gate::program("busybox"));
    // Process 1 of a pid namespace ignores signals without a handler, so a process outside has to send it.
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("echo runs; exec sleep 60");
    let mut run = runtime
        .command(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the runtime");
    // A program that is killed before it runs is an error of the runtime's, with another status.
    let mut line = String::new();
    let output = run.stdout.take().expect("the output is a pipe");
    BufReader::new(output).read_line(&mut line).expect("read the output");
    assert_eq!(line, "runs\n");
    runtime.call(&["kill", &bundle.id, "KILL"]).done();
    let status = run.wait().expect("wait for the runtime");
    assert_eq!(status.code(), Some(137));
}

#[test]
fn a_container_is_created_running_stopped_and_gone() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("trap 'exit 3' TERM; echo ready >/ready; while :; do sleep 0.05; done");
    let container = runtime.create(&bundle);
    assert_eq!(container.status(), "created");
    assert!(!bundle.root().join("ready").exists(), "the program runs before start");

    container.call("start", &[]).done();
    assert_eq!(container.status(), "running");
    assert!(eventually(PATIENCE, || bundle.root().join("ready").exists()));

    container.call("kill", &["TERM"]).done();
    assert!(container.becomes("stopped"));
    container.call("delete", &[]).done();
    container.call("state", &[]).failed(1, "does not exist");
}

#[test]
fn state_names_the_bundle_the_process_and_the_annotations() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"])
        .with(|config| config["annotations"] = serde_json::json!({ "org.example.key": "value" }));
    let container = runtime.start(&bundle);
    let state = container.state();
    assert_eq!(state["id"], bundle.id.as_str());
    assert_eq!(state["bundle"], bundle.path().to_str().expect("UTF-8"));
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert!(state["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{state}");
    let line = peek(format!("/proc/{}/cmdline", container.pid()));
    assert_eq!(line.trim_end_matches('\0'), "/bin/sleep\u{0}60");
}

#[test]
fn delete_refuses_a_running_container_unless_forced() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    container.call("delete", &[]).failed(1, "is not stopped");
    assert_eq!(container.status(), "running");
    let pid = container.pid();
    runtime.call(&["delete", "--force", &bundle.id]).done();
    assert!(eventually(PATIENCE, || peek(format!("/proc/{pid}/cmdline")).is_empty()));
}

#[test]
fn delete_leaves_no_state_and_no_cgroup() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    let controllers = ["cpu", "cpuset", "devices", "freezer", "memory", "pids"];
    for controller in controllers {
        let members = peek(cgroup_dir(controller, &bundle).join("cgroup.procs"));
        assert_eq!(members, container.pid().to_string(), "members of the {controller} cgroup");
    }
    runtime.call(&["delete", "--force", &bundle.id]).done();
    for controller in controllers {
        assert!(!cgroup_dir(controller, &bundle).exists(), "the {controller} cgroup is left");
    }
    let left: Vec<_> = fs::read_dir(runtime.state_dir()).expect("read the state directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_second_create_of_the_same_id_is_refused_and_harmless() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    let path = bundle.path().to_str().expect("UTF-8");
    runtime.call(&["create", "--bundle", path, &bundle.id]).failed(1, "exist");
    assert_eq!(container.status(), "running");
}

#[test]
fn start_of_a_running_container_is_refused() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    container.call("start", &[]).failed(1, "running");
    assert_eq!(container.status(), "running");
}

#[test]
fn init_killed_while_nobody_waits_shows_as_stopped() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    container.call("kill", &["KILL"]).done();
    assert!(container.becomes("stopped"));
    container.exec(&[], &["/bin/true"]).failed(255, "");
    container.call("kill", &["TERM"]).failed(1, "container not running");
    container.call("delete", &[]).done();
}

#[test]
fn kill_takes_names_with_and_without_sig_and_numbers() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell(
        "for s in USR1 USR2 HUP; do trap \"echo $s >>/seen\" $s; done; echo up >>/seen; while :; do sleep 0.02; done",
    );
    let container = runtime.start(&bundle);
    let seen = bundle.root().join("seen");
    for (signal, expected) in
        [("", "up"), ("USR1", "up\nUSR1"), ("SIGUSR2", "up\nUSR1\nUSR2"), ("1", "up\nUSR1\nUSR2\nHUP")]
    {
        if !signal.is_empty() {
            container.call("kill", &[signal]).done();
        }
        assert!(eventually(PATIENCE, || peek(&seen) == expected), "after {signal:?}: {:?}", peek(&seen));
    }
    container.call("kill", &["NOSUCH"]).failed(1, "signal");
}

#[test]
fn pause_stops_every_process_and_resume_lets_them_go_on() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups());
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("while :; do echo x >>/ticks; sleep 0.02; done");
    let container = runtime.start(&bundle);
    let ticks = bundle.root().join("ticks");
    let size = || fs::metadata(&ticks).map_or(0, |meta| meta.len());
    assert!(eventually(PATIENCE, || size() > 0));
    container.call("pause", &[]).done();
    assert_eq!(container.status(), "paused");
    let before = size();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(size(), before, "the container runs while paused");
    container.exec(&[], &["/bin/true"]).failed(255, "paused");
    container.call("resume", &[]).done();
    assert_eq!(container.status(), "running");
    assert!(eventually(PATIENCE, || size() > before));
}

#[test]
fn a_paused_container_can_be_deleted_by_force() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    container.call("pause", &[]).done();
    runtime.call(&["delete", "--force", &bundle.id]).done();
    assert!(!cgroup_dir("freezer", &bundle).exists());
}

#[test]
fn ps_and_list_show_the_container() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    assert_eq!(
        runtime.call(&["ps", "--format", "json", &bundle.id]).text(),
        format!("[{}]", container.pid())
    );
    assert_eq!(runtime.call(&["list", "--quiet"]).text(), bundle.id);
    let listed: serde_json::Value =
        serde_json::from_str(runtime.call(&["list", "--format", "json"]).text()).expect("JSON");
    assert_eq!(listed[0]["id"], bundle.id.as_str());
    assert_eq!(listed[0]["status"], "running");
    assert_eq!(listed[0]["pid"], container.pid());
}

#[test]
fn pid_file_holds_the_host_id_of_process_1() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let file = runtime.beside("pid");
    let path = bundle.path().to_str().expect("UTF-8");
    runtime
        .call(&["run", "--detach", "--pid-file", file.to_str().expect("UTF-8"), "--bundle", path, &bundle.id])
        .done();
    let state: serde_json::Value =
        serde_json::from_str(runtime.call(&["state", &bundle.id]).text()).expect("JSON");
    assert_eq!(peek(&file), state["pid"].to_string());
    runtime.call(&["delete", "--force", &bundle.id]).done();
}

#[test]
fn limits_reach_the_cgroup_and_update_changes_them() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroup_v1());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]).with(|config| {
        config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 64 << 20 });
        config["linux"]["resources"]["pids"] = serde_json::json!({ "limit": 17 });
        config["linux"]["resources"]["cpu"] =
            serde_json::json!({ "shares": 512, "quota": 20000, "period": 100_000 });
    });
    let container = runtime.start(&bundle);
    let value = |controller: &str, file: &str| peek(cgroup_dir(controller, &bundle).join(file));
    assert_eq!(value("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(value("pids", "pids.max"), "17");
    assert_eq!(value("cpu", "cpu.shares"), "512");
    assert_eq!(value("cpu", "cpu.cfs_quota_us"), "20000");
    container.call("update", &["--memory", "33554432", "--pids-limit", "20"]).done();
    assert_eq!(value("memory", "memory.limit_in_bytes"), "33554432");
    assert_eq!(value("pids", "pids.max"), "20");
}

#[test]
fn a_process_over_its_memory_limit_is_killed() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups());
    let bundle = Bundle::shell("exec tail -c 200m /dev/zero")
        .with(|config| config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 16 << 20 }));
    assert_eq!(Runtime::under_test().run(&bundle).code, 137);
}

#[test]
fn a_container_without_a_program_is_created_with_a_filter_and_not_started() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&[]).with(|config| {
        config.as_object_mut().expect("an object").remove("process");
        config["linux"]["seccomp"] = serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    });
    let container = runtime.create(&bundle);
    assert_eq!(container.status(), "created");
    container.call("start", &[]).failed(1, "no process to start");
}

#[test]
fn an_interrupted_create_is_stopped_and_deleted_without_force() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    // The hook's parent is the container's process, and the parent of that is the runtime: before the record has a pid.
    let script = "kill -KILL $(sed 's/.*) . //; s/ .*//' /proc/$PPID/stat)";
    let bundle = Bundle::new(&["/bin/true"]).with(|config| {
        config["hooks"] =
            serde_json::json!({ "createContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let path = bundle.path().to_str().expect("UTF-8");
    assert_ne!(runtime.call(&["create", "--bundle", path, &bundle.id]).code, 0);
    let state = || runtime.call(&["state", &bundle.id]).stdout.clone();
    assert!(eventually(PATIENCE, || state().contains("\"status\": \"stopped\"")), "{}", state());
    runtime.call(&["delete", &bundle.id]).done();
    runtime.call(&["state", &bundle.id]).failed(1, "does not exist");
}

/// What a delete that was killed at its very end leaves, or a create at its beginning.
#[test]
fn an_empty_state_directory_is_no_container_and_goes_with_a_delete() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/true"]);
    let directory = runtime.state_dir().join(&bundle.id);
    std::fs::create_dir_all(&directory).expect("make a directory");
    runtime.call(&["state", &bundle.id]).failed(1, "does not exist");
    runtime.call(&["kill", &bundle.id]).failed(1, "does not exist");
    assert!(directory.exists());
    runtime.call(&["delete", &bundle.id]).failed(1, "does not exist");
    assert!(!directory.exists());
    runtime.create(&bundle).call("delete", &["--force"]).done();
}

#[test]
fn without_control_groups_and_pid_namespace_the_first_process_is_killed() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    for arguments in [&["KILL"][..], &["--all", "KILL"]] {
        let bundle = Bundle::new(&["/bin/sleep", "60"]).with(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("an array");
            namespaces.retain(|namespace| namespace["type"] != "pid");
            config["linux"].as_object_mut().expect("an object").remove("resources");
        });
        let path = bundle.path().to_str().expect("UTF-8");
        runtime
            .call(&["--cgroup-manager", "disabled", "run", "--detach", "--bundle", path, &bundle.id])
            .done();
        let kill = [&["kill", &bundle.id][..], arguments].concat();
        runtime.call(&kill).done();
        let state = || runtime.call(&["state", &bundle.id]).stdout.clone();
        assert!(eventually(PATIENCE, || state().contains("\"status\": \"stopped\"")), "{arguments:?}");
        runtime.call(&["delete", "--force", &bundle.id]).done();
    }
}

#[test]
fn without_control_groups_nothing_is_claimed_about_the_processes() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"])
        .with(|config| drop(config["linux"].as_object_mut().expect("an object").remove("resources")));
    let path = bundle.path().to_str().expect("UTF-8");
    runtime.call(&["--cgroup-manager", "disabled", "run", "--detach", "--bundle", path, &bundle.id]).done();
    let rules = runtime.beside("rules");
    fs::write(&rules, json!({ "devices": [{ "allow": false, "access": "rwm" }] }).to_string())
        .expect("write");
    let update = ["update", "--resources", rules.to_str().expect("UTF-8"), &bundle.id];
    let asked: [&[&str]; 5] = [
        &["ps", &bundle.id],
        &["ps", "--format", "json", &bundle.id],
        &["events", "--stats", &bundle.id],
        &["events", &bundle.id],
        &update,
    ];
    let answers = asked.map(|arguments| runtime.call(arguments));
    runtime.call(&["delete", "--force", &bundle.id]).done();
    for answer in answers {
        answer.failed(1, "the container has no control group of its own");
    }
}

#[test]
fn a_read_only_tmpfs_takes_mounts_below_it() {
    needs!(gate::root(), gate::program("busybox"));
    let bundle = Bundle::shell(
        "ls /below; touch /below/x 2>/dev/null || echo read-only; touch /below/a/x && echo made",
    )
    .with(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts
            .push(json!({ "destination": "/below", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] }));
        mounts.push(json!({ "destination": "/below/a", "type": "tmpfs", "source": "tmpfs" }));
    });
    let outcome = Runtime::under_test().run(&bundle);
    outcome.done();
    assert_eq!(outcome.text(), "a\nread-only\nmade");
}

#[test]
fn a_profile_that_denies_every_call_ends_the_container() {
    needs!(gate::root(), gate::program("busybox"));
    let bundle = Bundle::new(&["/bin/true"])
        .with(|config| config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ERRNO" }));
    let runtime = Runtime::under_test();
    let outcome = runtime.run(&bundle);
    assert!(matches!(outcome.code, 1 | 132), "{outcome:?}");
    runtime.call(&["state", &bundle.id]).failed(1, "does not exist");
}

#[test]
fn resources_for_update_are_read_as_strictly_as_a_configuration() {
    needs!(gate::root(), gate::program("busybox"), gate::cgroups(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    let file = runtime.beside("resources.json");
    let given = file.to_str().expect("UTF-8");
    for (document, reason) in [
        (r#"{"memory":{"limit":33554432},"memory":{"limit":1}}"#, "memory"),
        (r#"[]"#, "object"),
        (r#"{"pids":{"limit":"7"}}"#, "invalid type"),
        (r#"{}}},"linux":{"resources":{"pids":{"limit":7}"#, "resources in"),
    ] {
        fs::write(&file, document).expect("write");
        container.call("update", &["--resources", given]).failed(1, reason);
    }
    // The case of names does not count, as for callers of runc.
    for (document, limit) in [(r#"{"pids":{"limit":23}}"#, "23"), (r#"{"Pids":{"LIMIT":24}}"#, "24")] {
        fs::write(&file, document).expect("write");
        container.call("update", &["--resources", given]).done();
        assert_eq!(peek(cgroup_dir("pids", &bundle).join("pids.max")), limit);
    }
}

#[test]
fn a_start_killed_after_the_gate_was_opened_leaves_no_created_container() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    // A profile that denies what the usual gate takes.
    let bundle = Bundle::new(&["/bin/sleep", "60"]).with(|config| {
        config["linux"]["seccomp"] = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["accept4"], "action": "SCMP_ACT_ERRNO" }]
        });
    });
    let container = runtime.create(&bundle);
    assert_eq!(container.status(), "created");
    let gate = runtime.state_dir().join(&bundle.id).join("gate");
    fs::write(&gate, "g").expect("what start does before it is killed");
    assert!(container.becomes("running"), "{}", container.status());
    assert!(gate.exists());
}

#[test]
fn run_starts_a_program_whose_profile_denies_what_the_link_takes() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let bundle = Bundle::shell("echo up; exit 5").with(|config| {
        config["linux"]["seccomp"] = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["recvmsg"], "action": "SCMP_ACT_ERRNO" }]
        });
    });
    let outcome = Runtime::under_test().run(&bundle);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (5, "up\n"), "{}", outcome.stderr);
}

#[test]
fn a_program_that_never_ran_is_no_success() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let kills = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS" }] });
    let bundle = Bundle::new(&["/bin/true"]).with(|config| config["linux"]["seccomp"] = kills);
    let path = bundle.path().to_str().expect("UTF-8");
    let options = ["--log-format", "json", "run", "--bundle", path, &bundle.id];
    let outcome = runtime.call(&options);
    outcome.failed(1, "was killed by signal 31");
    assert!(outcome.stderr.contains("/linux/seccomp"), "{}", outcome.stderr);
    runtime.call(&["state", &bundle.id]).failed(1, "does not exist");
    let detached = runtime.call(&["run", "--detach", "--bundle", path, &bundle.id]);
    detached.failed(1, "was killed by signal 31");
}

#[test]
fn a_missing_working_directory_is_made_in_a_root_that_becomes_read_only() {
    needs!(gate::root(), gate::program("busybox"));
    let bundle = Bundle::shell("pwd; mkdir /other 2>/dev/null || echo read-only").with(|config| {
        config["root"]["readonly"] = json!(true);
        config["process"]["cwd"] = json!("/srv/not/there");
    });
    let outcome = Runtime::under_test().run(&bundle);
    outcome.done();
    assert_eq!(outcome.text(), "/srv/not/there\nread-only");
}

#[test]
fn ids_are_mapped_of_a_source_that_an_earlier_mount_shows() {
    needs!(gate::root(), gate::program("busybox"));
    let outside = hull_testkit::Scratch::new("sources");
    fs::create_dir(outside.join("inner")).expect("make a directory");
    fs::write(outside.join("inner/file"), "").expect("write a file");
    let bundle = Bundle::new(&["/bin/stat", "-c", "%u", "/first/inner/file", "/second/file"]);
    for target in ["first", "second"] {
        fs::create_dir(bundle.root().join(target)).expect("make the target of a mount");
    }
    let below = bundle.root().join("first/inner");
    let bundle = bundle.with(|config| {
        let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        config["linux"]["namespaces"].as_array_mut().expect("namespaces").push(json!({ "type": "user" }));
        config["linux"]["uidMappings"] = ids.clone();
        config["linux"]["gidMappings"] = ids.clone();
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({ "destination": "/first", "source": outside.path(), "options": ["bind"] }));
        mounts.push(json!({
            "destination": "/second", "source": below, "options": ["bind"],
            "uidMappings": ids, "gidMappings": ids,
        }));
    });
    let outcome = Runtime::under_test().run(&bundle);
    outcome.done();
    assert_eq!(outcome.text(), "65534\n0");
}
