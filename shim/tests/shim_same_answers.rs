//! The same questions to the Go shim of Debian and to ours, in every state: what differs is listed, and nothing else does.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hull_shim::api::*;
use hull_testkit::gate::{find, program, root};
use hull_testkit::{Bundle, Scratch, needs};
use prost::Message;
use task_client::*;

/// Label, the Go shim's answer (containerd 1.6), ours. The reasons are in docs/shim.md.
const DIFFERENT: [(&str, &str, &str); 18] = [
    ("created: Create", CREATE_SAID, CREATE_SAYS),
    ("created, exec \"\", signal 999: Kill", KILL_SAID, KILL_SAYS),
    ("created, exec \"nobody\": CloseIO", CLOSE_SAID, CLOSE_SAYS),
    ("created, no JSON: Update", UPDATE_SAID, UPDATE_SAYS),
    ("running: Create", CREATE_SAID, CREATE_SAYS),
    ("running, exec \"\", signal 999: Kill", KILL_SAID, KILL_SAYS),
    ("running, exec \"nobody\": CloseIO", CLOSE_SAID, CLOSE_SAYS),
    ("running, no JSON: Update", UPDATE_SAID, UPDATE_SAYS),
    ("running, refused by the runtime: Checkpoint", IMAGE_SAID, IMAGE_SAYS),
    ("paused: Create", CREATE_SAID, CREATE_SAYS),
    ("paused, exec \"\", signal 999: Kill", KILL_SAID, KILL_SAYS),
    ("paused, exec \"nobody\": CloseIO", CLOSE_SAID, CLOSE_SAYS),
    ("paused, no JSON: Update", UPDATE_SAID, UPDATE_SAYS),
    ("paused, refused by the runtime: Checkpoint", IMAGE_SAID, IMAGE_SAYS),
    ("stopped, exec \"nobody\": CloseIO", CLOSE_SAID, CLOSE_SAYS),
    ("stopped: Pids", "ok 0 pids", "ok 1 pids"),
    ("stopped: Create", CREATE_SAID, CREATE_SAYS),
    (
        "stopped: Start",
        "2 OCI runtime exec failed: exec failed: cannot exec in a stopped container",
        "9 container ID init process is not running: failed precondition",
    ),
];

const CREATE_SAID: &str =
    "2 OCI runtime create failed: runc create failed: container with given ID already exists";
const CREATE_SAYS: &str = "2 OCI runtime create failed: container with given ID already exists";
const KILL_SAYS: &str = "2 unknown error after kill: RUNC did not terminate successfully: exit status 1: unable to signal init: invalid argument";
const KILL_SAID: &str = "2 unknown error after kill: RUNC did not terminate successfully: exit status 1: unable to signal init: invalid argument\n";
const CLOSE_SAID: &str = "2 process does not exist nobody: not found";
const CLOSE_SAYS: &str = "5 process does not exist nobody: not found";
const IMAGE_SAID: &str =
    "2 RUNC did not terminate successfully: exit status 1: no images path= BUNDLE/criu-dump.log";
const IMAGE_SAYS: &str =
    "2 CRIU checkpoint failed: RUNC did not terminate successfully: exit status 1: no images";
const UPDATE_SAID: &str = "2 invalid character 'o' in literal null (expecting 'u')";
const UPDATE_SAYS: &str = "2 expected ident at line 1 column 2";

/// Asks one shim and keeps what it says.
struct Interview {
    shim: Shim,
    answers: Vec<(String, String)>,
    _tools: Scratch,
}

/// runc, but for a checkpoint, which says of itself what it did: CRIU depends on the kernel.
fn runc_without_criu(tools: &Scratch) -> PathBuf {
    let real = find("runc").unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n*/refused*) echo no images >&2; exit 1;;\n*\" checkpoint \"*) exit 0;;\nesac\n\
         exec {} \"$@\"\n",
        real.display()
    );
    let program = tools.join("runc");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

impl Interview {
    fn of(program: PathBuf) -> Self {
        let bundle = Bundle::new(&["sleep", "1000"]);
        std::fs::create_dir(bundle.path().join("work")).unwrap();
        let tools = Scratch::new("runc");
        let shim = Shim::start_with(program, bundle, runc_without_criu(&tools));
        Self { shim, answers: Vec::new(), _tools: tools }
    }

    /// Asks, and keeps the code and text of a refusal or what `shown` makes of the answer.
    fn ask<M: Message + Default>(
        &mut self,
        label: &str,
        method: &str,
        request: &impl Message,
        shown: impl Fn(M) -> String,
    ) {
        let answer = match self.shim.call(method, request) {
            Ok(bytes) => format!("ok {}", shown(M::decode(bytes.as_slice()).unwrap())),
            Err(status) => format!("{} {}", status.code, status.message),
        };
        let answer = answer
            .replace(&*self.shim.bundle.path().to_string_lossy(), "BUNDLE")
            .replace(&self.shim.bundle.id, "ID")
            .replace(&self.shim.options.binary_name, "RUNC");
        self.answers.push((format!("{label}: {method}"), answer));
    }

