//! The streams of a process: readers and writers that come and go, terminals, files, loggers.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hull_shim::api::*;
use hull_testkit::call::eventually;
use hull_testkit::gate::root;
use hull_testkit::{Bundle, needs};
use task_client::*;

/// A shim whose container runs on a terminal, and the fifos of its input and output.
fn on_terminal(bundle: Bundle) -> (Shim, String, String) {
    let mut shim = Shim::start(bundle);
    let (stdin, stdout) = (fifo(&shim.place.join("in")), fifo(&shim.place.join("out")));
    let request = CreateTaskRequest {
        terminal: true,
        stdin: stdin.clone(),
        stdout: stdout.clone(),
        ..shim.create_request()
    };
    shim.run_as(&request);
    (shim, stdin, stdout)
}

#[test]
fn output_of_a_reader_that_is_away_is_kept_in_order() {
    needs!(root());
    let bytes = 10 << 20;
    let script = format!("seq 0 {bytes} | head -c {bytes}; exit 4");
    let mut shim = Shim::start(Bundle::shell(&script));
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { stdout: stdout.clone(), ..shim.create_request() };
    shim.run_as(&request);
    // Nobody reads, and still the container comes to its end.
    assert_eq!(shim.wait(""), 4);
    let mut text = String::new();
    fs::File::open(&stdout).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.len(), bytes);
    let wanted: String = (0..bytes / 6).map(|number| format!("{number}\n")).collect();
    assert!(text == wanted[..bytes], "it is not in order");
    shim.delete();
    shim.shut_down();
}

#[test]
fn output_of_a_terminal_is_kept_while_its_reader_is_away() {
    needs!(root());
    let script = "head -c 10 /dev/zero | tr '\\0' x; echo; while [ ! -e /go ]; do sleep 0.05; done; seq 1 60000; exit 4";
    let bundle = Bundle::shell(script).with(|config| config["process"]["terminal"] = true.into());
    let mut shim = Shim::start(bundle);
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { terminal: true, stdout: stdout.clone(), ..shim.create_request() };
    shim.run_as(&request);
    let mut first = [0; 12];
    // It moves something while there is a reader, then there is none.
    fs::File::open(&stdout).unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"xxxxxxxxxx\r\n");
    fs::write(shim.bundle.root().join("go"), "").unwrap();
    assert_eq!(shim.wait(""), 4);
    let mut text = String::new();
    fs::File::open(&stdout).unwrap().read_to_string(&mut text).unwrap();
    let wanted: String = (1..=60_000).map(|number| format!("{number}\r\n")).collect();
    assert!(text == wanted, "{} bytes", text.len());
    shim.delete();
    shim.shut_down();
}

#[test]
fn reader_that_comes_and_goes_loses_nothing() {
    needs!(root());
    let mut shim =
        Shim::start(Bundle::shell("i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); sleep 0.01; done"));
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { stdout: stdout.clone(), ..shim.create_request() };
    shim.run_as(&request);
    let mut text = Vec::new();
    for _ in 0..3 {
        let mut reader = fs::File::open(&stdout).unwrap();
        let mut some = [0; 64];
        let got = reader.read(&mut some).unwrap();
        text.extend_from_slice(&some[..got]);
        drop(reader);
        std::thread::sleep(Duration::from_millis(300));
    }
    fs::File::open(&stdout).unwrap().read_to_end(&mut text).unwrap();
    let wanted: String = (0..300).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8(text).unwrap(), wanted);
    assert_eq!(shim.wait(""), 0);
    shim.delete();
    shim.shut_down();
}

#[test]
fn input_reaches_the_container_until_it_is_closed() {
    needs!(root());
    let mut shim = Shim::start(Bundle::new(&["/bin/cat"]));
    let (stdin, stdout) = (fifo(&shim.place.join("in")), fifo(&shim.place.join("out")));
    let request = CreateTaskRequest { stdin: stdin.clone(), stdout: stdout.clone(), ..shim.create_request() };
    shim.run_as(&request);
    let reader = std::thread::spawn(move || fs::read_to_string(stdout).unwrap());
    for text in ["one\n", "two\n"] {
        // Each writer's end is not the input's end.
        fs::File::options().write(true).open(&stdin).unwrap().write_all(text.as_bytes()).unwrap();
    }
    let close = CloseIoRequest { id: shim.bundle.id.clone(), stdin: true, ..CloseIoRequest::default() };
    shim.call("CloseIO", &close).unwrap();
    assert_eq!(shim.wait(""), 0);
    shim.delete();
    assert_eq!(reader.join().unwrap(), "one\ntwo\n");
    shim.shut_down();
}

