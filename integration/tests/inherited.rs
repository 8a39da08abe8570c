//! What a container gets from its caller: the notify socket, the descriptors of socket activation, the standard streams.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::call::{call, eventually};
use hull_testkit::place::Scratch;
use hull_testkit::runtime::ours;
use hull_testkit::{Bundle, Runtime, gate, needs};
use serde_json::{Value, json};

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
    create.env("NOTIFY_SOCKET", &own).stdout(File::create(&output).expect("create"));
    assert!(create.status().expect("run").success());
    // The program's side of the socket, without a client in the image. A start that was killed has left one.
    let inside = runtime.state_dir().join(&bundle.id).join("notify/notify.sock");
    if ours().is_ok() {
        drop(UnixDatagram::bind(&inside).expect("bind"));
    }
    let mut start = runtime.command(&["start", &bundle.id]);
    let mut start = start.env("NOTIFY_SOCKET", &own).spawn().expect("start");

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
    let printed = || fs::read_to_string(&output).is_ok_and(|text| text == expected);
    assert!(eventually(Duration::from_secs(20), printed), "{:?}", fs::read_to_string(&output));
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

/// Writes to both streams by their names, as images do whose programs only know log files.
const BY_NAME: &str = "echo out >>/dev/stdout; echo err >>/dev/stderr";

fn as_ordinary_user(config: &mut Value) {
    config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
}

/// With ids from `host_id` on.
fn in_user_namespace(host_id: u32, bundle: Bundle) -> Bundle {
    // Its root has to get there.
    for directory in [bundle.path(), &bundle.root()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    bundle.with(|config| {
        let ids = json!([{ "containerID": 0, "hostID": host_id, "size": 65536 }]);
        config["linux"]["uidMappings"] = ids.clone();
        config["linux"]["gidMappings"] = ids;
        config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
    })
}

#[test]
fn an_ordinary_user_can_open_its_streams_by_name() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell(BY_NAME).with(as_ordinary_user);
    let path = bundle.path().to_str().expect("UTF-8");
    let written = |arguments: &[&str]| {
        let (out, err) = (std::io::pipe().expect("make a pipe"), std::io::pipe().expect("make a pipe"));
        runtime.command(arguments).stdout(out.1).stderr(err.1).status().expect("start the runtime");
        (
            std::io::read_to_string(out.0).expect("read the output"),
            std::io::read_to_string(err.0).expect("read the errors"),
        )
    };
    let both = ("out\n".to_owned(), "err\n".to_owned());
    assert_eq!(written(&["run", "--bundle", path, &bundle.id]), both);
    assert_eq!(written(&["run", "--detach", "--bundle", path, &bundle.id]), both);
    runtime.call(&["delete", "--force", &bundle.id]).done();
    let sleeper = Bundle::new(&["/bin/sleep", "60"]);
    let _container = runtime.start(&sleeper);
    let exec = ["exec", "--user", "1000:1000", &sleeper.id, "/bin/sh", "-c", BY_NAME];
    assert_eq!(written(&exec), both);
    // To files, whose group stays.
    let files = runtime.run(&bundle);
    assert_eq!((files.stdout, files.stderr), both);
}

#[test]
fn a_user_of_another_user_namespace_can_open_its_streams_by_name() {
    // The caller owns them, who has no id in there: runc leaves pipes that it was given as they are.
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    for (host_id, uid) in [(0, 1000), (100_000, 1000), (100_000, 0)] {
        let mapped = |args: &[&str]| {
            in_user_namespace(host_id, Bundle::new(args))
                .with(|config| config["process"]["user"] = json!({ "uid": uid, "gid": uid }))
        };
        let run = runtime.run(&mapped(&["/bin/sh", "-c", BY_NAME]));
        let sleeper = mapped(&["/bin/sleep", "60"]);
        let exec = runtime.start(&sleeper).exec(&[], &["/bin/sh", "-c", BY_NAME]);
        for outcome in [run, exec] {
            assert_eq!((outcome.text(), outcome.stderr.as_str()), ("out", "err\n"), "{host_id} {uid}");
        }
    }
}