    /// Asks for what has no answer but success.
    fn tell(&mut self, label: &str, method: &str, request: &impl Message) {
        self.ask(label, method, request, |_: Any| String::new());
    }

    fn exec(&mut self, label: &str, exec: &str, words: &[&str]) {
        let mut request = self.shim.exec_request(exec, "");
        let mut process = self.shim.bundle.config["process"].clone();
        process["args"] = serde_json::json!(words);
        request.spec.as_mut().unwrap().value = process.to_string().into_bytes();
        self.tell(label, "Exec", &request);
    }

    fn kill(&mut self, label: &str, exec: &str, signal: u32, all: bool) {
        let (id, exec_id) = (self.shim.bundle.id.clone(), exec.to_owned());
        self.tell(label, "Kill", &KillRequest { id, exec_id, signal, all });
    }

    fn start(&mut self, label: &str, exec: &str) {
        let request = self.shim.named(exec);
        self.ask(label, "Start", &request, |answer: PidResponse| format!("pid {}", answer.pid > 0));
    }

    fn delete(&mut self, label: &str, exec: &str) {
        let request = self.shim.named(exec);
        self.ask(label, "Delete", &request, |answer: DeleteResponse| {
            format!("status {} pid {}", answer.exit_status, answer.pid > 0)
        });
    }

    fn wait(&mut self, label: &str, exec: &str) {
        let request = self.shim.named(exec);
        self.ask(label, "Wait", &request, |answer: WaitResponse| format!("status {}", answer.exit_status));
    }

    fn state(&mut self, label: &str, exec: &str) {
        let request = self.shim.named(exec);
        self.ask(label, "State", &request, |answer: StateResponse| {
            let ended = answer.exited_at.is_some_and(|at| at != Timestamp::GO_ZERO);
            format!(
                "{:?} {:?} pid {} exit {} ended {ended} bundle {} terminal {} exec {:?}",
                answer.id,
                answer.status(),
                answer.pid > 0,
                answer.exit_status,
                !answer.bundle.is_empty(),
                answer.terminal,
                answer.exec_id
            )
        });
    }

