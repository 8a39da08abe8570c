//! The shim by its Task service, without a containerd: answers, events, streams, faults.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hull_shim::api::*;
use hull_testkit::call::eventually;
use hull_testkit::gate::root;
use hull_testkit::{Bundle, Scratch, needs, runtime};
use prost::Message;
use task_client::*;

fn sleeper() -> Bundle {
    Bundle::new(&["/bin/sleep", "1000"])
}

#[test]
fn life_is_told_in_order_with_its_exit_code() {
    needs!(root());
    let mut shim = Shim::start(Bundle::shell("exit 7"));
    let pid = shim.create();
    assert_eq!(shim.state().status(), Status::Created);
    let request = shim.named("");
    assert_eq!(shim.ok::<PidResponse>("Start", &request).pid, pid);
    assert_eq!(shim.wait(""), 7);
    let state = shim.state();
    assert_eq!((state.status(), state.exit_status, state.pid), (Status::Stopped, 7, pid));
    let pids = shim.ok::<PidsResponse>("Pids", &request).processes;
    assert_eq!(pids.iter().map(|process| process.pid).collect::<Vec<_>>(), [pid]);
    let deleted = shim.delete();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 7));
    assert_eq!(shim.refused("Wait", &request).0, 5);
    shim.events.expect(&["create", "start", "exit init 7", "delete"]);
    shim.shut_down();
}

#[test]
fn address_is_bare_json_or_protobuf_as_the_caller_takes_it() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    assert!(shim.address.starts_with("unix:///run/containerd/s/"), "{}", shim.address);
    assert_eq!(fs::read_to_string(shim.bundle.path().join("address")).unwrap(), shim.address);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&shim.socket()), mode(shim.socket().parent().unwrap())), (0o600, 0o700));

    let params = BootstrapParams {
        instance_id: shim.bundle.id.clone(),
        namespace: "testkit".into(),
        containerd_version: "2.3.4".into(),
        ..BootstrapParams::default()
    };
    let answer = action(&our_shim(), &shim.bundle, &shim.place, "start", &params.encode_to_vec());
    let result = BootstrapResult::decode(answer.stdout.as_slice()).unwrap();
    assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
    assert_eq!(result.address, shim.address, "a second start finds the running shim");

    let options = Any::pack("containerd.runc.v1.Options", &Options::default());
    let answer = action(&our_shim(), &shim.bundle, &shim.place, "start", &options.encode_to_vec());
    assert_eq!(String::from_utf8(answer.stdout).unwrap(), shim.address);

    for (newest, version) in [("2", 2), ("3", 3)] {
        let variables = [("MAX_SHIM_VERSION", newest)];
        let answer = action_with(
            &our_shim(),
            &shim.bundle,
            &shim.place,
            "start",
            &options.encode_to_vec(),
            &variables,
        );
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        let wanted = serde_json::json!({"version": version, "address": shim.address, "protocol": "ttrpc"});
        assert_eq!(answer, wanted);
    }
    shim.shut_down();
}

#[test]
fn both_versions_are_served_and_unknown_ones_are_unimplemented() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    let request = shim.named("");
    for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let answer = shim.client.call(service, "Connect", &request).unwrap();
        assert!(ConnectResponse::decode(answer.as_slice()).unwrap().shim_pid > 0);
    }
    for (service, method) in
        [("containerd.task.v2.Task", "Dance"), ("containerd.runtime.sandbox.v1.Sandbox", "Platform")]
    {
        assert_eq!(shim.client.call(service, method, &request).unwrap_err().code, 12);
    }
    shim.shut_down();
}

