//! Processes that die at the wrong time, do not die, or multiply; helpers that hang or talk too much.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::runtime::{LIMIT, cgroup_dir, ours, peek};
use hull_testkit::{Bundle, Runtime, call, gate, needs};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::busybox;
use crate::residue::{Swept, delete_leaves_nothing, lasting, nothing_left};

fn create(runtime: &Runtime, bundle: &Bundle, options: &[&str]) -> hull_testkit::Outcome {
    let path = bundle.path().to_str().expect("UTF-8");
    runtime.call(&[&["create"], options, &["--bundle", path, &bundle.id]].concat())
}

/// some limits are too small to start with, and the error says so.
#[test]
fn a_limit_too_small_to_start_is_told_as_such() {
    needs!(busybox(), gate::cgroup_v1(), ours());
    let runtime = Runtime::under_test();
    let mut told = 0;
    for limit in [1 << 12, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24] {
        let bundle = Bundle::shell("echo ran")
            .with(|config| config["linux"]["resources"]["memory"] = json!({ "limit": limit }));
        let outcome = runtime.run(&bundle);
        match outcome.code {
            0 => assert_eq!(outcome.stdout, "ran\n"),
            137 => {}
            _ => {
                let text = outcome.stderr.to_lowercase();
                assert!(text.contains("memory") && !text.contains("broken pipe"), "{limit}: {outcome:?}");
                told += 1;
            }
        }
        nothing_left(&runtime, &bundle, &format!("a limit of {limit}"));
    }
    assert!(told > 0, "no limit was too small");
}

///
#[test]
fn a_container_without_its_cgroups_can_be_asked_and_deleted() {
    needs!(busybox(), gate::cgroup_v1());
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let container = runtime.start(&bundle);
    container.call("kill", &["KILL"]).done();
    assert!(container.becomes("stopped"));
    for controller in fs::read_dir("/sys/fs/cgroup").expect("read the hierarchies").flatten() {
        let directory = controller.path().join(&bundle.id);
        assert!(!directory.exists() || eventually(PATIENCE, || fs::remove_dir(&directory).is_ok()));
    }
    assert_eq!(container.status(), "stopped");
    container.call("kill", &["TERM"]).failed(1, "not running");
    assert_ne!(container.call("events", &["--stats"]).code, 0);
    container.call("delete", &[]).done();
    nothing_left(&runtime, &bundle, "no cgroups");
}

/// a frozen container is killed by the signal, not at its thaw.
#[test]
fn a_paused_container_can_be_killed() {
    needs!(busybox(), gate::cgroup_v1());
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let container = runtime.start(&bundle);
    container.call("pause", &[]).done();
    container.call("kill", &["KILL"]).done();
    assert!(container.becomes("stopped"));
    delete_leaves_nothing(&runtime, &bundle, "pause and kill");
}

/// The first thread may end before the program does, and is a zombie then (pthread_exit(3)).
#[test]
fn a_program_whose_first_thread_has_ended_runs() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    for ends_by in [&["kill"][..], &["delete", "--force"]] {
        let bundle = Bundle::new(&["/bin/hull-probe", "headless"]).with(|config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_KILL_THREAD" }]
            });
        });
        let container = runtime.start(&bundle);
        let stat = format!("/proc/{}/stat", container.pid());
        let first_is_gone = || peek(&stat).contains(") Z ");
        assert!(eventually(PATIENCE, first_is_gone), "{}", peek(&stat));
        assert_eq!(container.status(), "running");
        container.call("delete", &[]).failed(1, "");
        if ends_by == ["kill"] {
            container.call("kill", &["KILL"]).done();
            assert!(container.becomes("stopped"));
            container.call("delete", &[]).done();
        } else {
            runtime.call(&[ends_by, &[&bundle.id]].concat()).done();
        }
        nothing_left(&runtime, &bundle, "a program without its first thread");
    }
}