    /// Every call that may be made in any state without changing it much.
    fn everything(&mut self, label: &str) {
        let id = self.shim.bundle.id.clone();
        for exec in ["", "nobody"] {
            let at = format!("{label}, exec {exec:?}");
            self.state(&at, exec);
            let exec_id = exec.to_owned();
            let resize = ResizePtyRequest { id: id.clone(), exec_id: exec_id.clone(), width: 80, height: 24 };
            self.tell(&at, "ResizePty", &resize);
            self.tell(&at, "CloseIO", &CloseIoRequest { id: id.clone(), exec_id, stdin: true });
            self.kill(&format!("{at}, signal 0"), exec, 0, false);
            self.kill(&format!("{at}, signal 999"), exec, 999, false);
        }
        for method in ["Start", "Wait", "Delete"] {
            let request = self.shim.named("nobody");
            self.tell(&format!("{label}, exec \"nobody\""), method, &request);
        }
        let named = self.shim.named("");
        self.ask(label, "Pids", &named, |answer: PidsResponse| format!("{} pids", answer.processes.len()));
        self.ask(label, "Connect", &named, |answer: ConnectResponse| {
            format!("shim {} task {}", answer.shim_pid > 0, answer.task_pid > 0)
        });
        self.ask(label, "Stats", &named, |answer: StatsResponse| answer.stats.unwrap().type_url);
        let bad = Any { type_url: String::new(), value: b"no JSON".to_vec() };
        let update = UpdateTaskRequest { id: id.clone(), resources: Some(bad), ..Default::default() };
        self.tell(&format!("{label}, no JSON"), "Update", &update);
        let limits = Any { type_url: String::new(), value: br#"{"pids":{"limit":77}}"#.to_vec() };
        let update = UpdateTaskRequest { id: id.clone(), resources: Some(limits), ..Default::default() };
        self.tell(label, "Update", &update);
        // With no container left it would end the shim.
        if !["nothing", "deleted"].contains(&label) {
            self.tell(label, "Shutdown", &ShutdownRequest { id, now: false });
        }
    }

    fn create(&mut self, label: &str) {
        let request = self.shim.create_request();
        self.ask(label, "Create", &request, |answer: PidResponse| format!("pid {}", answer.pid > 0));
    }

    fn checkpoint(&mut self, label: &str) {
        self.checkpoint_to(label, "image");
    }

    fn refused_checkpoint(&mut self, label: &str) {
        self.checkpoint_to(&format!("{label}, refused by the runtime"), "refused");
    }

    fn checkpoint_to(&mut self, label: &str, image: &str) {
        let path = self.shim.place.join(image).to_string_lossy().into_owned();
        let request = CheckpointTaskRequest { id: self.shim.bundle.id.clone(), path, options: None };
        self.tell(label, "Checkpoint", &request);
    }

    fn freeze(&mut self, label: &str, methods: &[&str]) {
        for method in methods {
            let named = self.shim.named("");
            self.tell(label, method, &named);
        }
    }
}

fn before_the_start(interview: &mut Interview) {
    interview.everything("nothing");
    interview.freeze("nothing", &["Pause", "Resume"]);
    interview.wait("nothing", "");
    interview.start("nothing", "");
    interview.delete("nothing", "");
    interview.checkpoint("nothing");
    interview.exec("nothing", "e", &["true"]);
    interview.create("nothing");
    interview.create("created");
    interview.everything("created");
    interview.freeze("created", &["Pause", "Resume"]);
    interview.checkpoint("created");
    interview.exec("created", "early", &["sh", "-c", "exit 4"]);
    interview.start("created", "early");
    interview.wait("created", "early");
    interview.delete("created", "early");
}

fn while_it_runs(interview: &mut Interview) {
    interview.start("created", "");
    interview.start("running", "");
    interview.delete("running", "");
    interview.create("running");
    interview.everything("running");
    interview.freeze("running", &["Resume"]);
    interview.checkpoint("running");
    interview.refused_checkpoint("running");
    interview.state("running, after its checkpoint", "");
    interview.exec("running", "e1", &["sleep", "500"]);
    interview.exec("running, again", "e1", &["sleep", "500"]);
    interview.state("registered", "e1");
    interview.kill("registered", "e1", 9, false);
    interview.start("registered", "e1");
    interview.start("exec running", "e1");
    interview.state("exec running", "e1");
    interview.delete("exec running", "e1");
    interview.kill("exec running, signal 999", "e1", 999, false);
    interview.kill("exec running", "e1", 9, false);
    interview.wait("exec running", "e1");
    interview.state("exec stopped", "e1");
    interview.start("exec stopped", "e1");
    interview.kill("exec stopped", "e1", 9, false);
    interview.wait("exec stopped", "e1");
    interview.delete("exec stopped", "e1");
    interview.delete("exec deleted", "e1");
    interview.wait("exec deleted", "e1");
    interview.exec("running, no such program", "e2", &["/nonexistent"]);
    // The text of the refusal is the runtime's; a second start makes the Go shim panic.
    let request = interview.shim.named("e2");
    assert!(interview.shim.call("Start", &request).is_err());
    interview.state("exec failed", "e2");
    interview.kill("exec failed", "e2", 9, false);
    interview.delete("exec failed", "e2");
    interview.exec("running, never started", "e3", &["true"]);
}

fn to_the_end(interview: &mut Interview) {
    interview.freeze("running", &["Pause"]);
    interview.freeze("paused", &["Pause"]);
    interview.state("paused", "");
    interview.start("paused", "");
    interview.delete("paused", "");
    interview.create("paused");
    interview.exec("paused", "e9", &["true"]);
    interview.everything("paused");
    interview.checkpoint("paused");
    interview.refused_checkpoint("paused");
    interview.state("paused, after its checkpoint", "");
    interview.freeze("paused", &["Resume"]);
    interview.kill("running", "", 9, false);
    interview.wait("running", "");
    interview.everything("stopped");
    interview.start("stopped", "");
    interview.create("stopped");
    interview.freeze("stopped", &["Pause", "Resume"]);
    interview.checkpoint("stopped");
    interview.kill("stopped", "", 9, false);
    interview.kill("stopped, all", "", 9, true);
    interview.exec("stopped", "e8", &["true"]);
    interview.start("stopped", "e3");
    interview.wait("stopped", "");
    interview.delete("stopped", "");
    interview.delete("deleted", "");
    interview.everything("deleted");
    interview.start("deleted", "");
    interview.freeze("deleted", &["Pause", "Resume"]);
    interview.exec("deleted", "e7", &["true"]);
    interview.checkpoint("deleted");
    interview.wait("deleted", "");
}

/// Everything asked of one shim, and the events that it published.
fn interview(program: PathBuf) -> Vec<(String, String)> {
    let mut interview = Interview::of(program);
    before_the_start(&mut interview);
    while_it_runs(&mut interview);
    to_the_end(&mut interview);
    let Interview { mut shim, mut answers, _tools } = interview;
    hull_testkit::call::eventually(LIMIT, || shim.events.brief().last().is_some_and(|last| last == "delete"));
    answers.push(("events".to_owned(), shim.events.brief().join(", ")));
    shim.shut_down();
    answers
}

#[test]
fn answers_are_those_of_the_go_shim_but_for_the_listed_ones() {
    needs!(root(), program("containerd-shim-runc-v2"), program("runc"), hull_testkit::gate::cgroup_v1());
    let go = interview(find("containerd-shim-runc-v2").unwrap());
    let ours = interview(our_shim());
    assert_eq!(go.len(), ours.len());
    let different = go.iter().zip(&ours).filter(|(go, ours)| go != ours);
    let found: Vec<_> = different.map(|(go, ours)| (go.0.as_str(), go.1.as_str(), ours.1.as_str())).collect();
    println!("{} answers, {} differ", go.len(), found.len());
    assert!(found == DIFFERENT, "found: {found:#?}\nlisted: {DIFFERENT:#?}");
}
