//! The state machine by itself: what each call answers in each state, and in what order things are published.

use prost::Message;

use crate::api::{
    CloseIoRequest, CreateTaskRequest, DeleteResponse, ExecProcessRequest, KillRequest, PidResponse,
    PidsResponse, ProcessRequest, ResizePtyRequest, ShutdownRequest, StateResponse, Status, Timestamp,
    WaitResponse,
};
use crate::ttrpc::{Code, Refusal};

use super::*;

mod ends;
mod turns;

const AT: Timestamp = Timestamp { seconds: 5, nanos: 6 };

/// A pod with what it published and answered so far; jobs wait until the test ends them.
struct Bench {
    pod: Pod,
    calls: CallId,
    jobs: Vec<Ticket>,
    events: Vec<String>,
    /// What was asked of streams, and between it the jobs.
    asked: Vec<Effect>,
    answers: Vec<(CallId, Result<Vec<u8>, Refusal>)>,
    left: bool,
}

fn named(id: &str, exec: &str) -> ProcessRequest {
    ProcessRequest { id: id.into(), exec_id: exec.into() }
}

fn key(exec: &str) -> Key {
    Key { container: "c".into(), exec: exec.into() }
}

impl Bench {
    fn new() -> Self {
        Self {
            pod: Pod::new(99),
            calls: 0,
            jobs: vec![],
            events: vec![],
            asked: vec![],
            answers: vec![],
            left: false,
        }
    }

    fn created() -> Self {
        let mut bench = Self::new();
        bench.call(Call::Create(CreateTaskRequest {
            id: "c".into(),
            bundle: "/b".into(),
            ..Default::default()
        }));
        bench.finish(Outcome::Pid(10));
        bench
    }

    fn running() -> Self {
        let mut bench = Self::created();
        bench.call(Call::Start(named("c", "")));
        bench.finish(Outcome::Done);
        bench
    }

    fn stopped() -> Self {
        let mut bench = Self::running();
        bench.exit("", 7);
        bench
    }

    fn with_exec(exec: &str, pid: u32) -> Self {
        let mut bench = Self::running();
        bench.register(exec);
        bench.call(Call::Start(named("c", exec)));
        bench.finish(Outcome::Pid(pid));
        bench
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply(id, answer) => self.answers.push((id, answer)),
                Effect::Run(ticket) => {
                    self.asked.push(Effect::Run(ticket.clone()));
                    self.jobs.push(ticket);
                }
                Effect::Publish(event) => self.events.push(brief(&event)),
                Effect::Exit => self.left = true,
                other => self.asked.push(other),
            }
        }
    }

    fn call(&mut self, call: Call) -> CallId {
        self.calls += 1;
        let effects = self.pod.call(self.calls, call);
        self.take(effects);
        self.calls
    }

    fn register(&mut self, exec: &str) -> CallId {
        self.call(Call::Exec(ExecProcessRequest {
            id: "c".into(),
            exec_id: exec.into(),
            ..Default::default()
        }))
    }

    /// Ends the oldest job.
    fn finish(&mut self, outcome: Outcome) {
        let ticket = self.jobs.remove(0);
        let effects = self.pod.done(ticket, outcome);
        self.take(effects);
    }

    fn exit(&mut self, exec: &str, status: u32) {
        let effects = self.pod.exited(&key(exec), Exit { status, at: AT }, false);
        self.take(effects);
    }

    fn answer(&self, id: CallId) -> Option<&Result<Vec<u8>, Refusal>> {
        self.answers.iter().find(|(other, _)| *other == id).map(|(_, answer)| answer)
    }

    fn ok<M: Message + Default>(&self, id: CallId) -> M {
        M::decode(self.answer(id).unwrap().as_ref().unwrap().as_slice()).unwrap()
    }

    fn refusal(&self, id: CallId) -> (Code, String) {
        let refusal = self.answer(id).unwrap().as_ref().unwrap_err();
        (refusal.code, refusal.text.clone())
    }

    fn state(&mut self, exec: &str) -> StateResponse {
        let id = self.call(Call::State(named("c", exec)));
        self.ok(id)
    }
}

