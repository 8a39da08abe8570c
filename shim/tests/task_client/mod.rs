//! A containerd of the tests' own: starts a shim in each form, calls its Task service, takes its events.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses a part of it; a failed unwrap fails the test

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_shim::api::*;
use hull_shim::ttrpc::RpcStatus;
use hull_testkit::call::eventually;
use hull_testkit::{Bundle, Scratch, place, runtime};
use prost::Message;

mod client;
mod events;
mod host;

pub use client::Client;
pub use events::Events;
pub use host::*;

/// No answer takes longer.
pub const LIMIT: Duration = Duration::from_secs(40);

/// A shim under test with one bundle.
pub struct Shim {
    pub bundle: Bundle,
    pub place: Scratch,
    pub events: Events,
    pub address: String,
    pub client: Client,
    pub options: Options,
    program: PathBuf,
    service: &'static str,
    started: bool,
    _log: fs::File,
}

/// A container that runs until it is killed.
pub fn sleeper() -> Bundle {
    Bundle::new(&["/bin/sleep", "1000"])
}

/// A container that closes its terminal, says `open` on it later, answers `got WORD` to a line, and ends with 3.
pub fn reopens_its_terminal() -> Bundle {
    let script = "echo first; exec </dev/null >/dev/null 2>&1; sleep 0.3; echo open >/dev/console; sleep 0.1
        exec </dev/console >/dev/console 2>&1; read word; echo got $word; exit 3";
    Bundle::shell(script).with(|config| config["process"]["terminal"] = true.into())
}

