//! The monitor's clients and its log when they are slow, many, or full.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod held_container;
mod task_client;

use std::fs;
use std::os::fd::OwnedFd;
use std::process::Command;

use held_container::{Held, without_times};
use hull_testkit::call::eventually;
use hull_testkit::gate::{program, root};
use hull_testkit::{Bundle, Scratch, needs, place};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use task_client::{
    Disk, LIMIT, closes_its_terminal, descriptors, limit_descriptors, many_lines, peak_kb, processor_ms,
    reopens_its_terminal, without_pid_namespace,
};

/// A client as podman's, which is attached.
fn attach(held: &Held) -> OwnedFd {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    let address = SocketAddrUnix::new(held.bundle.path().join("attach")).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    socket
}

/// All that comes on standard output to the end.
fn read_all(client: &OwnedFd) -> Vec<u8> {
    let (mut all, mut message) = (Vec::new(), [0; 8193]);
    loop {
        let got = rustix::io::read(client, &mut message).unwrap_or(0);
        if got == 0 {
            return all;
        }
        assert_eq!(message[0], 2, "standard output");
        all.extend_from_slice(&message[1..got]);
    }
}

#[test]
fn input_that_comes_faster_than_it_is_read_is_whole() {
    needs!(root());
    let held = Held::create(Bundle::shell("sleep 1; md5sum; exit 3"), &["-i"]);
    let client = attach(&held);
    held.start();
    let all: Vec<u8> = (0..8u32 << 20).map(|number| (number % 251) as u8).collect();
    for message in all.chunks(32 << 10) {
        assert_eq!(rustix::net::send(&client, message, SendFlags::empty()).unwrap(), message.len());
    }
    // What it sent counts, though it reads nothing any more.
    drop(client);
    held.ends_with("3");
    let sum = held.place.join("all");
    fs::write(&sum, all).unwrap();
    let sum = Command::new("md5sum").stdin(fs::File::open(sum).unwrap()).output().unwrap().stdout;
    let wanted = format!("stdout F {}", String::from_utf8(sum).unwrap().trim_end());
    assert_eq!(without_times(&held.read("log")), [wanted]);
}

#[test]
fn twenty_clients_get_all_of_it_and_one_that_does_not_read_stops_nobody() {
    needs!(root());
    let script = "i=0; while [ $i -lt 200000 ]; do echo line $i; i=$((i+1)); done; exit 4";
    let held = Held::create(Bundle::shell(script), &[]);
    let clients: Vec<OwnedFd> = (0..20).map(|_| attach(&held)).collect();
    let silent = attach(&held);
    held.start();
    let readers: Vec<_> =
        clients.into_iter().map(|client| std::thread::spawn(move || read_all(&client))).collect();
    let wanted: String = (0..200_000).map(|number| format!("line {number}\n")).collect();
    for reader in readers {
        assert!(reader.join().unwrap() == wanted.as_bytes(), "a client's output is not whole");
    }
    held.ends_with("4");
    drop(silent);
    let log = held.read("log");
    let lines = without_times(&log).into_iter().map(|line| line.strip_prefix("stdout F ").unwrap());
    assert!(lines.eq(wanted.lines()), "the log is not whole");
}

#[test]
fn output_after_the_end_waits_for_a_client_that_is_slow() {
    needs!(root());
    // What it leaves running writes on when it has ended.
    let script = format!("head -c {} /dev/zero & sleep 0.5; exit 3", 100 << 20);
    let held = Held::create(Bundle::shell(&script).with(without_pid_namespace), &["-l", "none"]);
    let client = attach(&held);
    let monitor: u32 = held.read("monitor.pid").trim().parse().unwrap();
    held.start();
    let ended = || fs::read_to_string(format!("/proc/{}/stat", held.read("pid").trim())).is_err();
    assert!(eventually(LIMIT, ended));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let peak = peak_kb(monitor);
    assert!(peak < 16_000, "{peak} kB of memory for what nobody has read");
    assert!(read_all(&client).len() > 512 << 10, "what waited for it when it was told to wait");
    held.ends_with("3");
}

#[test]
fn terminal_that_is_closed_and_opened_again_goes_on() {
    needs!(root());
    let held = Held::create(reopens_its_terminal(), &["-t"]);
    let client = attach(&held);
    held.start();
    let logged = |text| eventually(LIMIT, || held.read("log").contains(text));
    assert!(logged("first") && logged("open"), "{}", held.read("log"));
    let word = b"word\n";
    // While it is closed nobody takes what is typed.
    assert!(eventually(LIMIT, || {
        rustix::net::send(&client, word, SendFlags::empty()).is_err() || held.read("log").contains("got word")
    }));
    held.ends_with("3");
    assert!(held.read("log").contains("got word"), "{}", held.read("log"));
}

