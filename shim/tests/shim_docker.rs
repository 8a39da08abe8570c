//! The shim under Docker 20.10, which knows one name of a version 2 shim only: ours goes by it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

use std::time::Duration;

use hull_integration::docker::Docker;
use hull_integration::terminal::Terminal;
use hull_testkit::call::eventually;
use hull_testkit::gate::{Gate, cgroup_v1, program, root};
use hull_testkit::{needs, place, runtime};

const LIMIT: Duration = Duration::from_secs(60);

fn docker() -> Gate {
    root().and(program("dockerd")).and(program("docker")).and(program("busybox")).and(cgroup_v1())
}

/// dockerd whose containerd finds our shim under the Go shim's name, and the runtime under test under runc's.
fn start() -> Docker {
    let shim = place::program("containerd-shim-hull-v2");
    Docker::start_beside(&[("containerd-shim-runc-v2", shim), ("runc", runtime::under_test())])
}

/// True when the shim that serves `id` is ours.
fn is_ours(id: &str) -> bool {
    let own = place::program("containerd-shim-hull-v2").canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        let line = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        line.contains(id) && std::fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == own)
    })
}

#[test]
fn docker_runs_execs_stops_and_counts() {
    needs!(docker());
    let docker = start();
    let done = docker.run(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (7, "out\n", "err\n"));
    docker.run(&["--rm"], &["nosuchprogram"]).failed(127, "executable file not found in $PATH");
    let script = "trap 'echo bye; exit 3' TERM; echo hello; while :; do sleep 0.1; done";
    let id = docker.run(&["-d", "--name", "life"], &["sh", "-c", script]).text().to_owned();
    assert!(is_ours(&id), "another shim serves it");
    assert!(eventually(LIMIT, || docker.call(&["logs", "life"]).text() == "hello"));
    assert_eq!(docker.call(&["exec", "life", "sh", "-c", "echo in; exit 4"]).code, 4);
    docker.call(&["pause", "life"]).done();
    assert_eq!(docker.call(&["inspect", "-f", "{{.State.Status}}", "life"]).text(), "paused");
    docker.call(&["unpause", "life"]).done();
    assert!(docker.call(&["top", "life"]).text().contains("trap"));
    docker.call(&["update", "--pids-limit", "77", "life"]).done();
    let stats = docker.call(&["stats", "--no-stream", "--format", "{{.PIDs}}", "life"]);
    assert!(stats.text().parse::<u32>().unwrap() >= 1);
    docker.call(&["stop", "-t", "20", "life"]).done();
    assert_eq!(docker.call(&["wait", "life"]).text(), "3");
    assert_eq!(docker.call(&["logs", "life"]).text(), "hello\nbye");
    docker.call(&["rm", "life"]).done();
    assert!(eventually(LIMIT, || !is_ours(&id)), "the shim is left");
}

#[test]
fn docker_tells_of_a_kill_for_lack_of_memory_and_restarts() {
    needs!(docker());
    let docker = start();
    let hungry = ["tail", "-c", "200m", "/dev/zero"];
    let limits = ["--name", "hungry", "-m", "16m", "--memory-swap", "16m"];
    assert_eq!(docker.run(&limits, &hungry).code, 137);
    assert_eq!(docker.call(&["inspect", "-f", "{{.State.OOMKilled}}", "hungry"]).text(), "true");
    docker
        .run(&["-d", "--name", "again", "--restart", "on-failure:2"], &["sh", "-c", "echo run; exit 1"])
        .done();
    let counted = || docker.call(&["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again"]).stdout;
    assert!(eventually(LIMIT, || counted().trim() == "2 exited"), "{}", counted());
    assert_eq!(docker.call(&["logs", "again"]).text(), "run\nrun\nrun");
}

#[test]
fn person_at_a_terminal_uses_docker() {
    needs!(docker(), program("tmux"));
    let docker = start();
    let terminal = Terminal::start(
        // Docker sets the size once the program runs.
        &docker.line(
            "run -it --name shell bb sh -c \
             'until stty size | grep 30.100; do sleep 0.1; done; read x; echo got $x; exit 6'",
        ),
    );
    terminal.shows("30 100");
    terminal.type_text("hi");
    terminal.press("Enter");
    terminal.shows("got hi");
    terminal.shows("status=6");
}