#[test]
fn a_stream_that_cannot_be_given_away_stays_as_it_is() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let scratch = Scratch::new("streams");
    let bundle = Bundle::shell("echo by number; (echo by name >>/dev/stdout) 2>/dev/null || echo denied")
        .with(as_ordinary_user);
    // A fifo can be written to where its owner cannot be changed.
    let script = format!(
        "cd {} && mkfifo -m 600 fifo && {{ cat fifo >out & }} && mount --bind . . &&
         mount -o remount,bind,ro . . && cd . && {} >$PWD/fifo; code=$?; wait; exit $code",
        scratch.path().display(),
        runtime.run_line(&bundle)
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]).stdin(Stdio::null());
    call(&mut command, Duration::from_secs(60)).done();
    let written = fs::read_to_string(scratch.join("out")).expect("read");
    assert_eq!(written, "by number\ndenied\n");
    assert_eq!(fs::metadata(scratch.join("fifo")).expect("look").uid(), 0);
}

#[test]
fn a_file_that_was_only_to_be_read_stays_whose_it_is() {
    // runc gives it away, and with it the right to write.
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let scratch = Scratch::new("streams");
    let file = |name: &str| {
        fs::write(scratch.join(name), "text\n").expect("write");
        File::options().read(true).append(name == "log").open(scratch.join(name)).expect("open")
    };
    let owner = |name: &str| {
        let found = fs::metadata(scratch.join(name)).expect("look");
        (found.uid(), found.gid())
    };
    let null_before = fs::metadata("/dev/null").expect("look").uid();
    // In the foreground it is the caller's again at the end.
    for (options, log_owner) in [(&[][..], (0, 0)), (&["--detach"], (1000, 0))] {
        let bundle = Bundle::shell("cat; echo more >&2; echo by name >>/dev/stderr").with(as_ordinary_user);
        let container = runtime.container(&bundle);
        let path = bundle.path().to_str().expect("UTF-8");
        let mut run = runtime.command(&[&["run", "--bundle", path], options, &[&bundle.id]].concat());
        let status = run.stdin(file("input")).stdout(Stdio::null()).stderr(file("log")).status();
        assert!(status.expect("start the runtime").success());
        let written = || fs::read_to_string(scratch.join("log")).expect("read");
        assert!(eventually(Duration::from_secs(20), || written().ends_with("by name\n")), "{}", written());
        assert_eq!(written(), "text\nmore\nby name\n");
        assert_eq!((owner("input"), owner("log")), ((0, 0), log_owner), "{options:?}");
        container.call("delete", &["--force"]).done();
    }
    assert_eq!(fs::metadata("/dev/null").expect("look").uid(), null_before);
}

/// Whoever has the user's number on the host could read what is typed there, the next command's password for one.
#[test]
fn the_callers_terminal_stays_the_callers() {
    needs!(gate::root(), gate::program("busybox"), gate::program("script"), ours());
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("echo by number").with(as_ordinary_user);
    let sleeper = Bundle::new(&["/bin/sleep", "60"]);
    let _container = runtime.start(&sleeper);
    let run = runtime.run_line(&bundle);
    let (program, _) = run.split_once(" run ").expect("a line of run");
    let exec = format!("{program} exec --user 1000:1000 {} echo by number", sleeper.id);
    for line in [&run, &exec] {
        let script = format!("{line}; stat -c 'owner %u' $(tty)");
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &script, "/dev/null"]).stdin(Stdio::null());
        let outcome = call(&mut terminal, Duration::from_secs(60));
        assert_eq!(outcome.stdout, "by number\r\nowner 0\r\n", "{line}");
    }
}

#[test]
fn a_program_with_a_terminal_of_its_own_leaves_the_callers_streams() {
    needs!(gate::root(), gate::program("busybox"), ours());
    let runtime = Runtime::under_test();
    let scratch = Scratch::new("streams");
    let bundle = in_user_namespace(100_000, Bundle::new(&["/bin/true"]))
        .with(as_ordinary_user)
        .with(|config| config["process"]["terminal"] = json!(true));
    let path = bundle.path().to_str().expect("UTF-8");
    let mut run = runtime.command(&["run", "--bundle", path, &bundle.id]);
    let output = File::create(scratch.join("output")).expect("create");
    assert!(run.stdout(output).status().expect("start the runtime").success());
    assert_eq!(fs::metadata(scratch.join("output")).expect("look").uid(), 0);
}
