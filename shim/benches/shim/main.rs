//! Compares the shim and the monitor with the installed incumbents in one run: memory, times, processor time, throughput.
//!
//! `just bench-shim [SECTION...]`; the sections are those of [`SECTIONS`]. All programs start the same runtime, the
//! built `hull`, so that what differs is theirs. Never run in CI: a number means something only on a quiet machine.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap ends the comparison

mod crowd;
mod life;
mod output;
#[path = "../../tests/task_client/mod.rs"]
mod task_client;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hull_shim::api::*;
use hull_testkit::{Bundle, Scratch, gate, place, runtime};
use prost::Message;
use task_client::{Client, Events, action, fifo};

/// A part of the comparison.
type Section = fn(&[Peer]);

/// What can be asked for by name.
const SECTIONS: [(&str, Section); 5] = [
    ("memory", crowd::memory),
    ("thousand", crowd::thousand),
    ("life", life::life),
    ("bulk", output::bulk),
    ("log", output::log),
];

/// A shim to measure.
pub(crate) struct Peer {
    /// How the tables call it.
    pub(crate) name: &'static str,
    /// Where it is.
    pub(crate) program: PathBuf,
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let mut peers = vec![Peer { name: "hull", program: place::program("containerd-shim-hull-v2") }];
    let go = std::env::var_os("GO_SHIM").map(PathBuf::from).or_else(|| gate::find("containerd-shim-runc-v2"));
    peers.extend(go.map(|program| Peer { name: "go", program }));
    for (name, section) in SECTIONS {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            println!("\n## {name}");
            section(&peers);
        }
    }
}

/// A place where many containers share a root file system, a runtime state directory and an event service.
pub(crate) struct Site {
    pub(crate) place: Scratch,
    _events: Events,
    root: PathBuf,
    pub(crate) options: Options,
}

impl Site {
    pub(crate) fn new() -> Self {
        let place = Scratch::new("bench");
        let root = place.join("rootfs");
        fs::create_dir(&root).unwrap();
        hull_testkit::rootfs::busybox(&root).unwrap();
        let options = Options {
            binary_name: runtime::under_test().to_string_lossy().into_owned(),
            root: place.join("state").to_string_lossy().into_owned(),
            ..Options::default()
        };
        Self { _events: Events::listen(place.join("events.sock")), place, root, options }
    }

    pub(crate) fn bundle(&self, words: &[&str]) -> Bundle {
        Bundle::on(&self.root, words)
    }

    /// A shim with a connected client.
    pub(crate) fn shim(&self, peer: &Peer, bundle: Bundle) -> Driven {
        // The Go shim does not live without its log.
        let log = fifo(&bundle.path().join("log"));
        let log = fs::File::options().read(true).write(true).open(log).unwrap();
        let began = Instant::now();
        let answer = action(&peer.program, &bundle, &self.place, "start", b"");
        let start_took = began.elapsed();
        let address = String::from_utf8(answer.stdout.clone()).unwrap().trim().to_owned();
        assert!(answer.status.success() && address.starts_with("unix://"), "{answer:?}");
        let client = Client::connect(&address);
        Driven { bundle, client, address, start_took, _log: log }
    }

    pub(crate) fn create(&self, shim: &mut Driven, streams: [&str; 2]) -> u32 {
        let [stdout, stderr] = streams.map(str::to_owned);
        let request = CreateTaskRequest {
            id: shim.bundle.id.clone(),
            bundle: shim.bundle.path().to_string_lossy().into_owned(),
            options: Some(Any::pack("containerd.runc.v1.Options", &self.options)),
            stdout,
            stderr,
            ..CreateTaskRequest::default()
        };
        shim.ok::<PidResponse>("Create", &request).pid
    }
}

/// A shim that is driven by calls.
pub(crate) struct Driven {
    pub(crate) bundle: Bundle,
    pub(crate) client: Client,
    pub(crate) address: String,
    /// How long the start command took.
    pub(crate) start_took: Duration,
    _log: fs::File,
}

impl Driven {
    pub(crate) fn named(&self, exec: &str) -> ProcessRequest {
        ProcessRequest { id: self.bundle.id.clone(), exec_id: exec.to_owned() }
    }

    pub(crate) fn ok<M: Message + Default>(&mut self, method: &str, request: &impl Message) -> M {
        let answer = self.client.call("containerd.task.v2.Task", method, request).unwrap();
        M::decode(answer.as_slice()).unwrap()
    }

    pub(crate) fn start(&mut self) {
        let named = self.named("");
        self.ok::<PidResponse>("Start", &named);
    }

    pub(crate) fn shim_pid(&mut self) -> u32 {
        let named = self.named("");
        self.ok::<ConnectResponse>("Connect", &named).shim_pid
    }

    pub(crate) fn kill(&mut self) {
        let kill = KillRequest { id: self.bundle.id.clone(), signal: 9, ..KillRequest::default() };
        self.ok::<ConnectResponse>("Kill", &kill);
    }

    pub(crate) fn wait(&mut self) {
        let named = self.named("");
        self.ok::<WaitResponse>("Wait", &named);
    }

    pub(crate) fn delete(&mut self) {
        let named = self.named("");
        self.ok::<DeleteResponse>("Delete", &named);
    }

    pub(crate) fn shut_down(mut self) {
        let request = ShutdownRequest { id: self.bundle.id.clone(), now: true };
        // The answer may be cut off by the end.
        let _ = self.client.call("containerd.task.v2.Task", "Shutdown", &request);
        let socket = PathBuf::from(self.address.strip_prefix("unix://").unwrap());
        assert!(hull_testkit::call::eventually(Duration::from_secs(20), || {
            std::os::unix::net::UnixStream::connect(&socket).is_err()
        }));
        // The Go shim of 1.6 leaves its own behind.
        let _ = fs::remove_file(socket);
    }
}

/// Processor time of all threads of a process so far.
pub(crate) fn processor_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanos = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// `median / least` of some spans, in ms.
pub(crate) fn spread(mut spans: Vec<Duration>) -> String {
    spans.sort();
    let millis = |span: Duration| span.as_secs_f64() * 1e3;
    format!("{:.2} / {:.2}", millis(spans[spans.len() / 2]), millis(spans[0]))
}