#[test]
fn execs_come_and_go_and_end_before_init() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    shim.exec("e1", "exit 3");
    assert_eq!(shim.wait("e1"), 3);
    let request = shim.named("e1");
    assert_eq!(shim.ok::<DeleteResponse>("Delete", &request).exit_status, 3);
    let pid = shim.exec("e2", "sleep 1000");
    let request = shim.named("");
    let processes = shim.ok::<PidsResponse>("Pids", &request).processes;
    let found = processes.iter().find(|process| process.pid == pid).unwrap();
    assert!(found.info.is_some(), "an exec is named among the pids");
    shim.kill(9);
    assert_eq!((shim.wait("e2"), shim.wait("")), (137, 137));
    shim.delete();
    shim.events.expect(&[
        "create",
        "start",
        "exec-added e1",
        "exec-started e1",
        "exit e1 3",
        "exec-added e2",
        "exec-started e2",
        "exit e2 137",
        "exit init 137",
        "delete",
    ]);
    shim.shut_down();
}

#[test]
fn events_of_an_outage_come_afterwards_once_and_in_order() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    shim.events.expect(&["create", "start"]);
    shim.events.go_away();
    shim.exec("e", "exit 3");
    shim.wait("e");
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    std::thread::sleep(Duration::from_secs(3));
    shim.events.come_back();
    let wanted = ["create", "start", "exec-added e", "exec-started e", "exit e 3", "exit init 137"];
    shim.events.expect(&wanted);
    let exit = shim.events.all().pop().unwrap();
    let at = TaskExit::decode(exit.event.unwrap().value.as_slice()).unwrap().exited_at.unwrap();
    assert_eq!(shim.state().exited_at, Some(at), "with the time of the exit, not of the delivery");
    shim.delete();
    shim.shut_down();
}

