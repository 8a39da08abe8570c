//! The shim under a real containerd, with the runtime under test.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod containerd_daemon;

use std::time::Duration;

use containerd_daemon::{Manager, containerd};
use hull_testkit::call::eventually;
use hull_testkit::needs;
use hull_testkit::place::unique;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn containers_run_and_are_driven_by_ctr() {
    needs!(containerd());
    let manager = Manager::start();
    let done = manager.run(&["--rm"], &unique("a"), &["sh", "-c", "echo hello; exit 7"]);
    assert_eq!((done.stdout.trim(), done.code), ("hello", 7));
    let name = unique("life");
    manager.run(&["-d"], &name, &["sleep", "1000"]).done();
    assert_eq!(manager.status(&name), "RUNNING");
    assert_eq!(manager.ctr(&["task", "exec", "--exec-id", "e", &name, "sh", "-c", "exit 9"]).code, 9);
    manager.ctr(&["task", "pause", &name]).done();
    assert_eq!(manager.status(&name), "PAUSED");
    manager.ctr(&["task", "resume", &name]).done();
    assert!(manager.ctr(&["task", "metrics", &name]).text().contains("memory.usage_in_bytes"));
    manager.ctr(&["task", "kill", "--signal", "SIGKILL", &name]).done();
    assert!(eventually(LIMIT, || manager.status(&name) == "STOPPED"));
    manager.ctr(&["task", "rm", &name]);
    manager.ctr(&["container", "rm", &name]).done();
    assert!(!manager.state_of(&name).exists());
}

#[test]
fn exit_code_survives_a_killed_containerd() {
    needs!(containerd());
    let mut manager = Manager::start();
    for round in 0..5 {
        let name = unique("survivor");
        let code = 40 + round;
        let script = format!("sleep 1; exit {code}");
        manager.run(&["-d", "--null-io"], &name, &["sh", "-c", &script]).done();
        manager.kill();
        std::thread::sleep(Duration::from_millis(1500));
        manager.raise();
        assert!(eventually(LIMIT, || manager.status(&name) == "STOPPED"), "round {round}");
        manager.remove_ended(&name, code);
    }
}