/// a process that SIGKILL does not end; a freezer above the container's own stands for a stuck device.
#[test]
fn a_process_that_does_not_die_is_told_and_delete_works_later() {
    needs!(busybox(), gate::cgroup_v1());
    let runtime = Runtime::under_test();
    let bundle =
        lasting().with_id(|id, config| config["linux"]["cgroupsPath"] = json!(format!("/{id}/inner")));
    let container = runtime.start(&bundle);
    let state = cgroup_dir("freezer", &bundle).join("freezer.state");
    fs::write(&state, "FROZEN").expect("freeze the parent");
    assert!(eventually(PATIENCE, || peek(&state) == "FROZEN"));
    let stuck = runtime.call(&["delete", "--force", &bundle.id]);
    let known = runtime.call(&["state", &bundle.id]);
    fs::write(&state, "THAWED").expect("thaw the parent");
    assert_eq!(stuck.code, 1, "{stuck:?}");
    assert!(
        stuck.stderr.contains(&container.pid().to_string()) || stuck.stderr.contains(&bundle.id),
        "{stuck:?}"
    );
    known.done();
    runtime.call(&["delete", "--force", &bundle.id]).done();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").expect("read the hierarchies").flatten() {
        let parent = hierarchy.path().join(&bundle.id);
        assert!(!parent.join("inner").exists(), "{} is left", parent.display());
        assert!(!parent.exists() || fs::remove_dir(&parent).is_ok(), "{} is not empty", parent.display());
    }
    nothing_left(&runtime, &bundle, "a stuck process");
}

///
#[test]
fn a_fork_bomb_is_held_by_its_limit_and_deleted() {
    needs!(busybox(), gate::cgroup_v1());
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("bomb() { bomb | bomb & }; bomb; while :; do bomb; done 2>/dev/null")
        .with(|config| config["linux"]["resources"]["pids"] = json!({ "limit": 300 }));
    let container = runtime.start(&bundle);
    let refused = || {
        let events = peek(cgroup_dir("pids", &bundle).join("pids.events"));
        events.lines().any(|line| line.strip_prefix("max ").is_some_and(|count| count != "0"))
    };
    assert!(eventually(PATIENCE, refused), "the bomb did not reach its limit");
    assert!(peek(cgroup_dir("pids", &bundle).join("pids.current")).parse::<u32>().expect("a number") <= 300);
    drop(container);
    delete_leaves_nothing(&runtime, &bundle, "a fork bomb");
}

/// the error names the hook, its place in the configuration, and what it said.
#[test]
fn a_failing_hook_is_named_and_undoes_the_container() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let shell = |script: &str| json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 30 });
    let mut hanging = shell("sleep 600 & sleep 600");
    hanging["timeout"] = json!(1);
    let mut flooding = shell("yes");
    flooding["timeout"] = json!(1);
    let table = [
        (json!({ "path": "/no/such/hook" }), "no such file or directory"),
        (json!({ "path": "/etc/passwd" }), "permission denied"),
        (shell("echo why >&2; exit 7"), "exit status 7, output: why"),
        (shell("kill -9 $$"), "killed"),
        (hanging, "was killed"),
        (flooding, "was killed"),
    ];
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        for (hook, text) in &table {
            if kind == "startContainer"
                && hook["timeout"] == 1
                && *text == "was killed"
                && hook["args"][2] == "yes"
            {
                continue;
            }
            let bundle = lasting().with(|config| {
                config["hooks"] = json!({ kind: [{ "path": "/bin/true" }, hook] });
            });
            let path = bundle.path().to_str().expect("UTF-8");
            let _swept = Swept { runtime: &runtime, bundle: &bundle };
            let outcome =
                runtime.call(&["--log-format", "json", "run", "--detach", "--bundle", path, &bundle.id]);
            outcome.failed(1, text);
            let line: Value =
                serde_json::from_str(outcome.stderr.lines().last().expect("a line")).expect("JSON");
            assert_eq!(line["error"]["field"], format!("/hooks/{kind}/1"), "{line}");
            nothing_left(&runtime, &bundle, &format!("{kind} {hook}"));
        }
    }
}