#[test]
fn output_of_a_reader_that_is_away_is_kept_in_order() {
    needs!(root());
    let bytes = 10 << 20;
    let script = format!(
        "i=0; while [ $i -lt {} ]; do echo $i; i=$((i+1)); done | head -c {bytes}; exit 4",
        bytes / 4
    );
    let mut shim = Shim::start(Bundle::shell(&script));
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { stdout: stdout.clone(), ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
    // Nobody reads, and still the container comes to its end.
    assert_eq!(shim.wait(""), 4);
    let mut text = String::new();
    fs::File::open(&stdout).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.len(), bytes);
    for (line, number) in text.lines().take(bytes / 8).zip(0..) {
        assert_eq!(line, format!("{number}"));
        if number > 1_000_000 {
            break;
        }
    }
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
    shim.ok::<PidResponse>("Create", &request);
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
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
    shim.ok::<PidResponse>("Create", &request);
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
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
fn terminal_has_the_size_that_was_asked_for() {
    needs!(root());
    let bundle = Bundle::shell("while [ \"$(stty size)\" != '33 111' ]; do sleep 0.05; done; tty; exit 8")
        .with(|config| config["process"]["terminal"] = true.into());
    let mut shim = Shim::start(bundle);
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { terminal: true, stdout: stdout.clone(), ..shim.create_request() };
    let reader = std::thread::spawn(move || fs::read_to_string(stdout).unwrap());
    shim.ok::<PidResponse>("Create", &request);
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
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
    let log = shim.place.join("log");
    let uri = format!("file://{}", log.display());
    let request = CreateTaskRequest { stdout: uri.clone(), stderr: uri, ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
    shim.wait("");
    shim.delete();
    let mut lines: Vec<String> = fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    shim.shut_down();

    let mut shim = Shim::start(Bundle::shell("echo out; echo err >&2"));
    let (logger, log) = (shim.place.join("logger"), shim.place.join("log"));
    let script = "#!/bin/sh\nexec 5>&-\n{ cat <&3; cat <&4; echo \"$CONTAINER_ID $CONTAINER_NAMESPACE $1 $2\"; } >$2\n";
    fs::write(&logger, script).unwrap();
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).unwrap();
    let uri = format!("binary://{}?to={}", logger.display(), log.display());
    let request = CreateTaskRequest { stdout: uri.clone(), stderr: uri, ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
    shim.wait("");
    shim.delete();
    let wanted = format!("out\nerr\n{} testkit to {}\n", shim.bundle.id, log.display());
    assert!(eventually(LIMIT, || fs::read_to_string(&log).is_ok_and(|text| text == wanted)));
    shim.shut_down();
}

/// Some numbers of a statistics message.
#[derive(Debug)]
struct Numbers {
    pids: u64,
    pids_limit: u64,
    memory: u64,
    processor: u64,
    version: u32,
}

/// The fields of `io.containerd.cgroups.v2.Metrics` that are looked at, by its published numbers.
#[derive(Clone, PartialEq, Message)]
struct MetricsV2 {
    #[prost(message, tag = "1")]
    pids: Option<Two>,
    #[prost(message, tag = "2")]
    cpu: Option<Two>,
    #[prost(message, tag = "4")]
    memory: Option<MemoryV2>,
}

#[derive(Clone, PartialEq, Message)]
struct Two {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    second: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MemoryV2 {
    #[prost(uint64, tag = "32")]
    usage: u64,
}

/// Reads either version's message; that of version 1 by the published crate.
fn statistics(shim: &mut Shim) -> Numbers {
    use containerd_shim_protos::cgroups::metrics::Metrics;
    use protobuf::Message as _;
    let named = shim.named("");
    let stats = shim.ok::<StatsResponse>("Stats", &named).stats.unwrap();
    if stats.type_url == "io.containerd.cgroups.v2.Metrics" {
        let metrics = MetricsV2::decode(stats.value.as_slice()).unwrap();
        let (pids, processor) = (metrics.pids.unwrap(), metrics.cpu.unwrap().first);
        let memory = metrics.memory.unwrap().usage;
        return Numbers { pids: pids.first, pids_limit: pids.second, memory, processor, version: 2 };
    }
    assert_eq!(stats.type_url, "io.containerd.cgroups.v1.Metrics");
    let metrics = Metrics::parse_from_bytes(&stats.value).unwrap();
    assert_eq!(metrics.cpu.usage.per_cpu.len(), std::thread::available_parallelism().unwrap().get());
    Numbers {
        pids: metrics.pids.current,
        pids_limit: metrics.pids.limit,
        memory: metrics.memory.usage.usage,
        processor: metrics.cpu.usage.total,
        version: 1,
    }
}

#[test]
fn pause_shows_and_statistics_are_read() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    let named = shim.named("");
    shim.call("Pause", &named).unwrap();
    assert_eq!(shim.state().status(), Status::Paused);
    let exec = shim.exec_request("e", "true");
    assert_eq!(shim.refused("Exec", &exec).1, "cannot exec in a paused state");
    shim.call("Resume", &named).unwrap();
    assert_eq!(shim.state().status(), Status::Running);
    let before = statistics(&mut shim);
    assert!(before.pids == 1 && before.memory > 0 && before.processor > 0, "{before:?}");
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(before.version, if unified { 2 } else { 1 });
    let resources = Any { type_url: String::new(), value: br#"{"pids":{"limit":77}}"#.to_vec() };
    let update =
        UpdateTaskRequest { id: shim.bundle.id.clone(), resources: Some(resources), ..Default::default() };
    shim.call("Update", &update).unwrap();
    assert_eq!(statistics(&mut shim).pids_limit, 77);
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}

#[test]
fn kill_for_lack_of_memory_is_told_before_the_exit() {
    needs!(root());
    for _ in 0..10 {
        let bundle = Bundle::shell("head -c 100000000 /dev/zero | tail")
            .with(|config| config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 8 << 20 }));
        // The shell would outlive its pipeline: the kill must be of the container as a whole.
        let bundle = bundle.with(|config| {
            config["process"]["args"] = serde_json::json!(["/bin/sh", "-c", "exec tail /dev/zero"]);
        });
        let mut shim = Shim::start(bundle);
        shim.run();
        assert_eq!(shim.wait(""), 137);
        shim.delete();
        shim.events.expect(&["create", "start", "oom", "exit init 137", "delete"]);
        shim.shut_down();
    }
}

#[test]
fn runtime_that_fails_is_told_in_its_own_words() {
    needs!(root());
    let tools = Scratch::new("tools");
    let line = r#"{"level":"error","msg":"the disk is on fire","time":"2026-01-01T00:00:00Z"}"#;
    let log =
        format!("while [ $# -gt 0 ]; do [ \"$1\" = --log ] && echo '{line}' >\"$2\"; shift; done; exit 1");
    let cases = [
        (scripted(&tools, &log), "OCI runtime create failed: the disk is on fire"),
        ("/nonexistent/runtime".into(), "could not be executed (status 127)"),
    ];
    for (program, text) in cases {
        let mut shim = Shim::start_with(our_shim(), sleeper(), program);
        let request = shim.create_request();
        let (code, message) = shim.refused("Create", &request);
        assert_eq!(code, 2);
        assert!(message.contains(text), "{message}");
        let named = shim.named("");
        assert_eq!(shim.refused("State", &named), (5, "container not created: not found".into()));
        shim.shut_down();
    }
    let silent = scripted(&tools, "head -c 200000 /dev/zero >&2; exit 3");
    let mut shim = Shim::start_with(our_shim(), sleeper(), silent);
    let request = shim.create_request();
    let (_, message) = shim.refused("Create", &request);
    assert!(message.contains("unable to retrieve OCI runtime error"), "{message}");
    assert!(message.contains("exit status 3"), "{message}");
    shim.shut_down();
}

#[test]
fn runtime_that_hangs_blocks_nobody_else_and_is_ended() {
    needs!(root());
    let tools = Scratch::new("tools");
    let hang = "case \"$*\" in *' pause '*) exec sleep 1000;; esac; exec $REAL \"$@\"";
    let mut shim = Shim::start_with(our_shim(), sleeper(), scripted(&tools, hang));
    shim.run();
    let mut other = Client::connect(&shim.address);
    let named = shim.named("");
    // The caller gives it two seconds.
    let request = hull_shim::ttrpc::Request {
        service: "containerd.task.v2.Task".into(),
        method: "Pause".into(),
        payload: named.encode_to_vec(),
        timeout_nano: 2_000_000_000,
        ..Default::default()
    };
    let mut raw = UnixStream::connect(shim.socket()).unwrap();
    let frame = hull_shim::ttrpc::encode(1, hull_shim::ttrpc::Kind::Request, &request.encode_to_vec());
    raw.write_all(&frame).unwrap();
    // Answered while the runtime hangs, or it would never show.
    let is_pausing = || {
        let state = other.call("containerd.task.v2.Task", "State", &named).unwrap();
        StateResponse::decode(state.as_slice()).unwrap().status() == Status::Pausing
    };
    assert!(eventually(Duration::from_secs(2), is_pausing), "State waited for the runtime");
    let mut head = [0; 10];
    raw.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize];
    raw.read_exact(&mut body).unwrap();
    let status = hull_shim::ttrpc::Response::decode(body.as_slice()).unwrap().status.unwrap();
    assert_eq!(status.code, 4, "{}", status.message);
    assert_eq!(shim.state().status(), Status::Running);
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    shim.delete();
    shim.shut_down();
}

