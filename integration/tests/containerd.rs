//! containerd's own shim with the runtime under test in the place of runc.
#![forbid(unsafe_code)]

use hull_integration::containerd::Containerd;
use hull_integration::terminal::Terminal;
use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::gate::{Gate, program, root};
use hull_testkit::place::unique;
use hull_testkit::runtime::peek;
use hull_testkit::{gate, needs};

fn containerd() -> Gate {
    root().and(program("containerd")).and(program("ctr")).and(program("podman")).and(program("busybox"))
}

#[test]
fn run_passes_output_and_exit_status() {
    needs!(containerd());
    let containerd = Containerd::start();
    assert_eq!(containerd.run(&["--rm"], &unique("a"), &["echo", "hello"]).text(), "hello");
    assert_eq!(containerd.run(&["--rm"], &unique("b"), &["sh", "-c", "exit 7"]).code, 7);
    containerd
        .run(&["--rm"], &unique("c"), &["nosuchprogram"])
        .failed(1, "executable file not found in $PATH");
    let script = "echo $A $PWD; touch /x 2>/dev/null || echo refused";
    let options = ["--rm", "--read-only", "--cwd", "/tmp", "--env", "A=b"];
    assert_eq!(containerd.run(&options, &unique("d"), &["sh", "-c", script]).text(), "b /tmp\nrefused");
    assert_eq!(containerd.ctr(&["task", "ls", "-q"]).text(), "");
}

#[test]
fn limits_reach_the_cgroup_and_the_metrics() {
    needs!(containerd(), gate::cgroup_v1());
    let containerd = Containerd::start();
    let name = unique("limits");
    containerd.run(&["-d", "--memory-limit", "33554432", "--cpus", "0.5"], &name, &["sleep", "60"]).done();
    let metrics = containerd.ctr(&["task", "metrics", &name]);
    assert!(metrics.text().lines().any(|line| line.starts_with("memory.usage_in_bytes")), "{metrics:?}");
    let value = |path: &str| {
        peek(format!(
            "/sys/fs/cgroup/{}",
            path.replace("NAME", &name).replace("default", containerd.namespace())
        ))
    };
    assert_eq!(value("memory/default/NAME/memory.limit_in_bytes"), "33554432");
    assert_eq!(value("cpu/default/NAME/cpu.cfs_quota_us"), "50000");
    containerd.ctr(&["task", "rm", "--force", &name]).done();
}

#[test]
fn a_task_goes_through_its_life() {
    needs!(containerd(), gate::cgroup_v1());
    let containerd = Containerd::start();
    let name = unique("life");
    containerd.run(&["-d"], &name, &["sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.1; done"]).done();
    let status = || {
        let listed = containerd.ctr(&["task", "ls"]).stdout;
        let line = listed.lines().find(|line| line.starts_with(&name)).unwrap_or_default().to_owned();
        line.split_whitespace().last().unwrap_or_default().to_owned()
    };
    assert_eq!(status(), "RUNNING");
    assert_eq!(containerd.ctr(&["task", "exec", "--exec-id", "e1", &name, "sh", "-c", "exit 9"]).code, 9);
    let processes = containerd.ctr(&["task", "ps", &name]);
    assert!(processes.text().lines().count() >= 2, "{processes:?}");
    containerd.ctr(&["task", "pause", &name]).done();
    assert_eq!(status(), "PAUSED");
    containerd.ctr(&["task", "resume", &name]).done();
    assert_eq!(status(), "RUNNING");
    containerd.ctr(&["task", "kill", "--signal", "SIGTERM", &name]).done();
    assert!(eventually(PATIENCE, || status() == "STOPPED"));
    containerd.ctr(&["task", "rm", &name]).done();
    containerd.ctr(&["container", "rm", &name]).done();
}

#[test]
fn a_person_at_a_terminal_gets_a_shell() {
    needs!(containerd(), program("tmux"));
    let containerd = Containerd::start();
    let terminal = Terminal::start(&containerd.interactive_line(&unique("tty")));
    terminal.shows("/ #");
    terminal.type_text("stty size; echo ans$((6*7))wer");
    terminal.press("Enter");
    terminal.shows("ans42wer");
    terminal.shows("30 100");
    terminal.type_text("exit 6");
    terminal.press("Enter");
    terminal.shows("status=6");
}