fn brief(event: &Event) -> String {
    match event {
        Event::Create { pid, .. } => format!("create {pid}"),
        Event::Start { pid, .. } => format!("start {pid}"),
        Event::Exit { key, pid, exit } => {
            format!("exit {}/{} {pid} {}", key.container, key.exec, exit.status)
        }
        Event::Delete { pid, exit, .. } => format!("delete {pid} {}", exit.status),
        Event::Oom { .. } => "oom".into(),
        Event::ExecAdded { exec, .. } => format!("exec-added {exec}"),
        Event::ExecStarted { exec, pid, .. } => format!("exec-started {exec} {pid}"),
        Event::Paused { .. } => "paused".into(),
        Event::Resumed { .. } => "resumed".into(),
    }
}

#[test]
fn life_is_published_in_order_and_answered() {
    let mut bench = Bench::created();
    assert_eq!(bench.ok::<PidResponse>(1).pid, 10);
    assert_eq!(bench.state("").status(), Status::Created);
    let wait = bench.call(Call::Wait(named("c", "")));
    bench.call(Call::Start(named("c", "")));
    bench.finish(Outcome::Done);
    let running = bench.state("");
    assert_eq!((running.status(), running.exited_at), (Status::Running, Some(Timestamp::GO_ZERO)));
    assert!(bench.answer(wait).is_none());
    bench.exit("", 7);
    assert_eq!(bench.ok::<WaitResponse>(wait), WaitResponse { exit_status: 7, exited_at: Some(AT) });
    let delete = bench.call(Call::Delete(named("c", "")));
    bench.finish(Outcome::Done);
    let wanted = DeleteResponse { pid: 10, exit_status: 7, exited_at: Some(AT) };
    assert_eq!(bench.ok::<DeleteResponse>(delete), wanted);
    assert_eq!(bench.events, ["create 10", "start 10", "exit c/ 10 7", "delete 10 7"]);
    assert!(bench.pod.is_empty());
}

#[test]
fn ended_task_still_names_its_init_among_its_pids() {
    let mut bench = Bench::stopped();
    let pids = bench.call(Call::Pids(named("c", "")));
    let found: Vec<u32> =
        bench.ok::<PidsResponse>(pids).processes.iter().map(|process| process.pid).collect();
    assert_eq!(found, [10]);
    assert!(bench.jobs.is_empty(), "no runtime is asked");
}

#[test]
fn pids_tell_execs_from_the_rest() {
    let mut bench = Bench::with_exec("e", 20);
    let pids = bench.call(Call::Pids(named("c", "")));
    bench.finish(Outcome::Pids(vec![10, 11, 20]));
    let processes = bench.ok::<PidsResponse>(pids).processes;
    let execs: Vec<(u32, bool)> =
        processes.iter().map(|process| (process.pid, process.info.is_some())).collect();
    assert_eq!(execs, [(10, false), (11, false), (20, true)]);
    assert_eq!(processes[2].info.as_ref().unwrap().value, [0x0a, 1, b'e']);
}

#[test]
#[allow(clippy::too_many_lines)] // a table
fn calls_are_refused_by_state() {
    type Make = fn() -> Bench;
    let cases: [(Make, Call, Code, &str); 16] = [
        (Bench::new, Call::State(named("c", "")), Code::NotFound, "container not created: not found"),
        (Bench::created, Call::State(named("c", "x")), Code::NotFound, "process does not exist x: not found"),
        (Bench::running, Call::Start(named("c", "")), Code::Unknown, "cannot start a running process"),
        (Bench::stopped, Call::Start(named("c", "")), Code::Unknown, "cannot start a stopped process"),
        (Bench::running, Call::Delete(named("c", "")), Code::Unknown, "cannot delete a running process"),
        (Bench::created, Call::Pause(named("c", "")), Code::Unknown, "cannot pause task in created state"),
        (Bench::stopped, Call::Pause(named("c", "")), Code::Unknown, "cannot pause a stopped container"),
        (Bench::running, Call::Resume(named("c", "")), Code::Unknown, "cannot resume a running process"),
        (
            Bench::created,
            Call::Checkpoint(Default::default()),
            Code::NotFound,
            "container not created: not found",
        ),
        (
            || Bench::with_exec("e", 20),
            Call::Start(named("c", "e")),
            Code::Unknown,
            "cannot start a running process",
        ),
        (
            || Bench::with_exec("e", 20),
            Call::Delete(named("c", "e")),
            Code::Unknown,
            "cannot delete a running process",
        ),
        (
            Bench::stopped,
            Call::Kill(KillRequest { id: "c".into(), signal: 9, ..Default::default() }),
            Code::NotFound,
            "process already finished: not found",
        ),
        (
            Bench::running,
            Call::Create(CreateTaskRequest { id: "c".into(), ..Default::default() }),
            Code::Unknown,
            "OCI runtime create failed: container with given ID already exists",
        ),
        (
            || Bench::with_exec("e", 20),
            Call::Exec(ExecProcessRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() }),
            Code::AlreadyExists,
            "id e: already exists",
        ),
        (
            Bench::stopped,
            Call::Exec(ExecProcessRequest { id: "c".into(), exec_id: "e".into(), ..Default::default() }),
            Code::Unknown,
            "cannot exec in a stopped state",
        ),
        (
            || {
                let mut bench = Bench::running();
                bench.register("e");
                bench
            },
            Call::Kill(KillRequest { id: "c".into(), exec_id: "e".into(), signal: 9, all: false }),
            Code::FailedPrecondition,
            "process not created: failed precondition",
        ),
    ];
    for (make, call, code, text) in cases {
        let mut bench = make();
        let id = bench.call(call.clone());
        assert_eq!(bench.refusal(id), (code, text.to_owned()), "{call:?}");
        assert!(bench.jobs.is_empty(), "{call:?}");
    }
}