#[test]
fn killed_shim_is_cleared_up_by_the_delete_action() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    let pid = shim.run();
    kill_9(shim.pid());
    let answer = shim.delete_action();
    assert!(answer.status.success(), "{answer:?}");
    let deleted = DeleteResponse::decode(answer.stdout.as_slice()).unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert!(eventually(LIMIT, || !std::path::Path::new(&format!("/proc/{pid}/ns/pid")).exists()));
    // The next start replaces the stale socket.
    let again = action(&our_shim(), &shim.bundle, &shim.place, "start", b"");
    assert_eq!(String::from_utf8(again.stdout).unwrap(), shim.address);
    shim.client = Client::connect(&shim.address);
    shim.shut_down();
}

#[test]
fn delete_action_works_on_half_a_bundle() {
    needs!(root());
    for missing in ["init.pid", "config.json", "rootfs"] {
        let mut shim = Shim::start(sleeper());
        shim.run();
        kill_9(shim.pid());
        let container = shim.bundle.id.clone();
        let path = shim.bundle.path().join(missing);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        let answer = shim.delete_action();
        assert!(answer.status.success(), "{missing}: {answer:?}");
        assert_eq!(DeleteResponse::decode(answer.stdout.as_slice()).unwrap().exit_status, 137);
        let state = Path::new(&shim.options.root).join("testkit").join(&container);
        assert!(!state.exists(), "{missing}: the runtime still knows the container");
        let _ = fs::remove_file(shim.socket());
        shim.mark_ended();
    }
}

