//! The runtime is killed at a system call, one after the other, by strace's fault injection.

use std::env;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

use hull_testkit::gate::program;
use hull_testkit::runtime::LIMIT;
use hull_testkit::{Bundle, Outcome, Runtime, call, needs};

use crate::busybox;
use crate::residue::{Swept, delete_leaves_nothing, lasting};

/// Every how manieth system call is tried; a slow machine may set more than 1.
fn stride() -> usize {
    env::var("HULL_FAULT_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Runs the runtime with `fault` (strace(1), "inject") put into its calls; the container's processes are not traced.
fn with_fault(runtime: &Runtime, fault: &str, arguments: &[&str]) -> Outcome {
    let mut command = Command::new("strace");
    command.args(["-qq", "-o", "/dev/null", "-e", &format!("inject={fault}")]);
    command
        .arg(&runtime.program)
        .arg("--root")
        .arg(runtime.state_dir())
        .args(arguments.iter().map(OsStr::new));
    call(command.stdin(Stdio::null()), LIMIT)
}

/// Kills `arguments` at the n-th call for n = 1, 1 + stride, ... until it gets through; `before` makes what it needs
/// and `after` judges what is there then. Returns the number of kills.
fn sweep(
    (runtime, bundle): (&Runtime, &Bundle),
    signal: &str,
    arguments: &[&str],
    before: impl Fn(),
    after: impl Fn(&str),
) -> usize {
    let mut kills = 0;
    let _swept = Swept { runtime, bundle };
    for at in (1..).step_by(stride()) {
        before();
        let outcome = with_fault(runtime, &format!("all:signal={signal}:when={at}"), arguments);
        let title = format!("{arguments:?} killed by {signal} at call {at}: {}", outcome.stderr.trim());
        assert!(!outcome.stderr.contains("panicked"), "{title}");
        after(&title);
        if outcome.code == 0 {
            return kills;
        }
        assert_ne!(outcome.code, 1, "{title}: an error of the runtime's own");
        kills += 1;
    }
    kills
}

fn create_arguments(bundle: &Bundle) -> [&str; 4] {
    ["create", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]
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
        let kills = sweep(
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
        assert!(kills * stride() > 50, "{kills} kills only: the injection does not work");
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
    let kills = sweep((&runtime, &bundle), "KILL", &["start", &bundle.id], before, |title| {
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
    assert!(kills > 3, "{kills} kills only: the injection does not work");
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
    let kills = sweep((&runtime, &bundle), "KILL", &["delete", "--force", &bundle.id], before, |title| {
        state_answers(&runtime, &bundle, title);
        delete_leaves_nothing(&runtime, &bundle, title);
        delete_leaves_nothing(&runtime, &bundle, title);
    });
    assert!(kills > 3, "{kills} kills only: the injection does not work");
}

/// as with runc, the container outlives its foreground runtime, and stays manageable.
#[test]
fn run_killed_at_any_call_leaves_a_container_that_can_be_managed() {
    needs!(busybox(), program("strace"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/true"]);
    let arguments = ["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id];
    let kills = sweep(
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
    assert!(kills > 10, "{kills} kills only: the injection does not work");
}

/// killing `exec` harms neither the container nor what follows.
#[test]
fn exec_killed_at_any_call_leaves_the_container_usable() {
    needs!(busybox(), program("strace"));
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let container = runtime.start(&bundle);
    let kills = sweep(
        (&runtime, &bundle),
        "KILL",
        &["exec", &bundle.id, "/bin/true"],
        || (),
        |title| {
            assert_eq!(container.status(), "running", "{title}");
            assert_eq!(container.exec(&[], &["/bin/sh", "-c", "exit 6"]).code, 6, "{title}");
        },
    );
    assert!(kills > 10, "{kills} kills only: the injection does not work");
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
    std::fs::write(bundle.root().join("end"), "").expect("end the process");
    let alone = || listed().iter().filter(|pid| **pid != container.pid()).count() <= 1;
    assert!(hull_testkit::call::eventually(hull_testkit::call::PATIENCE, alone), "{:?}", listed());
}
