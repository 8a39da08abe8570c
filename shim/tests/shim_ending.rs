//! How the monitor itself ends, and what its exit command is given.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod held_container;
mod task_client;

use std::fs;
use std::process::Command;

use held_container::{Alone, Held};
use hull_testkit::call::eventually;
use hull_testkit::gate::{program, root};
use hull_testkit::{Bundle, Scratch, call, needs};
use task_client::LIMIT;

#[test]
fn monitor_ends_as_its_container_however_the_exit_command_does() {
    needs!(root());
    let cases = [
        ("exit 6", "exit 0", 6),
        ("exit 6", "exit 3", 6),
        ("exit 0", "kill -9 $$", 0),
        ("kill -9 $$", "", 137),
    ];
    for (container, script, code) in cases {
        let alone = Alone { bundle: Bundle::shell(container).with(task_client::without_pid_namespace) };
        let done = call(alone.monitor("none", script).args(["--sync", "--start"]), LIMIT);
        assert_eq!(done.code, code, "{container:?}, then {script:?}: {done:?}");
    }
}

#[test]
fn container_whose_time_is_over_ends_with_no_code() {
    needs!(root());
    let held = Held::create(Bundle::shell("sleep 1000"), &["-T", "1"]);
    held.start();
    held.ends_with("-1");
}

#[test]
fn what_the_caller_left_open_is_closed_when_the_exit_shows_and_kept_from_the_exit_command() {
    needs!(root());
    let alone = Alone { bundle: Bundle::shell("exit 6") };
    let path = |name: &str| alone.bundle.path().join(name);
    let script = format!(
        "ls /proc/self/fd > {0}.new; mv {0}.new {0}; i=0; while [ ! -e {1} ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done",
        path("open").display(),
        path("go").display()
    );
    let mut command = alone.monitor("none", &script);
    command.arg("--persist-dir").arg(alone.bundle.path());
    let (mut read, write) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&write, rustix::io::FdFlags::empty()).unwrap();
    call(&mut command, LIMIT).done();
    drop(write);
    assert!(!is_at_its_end(&read), "it is held while the container lives");
    assert!(eventually(LIMIT, || alone.runtime(&["start"]).code == 0));
    assert!(eventually(LIMIT, || path("exit").exists()));
    assert!(is_at_its_end(&read), "it is open when the exit file shows");
    assert!(eventually(LIMIT, || path("open").exists()), "the exit command was not run");
    // The fourth is that of the directory which is listed.
    let open = fs::read_to_string(path("open")).unwrap();
    assert_eq!(open.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    assert_eq!(std::io::Read::read(&mut read, &mut [0]).unwrap(), 0);
    fs::write(path("go"), "").unwrap();
}

#[test]
fn monitors_own_oom_score_reaches_neither_the_container_nor_the_exit_command() {
    const OWN: &str = "/proc/self/oom_score_adj";
    // It belongs to this test's process and to what that starts.
    let may_be_lowered = fs::write(OWN, "-1000").map_err(|error| format!("lower an oom score: {error}"));
    needs!(root(), may_be_lowered);
    for (callers, usual) in [("100", "100"), ("-1000", "0")] {
        let alone = Alone { bundle: Bundle::shell(&format!("cat {OWN} > /score")) };
        fs::write(OWN, callers).unwrap();
        let said = alone.bundle.path().join("said");
        let script = format!("cat {OWN} > {}", said.display());
        call(alone.monitor("none", &script).args(["--sync", "--start"]), LIMIT).done();
        let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap().trim().to_owned();
        assert_eq!(read(alone.bundle.root().join("score")), usual, "the container's, of {callers}");
        assert_eq!(read(said), usual, "the exit command's, of {callers}");
    }
}

#[test]
fn orphan_that_had_the_containers_number_before_does_not_end_it() {
    let last_pid = std::path::Path::new("/proc/sys/kernel/ns_last_pid").exists();
    needs!(root(), program("unshare"), last_pid.then_some(()).ok_or("needs ns_last_pid".to_owned()));
    let alone = Alone { bundle: Bundle::shell("exit 6") };
    let path = |name: &str| alone.bundle.path().join(name);
    // Two orphans of one number: the first has ended with 9 when the second, the container, is started.
    let script = format!(
        "set -e
        sh -c 'sh -c \"exit 9\" & echo $! > {0}'
        pid=$(cat {0})
        while kill -0 $pid 2> /dev/null; do sleep 0.01; done
        # The next is that of the shell which leaves the orphan.
        echo $((pid - 2)) > /proc/sys/kernel/ns_last_pid
        sh -c 'sh -c \"sleep 1; exit 6\" & echo $! > {0}'
        test $(cat {0}) = $pid
        touch {1}",
        path("pid").display(),
        path("reused").display()
    );
    let place = Scratch::new("reused");
    let runtime = task_client::scripted(&place, &script);
    let monitor = alone.monitor("none", "");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(monitor.get_program());
    command.args(monitor.get_args()).arg("-r").arg(runtime).arg("--sync");
    command.arg("--persist-dir").arg(alone.bundle.path());
    let done = call(&mut command, LIMIT);
    assert!(path("reused").exists(), "the number did not come back: {done:?}");
    assert_eq!(fs::read_to_string(path("exit")).unwrap(), "6", "{done:?}");
}

/// Nobody has the other end of this pipe any more.
fn is_at_its_end(pipe: &std::io::PipeReader) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    polled[0].revents().contains(PollFlags::HUP)
}

#[test]
fn exit_command_is_run_whatever_bytes_the_environment_has() {
    use std::os::unix::ffi::OsStrExt;
    needs!(root());
    let alone = Alone { bundle: Bundle::shell("exit 6") };
    let path = |name: &str| alone.bundle.path().join(name);
    let script = format!("env | grep -a ODD > {0}.new; mv {0}.new {0}", path("said").display());
    let mut command = alone.monitor(&format!("k8s-file:{}", path("log").display()), &script);
    command.env("ODD", std::ffi::OsStr::from_bytes(b"\xff\xfe")).env("ODD_LARGE", "x".repeat(100_000));
    call(&mut command, LIMIT).done();
    assert!(eventually(LIMIT, || alone.runtime(&["start"]).code == 0));
    assert!(eventually(LIMIT, || path("said").exists()), "the exit command was not run");
    let said = fs::read(path("said")).unwrap();
    assert!(said.windows(7).any(|bytes| bytes == b"ODD=\xff\xfe\n"), "{} bytes", said.len());
    assert!(said.len() > 100_000, "{} bytes", said.len());
}

#[test]
fn streams_passed_through_are_the_containers_alone() {
    needs!(root());
    let alone = Alone { bundle: Bundle::shell("echo out; exit 6") };
    let (go, ended) = (alone.bundle.path().join("go"), alone.bundle.path().join("ended"));
    let script = format!(
        "echo said; echo said >&2; i=0; while [ ! -e {} ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i+1)); done; touch {}",
        go.display(),
        ended.display()
    );
    let mut command = alone.monitor("passthrough", &script);
    let (mut read, write) = std::io::pipe().unwrap();
    command.stdout(write.try_clone().unwrap()).stderr(write);
    assert!(command.status().unwrap().success());
    drop(command);
    assert!(eventually(LIMIT, || alone.runtime(&["start"]).code == 0));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut read, &mut text).unwrap();
    assert_eq!(text, "out\n");
    assert!(!ended.exists(), "its end is the container's");
    fs::write(go, "").unwrap();
    assert!(eventually(LIMIT, || ended.exists()), "the exit command was not run");
}