#[test]
fn nonsense_ends_its_own_connection_only() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    let inputs: [&[u8]; 4] = [
        &[0xff; 64],
        &[0, 0x50, 0, 0, 0, 0, 0, 1, 1, 0],
        &[0, 0, 0, 4, 0, 0, 0, 1, 9, 0, 1, 2, 3, 4],
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for input in inputs {
        let mut stream = UnixStream::connect(shim.socket()).unwrap();
        stream.write_all(input).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0, "{input:?}");
    }
    // A payload that is no message, and a half frame that never ends.
    let mut half = UnixStream::connect(shim.socket()).unwrap();
    half.write_all(&[0, 0x3f, 0xff]).unwrap();
    let pid = shim.pid();
    let before = (descriptors(pid), anonymous_kb(pid));
    for _ in 0..1000 {
        drop(UnixStream::connect(shim.socket()).unwrap());
    }
    assert!(eventually(LIMIT, || descriptors(pid) <= before.0), "{} > {}", descriptors(pid), before.0);
    assert!(anonymous_kb(pid) <= before.1 + 256, "{} kB, before {}", anonymous_kb(pid), before.1);
    drop(half);
    shim.shut_down();
}

#[test]
fn hundreds_of_execs_leave_memory_and_descriptors_as_they_were() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    let pid = shim.pid();
    let round = |shim: &mut Shim, number: u32| {
        let name = format!("e{number}");
        shim.exec(&name, "exit 5");
        assert_eq!(shim.wait(&name), 5);
        let request = shim.named(&name);
        shim.ok::<DeleteResponse>("Delete", &request);
    };
    for number in 0..30 {
        round(&mut shim, number);
    }
    let before = (descriptors(pid), anonymous_kb(pid));
    for number in 30..230 {
        round(&mut shim, number);
    }
    assert!(eventually(LIMIT, || descriptors(pid) == before.0), "{} not {}", descriptors(pid), before.0);
    assert!(anonymous_kb(pid) <= before.1 + 32, "{} kB, before {}", anonymous_kb(pid), before.1);
    let exits = |shim: &Shim| shim.events.brief().iter().filter(|event| event.starts_with("exit")).count();
    assert!(eventually(LIMIT, || exits(&shim) == 230));
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}

#[test]
fn resize_storm_and_abandoned_waits_cost_no_memory() {
    needs!(root());
    let bundle = sleeper().with(|config| config["process"]["terminal"] = true.into());
    let mut shim = Shim::start(bundle);
    let request = CreateTaskRequest { terminal: true, ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
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

#[test]
fn many_waits_leave_room_for_other_calls() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    let named = shim.named("");
    let waits: Vec<u32> =
        (0..64).map(|_| shim.client.send("containerd.task.v2.Task", "Wait", &named)).collect();
    assert_eq!(shim.state().status(), Status::Running);
    shim.kill(9);
    for wait in waits {
        let answer = shim.client.receive(wait).unwrap();
        assert_eq!(WaitResponse::decode(answer.as_slice()).unwrap().exit_status, 137);
    }
    shim.delete();
    shim.shut_down();
}

#[test]
fn orphans_are_reaped_and_no_exit_is_missed() {
    needs!(root());
    // Orphans of a container without a pid namespace of its own are the shim's.
    let script = "i=0; while [ $i -lt 2000 ]; do (true &) ; i=$((i+1)); done; exit 6";
    let bundle = Bundle::shell(script).with(|config| {
        let all = config["linux"]["namespaces"].as_array().unwrap().clone();
        config["linux"]["namespaces"] = all.into_iter().filter(|one| one["type"] != "pid").collect();
    });
    let mut shim = Shim::start(bundle);
    shim.run();
    assert_eq!(shim.wait(""), 6);
    let pid = shim.pid();
    let zombies = || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().count()
    };
    assert!(eventually(LIMIT, || zombies() == 0));
    shim.delete();
    shim.shut_down();
}