/// where somebody stays in the control groups of a create that fails, they can still be found and removed.
#[test]
fn a_failed_create_whose_groups_stay_can_be_deleted() {
    needs!(busybox(), gate::cgroups(), ours());
    let runtime = Runtime::under_test();
    let mut stayer = Command::new("sleep").arg("1000").spawn().expect("start sleep");
    let bundle = lasting();
    let group = cgroup_dir("pids", &bundle);
    let enter = format!("echo {} > {}/cgroup.procs && exit 1", stayer.id(), group.display());
    let counted = bundle.path().join("counted");
    let count = format!("echo ran >> {}", counted.display());
    let shell = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let bundle = bundle.with(|config| {
        config["hooks"] = json!({ "createRuntime": shell(&enter), "poststop": shell(&count) });
    });
    let container = runtime.container(&bundle);
    let outcome = create(&runtime, &bundle, &[]);
    outcome.failed(1, "createRuntime hook #0: exit status 1");
    assert!(outcome.stderr.contains("'delete --force' removes what is left"), "{}", outcome.stderr);
    assert_eq!(container.status(), "stopped");
    assert!(stayer.try_wait().expect("look").is_none(), "nobody of the host's was killed");
    stayer.kill().expect("end sleep");
    stayer.wait().expect("wait for sleep");
    container.call("delete", &["--force"]).done();
    nothing_left(&runtime, &bundle, "groups that stayed");
    assert!(!group.exists(), "{}", group.display());
    assert_eq!(fs::read_to_string(&counted).expect("the hook ran"), "ran\n", "once");
}

/// a hook that leaves a process behind does not hold the container up.
#[test]
fn a_hook_may_leave_a_process_behind() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let stay = runtime.beside("stay");
    fs::write(&stay, "").expect("write");
    let script = format!("(while [ -e {} ]; do sleep 0.05; done) & exit 0", stay.display());
    let bundle = Bundle::shell("echo ran").with(|config| {
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    });
    assert_eq!(runtime.run(&bundle).text(), "ran");
    fs::remove_file(&stay).expect("end the process");
    nothing_left(&runtime, &bundle, "a hook's process");
}

/// the first process is killed from outside before `start`.
#[test]
fn start_of_a_dead_container_answers_at_once() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let container = runtime.create(&bundle);
    let pid = Pid::from_raw(container.pid()).expect("a pid");
    kill_process(pid, Signal::KILL).expect("kill the container's process");
    assert!(container.becomes("stopped"));
    container.call("start", &[]).failed(1, "stopped");
    container.exec(&[], &["/bin/true"]).failed(255, "");
    container.call("delete", &[]).done();
    nothing_left(&runtime, &bundle, "a dead container");
}

///
#[test]
fn a_console_socket_that_is_no_peer_undoes_the_create() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let bundle = lasting().with(|config| config["process"]["terminal"] = json!(true));
    let (absent, file, closed) = (runtime.beside("absent"), runtime.beside("file"), runtime.beside("closed"));
    fs::write(&file, "").expect("write a file");
    drop(UnixListener::bind(&closed).expect("make a socket"));
    for socket in [&absent, &file, &closed] {
        create(&runtime, &bundle, &["--console-socket", socket.to_str().expect("UTF-8")])
            .failed(1, "console");
        nothing_left(&runtime, &bundle, "a console socket without a peer");
    }
    // A peer that closes at once may be too late to be noticed; then the container exists.
    let leaving = runtime.beside("leaving");
    let listener = UnixListener::bind(&leaving).expect("make a socket");
    let peer = thread::spawn(move || drop(listener.accept()));
    let outcome = create(&runtime, &bundle, &["--console-socket", leaving.to_str().expect("UTF-8")]);
    peer.join().expect("the peer ends");
    assert!(outcome.code < 2, "{outcome:?}");
    delete_leaves_nothing(&runtime, &bundle, "a console peer that closed");
}

/// A listener whose queue is full: whoever connects next waits until it takes somebody, which it never does.
fn stuck_peer(path: &Path) -> (UnixListener, UnixStream) {
    let listener = UnixListener::bind(path).expect("make a socket");
    rustix::net::listen(&listener, 0).expect("make its queue short");
    let first = UnixStream::connect(path).expect("take the one place");
    (listener, first)
}

/// nobody takes the connection, and no command waits for that.
#[test]
fn a_peer_that_takes_no_connection_is_given_up() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let path = runtime.beside("stuck");
    let socket = path.to_str().expect("UTF-8");
    let _peer = stuck_peer(&path);
    let terminal = lasting().with(|config| config["process"]["terminal"] = json!(true));
    let agent = lasting().with(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "listenerPath": socket,
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]
        });
    });
    let plain = lasting();
    let cases: [(&str, &Bundle, &[&str]); 3] = [
        ("console socket", &terminal, &["--console-socket", socket]),
        ("seccomp agent", &agent, &[]),
        ("pidfd socket", &plain, &["--pidfd-socket", socket]),
    ];
    for (what, bundle, options) in cases {
        let outcome = create(&runtime, bundle, options);
        outcome.failed(1, what);
        outcome.failed(1, "did not answer within 5s");
        nothing_left(&runtime, bundle, what);
    }
}

