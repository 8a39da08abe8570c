//! What the shim has from its runtime and from the kernel: options, failures, checkpoints, statistics, kills.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hull_shim::api::*;
use hull_testkit::call::eventually;
use hull_testkit::gate::{cgroup_v1, root};
use hull_testkit::{Bundle, Scratch, needs, runtime};
use prost::Message;
use task_client::*;

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
fn kill_of_an_exec_for_lack_of_memory_is_told_before_its_exit() {
    needs!(root());
    let bundle = sleeper()
        .with(|config| config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 8 << 20 }));
    let mut shim = Shim::start(bundle);
    shim.run();
    for number in 0..5 {
        let name = format!("e{number}");
        shim.exec(&name, "exec tail /dev/zero");
        assert_eq!(shim.wait(&name), 137);
        let named = shim.named(&name);
        shim.ok::<DeleteResponse>("Delete", &named);
    }
    shim.kill(9);
    shim.wait("");
    shim.delete();
    let seen = shim.events.brief();
    for number in 0..5 {
        let exit = seen.iter().position(|event| *event == format!("exit e{number} 137")).unwrap();
        let told = seen[..exit].iter().filter(|event| *event == "oom").count();
        assert_eq!(told, number + 1, "{seen:?}");
    }
    shim.shut_down();
}

#[test]
fn kill_in_a_container_that_lives_on_is_told_at_once() {
    needs!(root());
    let bundle = Bundle::shell("tail /dev/zero; sleep 1000")
        .with(|config| config["linux"]["resources"]["memory"] = serde_json::json!({ "limit": 8 << 20 }));
    let mut shim = Shim::start(bundle);
    shim.run();
    assert!(eventually(LIMIT, || shim.events.brief().iter().any(|event| event == "oom")));
    assert_eq!(shim.state().status(), Status::Running);
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.events.expect(&["create", "start", "oom", "exit init 137", "delete"]);
    shim.shut_down();
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

/// Sends a call whose caller waits for two seconds only, as it says.
fn send_with_two_seconds(shim: &Shim, method: &str) -> UnixStream {
    let request = hull_shim::ttrpc::Request {
        service: "containerd.task.v2.Task".into(),
        method: method.into(),
        payload: shim.named("").encode_to_vec(),
        timeout_nano: 2_000_000_000,
        ..Default::default()
    };
    let mut raw = UnixStream::connect(shim.socket()).unwrap();
    let frame = hull_shim::ttrpc::encode(1, hull_shim::ttrpc::Kind::Request, &request.encode_to_vec());
    raw.write_all(&frame).unwrap();
    raw
}

/// The answer, which is a refusal.
fn receive_refusal(mut raw: UnixStream) -> hull_shim::ttrpc::RpcStatus {
    let mut head = [0; 10];
    raw.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize];
    raw.read_exact(&mut body).unwrap();
    hull_shim::ttrpc::Response::decode(body.as_slice()).unwrap().status.unwrap()
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
    let raw = send_with_two_seconds(&shim, "Pause");
    // Answered while the runtime hangs, or it would never show.
    let is_pausing = || {
        let state = other.call("containerd.task.v2.Task", "State", &named).unwrap();
        StateResponse::decode(state.as_slice()).unwrap().status() == Status::Pausing
    };
    assert!(eventually(Duration::from_secs(2), is_pausing), "State waited for the runtime");
    let status = receive_refusal(raw);
    assert_eq!(status.code, 4, "{}", status.message);
    assert_eq!(shim.state().status(), Status::Running);
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    shim.delete();
    shim.shut_down();
}

/// A frozen cgroup of version 1: what is in it does not end when it is killed, as a process that waits for a broken disk.
struct Frozen(std::path::PathBuf);

impl Frozen {
    fn new() -> Self {
        let path = Path::new("/sys/fs/cgroup/freezer").join(hull_testkit::place::unique("frozen"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn thaw(&self) {
        fs::write(self.0.join("freezer.state"), "THAWED").unwrap();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
        assert!(eventually(LIMIT, || fs::remove_dir(&self.0).is_ok()), "it is not empty");
    }
}

#[test]
fn runtime_that_cannot_be_killed_is_not_waited_for() {
    needs!(root(), cgroup_v1());
    let tools = Scratch::new("tools");
    let frozen = Frozen::new();
    let script = format!(
        "case \"$*\" in *' pause '*) echo $$ > {0}/cgroup.procs; echo FROZEN > {0}/freezer.state; exit 7;; esac; \
         exec $REAL \"$@\"",
        frozen.0.display()
    );
    let mut shim = Shim::start_with(our_shim(), sleeper(), scripted(&tools, &script));
    shim.run();
    let (pid, named) = (shim.pid(), shim.named(""));
    let status = receive_refusal(send_with_two_seconds(&shim, "Pause"));
    assert!(status.code == 4 && status.message.contains("did not end in time"), "{status:?}");
    assert_eq!(fs::read_to_string(frozen.0.join("freezer.state")).unwrap().trim(), "FROZEN");
    assert_eq!(children(pid), 2, "init, and the runtime that hangs");
    // Its turn is over: the next call has its own.
    let resources = Any { type_url: String::new(), value: br#"{"pids":{"limit":77}}"#.to_vec() };
    let update =
        UpdateTaskRequest { id: shim.bundle.id.clone(), resources: Some(resources), ..Default::default() };
    shim.call("Update", &update).unwrap();
    frozen.thaw();
    assert!(eventually(LIMIT, || children(pid) == 1), "it is not reaped");
    assert_eq!(shim.state().status(), Status::Running);
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    assert_eq!(shim.ok::<DeleteResponse>("Delete", &named).exit_status, 137);
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
fn container_that_cannot_be_restored_has_ended() {
    needs!(root());
    let tools = Scratch::new("tools");
    let program = scripted(&tools, "case \"$*\" in *' restore '*) exit 1;; esac; exec $REAL \"$@\"");
    let mut shim = Shim::start_with(our_shim(), Bundle::shell("exit 9"), program);
    let request = CreateTaskRequest { checkpoint: "/images/c".into(), ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    let named = shim.named("");
    let wait = shim.client.send("containerd.task.v2.Task", "Wait", &named);
    let (_, text) = shim.refused("Start", &named);
    assert!(text.starts_with("OCI runtime restore failed: "), "{text}");
    let waited = WaitResponse::decode(shim.client.receive(wait).unwrap().as_slice()).unwrap();
    assert_eq!(waited.exit_status, 255);
    assert_eq!(shim.state().status(), Status::Stopped);
    // As `ctr task rm --force` does it.
    let kill = KillRequest { id: shim.bundle.id.clone(), signal: 9, all: true, ..KillRequest::default() };
    assert_eq!(shim.refused("Kill", &kill).0, 5);
    assert_eq!(shim.delete().exit_status, 255);
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