#[test]
fn shutdown_is_refused_while_a_container_is_there_and_may_come_twice() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    let request = ShutdownRequest { id: shim.bundle.id.clone(), now: true };
    shim.call("Shutdown", &request).unwrap();
    assert_eq!(shim.state().status(), Status::Running);
    shim.kill(9);
    shim.wait("");
    shim.delete();
    let both = [0, 1].map(|_| shim.client.send("containerd.task.v2.Task", "Shutdown", &request));
    assert!(shim.client.receive(both[0]).is_ok());
    let socket = shim.socket();
    assert!(eventually(LIMIT, || !socket.exists()));
    shim.mark_ended();
}

#[test]
fn idle_shim_without_a_client_ends_itself() {
    needs!(root());
    let bundle = sleeper();
    let place = Scratch::new("idle");
    let answer = action(&our_shim(), &bundle, &place, "start", b"");
    let address = String::from_utf8(answer.stdout).unwrap();
    let socket = std::path::PathBuf::from(address.strip_prefix("unix://").unwrap());
    assert!(socket.exists());
    assert!(eventually(Duration::from_secs(50), || !socket.exists()), "it did not end");
}

#[test]
fn start_refuses_what_it_cannot_serve() {
    needs!(root());
    let bundle = Bundle::empty(&["/bin/true"]);
    let place = Scratch::new("refuse");
    let params = BootstrapParams {
        instance_id: bundle.id.clone(),
        containerd_version: "2.3.4".into(),
        socket_dir: format!("/tmp/{}", "x".repeat(100)),
        ..BootstrapParams::default()
    };
    let answer = action(&our_shim(), &bundle, &place, "start", &params.encode_to_vec());
    assert!(!answer.status.success() && answer.stdout.is_empty(), "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.stderr).contains("longer than 106 bytes"));
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    let answer = action(&our_shim(), &bundle, &place, "start", b"");
    assert!(String::from_utf8_lossy(&answer.stderr).contains("read config.json"), "{answer:?}");
}

#[test]
fn pod_shares_one_shim_and_a_fault_of_one_container_is_its_own() {
    needs!(root());
    let annotate = |bundle: Bundle, pod: &str| {
        let pod = pod.to_owned();
        bundle.with(move |config| {
            config["annotations"] = serde_json::json!({ "io.kubernetes.cri.sandbox-id": pod })
        })
    };
    let first = sleeper();
    let pod = first.id.clone();
    let mut shim = Shim::start(annotate(first, &pod));
    shim.run();
    let second = annotate(Bundle::shell("exit 9"), &pod);
    let answer = action(&our_shim(), &second, &shim.place, "start", b"");
    assert_eq!(String::from_utf8(answer.stdout).unwrap(), shim.address);
    let first = std::mem::replace(&mut shim.bundle, second);
    assert_eq!(
        {
            shim.run();
            shim.wait("")
        },
        9
    );
    shim.delete();
    let second = std::mem::replace(&mut shim.bundle, first);
    assert_eq!(shim.state().status(), Status::Running, "the other one lives on");
    drop(second);
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}

/// A runtime that keeps the command lines of `verb` and does `instead` of it.
fn recording(place: &Scratch, verb: &str, instead: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let said = place.join("said");
    let script = format!(
        "case \"$*\" in *' {verb} '*) echo \"$*\" >>{}; {instead};; esac; exec $REAL \"$@\"",
        said.display()
    );
    (scripted(place, &script), said)
}

#[test]
fn checkpoint_is_passed_through_with_every_option() {
    needs!(root());
    let tools = Scratch::new("tools");
    let (program, said) = recording(&tools, "checkpoint", "exit 0");
    let mut shim = Shim::start_with(our_shim(), sleeper(), program);
    shim.options.criu_path = "/opt/criu".into();
    shim.run();
    let all = CheckpointOptions {
        open_tcp: true,
        external_unix_sockets: true,
        terminal: true,
        file_locks: true,
        empty_namespaces: vec!["network".into()],
        cgroups_mode: "soft".into(),
        image_path: "/images/c".into(),
        work_path: "/images/work".into(),
        ..CheckpointOptions::default()
    };
    let path = "/checkpoint".to_owned();
    let plain = CheckpointTaskRequest { id: shim.bundle.id.clone(), path, options: None };
    let options = Some(Any::pack("containerd.runc.v1.CheckpointOptions", &all));
    let full = CheckpointTaskRequest { options, ..plain.clone() };
    for request in [plain, full] {
        shim.call("Checkpoint", &request).unwrap();
    }
    let (id, dir) = (&shim.bundle.id, shim.bundle.path().display());
    let said = fs::read_to_string(said).unwrap();
    let verbs: Vec<&str> = said.lines().map(|line| &line[line.find(" checkpoint ").unwrap() + 1..]).collect();
    let wanted = [
        format!("checkpoint --image-path /checkpoint --work-path {dir}/work --leave-running {id}"),
        format!(
            "checkpoint --image-path /images/c --work-path /images/work --tcp-established --ext-unix-sk --shell-job \
             --file-locks --leave-running --manage-cgroups-mode soft --empty-ns network {id}"
        ),
    ];
    assert_eq!(verbs, wanted);
    assert!(said.lines().all(|line| line.contains(" --criu /opt/criu checkpoint ")), "{said}");
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}

#[test]
fn container_is_restored_by_its_start() {
    needs!(root());
    let tools = Scratch::new("tools");
    let bundle = Bundle::shell("exit 9");
    let (id, dir) = (bundle.id.clone(), bundle.path().display().to_string());
    // No checkpoint is needed to see it: the container is started afresh in the place of the restored one.
    let make = format!(
        "$REAL --root $2 create --bundle {dir} --pid-file {dir}/init.pid {id} && exec $REAL --root $2 start {id}"
    );
    let (program, said) = recording(&tools, "restore", &make);
    let mut shim = Shim::start_with(our_shim(), bundle, program);
    let request = CreateTaskRequest { checkpoint: "/images/c".into(), ..shim.create_request() };
    assert_eq!(shim.ok::<PidResponse>("Create", &request).pid, 0);
    assert_eq!(shim.state().status(), Status::Created);
    let named = shim.named("");
    let pid = shim.ok::<PidResponse>("Start", &named).pid;
    assert!(pid > 0);
    assert_eq!(shim.wait(""), 9);
    assert_eq!((shim.state().pid, shim.delete().exit_status), (pid, 9));
    let said = fs::read_to_string(said).unwrap();
    let wanted = format!(
        "restore --image-path /images/c --work-path {dir}/work --detach --pid-file {dir}/init.pid --no-subreaper \
         --bundle {dir} {id}"
    );
    assert_eq!(&said[said.find(" restore ").unwrap() + 1..].trim_end(), &wanted);
    shim.events.expect(&["create", "start", "exit init 9", "delete"]);
    shim.shut_down();
}

#[test]
fn options_of_both_forms_reach_the_runtime() {
    needs!(root());
    let tools = Scratch::new("tools");
    let (program, said) = recording(&tools, "create", "exit 1");
    let (program, state) = (program.to_string_lossy(), tools.join("state"));
    let state = state.display();
    let own = Options {
        binary_name: program.clone().into_owned(),
        root: state.to_string(),
        systemd_cgroup: true,
        no_pivot_root: true,
        no_new_keyring: true,
        criu_path: "/opt/criu".into(),
        ..Options::default()
    };
    let toml = format!(
        "BinaryName = \"{program}\"\nRoot = \"{state}\"\nSystemdCgroup = true\nNoPivotRoot = true\nNoNewKeyring = true\nCriuPath = \"/opt/criu\"\n"
    );
    let file = tools.join("options.toml");
    fs::write(&file, &toml).unwrap();
    let body = RuntimeOptions { config_body: toml.into_bytes(), ..RuntimeOptions::default() };
    let path =
        RuntimeOptions { config_path: file.to_string_lossy().into_owned(), ..RuntimeOptions::default() };
    let forms = [
        Any::pack("containerd.runc.v1.Options", &own),
        Any::pack("runtimeoptions.v1.Options", &body),
        Any::pack("runtimeoptions.v1.Options", &path),
    ];
    let mut shim = Shim::start(sleeper());
    for options in forms {
        let request = CreateTaskRequest { options: Some(options), ..shim.create_request() };
        assert_eq!(shim.refused("Create", &request).0, 2);
    }
    let (id, dir) = (&shim.bundle.id, shim.bundle.path().display());
    let wanted = format!(
        "--root {state}/testkit --log {dir}/log.json --log-format json --systemd-cgroup --criu /opt/criu create \
         --bundle {dir} --pid-file {dir}/init.pid --no-pivot --no-new-keyring {id}"
    );
    let said = fs::read_to_string(said).unwrap();
    assert_eq!(said.lines().collect::<Vec<_>>(), [&wanted; 3]);
    shim.shut_down();
}

#[test]
fn info_tells_what_the_runtime_can_do() {
    let options =
        Options { binary_name: runtime::under_test().to_string_lossy().into_owned(), ..Options::default() };
    let place = Scratch::new("info");
    let input = place.join("input");
    fs::write(&input, Any::pack("containerd.runc.v1.Options", &options).encode_to_vec()).unwrap();
    let mut command = std::process::Command::new(our_shim());
    let output = command.arg("-info").stdin(fs::File::open(input).unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let info = RuntimeInfo::decode(output.stdout.as_slice()).unwrap();
    assert_eq!(info.name, "io.containerd.hull.v2");
    let features = info.features.unwrap();
    assert_eq!(features.type_url, "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
    let features: serde_json::Value = serde_json::from_slice(&features.value).unwrap();
    assert!(
        features["ociVersionMin"].is_string() && features["linux"]["namespaces"].is_array(),
        "{features}"
    );
}

#[test]
fn each_container_of_a_large_pod_ends_alone() {
    needs!(root());
    let first = sleeper();
    let pod = first.id.clone();
    let annotate = |bundle: Bundle| {
        let pod = pod.clone();
        bundle.with(move |config| {
            config["annotations"] = serde_json::json!({ "io.containerd.runc.v2.group": pod })
        })
    };
    let root = first.root();
    let mut shim = Shim::start(annotate(first));
    shim.run();
    let others: Vec<Bundle> = (0..20).map(|_| annotate(Bundle::on(&root, &["/bin/sleep", "1000"]))).collect();
    let mut running = Vec::new();
    for other in others {
        let answer = action(&our_shim(), &other, &shim.place, "start", b"");
        assert_eq!(String::from_utf8(answer.stdout).unwrap(), shim.address);
        let own = std::mem::replace(&mut shim.bundle, other);
        shim.run();
        running.push(std::mem::replace(&mut shim.bundle, own));
    }
    while let Some(next) = running.pop() {
        let own = std::mem::replace(&mut shim.bundle, next);
        shim.kill(9);
        assert_eq!(shim.wait(""), 137);
        shim.delete();
        drop(std::mem::replace(&mut shim.bundle, own));
        for other in &running {
            let request = ProcessRequest { id: other.id.clone(), exec_id: String::new() };
            assert_eq!(shim.ok::<StateResponse>("State", &request).status(), Status::Running);
        }
    }
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    shim.delete();
    shim.shut_down();
}