#[test]
fn terminal_that_is_closed_and_opened_again_goes_on() {
    needs!(root());
    let (mut shim, stdin, stdout) = on_terminal(reopens_its_terminal());
    let mut reader = std::io::BufReader::new(fs::File::open(stdout).unwrap());
    let mut line = String::new();
    for wanted in ["first\r\n", "open\r\n"] {
        line.clear();
        std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
        assert_eq!(line, wanted);
    }
    fs::File::options().write(true).open(stdin).unwrap().write_all(b"word\n").unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("got word\r\n"), "{rest:?}");
    assert_eq!(shim.wait(""), 3);
    shim.delete();
    shim.shut_down();
}

#[test]
fn input_for_a_closed_terminal_waits_without_processor_time() {
    needs!(root());
    let (mut shim, stdin, stdout) = on_terminal(closes_its_terminal());
    let mut reader = fs::File::open(stdout).unwrap();
    reader.read_exact(&mut [0; 7]).unwrap();
    let mut writer = fs::File::options().write(true).open(stdin).unwrap();
    let typing = std::thread::spawn(move || writer.write_all(&many_lines()));
    std::thread::sleep(Duration::from_millis(500));
    let spent = processor_ms(shim.pid());
    std::thread::sleep(Duration::from_secs(1));
    let spent = processor_ms(shim.pid()) - spent;
    assert!(spent < 100, "{spent} ms of processor time for input that nobody takes");
    fs::write(shim.bundle.root().join("go"), "").unwrap();
    assert_eq!(shim.wait(""), 3, "it takes all that was typed");
    typing.join().unwrap().unwrap();
    shim.delete();
    shim.shut_down();
}

#[test]
fn input_of_an_exec_that_is_closed_before_its_start_ends() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    let (stdin, stdout) = (fifo(&shim.place.join("in")), fifo(&shim.place.join("out")));
    // Held by the client while it asks, as containerd does.
    let held = fs::File::options().read(true).write(true).open(&stdin).unwrap();
    (&held).write_all(b"early\n").unwrap();
    let request =
        ExecProcessRequest { stdin, stdout: stdout.clone(), ..shim.exec_request("e", "cat; exit 6") };
    shim.call("Exec", &request).unwrap();
    let (id, exec_id) = (shim.bundle.id.clone(), "e".to_owned());
    shim.call("CloseIO", &CloseIoRequest { id, exec_id, stdin: true }).unwrap();
    let reader = std::thread::spawn(move || fs::read_to_string(stdout).unwrap());
    let named = shim.named("e");
    shim.ok::<PidResponse>("Start", &named);
    drop(held);
    assert_eq!(shim.wait("e"), 6);
    shim.ok::<DeleteResponse>("Delete", &named);
    assert_eq!(reader.join().unwrap(), "early\n");
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}