#[test]
fn exec_of_an_ended_container_cannot_start() {
    let mut bench = Bench::running();
    bench.register("e");
    bench.exit("", 0);
    let id = bench.call(Call::Start(named("c", "e")));
    let text = "container c init process is not running: failed precondition";
    assert_eq!(bench.refusal(id), (Code::FailedPrecondition, text.to_owned()));
}

#[test]
fn pause_shows_while_it_lasts_and_a_process_that_ends_meanwhile_is_stopped() {
    let mut bench = Bench::running();
    bench.call(Call::Pause(named("c", "")));
    assert_eq!(bench.state("").status(), Status::Pausing);
    bench.finish(Outcome::Done);
    assert_eq!(bench.state("").status(), Status::Paused);
    bench.call(Call::Resume(named("c", "")));
    bench.finish(Outcome::Done);
    assert_eq!(bench.state("").status(), Status::Running);
    bench.call(Call::Pause(named("c", "")));
    bench.exit("", 9);
    bench.finish(Outcome::Done);
    assert_eq!(bench.state("").status(), Status::Stopped);
}

#[test]
fn calls_take_turns_but_execs_do_not_wait_for_init() {
    let mut bench = Bench::running();
    bench.register("e");
    bench.call(Call::Pause(named("c", "")));
    let kill = bench.call(Call::Kill(KillRequest { id: "c".into(), signal: 9, ..Default::default() }));
    assert_eq!(bench.jobs.len(), 1, "the kill waits for the pause");
    bench.call(Call::Start(named("c", "e")));
    assert_eq!(bench.jobs.len(), 2, "the exec does not");
    bench.finish(Outcome::Done);
    assert!(matches!(bench.jobs.last().unwrap().job, Job::Kill { signal: 9, all: false }));
    bench.jobs.remove(0);
    bench.finish(Outcome::Done);
    assert_eq!(bench.answer(kill), Some(&Ok(vec![])));
}

#[test]
fn queues_are_bounded() {
    let mut bench = Bench::running();
    bench.call(Call::Pause(named("c", "")));
    let kill = || Call::Kill(KillRequest { id: "c".into(), signal: 9, ..Default::default() });
    for _ in 0..process::QUEUE_LIMIT {
        let id = bench.call(kill());
        assert!(bench.answer(id).is_none());
    }
    let id = bench.call(kill());
    assert_eq!(bench.refusal(id).0, Code::ResourceExhausted);
}

#[test]
fn failed_exec_answers_its_waiters_and_can_be_deleted() {
    let mut bench = Bench::running();
    bench.register("e");
    let wait = bench.call(Call::Wait(named("c", "e")));
    let start = bench.call(Call::Start(named("c", "e")));
    bench.finish(Outcome::Failed(Refusal::unknown("OCI runtime exec failed: no")));
    assert_eq!(bench.refusal(start).1, "OCI runtime exec failed: no");
    assert!(bench.answer(wait).unwrap().is_ok());
    let delete = bench.call(Call::Delete(named("c", "e")));
    bench.finish(Outcome::Done);
    assert!(bench.answer(delete).unwrap().is_ok());
    assert_eq!(bench.events.last().unwrap(), "exec-added e", "no exit for it");
}

