//! Containers that go on from where they were, and are like any other afterwards.

use std::fs;
use std::io::{BufRead, BufReader, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::thread;

use hull_integration::systemd::{self, Slice, property};
use hull_integration::terminal::Terminal;
use hull_testkit::runtime::cgroup_dir;
use hull_testkit::{Bundle, gate, needs};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::COUNTER;

#[test]
fn a_counter_on_pipes_goes_on_from_its_number() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut before = stage.run();
    before.says("a", "1 a");
    before.says("b", "2 b");
    stage.checkpoint(&[]).done();
    stage.is_gone();
    let mut after = stage.restore();
    after.says("c", "3 c");
    stage.checkpoint(&[]).done();
    let mut again = stage.restore();
    again.says("d", "4 d");
}

#[test]
fn a_restored_container_is_like_any_other() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.checkpoint(&[]).done();
    let mut pipes = stage.restore();
    let id = stage.bundle.id.as_str();
    assert_eq!(stage.status(), "running");
    assert_eq!(stage.inside("hostname; echo $$ | wc -l"), "testkit\n1");
    assert!(stage.inside("busybox ip link show lo").contains("UP"), "lo is down");
    stage.call(&["pause", id]).done();
    assert_eq!(stage.status(), "paused");
    stage.call(&["resume", id]).done();
    stage.call(&["update", "--pids-limit", "77", id]).done();
    assert_eq!(
        fs::read_to_string(cgroup_dir("pids", &stage.bundle).join("pids.max")).expect("read").trim(),
        "77"
    );
    assert!(stage.call(&["events", "--stats", id]).text().contains("\"pids\""));
    pipes.says("b", "2 b");
    stage.call(&["kill", id, "KILL"]).done();
    stage.call(&["delete", "--force", id]).done();
    stage.is_gone();
}

#[test]
fn a_counter_in_a_scope_of_systemd_goes_on_from_its_number() {
    needs!(systemd::here());
    let bundle = Bundle::shell(COUNTER).with_id(|id, config| {
        config["linux"]["cgroupsPath"] = json!(format!("testkitcriu.slice:pod:{id}"));
        config["linux"]["resources"]["pids"] = json!({ "limit": 40 });
    });
    let _slice = Slice("testkitcriu.slice");
    let unit = format!("pod-{}.scope", bundle.id);
    let mut stage = stage!(bundle);
    stage.manager = &["--systemd-cgroup"];
    let mut before = stage.run();
    before.says("a", "1 a");
    stage.checkpoint(&[]).done();
    stage.is_gone();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    let mut after = stage.restore();
    after.says("b", "2 b");
    assert_eq!([property(&unit, "ActiveState"), property(&unit, "TasksMax")], ["active", "40"]);
    let groups =
        fs::read_to_string(format!("/proc/{}/cgroup", stage.state()["pid"])).expect("read its groups");
    let outside = |line: &&str| !line.ends_with(&format!("/testkitcriu.slice/{unit}"));
    assert_eq!(groups.lines().filter(outside).collect::<Vec<_>>(), [""; 0]);
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
    stage.is_gone();
    assert_eq!(property(&unit, "LoadState"), "not-found");
}

#[test]
fn a_counter_on_a_terminal_goes_on_from_its_number() {
    needs!(gate::program("tmux"));
    let stage = stage!(Bundle::shell(COUNTER).with(|config| config["process"]["terminal"] = json!(true)));
    let line = |command: &str, options: &str| {
        format!(
            "{} --root {} --criu {} {command} {options} --bundle {} {}",
            stage.runtime.program.display(),
            stage.runtime.state_dir().display(),
            stage.criu.display(),
            stage.bundle.path().display(),
            stage.bundle.id
        )
    };
    let before = Terminal::start(&line("run", ""));
    before.type_text("a");
    before.press("Enter");
    before.shows("1 a");
    stage.checkpoint(&[]).done();
    before.shows("status=137");
    let after = Terminal::start(&line("restore", &format!("--image-path {}", stage.images())));
    after.type_text("b");
    after.press("Enter");
    after.shows("2 b");
    stage.call(&["kill", &stage.bundle.id, "KILL"]).done();
    after.shows("status=137");
    stage.is_gone();
}