/// `ps` reads memory of the processes it lists, and waits where one of them holds it locked.
#[test]
fn a_ps_that_hangs_is_given_up() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let programs = runtime.beside("programs");
    fs::create_dir(&programs).expect("make a directory");
    fs::write(programs.join("ps"), "#!/bin/sh\nexec /bin/sleep 600\n").expect("write a false ps");
    fs::set_permissions(programs.join("ps"), Permissions::from_mode(0o755)).expect("make it executable");
    let bundle = lasting();
    let _container = runtime.start(&bundle);
    let mut command = runtime.command(&["ps", &bundle.id]);
    call(command.env("PATH", &programs), LIMIT).failed(1, "ps did not end within 10s");
    let mut command = runtime.command(&["ps", "--format", "json", &bundle.id]);
    call(command.env("PATH", &programs), LIMIT).done();
}

///
#[test]
fn a_container_whose_root_is_removed_can_be_deleted() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let container = runtime.start(&bundle);
    fs::remove_dir_all(bundle.root()).expect("remove the root file system");
    fs::remove_file(bundle.path().join("config.json")).expect("remove the configuration");
    assert_eq!(container.status(), "running");
    delete_leaves_nothing(&runtime, &bundle, "a root that is gone");
}

/// what the caller inherited does not reach the program.
#[test]
fn odd_signals_masks_and_limits_of_the_caller_do_not_reach_the_program() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/grep", "-E", "^(SigBlk|SigIgn|Umask)", "/proc/self/status"]);
    let line = "umask 077; ulimit -s 1024; cd / && exec env --ignore-signal=CHLD,PIPE,USR1 --block-signal=TERM,CHLD,USR2 \
                nice -n 5 taskset -c 0 \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", line, "sh"]).arg(&runtime.program).arg("--root").arg(runtime.state_dir());
    command.args(["run", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
    let none = "0000000000000000";
    // The umask is the caller's as long as the configuration has none (config.md, "user").
    assert_eq!(call(&mut command, LIMIT).text(), format!("Umask:\t0077\nSigBlk:\t{none}\nSigIgn:\t{none}"));
}

/// a limit of the kernel is reached; the error names the file that sets it.
#[test]
fn a_reached_namespace_limit_is_named() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/true"]);
    let script = "echo 0 >/proc/sys/user/max_net_namespaces && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(&runtime.program).arg("--root").arg(runtime.state_dir());
    command.args(["--log-format", "json", "run", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
    let outcome = call(&mut command, LIMIT);
    outcome.failed(1, "/proc/sys/user");
    nothing_left(&runtime, &bundle, "a namespace limit");
}

///
#[test]
fn a_missing_seccomp_agent_undoes_the_create() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let agent = runtime.beside("agent");
    let bundle = lasting().with(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "listenerPath": agent,
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]
        });
    });
    let path = bundle.path().to_str().expect("UTF-8");
    let _swept = Swept { runtime: &runtime, bundle: &bundle };
    runtime.call(&["run", "--detach", "--bundle", path, &bundle.id]).failed(1, "agent");
    nothing_left(&runtime, &bundle, "no agent");
    let listener = UnixListener::bind(&agent).expect("make a socket");
    runtime.call(&["run", "--detach", "--bundle", path, &bundle.id]).done();
    drop(listener);
    delete_leaves_nothing(&runtime, &bundle, "an agent that never answers");
}

///
#[test]
fn a_limit_that_the_host_does_not_have_is_named() {
    needs!(busybox(), gate::cgroup_v1(), ours());
    let runtime = Runtime::under_test();
    let table = [
        ("hugepageLimits", json!([{ "pageSize": "3MB", "limit": 1 << 20 }]), "3MB"),
        ("cpu", json!({ "cpus": "4000" }), "cpuset.cpus"),
        ("cpu", json!({ "quota": 1, "period": 1 }), "cpu.cfs"),
    ];
    for (name, value, text) in table {
        let bundle = lasting().with(|config| config["linux"]["resources"][name] = value.clone());
        let outcome = create(&runtime, &bundle, &[]);
        outcome.failed(1, text);
        nothing_left(&runtime, &bundle, name);
    }
}