#[test]
fn failed_create_leaves_no_container() {
    let mut bench = Bench::new();
    let id = bench.call(Call::Create(CreateTaskRequest { id: "c".into(), ..Default::default() }));
    bench.finish(Outcome::Failed(Refusal::unknown("OCI runtime create failed: no")));
    assert_eq!(bench.refusal(id).1, "OCI runtime create failed: no");
    assert!(bench.pod.is_empty() && bench.events.is_empty());
}

#[test]
fn shutdown_is_heeded_only_without_containers() {
    let mut bench = Bench::running();
    let id = bench.call(Call::Shutdown(ShutdownRequest::default()));
    assert_eq!((bench.answer(id), bench.left), (Some(&Ok(vec![])), false));
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.call(Call::Shutdown(ShutdownRequest { id: String::new(), now: true }));
    }
    assert!(bench.left);
}

#[test]
fn checkpointed_container_is_restored_by_start() {
    let mut bench = Bench::new();
    bench.call(Call::Create(CreateTaskRequest {
        id: "c".into(),
        checkpoint: "/cp".into(),
        ..Default::default()
    }));
    bench.finish(Outcome::Pid(0));
    bench.call(Call::Start(named("c", "")));
    assert_eq!(bench.jobs[0].job, Job::Restore);
    bench.finish(Outcome::Pid(30));
    assert_eq!(bench.state("").pid, 30);
    assert_eq!(bench.events, ["create 0", "start 30"]);
}

#[test]
fn waiters_of_a_client_that_left_are_forgotten() {
    let mut bench = Bench::running();
    let gone = bench.call(Call::Wait(named("c", "")));
    let stays = bench.call(Call::Wait(named("c", "")));
    bench.pod.abandon(&[gone]);
    bench.exit("", 0);
    assert!(bench.answer(gone).is_none() && bench.answer(stays).is_some());
}

#[test]
fn what_is_asked_of_streams_before_an_exec_starts_is_asked_again_once_they_are_open() {
    let mut bench = Bench::running();
    bench.register("e");
    let (id, exec_id) = ("c".to_owned(), "e".to_owned());
    bench.call(Call::CloseIo(CloseIoRequest { id: id.clone(), exec_id: exec_id.clone(), stdin: true }));
    bench.call(Call::ResizePty(ResizePtyRequest { id, exec_id, width: 80, height: 24 }));
    // A start that failed leaves the exec as it was: the next opens its streams anew.
    for _ in 0..2 {
        bench.asked.clear();
        bench.call(Call::Start(named("c", "e")));
        let Effect::Run(ticket) = &bench.asked[0] else { panic!("{:?}", bench.asked) };
        assert!(matches!(ticket.job, Job::Exec(_)));
        let resize = Effect::Resize { key: key("e"), width: 80, height: 24 };
        assert_eq!(bench.asked[1..], [resize, Effect::CloseStdin(key("e"))]);
        bench.finish(Outcome::Failed(Refusal::unknown("no")));
    }
}

#[test]
fn calls_for_an_exec_are_answered_when_its_container_is_deleted() {
    let mut bench = Bench::with_exec("e", 20);
    bench.exit("e", 0);
    bench.exit("", 0);
    let drains = bench.call(Call::Delete(named("c", "e")));
    let waits = bench.call(Call::Delete(named("c", "e")));
    let whole = bench.call(Call::Delete(named("c", "")));
    // The container's own delete is done first.
    let drain = bench.jobs.remove(0);
    bench.finish(Outcome::Done);
    assert!(bench.answer(whole).unwrap().is_ok());
    let effects = bench.pod.done(drain, Outcome::Done);
    bench.take(effects);
    for call in [drains, waits] {
        assert_eq!(bench.refusal(call), (Code::NotFound, "container not created: not found".to_owned()));
    }
    assert_eq!(bench.answers.iter().filter(|(call, _)| [drains, waits].contains(call)).count(), 2);
    assert_eq!(bench.asked.last(), Some(&Effect::Forget(key("e"))), "what came late is let go of");
}
