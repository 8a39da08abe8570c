//! A containerd of the tests' own: starts a shim in each form, calls its Task service, takes its events.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses a part of it; a failed unwrap fails the test

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hull_shim::api::*;
use hull_shim::ttrpc::{Decoder, Kind, Request, Response, RpcStatus, encode};
use hull_testkit::call::eventually;
use hull_testkit::{Bundle, Scratch, place, runtime};
use prost::Message;

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

/// A client's connection.
pub struct Client {
    stream: UnixStream,
    decoder: Decoder,
    next: u32,
    early: Vec<(u32, Response)>,
}

impl Client {
    pub fn connect(address: &str) -> Self {
        let path = address.strip_prefix("unix://").expect("an address of a file");
        let stream = UnixStream::connect(path).expect("connect to the shim");
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self { stream, decoder: Decoder::default(), next: 1, early: Vec::new() }
    }

    /// Sends a call and gives its number.
    pub fn send(&mut self, service: &str, method: &str, request: &impl Message) -> u32 {
        let (stream, frame) = self.frame(service, method, request);
        self.stream.write_all(&frame).unwrap();
        stream
    }

    /// Sends the same call twice at once, before the first can be answered.
    pub fn send_twice(&mut self, service: &str, method: &str, request: &impl Message) -> [u32; 2] {
        let calls = [0, 1].map(|_| self.frame(service, method, request));
        self.stream.write_all(&[calls[0].1.as_slice(), &calls[1].1].concat()).unwrap();
        calls.map(|(stream, _)| stream)
    }

    fn frame(&mut self, service: &str, method: &str, request: &impl Message) -> (u32, Vec<u8>) {
        let stream = self.next;
        self.next += 2;
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload: request.encode_to_vec(),
            ..Request::default()
        };
        (stream, encode(stream, Kind::Request, &request.encode_to_vec()))
    }

    /// Waits for the answer to a call; others that come first are kept.
    pub fn receive(&mut self, stream: u32) -> Result<Vec<u8>, RpcStatus> {
        loop {
            if let Some(at) = self.early.iter().position(|(number, _)| *number == stream) {
                let (_, response) = self.early.swap_remove(at);
                return match response.status {
                    Some(status) if status.code != 0 => Err(status),
                    _ => Ok(response.payload),
                };
            }
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                self.early.push((frame.stream, Response::decode(frame.payload.as_slice()).unwrap()));
                continue;
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes) {
                Ok(got @ 1..) => self.decoder.feed(&bytes[..got]),
                other => {
                    let message = format!("the connection ended: {other:?}");
                    return Err(RpcStatus { code: 14, message, details: Vec::new() });
                }
            }
        }
    }

    pub fn call(
        &mut self,
        service: &str,
        method: &str,
        request: &impl Message,
    ) -> Result<Vec<u8>, RpcStatus> {
        let stream = self.send(service, method, request);
        self.receive(stream)
    }
}

/// containerd's event service, which can be away.
pub struct Events {
    path: PathBuf,
    seen: Arc<Mutex<Vec<Envelope>>>,
    away: Arc<Mutex<bool>>,
}

impl Events {
    pub fn listen(path: PathBuf) -> Self {
        let events = Self { path, seen: Arc::default(), away: Arc::default() };
        events.serve();
        events
    }

    fn serve(&self) {
        let listener = UnixListener::bind(&self.path).expect("listen for events");
        let (seen, away) = (Arc::clone(&self.seen), Arc::clone(&self.away));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if *away.lock().unwrap() {
                    return;
                }
                let (seen, away) = (Arc::clone(&seen), Arc::clone(&away));
                std::thread::spawn(move || take_events(&stream.unwrap(), &seen, &away));
            }
        });
    }

    /// Goes away as a killed containerd does: connections end, the socket's file stays and refuses.
    pub fn go_away(&self) {
        *self.away.lock().unwrap() = true;
        // The accepting thread ends at the next connection, which closes the listener.
        let _ = UnixStream::connect(&self.path);
        assert!(eventually(LIMIT, || UnixStream::connect(&self.path).is_err()));
    }

    pub fn come_back(&self) {
        *self.away.lock().unwrap() = false;
        fs::remove_file(&self.path).unwrap();
        self.serve();
    }

    /// Topics and decisive numbers so far.
    pub fn brief(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(brief).collect()
    }

    pub fn all(&self) -> Vec<Envelope> {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn expect(&self, wanted: &[&str]) {
        eventually(Duration::from_secs(10), || self.brief().len() >= wanted.len());
        assert_eq!(self.brief(), wanted);
    }
}

fn take_events(mut stream: &UnixStream, seen: &Mutex<Vec<Envelope>>, away: &Mutex<bool>) {
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut decoder = Decoder::default();
    let mut bytes = [0; 4096];
    while !*away.lock().unwrap() {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(got) => decoder.feed(&bytes[..got]),
            Err(_) => continue,
        }
        while let Some(frame) = decoder.next_frame().unwrap() {
            let request = Request::decode(frame.payload.as_slice()).unwrap();
            assert_eq!(request.service, "containerd.services.events.ttrpc.v1.Events");
            assert_eq!(request.method, "Forward");
            let forward = ForwardRequest::decode(request.payload.as_slice()).unwrap();
            seen.lock().unwrap().push(forward.envelope.unwrap());
            stream.write_all(&encode(frame.stream, Kind::Response, &Response::encode(Ok(vec![])))).unwrap();
        }
    }
}

fn brief(envelope: &Envelope) -> String {
    let value = envelope.event.as_ref().unwrap().value.as_slice();
    let topic = envelope.topic.trim_start_matches("/tasks/");
    match topic {
        "exit" => {
            let exit = TaskExit::decode(value).unwrap();
            let who = if exit.id == exit.container_id { "init" } else { &exit.id };
            format!("exit {who} {}", exit.exit_status)
        }
        "exec-added" | "exec-started" => format!("{topic} {}", TaskExec::decode(value).unwrap().exec_id),
        other => other.to_owned(),
    }
}

/// A fifo that a test reads.
pub fn fifo(path: &std::path::Path) -> String {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    path.to_string_lossy().into_owned()
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Anonymous memory of a process, in kB; pages of the program's file are shared by all shims.
pub fn anonymous_kb(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A runtime that is a shell script; `$REAL` is the real one.
pub fn scripted(place: &Scratch, script: &str) -> PathBuf {
    let path = place.join("runtime.sh");
    let real = runtime::under_test();
    fs::write(&path, format!("#!/bin/sh\nREAL={}\n{script}\n", real.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// kill -9.
pub fn kill_9(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A small file system of its own, unmounted at the end.
pub struct Disk(pub PathBuf);

impl Disk {
    /// Mounts it on a directory, which is made if it is missing.
    pub fn over(path: &std::path::Path, options: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let data = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("disk", path, "tmpfs", rustix::mount::MountFlags::empty(), data.as_c_str())
            .unwrap();
        Self(path.to_owned())
    }

    pub fn fill(&self) {
        let mut file = fs::File::create(self.0.join("fill")).unwrap();
        while file.write(&[1; 4096]).is_ok() {}
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}
