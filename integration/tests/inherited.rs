//! What a container gets from its caller's environment: the notify socket, the descriptors of socket activation.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use hull_testkit::call::{call, eventually};
use hull_testkit::place::Scratch;
use hull_testkit::{Bundle, Runtime, gate, needs};

#[test]
fn readiness_reaches_the_caller_with_the_pid_outside_and_nothing_else_does() {
    needs!(gate::root(), gate::program("busybox"));
    let scratch = Scratch::new("notify");
    let own = scratch.join("caller.sock");
    let caller = UnixDatagram::bind(&own).expect("bind");
    caller.set_read_timeout(Some(Duration::from_secs(20))).expect("set the deadline");
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("echo $NOTIFY_SOCKET; ls /run/notify; exec sleep 60");
    let path = bundle.path().to_str().expect("UTF-8");
    let output = scratch.join("output");
    let mut create = runtime.command(&["create", "--bundle", path, &bundle.id]);
    create.env("NOTIFY_SOCKET", &own).stdout(std::fs::File::create(&output).expect("create"));
    assert!(create.status().expect("run").success());
    let mut start = runtime.command(&["start", &bundle.id]);
    let mut start = start.env("NOTIFY_SOCKET", &own).spawn().expect("start");

    // The program's side of the socket, without a client in the image.
    let inside = runtime.state_dir().join(&bundle.id).join("notify/notify.sock");
    let program = UnixDatagram::unbound().expect("make a socket");
    assert!(eventually(Duration::from_secs(20), || program.send_to(b"STATUS=half way", &inside).is_ok()));
    assert!(start.try_wait().expect("look").is_none(), "start did not wait for readiness");
    program.send_to(b"MAINPID=1\nREADY=1\nSTATUS=up", &inside).expect("send");
    let mut heard = [0; 256];
    let length = caller.recv(&mut heard).expect("hear of it");
    let state: serde_json::Value =
        serde_json::from_str(runtime.call(&["state", &bundle.id]).text()).expect("parse the state");
    let expected = format!("READY=1\nMAINPID={}\n", state["pid"]);
    assert_eq!(String::from_utf8_lossy(&heard[..length]), expected);
    assert!(start.wait().expect("wait").success());
    let expected = "/run/notify/notify.sock\nnotify.sock\n";
    let printed = || std::fs::read_to_string(&output).is_ok_and(|text| text == expected);
    assert!(eventually(Duration::from_secs(20), printed), "{:?}", std::fs::read_to_string(&output));
    runtime.call(&["delete", "--force", &bundle.id]).done();
}

#[test]
fn activated_sockets_reach_the_program_and_only_its_own() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("echo $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES; cat <&3 || echo none");
    let run = runtime.command(&["run", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id]);
    let line = std::iter::once(run.get_program())
        .chain(run.get_args())
        .map(|word| word.to_str().expect("UTF-8"))
        .collect::<Vec<_>>()
        .join(" ");
    let script = |pid: &str| {
        format!("exec 3<<X\nfrom-the-caller\nX\nLISTEN_PID={pid} LISTEN_FDS=1 LISTEN_FDNAMES=one exec {line}")
    };
    let ours = call(Command::new("sh").args(["-c", &script("$$")]), Duration::from_secs(20));
    assert_eq!(ours.text(), "1 1 one\nfrom-the-caller");
    // Meant for another process: not passed on (sd_listen_fds(3)).
    let other = call(Command::new("sh").args(["-c", &script("1")]), Duration::from_secs(20));
    assert_eq!(other.text().trim(), "none");
}

#[test]
fn a_descriptor_that_is_not_there_is_not_preserved() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("cat <&3");
    let path = bundle.path().to_str().expect("UTF-8");
    let run = |count: &str| {
        let line = runtime.command(&["run", "--preserve-fds", count, "--bundle", path, &bundle.id]);
        let words: Vec<_> = std::iter::once(line.get_program())
            .chain(line.get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        let script = format!("exec 3<<X\nthree\nX\nexec {}", words.join(" "));
        call(Command::new("sh").args(["-c", &script]), Duration::from_secs(20))
    };
    assert_eq!(run("1").text(), "three");
    // The runtime's own descriptors would take those numbers: the lock of the state directory among them.
    run("40").failed(1, "is not open");
    run("4294967295").failed(1, "is not open");
}
