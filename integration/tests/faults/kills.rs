//! The runtime is killed at a system call, one after the other, by strace's fault injection.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use hull_testkit::gate::program;
use hull_testkit::runtime::{LIMIT, peek};
use hull_testkit::{Bundle, Outcome, Runtime, Scratch, call, gate, needs};

use crate::busybox;
use crate::residue::{Swept, delete_leaves_nothing, lasting};

/// Every how manieth system call is tried; 1 tries all of them, which takes minutes.
fn stride() -> usize {
    env::var("HULL_FAULT_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Runs the runtime under strace with `options`; the container's processes are not traced.
fn traced(runtime: &Runtime, options: &[&str], arguments: &[&str]) -> Outcome {
    let mut command = Command::new("strace");
    command.arg("-qq").args(options);
    command
        .arg(&runtime.program)
        .arg("--root")
        .arg(runtime.state_dir())
        .args(arguments.iter().map(OsStr::new));
    // A container that outlives the call keeps its streams.
    call(command.stdin(Stdio::null()).stdout(Stdio::null()), LIMIT)
}

/// The system calls that `arguments` make, in their order: each by its name and how manieth of that name it is, which is
/// how strace counts them (strace(1), "when").
fn calls(runtime: &Runtime, arguments: &[&str]) -> Vec<(String, usize)> {
    let place = Scratch::new("trace");
    let log = place.join("log");
    traced(runtime, &["-o", log.to_str().expect("UTF-8")], arguments).done();
    let mut counts = HashMap::new();
    let text = fs::read_to_string(&log).expect("read the trace");
    let names = text.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name.to_owned());
    // The first execve is strace's own, and the end comes anyway.
    let names = names.filter(|name| !matches!(name.as_str(), "execve" | "exit_group"));
    names
        .map(|name| {
            let count = counts.entry(name.clone()).or_insert(0);
            *count += 1;
            (name, *count)
        })
        .collect()
}

/// Kills `arguments` at one call after the other; `before` makes what it needs and `after` judges what is there then.
/// Fails unless nearly all of the calls came again and were its last.
fn sweep(
    (runtime, bundle): (&Runtime, &Bundle),
    signal: &str,
    arguments: &[&str],
    before: impl Fn(),
    after: impl Fn(&str),
) {
    let _swept = Swept { runtime, bundle };
    before();
    let calls = calls(runtime, arguments);
    after("not killed");
    let (mut tried, mut killed) = (0, 0);
    for (name, at) in calls.iter().step_by(stride()) {
        before();
        let fault = format!("inject={name}:signal={signal}:when={at}");
        let outcome = traced(runtime, &["-o", "/dev/null", "-e", &fault], arguments);
        let title = format!("{arguments:?} killed by {signal} at {name} {at}: {}", outcome.stderr.trim());
        assert!(!outcome.stderr.contains("panicked"), "{title}");
        assert_ne!(outcome.code, 1, "{title}: an error of the runtime's own");
        after(&title);
        tried += 1;
        killed += usize::from(outcome.code != 0);
    }
    // How often it waits for somebody else is not the same each time.
    assert!(tried * stride() > 50 && killed * 10 > tried * 7, "{killed} of {tried} calls were hit");
}

fn create_arguments(bundle: &Bundle) -> [&str; 4] {
    ["create", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]
}

/// Has the container running, its streams on the null device.
fn started(runtime: &Runtime, bundle: &Bundle) {
    let path = bundle.path().to_str().expect("UTF-8");
    let mut command = runtime.command(&["run", "--detach", "--bundle", path, &bundle.id]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("start the runtime").success());
}

/// `state` gives a valid answer: what there is, or that there is nothing (whole).
fn state_answers(runtime: &Runtime, bundle: &Bundle, title: &str) -> String {
    let outcome = runtime.call(&["state", &bundle.id]);
    if outcome.code != 0 {
        let known = ["does not exist", "was interrupted"];
        assert!(known.iter().any(|text| outcome.stderr.contains(text)), "{title}: {outcome:?}");
        return String::new();
    }
    let state: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("state prints JSON");
    state["status"].as_str().expect("a status").to_owned()
}

/// for the signals that end a program by default.
#[test]
fn create_killed_at_any_call_can_be_deleted() {
    needs!(busybox(), program("strace"));
    for signal in ["KILL", "TERM"] {
        let runtime = Runtime::under_test();
        let bundle = lasting();
        sweep(
            (&runtime, &bundle),
            signal,
            &create_arguments(&bundle),
            || (),
            |title| {
                state_answers(&runtime, &bundle, title);
                // A state root that is named and not there is an error, as it is to runc.
                assert!(!runtime.state_dir().exists() || runtime.call(&["list", "-q"]).code == 0, "{title}");
                delete_leaves_nothing(&runtime, &bundle, title);
            },
        );
        // The same id is usable at once.
        runtime.call(&create_arguments(&bundle)).done();
        delete_leaves_nothing(&runtime, &bundle, "create");
    }
}

///
#[test]
fn start_killed_at_any_call_leaves_the_container_created_or_running() {
    needs!(busybox(), program("strace"));
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let before = || runtime.call(&create_arguments(&bundle)).done();
    sweep((&runtime, &bundle), "KILL", &["start", &bundle.id], before, |title| {
        let status = state_answers(&runtime, &bundle, title);
        let again = runtime.call(&["start", &bundle.id]);
        match status.as_str() {
            "created" => assert_eq!(again.code, 0, "{title}: {again:?}"),
            "running" => again.failed(1, "running"),
            other => panic!("{title}: {other:?}"),
        }
        assert_eq!(state_answers(&runtime, &bundle, title), "running", "{title}");
        delete_leaves_nothing(&runtime, &bundle, title);
    });
}

///
#[test]
fn delete_killed_at_any_call_is_finished_by_another() {
    needs!(busybox(), program("strace"));
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let before = || {
        runtime.call(&create_arguments(&bundle)).done();
        runtime.call(&["start", &bundle.id]).done();
    };
    sweep((&runtime, &bundle), "KILL", &["delete", "--force", &bundle.id], before, |title| {
        state_answers(&runtime, &bundle, title);
        delete_leaves_nothing(&runtime, &bundle, title);
        delete_leaves_nothing(&runtime, &bundle, title);
    });
}

/// as with runc, the container outlives its foreground runtime, and stays manageable.
#[test]
fn run_killed_at_any_call_leaves_a_container_that_can_be_managed() {
    needs!(busybox(), program("strace"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/true"]);
    let arguments = ["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id];
    sweep(
        (&runtime, &bundle),
        "KILL",
        &arguments,
        || (),
        |title| {
            let status = state_answers(&runtime, &bundle, title);
            // A child that notices the death of its parent a moment later still holds the lock.
            let known = ["", "creating", "created", "running", "stopped"];
            assert!(known.contains(&status.as_str()), "{title}: {status}");
            delete_leaves_nothing(&runtime, &bundle, title);
        },
    );
}

/// killing `exec` harms neither the container nor what follows.
#[test]
fn exec_killed_at_any_call_leaves_the_container_usable() {
    needs!(busybox(), program("strace"));
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let container = runtime.start(&bundle);
    sweep(
        (&runtime, &bundle),
        "KILL",
        &["exec", &bundle.id, "/bin/true"],
        || (),
        |title| {
            assert_eq!(container.status(), "running", "{title}");
            assert_eq!(container.exec(&[], &["/bin/sh", "-c", "exit 6"]).code, 6, "{title}");
        },
    );
    delete_leaves_nothing(&runtime, &bundle, "exec");
}

/// a process whose `exec` was killed goes on, is listed, and leaves no zombie at its end.
#[test]
fn a_process_outlives_its_killed_exec_and_is_listed() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let container = runtime.start(&bundle);
    let mut exec = runtime
        .command(&[
            "exec",
            &bundle.id,
            "/bin/sh",
            "-c",
            "echo $$ >/up; until [ -e /end ]; do sleep 0.05; done",
        ])
        .spawn()
        .expect("start the runtime");
    let up = || bundle.root().join("up").exists();
    assert!(hull_testkit::call::eventually(hull_testkit::call::PATIENCE, up));
    exec.kill().expect("kill a child of ours");
    exec.wait().expect("wait for a child of ours");
    let listed = || {
        let text = runtime.call(&["ps", "--format", "json", &bundle.id]);
        serde_json::from_str::<Vec<i32>>(text.text()).expect("a list of numbers")
    };
    // The program and its sleep may be between two of them.
    assert!(listed().len() >= 2, "{:?}", listed());
    fs::write(bundle.root().join("end"), "").expect("end the process");
    let alone = || listed().iter().filter(|pid| **pid != container.pid()).count() <= 1;
    assert!(hull_testkit::call::eventually(hull_testkit::call::PATIENCE, alone), "{:?}", listed());
}

/// A CRIU for both; none: the test is skipped with the reason.
macro_rules! criu {
    () => {
        match gate::criu() {
            Ok(criu) => criu.display().to_string(),
            Err(why) => return gate::skipped(&why),
        }
    };
}

#[test]
fn checkpoint_killed_at_any_call_leaves_a_container_that_can_be_deleted() {
    needs!(busybox(), program("strace"));
    let criu = criu!();
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let images = runtime.beside("images");
    let before = || {
        // There are none the first time.
        let _ = fs::remove_dir_all(&images);
        started(&runtime, &bundle);
    };
    let path = images.to_str().expect("UTF-8");
    let arguments = ["--criu", &criu, "checkpoint", "--image-path", path, &bundle.id];
    sweep((&runtime, &bundle), "KILL", &arguments, before, |title| {
        // Frozen where CRIU was at work and has not let go yet; gone where it was done.
        let known = ["running", "paused", "stopped", ""];
        let status = state_answers(&runtime, &bundle, title);
        assert!(known.contains(&status.as_str()), "{title}: {status}");
        delete_leaves_nothing(&runtime, &bundle, title);
    });
}

/// Places that CRIU mounts on, in the directory that it has for that: those of killed ones stay. It removes the ones that
/// came meanwhile and that no process has anything mounted on.
struct Places(Vec<PathBuf>);

impl Places {
    fn now() -> Vec<PathBuf> {
        let entries = fs::read_dir("/tmp").expect("read /tmp").flatten();
        let places = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".criu.mntns."));
        places.map(|entry| entry.path()).collect()
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let tables = fs::read_dir("/proc").expect("read /proc").flatten();
        let tables: Vec<_> = tables.map(|entry| peek(entry.path().join("mountinfo"))).collect();
        let free = |place: &PathBuf| tables.iter().all(|table| !table.contains(&*place.to_string_lossy()));
        for place in Self::now().into_iter().filter(|place| !self.0.contains(place)).filter(free) {
            // Its owner may have been quicker.
            let _ = fs::remove_dir(place);
        }
    }
}

#[test]
fn restore_killed_at_any_call_can_be_deleted() {
    needs!(busybox(), program("strace"));
    let criu = criu!();
    let _places = Places(Places::now());
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let images = runtime.beside("images");
    let (path, place) = (images.to_str().expect("UTF-8"), bundle.path().to_str().expect("UTF-8"));
    started(&runtime, &bundle);
    runtime.call(&["--criu", &criu, "checkpoint", "--image-path", path, &bundle.id]).done();
    let arguments =
        ["--criu", &criu, "restore", "--detach", "--image-path", path, "--bundle", place, &bundle.id];
    sweep(
        (&runtime, &bundle),
        "KILL",
        &arguments,
        || (),
        |title| {
            state_answers(&runtime, &bundle, title);
            delete_leaves_nothing(&runtime, &bundle, title);
        },
    );
}