#[test]
fn output_that_a_reader_left_unread_is_there_for_the_next() {
    needs!(root());
    let mut shim = Shim::start(Bundle::shell("echo kept; while [ ! -e /go ]; do sleep 0.05; done; exit 3"));
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { stdout: stdout.clone(), ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    let mut reader = fs::File::options().read(true).write(true).open(&stdout).unwrap();
    let mut first = [0; 1];
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
    reader.read_exact(&mut first).unwrap();
    drop(reader);
    fs::write(shim.bundle.root().join("go"), "").unwrap();
    assert_eq!(shim.wait(""), 3);
    let rest = fs::read_to_string(&stdout).unwrap();
    assert_eq!((first, rest.as_str()), (*b"k", "ept\n"));
    shim.delete();
    shim.shut_down();
}

#[test]
fn client_that_leaves_at_the_exit_has_all_the_output() {
    needs!(root());
    const ALL: usize = 20 << 20;
    let mut shim = Shim::start(Bundle::shell(&format!("head -c {ALL} /dev/zero; exit 3")));
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { stdout: stdout.clone(), ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    let ended = Arc::new(AtomicBool::new(false));
    let is_told = Arc::clone(&ended);
    let reader = std::thread::spawn(move || {
        let mut reader = fs::File::open(&stdout).unwrap();
        let (mut bytes, mut all) = (vec![0; 64 << 10], 0);
        while !is_told.load(Ordering::SeqCst) {
            all += reader.read(&mut bytes).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        all
    });
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
    assert_eq!(shim.wait(""), 3);
    ended.store(true, Ordering::SeqCst);
    assert_eq!(reader.join().unwrap(), ALL);
    shim.delete();
    shim.shut_down();
}

#[test]
fn terminal_has_the_size_that_was_asked_for() {
    needs!(root());
    let bundle = Bundle::shell("while [ \"$(stty size)\" != '33 111' ]; do sleep 0.05; done; tty; exit 8")
        .with(|config| config["process"]["terminal"] = true.into());
    let mut shim = Shim::start(bundle);
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { terminal: true, stdout: stdout.clone(), ..shim.create_request() };
    let reader = std::thread::spawn(move || fs::read_to_string(stdout).unwrap());
    shim.run_as(&request);
    let resize = ResizePtyRequest {
        id: shim.bundle.id.clone(),
        width: 111,
        height: 33,
        ..ResizePtyRequest::default()
    };
    shim.call("ResizePty", &resize).unwrap();
    assert_eq!(shim.wait(""), 8);
    shim.delete();
    let text = reader.join().unwrap();
    assert!(text.trim_end().ends_with("/dev/pts/0"), "{text:?}");
    shim.shut_down();
}

#[test]
fn file_and_logger_take_both_streams() {
    needs!(root());
    let mut shim = Shim::start(Bundle::shell("echo out; echo err >&2"));
    let log = shim.place.join("new directory/log");
    let uri = format!("file://{}", log.display().to_string().replace(' ', "%20"));
    shim.run_into(&uri);
    let mut lines: Vec<String> = fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    assert_eq!(fs::metadata(log).unwrap().permissions().mode() & 0o777, 0o644, "for collectors of logs");
    shim.shut_down();

    let mut shim = Shim::start(Bundle::shell("echo out; echo err >&2"));
    let (uri, log) = logger(&shim);
    shim.run_into(&uri);
    let wanted = format!("out\nerr\n{} testkit to {}\n", shim.bundle.id, log.display());
    assert!(eventually(LIMIT, || fs::read_to_string(&log).is_ok_and(|text| text == wanted)));
    shim.shut_down();
}

/// The URI of a logger that writes both streams and what it was told to a file, and the file.
fn logger(shim: &Shim) -> (String, std::path::PathBuf) {
    let (logger, log) = (shim.place.join("logger"), shim.place.join("log"));
    let script = "#!/bin/sh\necho ready >&5\nexec 5>&-\n{ cat <&3; cat <&4; echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $1 $2\"; } >$2\n";
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    (format!("binary://{}?to={}", logger.display(), log.display()), log)
}

#[test]
fn logger_takes_a_terminal() {
    needs!(root());
    let bundle =
        Bundle::shell("seq 1 20000; tty; exit 5").with(|config| config["process"]["terminal"] = true.into());
    let mut shim = Shim::start(bundle);
    let (uri, log) = logger(&shim);
    let request = CreateTaskRequest { terminal: true, stdout: uri, ..shim.create_request() };
    shim.run_as(&request);
    assert_eq!(shim.wait(""), 5);
    shim.delete();
    let numbers: String = (1..=20_000).map(|number| format!("{number}\r\n")).collect();
    let wanted = format!("{numbers}/dev/pts/0\r\n{} testkit to {}\n", shim.bundle.id, log.display());
    assert!(eventually(LIMIT, || fs::read_to_string(&log).is_ok_and(|text| text == wanted)));
    shim.shut_down();
}

#[test]
fn logger_that_is_not_there_is_refused() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    for terminal in [false, true] {
        let stdout = "binary:///nope/logger".to_owned();
        let request = CreateTaskRequest { terminal, stdout, ..shim.create_request() };
        let (_, text) = shim.refused("Create", &request);
        assert!(text.contains("/nope/logger: no such program"), "{text}");
    }
    shim.shut_down();
}

#[test]
fn log_that_is_no_file_is_refused_at_once() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    let log = fifo(&shim.place.join("log"));
    let request = CreateTaskRequest { stdout: format!("file://{log}"), ..shim.create_request() };
    let (_, text) = shim.refused("Create", &request);
    assert!(text.contains("No such device or address"), "nobody reads it: {text}");
    let _reader = fs::File::options().read(true).write(true).open(&log).unwrap();
    let (_, text) = shim.refused("Create", &request);
    assert!(text.contains("is no regular file"), "{text}");
    shim.shut_down();
}

#[test]
fn resize_storm_and_abandoned_waits_cost_no_memory() {
    needs!(root());
    let bundle = sleeper().with(|config| config["process"]["terminal"] = true.into());
    let mut shim = Shim::start(bundle);
    let request = CreateTaskRequest { terminal: true, ..shim.create_request() };
    shim.run_as(&request);
    let named = shim.named("");
    let pid = shim.pid();
    let before = (descriptors(pid), anonymous_kb(pid));
    for number in 0..20_000 {
        let resize = ResizePtyRequest {
            id: shim.bundle.id.clone(),
            width: 80 + number % 50,
            height: 24,
            ..ResizePtyRequest::default()
        };
        shim.call("ResizePty", &resize).unwrap();
    }
    for _ in 0..200 {
        let mut client = Client::connect(&shim.address);
        for _ in 0..10 {
            client.send("containerd.task.v3.Task", "Wait", &named);
        }
    }
    assert!(eventually(LIMIT, || descriptors(pid) <= before.0));
    assert!(anonymous_kb(pid) <= before.1 + 256, "{} kB, before {}", anonymous_kb(pid), before.1);
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    shim.delete();
    shim.shut_down();
}