/// A container that says `first`, closes its terminal until there is a file `/go`, reads lines up to `last`, and ends with 3.
pub fn closes_its_terminal() -> Bundle {
    let script = "stty -echo; echo first; exec </dev/null >/dev/null 2>&1; while [ ! -e /go ]; do sleep 0.05; done
        exec </dev/console >/dev/console 2>&1; while read line; do [ \"$line\" = last ] && break; done; exit 3";
    Bundle::shell(script).with(|config| config["process"]["terminal"] = true.into())
}

/// More lines than the buffers of a terminal take, and `last`.
pub fn many_lines() -> Vec<u8> {
    [b"0123456789abcde\n".repeat(4096).as_slice(), b"last\n"].concat()
}

/// Takes a container its own pid namespace: its orphans are the shim's then.
pub fn without_pid_namespace(config: &mut serde_json::Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid");
}

pub fn our_shim() -> PathBuf {
    place::program("containerd-shim-hull-v2")
}

impl Shim {
    /// Starts our shim for `bundle` as containerd before 2.3 does.
    pub fn start(bundle: Bundle) -> Self {
        Self::start_with(our_shim(), bundle, runtime::under_test())
    }

    /// Starts a shim with a runtime.
    pub fn start_with(program: PathBuf, bundle: Bundle, runtime: PathBuf) -> Self {
        Self::start_asked(program, bundle, runtime, b"")
    }

    /// The same with something on the standard input of `start`.
    pub fn start_asked(program: PathBuf, bundle: Bundle, runtime: PathBuf, input: &[u8]) -> Self {
        let place = Scratch::new("shim");
        let events = Events::listen(place.join("events.sock"));
        let options = Options {
            binary_name: runtime.to_string_lossy().into_owned(),
            root: place.join("state").to_string_lossy().into_owned(),
            ..Options::default()
        };
        // containerd reads it; the Go shim does not live without it.
        let log = fs::File::options().read(true).write(true).open(fifo(&bundle.path().join("log"))).unwrap();
        let answer = action(&program, &bundle, &place, "start", input);
        assert!(answer.status.success(), "{answer:?}");
        let address = String::from_utf8(answer.stdout).unwrap().trim().to_owned();
        let client = Client::connect(&address);
        let service = "containerd.task.v2.Task";
        Self { bundle, place, events, address, client, options, program, service, started: true, _log: log }
    }

    pub fn socket(&self) -> PathBuf {
        PathBuf::from(self.address.strip_prefix("unix://").unwrap())
    }

    /// The shim's own process.
    pub fn pid(&mut self) -> u32 {
        let request = self.named("");
        self.ok::<ConnectResponse>("Connect", &request).shim_pid
    }

    pub fn named(&self, exec: &str) -> ProcessRequest {
        ProcessRequest { id: self.bundle.id.clone(), exec_id: exec.to_owned() }
    }

    pub fn call(&mut self, method: &str, request: &impl Message) -> Result<Vec<u8>, RpcStatus> {
        self.client.call(self.service, method, request)
    }

    #[track_caller]
    pub fn ok<M: Message + Default>(&mut self, method: &str, request: &impl Message) -> M {
        let answer = self.call(method, request).unwrap_or_else(|status| {
            let log = fs::read_to_string(self.bundle.path().join("log.json")).unwrap_or_default();
            panic!("{method}: {status:?}; the runtime's log ends with {:?}", log.lines().last())
        });
        M::decode(answer.as_slice()).unwrap()
    }

    #[track_caller]
    pub fn refused(&mut self, method: &str, request: &impl Message) -> (i32, String) {
        let status = self.call(method, request).expect_err("the call should be refused");
        (status.code, status.message)
    }

    pub fn create_request(&self) -> CreateTaskRequest {
        CreateTaskRequest {
            id: self.bundle.id.clone(),
            bundle: self.bundle.path().to_string_lossy().into_owned(),
            options: Some(Any::pack("containerd.runc.v1.Options", &self.options)),
            ..CreateTaskRequest::default()
        }
    }

    #[track_caller]
    pub fn create(&mut self) -> u32 {
        let request = self.create_request();
        self.ok::<PidResponse>("Create", &request).pid
    }

    #[track_caller]
    pub fn run(&mut self) -> u32 {
        let request = self.create_request();
        self.run_as(&request)
    }

    /// Creates the container as `request` says and starts it.
    #[track_caller]
    pub fn run_as(&mut self, request: &CreateTaskRequest) -> u32 {
        self.ok::<PidResponse>("Create", request);
        let named = self.named("");
        self.ok::<PidResponse>("Start", &named).pid
    }

    /// Runs the container with both outputs to `uri`, to its end, and deletes it.
    #[track_caller]
    pub fn run_into(&mut self, uri: &str) {
        let request = CreateTaskRequest { stdout: uri.into(), stderr: uri.into(), ..self.create_request() };
        self.run_as(&request);
        self.wait("");
        self.delete();
    }

    #[track_caller]
    pub fn wait(&mut self, exec: &str) -> u32 {
        let request = self.named(exec);
        self.ok::<WaitResponse>("Wait", &request).exit_status
    }

    #[track_caller]
    pub fn kill(&mut self, signal: u32) {
        let request = KillRequest { id: self.bundle.id.clone(), signal, ..KillRequest::default() };
        self.call("Kill", &request).unwrap();
    }

    #[track_caller]
    pub fn delete(&mut self) -> DeleteResponse {
        let request = self.named("");
        self.ok("Delete", &request)
    }

    /// Registers and starts a shell script beside init.
    #[track_caller]
    pub fn exec(&mut self, exec: &str, script: &str) -> u32 {
        let request = self.exec_request(exec, script);
        self.call("Exec", &request).unwrap();
        let request = self.named(exec);
        self.ok::<PidResponse>("Start", &request).pid
    }

    pub fn exec_request(&self, exec: &str, script: &str) -> ExecProcessRequest {
        let mut process = self.bundle.config["process"].clone();
        process["args"] = serde_json::json!(["/bin/sh", "-c", script]);
        let value = process.to_string().into_bytes();
        let spec =
            Any { type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(), value };
        ExecProcessRequest {
            id: self.bundle.id.clone(),
            exec_id: exec.to_owned(),
            spec: Some(spec),
            ..ExecProcessRequest::default()
        }
    }

    pub fn state(&mut self) -> StateResponse {
        let request = self.named("");
        self.ok("State", &request)
    }

    /// Runs the delete action, as containerd does after a shim's death.
    pub fn delete_action(&self) -> std::process::Output {
        action(&self.program, &self.bundle, &self.place, "delete", b"")
    }

    /// The shim has ended: there is nobody to ask.
    pub fn mark_ended(&mut self) {
        self.started = false;
    }

    /// Ends the shim as containerd does, and waits until its socket is gone.
    pub fn shut_down(&mut self) {
        self.started = false;
        let request = ShutdownRequest { id: self.bundle.id.clone(), now: true };
        // The answer may be cut off by the end.
        let _ = self.call("Shutdown", &request);
        let socket = self.socket();
        assert!(eventually(LIMIT, || !socket.exists()), "the shim did not end");
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if !self.started {
            return;
        }
        let id = self.bundle.id.clone();
        let kill = KillRequest { id: id.clone(), signal: 9, all: true, ..KillRequest::default() };
        let _ = self.call("Kill", &kill);
        let named = self.named("");
        if self.call("Wait", &named).is_ok() {
            let _ = self.call("Delete", &named);
        }
        let _ = self.call("Shutdown", &ShutdownRequest { id, now: true });
        let socket = self.socket();
        eventually(Duration::from_secs(5), || !socket.exists());
        let _ = fs::remove_file(socket);
    }
}

/// Runs an action of a shim as containerd does.
pub fn action(
    program: &PathBuf,
    bundle: &Bundle,
    place: &Scratch,
    verb: &str,
    input: &[u8],
) -> std::process::Output {
    action_with(program, bundle, place, verb, input, &[])
}

/// The same with more in its environment.
pub fn action_with(
    program: &PathBuf,
    bundle: &Bundle,
    place: &Scratch,
    verb: &str,
    input: &[u8],
    variables: &[(&str, &str)],
) -> std::process::Output {
    let mut command = Command::new(program);
    command.current_dir(bundle.path()).env("TTRPC_ADDRESS", place.join("events.sock"));
    command.env_remove("MAX_SHIM_VERSION").envs(variables.iter().copied());
    command.args(["-namespace", "testkit", "-address"]).arg(place.join("c.sock"));
    command.args(["-publish-binary", "/bin/false", "-id", &bundle.id]);
    if verb == "delete" {
        command.arg("-bundle").arg(bundle.path());
    }
    let mut child = command
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the shim");
    child.stdin.take().unwrap().write_all(input).expect("write standard input");
    child.wait_with_output().unwrap()
}
