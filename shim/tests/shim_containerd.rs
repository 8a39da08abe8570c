//! The shim under a real containerd, with the runtime under test.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod containerd_daemon;

use std::time::Duration;

use containerd_daemon::{IMAGE, Manager, containerd};
use hull_integration::terminal::Terminal;
use hull_testkit::call::eventually;
use hull_testkit::gate::{self, program};
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

#[test]
fn person_at_a_terminal_runs_and_attaches() {
    needs!(containerd(), program("tmux"));
    let manager = Manager::start();
    let name = unique("tty");
    let terminal =
        Terminal::start(&manager.line(&format!("run -t --runtime io.containerd.hull.v2 {IMAGE} {name} sh")));
    let answers = |terminal: &Terminal, question: &str, answer: &str| {
        eventually(LIMIT, || {
            terminal.type_text(question);
            terminal.press("Enter");
            terminal.screen().lines().any(|line| line.trim_end() == answer)
        })
    };
    assert!(answers(&terminal, "stty size", "30 100"), "{}", terminal.screen());
    terminal.resize(90, 25);
    assert!(answers(&terminal, "stty size", "25 90"), "{}", terminal.screen());
    let inside =
        Terminal::start(&manager.line(&format!("task exec -t --exec-id e {name} sh -c 'tty; exit 9'")));
    inside.shows("/dev/pts/1");
    inside.shows("status=9");
    drop(terminal);
    // The client is gone, the container is not.
    assert_eq!(manager.status(&name), "RUNNING");
    let attached = Terminal::start(&manager.line(&format!("task attach {name}")));
    assert!(answers(&attached, "echo sum=$((40+2))", "sum=42"), "{}", attached.screen());
    attached.type_text("exit 5");
    attached.press("Enter");
    attached.shows("status=5");
    manager.ctr(&["task", "rm", &name]);
    manager.ctr(&["container", "rm", &name]).done();
}

#[test]
fn layers_are_mounted_by_the_overlay_snapshotter() {
    needs!(containerd());
    let manager = Manager::start();
    manager.import_layers("localhost/layers:latest");
    let name = unique("layers");
    let words = ["run", "-d", "--snapshotter", "overlayfs", "--runtime", "io.containerd.hull.v2"];
    let rest = ["localhost/layers:latest", name.as_str(), "sleep", "1000"];
    manager.ctr(&[&words[..], &rest[..]].concat()).done();
    let inside = ["task", "exec", "--exec-id", "e", &name, "sh", "-c", "cat /added; mount | head -n 1"];
    let shown = manager.ctr(&inside);
    let line = shown.text().strip_prefix("from the second layer\n").unwrap().to_owned();
    assert!(line.starts_with("overlay on / type overlay"), "{line}");
    let lower = line.split("lowerdir=").nth(1).unwrap().split(',').next().unwrap();
    assert_eq!(lower.split(':').count(), 2, "{line}");
    manager.ctr(&["task", "rm", "--force", &name]);
    manager.ctr(&["container", "rm", &name]).done();
    assert!(!manager.state_of(&name).exists());
}

#[test]
fn container_is_checkpointed_and_goes_on_after_its_restore() {
    needs!(containerd(), gate::criu().map(drop));
    let manager = Manager::start();
    manager.offer("criu", &gate::criu().unwrap());
    let (name, checkpoint) = (unique("saved"), "localhost/checkpoint:latest");
    let script = "i=0; while true; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.1; done";
    manager.run(&["-d"], &name, &["sh", "-c", script]).done();
    let mut execs = 0;
    let mut count = || {
        execs += 1;
        let inside = ["task", "exec", "--exec-id", &format!("e{execs}"), &name, "cat", "/dev/shm/count"];
        manager.ctr(&inside).stdout.trim().parse::<u32>().unwrap_or(0)
    };
    assert!(eventually(LIMIT, || count() > 20));
    let before = count();
    manager.ctr(&["container", "checkpoint", "--task", "--image", "--rw", &name, checkpoint]).done();
    manager.ctr(&["task", "rm", "--force", &name]);
    manager.ctr(&["container", "rm", &name]).done();
    manager.ctr(&["container", "restore", "--live", &name, checkpoint]).done();
    assert_eq!(manager.status(&name), "RUNNING");
    let after = count();
    assert!(after >= before, "{after} after {before}: it began anew");
    assert!(eventually(LIMIT, || count() > after), "it does not go on");
    manager.ctr(&["task", "rm", "--force", &name]);
    manager.ctr(&["container", "rm", &name]).done();
}