#[test]
fn a_container_that_is_left_running_runs_on() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.checkpoint(&["--leave-running"]).done();
    assert_eq!(stage.status(), "running");
    pipes.says("b", "2 b");
    // The images are of the moment between the two.
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
    stage.restore().says("c", "2 c");
}

#[test]
fn mounts_are_restored_with_their_contents() {
    let place = hull_testkit::Scratch::new("volume");
    fs::write(place.join("file"), "of the host\n").expect("write");
    let source = place.path().display().to_string();
    let stage = stage!(Bundle::shell(&format!("echo in memory >/scratch/file; {COUNTER}")).with(|config| {
        let mounts = config["mounts"].as_array_mut().expect("an array");
        mounts.push(json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs" }));
        mounts.push(json!({ "destination": "/volume", "source": source, "options": ["bind", "ro"] }));
        mounts.push(json!({ "destination": "/volume2/below", "source": source, "options": ["rbind"] }));
    }));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let masks = "grep -e null -e firmware /proc/mounts | cut -d ' ' -f 2 | sort";
    let masked = stage.inside(masks);
    stage.checkpoint(&[]).done();
    // Another host's root file system has none of the targets that create made.
    for target in ["volume", "volume2/below", "volume2", "scratch"] {
        fs::remove_dir(stage.bundle.root().join(target)).expect("remove the target of a mount");
    }
    let mut restored = stage.restore();
    restored.says("b", "2 b");
    assert_eq!(
        stage.inside("cat /scratch/file /volume/file /volume2/below/file"),
        "in memory\nof the host\nof the host"
    );
    assert_eq!(stage.inside("touch /volume/x 2>/dev/null || echo read-only"), "read-only");
    assert_eq!(stage.inside(masks), masked, "other masks than before");
}

#[test]
fn hooks_run_when_the_namespaces_are_there() {
    let stage = stage!(Bundle::shell(COUNTER).with_id(|id, config| {
        let hook = |name: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("cat >/tmp/{id}.{name}")] }]);
        config["hooks"] = json!({ "prestart": hook("prestart"), "poststop": hook("poststop") });
    }));
    let state = |name: &str| {
        let path = format!("/tmp/{}.{name}", stage.bundle.id);
        let text = fs::read_to_string(&path).expect("the hook ran");
        fs::remove_file(&path).expect("remove the hook's file");
        serde_json::from_str::<Value>(&text).expect("a state document")
    };
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let first = state("prestart");
    stage.checkpoint(&[]).done();
    assert_eq!(state("poststop")["status"], "stopped");
    let _restored = stage.restore();
    let second = state("prestart");
    assert_ne!(first["pid"], second["pid"]);
    assert_eq!(second["pid"], stage.state()["pid"]);
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
    assert_eq!(state("poststop")["status"], "stopped");
}

#[test]
fn a_detached_restore_sends_the_terminal_to_a_console_socket() {
    let stage = stage!(Bundle::shell(COUNTER).with(|config| config["process"]["terminal"] = json!(true)));
    let bundle = stage.bundle.path().display().to_string();
    let socket = stage.beside("console");
    let received = || {
        // The socket of the one before is left where it was.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("listen");
        thread::spawn(move || terminal_of(&listener))
    };
    let id = stage.bundle.id.as_str();
    let before = received();
    stage.call(&["run", "--detach", "--bundle", &bundle, "--console-socket", &socket, id]).done();
    let before = before.join().expect("a terminal came");
    answers(&before, "a", "1 a");
    stage.checkpoint(&[]).done();
    let after = received();
    let images = stage.images();
    let options = ["--detach", "--bundle", &bundle, "--image-path", &images, "--console-socket", &socket, id];
    stage.call(&[&["restore"], &options[..]].concat()).done();
    answers(&after.join().expect("a terminal came"), "b", "2 b");
}

/// Receives the master of a terminal.
fn terminal_of(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().expect("accept the runtime");
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut control, flags).expect("receive");
    let mut files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    files.next().expect("a file came with the message")
}

/// The terminal shows what is typed as well.
fn answers(master: &OwnedFd, word: &str, answer: &str) {
    let mut file = fs::File::from(master.try_clone().expect("one more descriptor"));
    writeln!(file, "{word}").expect("type");
    let mut lines = BufReader::new(file).lines();
    assert!(lines.any(|line| line.expect("read from the terminal").trim_end() == answer));
}