#[test]
fn input_for_a_closed_terminal_waits_without_processor_time() {
    needs!(root());
    let held = Held::create(closes_its_terminal(), &["-t"]);
    let client = attach(&held);
    let monitor: u32 = held.read("monitor.pid").trim().parse().unwrap();
    held.start();
    assert!(eventually(LIMIT, || held.read("log").contains("first")));
    let spent = processor_ms(monitor);
    for message in many_lines().chunks(16 << 10) {
        assert_eq!(rustix::net::send(&client, message, SendFlags::empty()).unwrap(), message.len());
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let spent = processor_ms(monitor) - spent;
    assert!(spent < 100, "{spent} ms of processor time for input that nobody takes");
    fs::write(held.bundle.root().join("go"), "").unwrap();
    held.ends_with("3");
}

#[test]
fn client_waits_for_a_free_descriptor_and_stops_nothing() {
    needs!(root());
    let script = "echo one; while [ ! -e /go ]; do sleep 0.05; done; echo two; exit 3";
    let held = Held::create(Bundle::shell(script), &[]);
    let monitor: u32 = held.read("monitor.pid").trim().parse().unwrap();
    let before = limit_descriptors(monitor, Some(1));
    let client = attach(&held);
    let spent = processor_ms(monitor);
    held.start();
    assert!(
        eventually(LIMIT, || without_times(&held.read("log")) == ["stdout F one"]),
        "nothing else goes on"
    );
    std::thread::sleep(std::time::Duration::from_millis(500));
    let spent = processor_ms(monitor) - spent;
    assert!(spent < 100, "{spent} ms of processor time for a client that cannot be taken");
    let open = descriptors(monitor);
    limit_descriptors(monitor, before);
    assert!(eventually(LIMIT, || descriptors(monitor) > open), "it is not taken");
    fs::write(held.bundle.root().join("go"), "").unwrap();
    assert_eq!(read_all(&client), b"two\n");
    held.ends_with("3");
}

#[test]
fn log_is_on_the_disk_before_the_exit_shows_unless_that_is_not_wanted() {
    needs!(root(), program("strace"));
    for (options, wanted) in [(&[][..], 1), (&["--no-sync-log"], 0)] {
        let held = Held::create(Bundle::shell("echo out; exit 3"), options);
        let (monitor, calls) = (held.read("monitor.pid"), held.place.join("calls"));
        let mut strace = Command::new("strace");
        strace.args(["-e", "trace=fsync,rename", "-p", monitor.trim(), "-o"]).arg(&calls);
        let mut strace = strace.stderr(std::process::Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{}/status", monitor.trim());
        let is_traced =
            || fs::read_to_string(&status).unwrap().contains(&format!("TracerPid:\t{}\n", strace.id()));
        assert!(eventually(LIMIT, is_traced));
        held.start();
        held.ends_with("3");
        strace.wait().unwrap();
        let calls = fs::read_to_string(calls).unwrap();
        let (before, _) = calls.split_once("rename(").expect("the exit file");
        assert_eq!(before.matches("fsync(").count(), wanted, "{options:?}: {calls}");
    }
}

#[test]
fn readiness_and_life_reach_the_host_and_nothing_else_does() {
    needs!(root());
    let place = Scratch::new("notify");
    let path = place.join("host.sock");
    let host = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let held = Held::create(Bundle::shell("sleep 1000"), &["--sdnotify-socket", path.to_str().unwrap()]);
    let container = std::os::unix::net::UnixDatagram::unbound().unwrap();
    for text in ["STATUS=up", "MAINPID=1\nREADY=1", "STOPPING=1", "WATCHDOG=1"] {
        container.send_to(text.as_bytes(), held.bundle.path().join("notify/notify.sock")).unwrap();
    }
    for wanted in ["READY=1", "WATCHDOG=1"] {
        let mut message = [0; 64];
        let got = host.recv(&mut message).unwrap();
        assert_eq!(String::from_utf8_lossy(&message[..got]), wanted);
    }
}

#[test]
fn log_on_a_full_disk_has_whole_lines_only_and_goes_on() {
    needs!(root());
    let script = "i=0; while [ $i -lt 9000 ]; do echo number $i; i=$((i+1)); done; echo > /full; \
                  while [ ! -e /go ]; do sleep 0.05; done; echo last; exit 5";
    let beside = Scratch::new("log");
    let disk = Disk::over(&beside.join("disk"), "size=128k");
    let log = disk.0.join("log");
    let held = Held::create(Bundle::shell(script), &["-l", &format!("k8s-file:{}", log.display())]);
    held.start();
    assert!(eventually(LIMIT, || held.bundle.root().join("full").exists()), "the container waits");
    rustix::mount::mount_remount(&disk.0, rustix::mount::MountFlags::empty(), "size=4m").unwrap();
    fs::write(held.bundle.root().join("go"), "").unwrap();
    held.ends_with("5");
    let text = fs::read_to_string(&log).unwrap();
    let lines = without_times(&text);
    let (last, numbers) = lines.split_last().unwrap();
    assert_eq!(*last, "stdout F last");
    assert!(numbers.len() > 1000 && numbers.len() < 9000, "{} lines fit", numbers.len());
    // Where a line did not fit a shorter one may have.
    let number = |line: &&str| line.strip_prefix("stdout F number ").unwrap().parse::<u32>().unwrap();
    assert!(numbers.iter().map(number).is_sorted_by(|one, next| one < next), "{numbers:?}");
}

#[test]
fn words_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    for program in ["hull-monitor", "containerd-shim-hull-v2"] {
        let done = Command::new(place::program(program)).arg(std::ffi::OsStr::from_bytes(b"-\xff")).output();
        let done = done.unwrap();
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        assert!(String::from_utf8_lossy(&done.stderr).contains("is not UTF-8"), "{done:?}");
    }
}
