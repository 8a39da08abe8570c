//! The containers of one shim, and how calls, finished jobs and exits move them.

mod ends;

use std::collections::BTreeMap;

use prost::Message;

use crate::api::{
    Any, ConnectResponse, CreateTaskRequest, DeleteResponse, ExecProcessRequest, PidResponse, PidsResponse,
    ProcessDetails, ProcessInfo, ResizePtyRequest, StatsResponse, Timestamp,
};
use crate::ttrpc::{Code, Refusal};

use super::container::Container;
use super::effect::{Call, CallId, Effect, Event, Job, Key, Outcome, Ticket};
use super::process::{Exit, Process, QUEUE_LIMIT, State, Stdio, WAITERS_LIMIT};

/// Everything the shim knows about its containers.
#[derive(Debug, Default)]
pub struct Pod {
    shim_pid: u32,
    containers: BTreeMap<String, Container>,
    /// What the exec requests said, until their start; apart from `Container`, which decides on states only.
    exec_requests: BTreeMap<Key, ExecProcessRequest>,
    effects: Vec<Effect>,
    is_closed: bool,
}

impl Pod {
    /// A pod without containers, served by the process `shim_pid`.
    pub fn new(shim_pid: u32) -> Self {
        Self { shim_pid, ..Self::default() }
    }

    /// Makes no container any more: nobody would find it.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// True while no container is left.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// The container of this id.
    pub fn container(&self, id: &str) -> Option<&Container> {
        self.containers.get(id)
    }

    /// Takes a call; its answer is among the effects, now or later.
    pub fn call(&mut self, id: CallId, call: Call) -> Vec<Effect> {
        if let Err(refusal) = self.admit(id, call) {
            self.effects.push(Effect::Reply(id, Err(refusal)));
        }
        core::mem::take(&mut self.effects)
    }

    fn admit(&mut self, id: CallId, call: Call) -> Result<(), Refusal> {
        match call {
            Call::Create(request) => self.create(id, request),
            Call::Exec(request) => self.register_exec(id, request),
            Call::State(request) => {
                let container = self.find(&request.id)?;
                let bundle = container.request.bundle.clone();
                let mut state = container.process(&request.exec_id)?.describe();
                state.bundle = bundle;
                state.id = if request.exec_id.is_empty() { request.id } else { request.exec_id };
                self.reply(id, &state);
                Ok(())
            }
            Call::Wait(request) => self.wait(id, &request.id, &request.exec_id),
            Call::ResizePty(request) => self.resize(id, request),
            Call::CloseIo(request) => {
                let process = self.find(&request.id)?.process(&request.exec_id)?;
                if request.stdin {
                    process.input_closed = true;
                    self.effects
                        .push(Effect::CloseStdin(Key { container: request.id, exec: request.exec_id }));
                }
                self.reply_empty(id);
                Ok(())
            }
            Call::Pids(request) => self.pids(id, &request.id),
            Call::Stats(request) => {
                self.find(&request.id)?;
                self.run(Key::init(&request.id), Some(id), Job::Stats);
                Ok(())
            }
            Call::Connect(request) => {
                let task_pid = self.containers.get(&request.id).map_or(0, |container| container.init.pid);
                self.reply(
                    id,
                    &ConnectResponse { shim_pid: self.shim_pid, task_pid, version: String::new() },
                );
                Ok(())
            }
            Call::Shutdown(_) => {
                self.reply_empty(id);
                if self.containers.is_empty() {
                    self.effects.push(Effect::Exit);
                }
                Ok(())
            }
            turn => self.take_turn(id, turn),
        }
    }

    fn create(&mut self, id: CallId, request: CreateTaskRequest) -> Result<(), Refusal> {
        if self.is_closed {
            return Err(Refusal::new(Code::Unavailable, "the shim's last container is deleted, and it ends"));
        }
        if self.containers.contains_key(&request.id) {
            return Err(Refusal::unknown(
                "OCI runtime create failed: container with given ID already exists",
            ));
        }
        let mut container = Container::new(request.clone());
        container.init.busy = true;
        let key = Key::init(&request.id);
        self.containers.insert(request.id.clone(), container);
        self.run(key, Some(id), Job::Create(Box::new(request)));
        Ok(())
    }

    fn register_exec(&mut self, id: CallId, request: ExecProcessRequest) -> Result<(), Refusal> {
        let container = self.find(&request.id)?;
        container.admits_exec(&request.exec_id)?;
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        container.execs.insert(request.exec_id.clone(), Process::new(stdio));
        let event = Event::ExecAdded { container: request.id.clone(), exec: request.exec_id.clone() };
        self.effects.push(Effect::Publish(event));
        let key = Key { container: request.id.clone(), exec: request.exec_id.clone() };
        self.exec_requests.insert(key, request);
        self.reply_empty(id);
        Ok(())
    }

    fn wait(&mut self, id: CallId, container: &str, exec: &str) -> Result<(), Refusal> {
        let process = self.find(container)?.process(exec)?;
        if process.exit.is_some() || process.failed {
            let answer = process.wait_answer();
            self.reply(id, &answer);
        } else if process.waiters.len() < WAITERS_LIMIT {
            process.waiters.push(id);
        } else {
            return Err(Refusal::new(Code::ResourceExhausted, "too many calls wait for this process"));
        }
        Ok(())
    }

    fn resize(&mut self, id: CallId, request: ResizePtyRequest) -> Result<(), Refusal> {
        let process = self.find(&request.id)?.process(&request.exec_id)?;
        if process.state == State::Stopped && !request.exec_id.is_empty() {
            return Err(Refusal::unknown("cannot resize a stopped container"));
        }
        let clamp = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
        let (width, height) = (clamp(request.width), clamp(request.height));
        process.size = Some((width, height));
        let key = Key { container: request.id, exec: request.exec_id };
        self.effects.push(Effect::Resize { key, width, height });
        self.reply_empty(id);
        Ok(())
    }

    /// An ended container still answers with its init: a restarted containerd takes a task without processes for
    /// leaked and deletes it, exit code and all. The runtime lists one time after the other, but waits for no other call: a
    /// restarted containerd asks this first, and must not wait for a call that hangs.
    fn pids(&mut self, id: CallId, name: &str) -> Result<(), Refusal> {
        let container = self.find(name)?;
        if matches!(container.init.state, State::Stopped | State::Restorable) {
            self.reply_pids(id, name, Vec::new());
        } else if !container.listing {
            container.listing = true;
            self.run(Key::init(name), Some(id), Job::Ps);
        } else if container.listers.len() < QUEUE_LIMIT {
            container.listers.push_back(id);
        } else {
            return Err(Refusal::new(Code::ResourceExhausted, "too many calls wait for their turn"));
        }
        Ok(())
    }

    /// The processes have been listed: the next call that wants it has its turn.
    fn listed(&mut self, name: &str) {
        let Some(container) = self.containers.get_mut(name) else { return };
        container.listing = false;
        while let Some(container) = self.containers.get_mut(name).filter(|container| !container.listing)
            && let Some(id) = container.listers.pop_front()
        {
            if let Err(refusal) = self.pids(id, name) {
                self.effects.push(Effect::Reply(id, Err(refusal)));
            }
        }
    }

    fn reply_pids(&mut self, id: CallId, container: &str, mut pids: Vec<u32>) {
        let Some(container) = self.containers.get(container) else {
            return self.effects.push(Effect::Reply(id, Err(no_container())));
        };
        if pids.is_empty() && container.init.pid != 0 {
            pids.push(container.init.pid);
        }
        let info = |pid: u32| {
            let exec =
                container.execs.iter().find(|(_, process)| process.pid == pid && process.is_alive())?;
            let details = ProcessDetails { exec_id: exec.0.clone() };
            Some(Any::pack("containerd.runc.v1.ProcessDetails", &details))
        };
        let processes = pids.iter().map(|&pid| ProcessInfo { pid, info: info(pid) }).collect();
        self.reply(id, &PidsResponse { processes });
    }

    /// Calls that need the runtime run one at a time for each process; the others queue behind.
    fn take_turn(&mut self, id: CallId, call: Call) -> Result<(), Refusal> {
        let key = call.turn().ok_or_else(|| Refusal::new(Code::Internal, "this call takes no turn"))?;
        let container = self.find(&key.container)?;
        let process = container.process(&key.exec)?;
        if !process.busy {
            return self.begin(id, key, &call);
        }
        if process.queue.len() >= QUEUE_LIMIT {
            return Err(Refusal::new(Code::ResourceExhausted, "too many calls wait for their turn"));
        }
        process.queue.push_back((id, call));
        Ok(())
    }

    fn begin(&mut self, id: CallId, key: Key, call: &Call) -> Result<(), Refusal> {
        let container = self.find(&key.container)?;
        let mut job = container.job_for(&key.exec, call)?;
        let process = container.process(&key.exec)?;
        process.busy = true;
        process.pausing = job == Job::Pause;
        let Job::Exec(request) = &mut job else {
            self.run(key, Some(id), job);
            return Ok(());
        };
        // Its streams are opened only now: what was asked of them before has not reached them.
        let (size, input_closed) = (process.size, process.input_closed);
        **request = self.exec_requests.get(&key).cloned().unwrap_or_default();
        self.run(key.clone(), Some(id), job);
        if let Some((width, height)) = size {
            self.effects.push(Effect::Resize { key: key.clone(), width, height });
        }
        if input_closed {
            self.effects.push(Effect::CloseStdin(key));
        }
        Ok(())
    }

    /// Takes the result of a job.
    pub fn done(&mut self, ticket: Ticket, outcome: Outcome) -> Vec<Effect> {
        let Ticket { key, call, job } = ticket;
        let (takes_turn, lists) = (!matches!(job, Job::Ps | Job::Stats) && call.is_some(), job == Job::Ps);
        self.settle(&key, call, job, outcome);
        if lists {
            self.listed(&key.container);
        }
        if takes_turn {
            self.end_turn(&key);
        }
        self.settle_held_exits(&key.container);
        core::mem::take(&mut self.effects)
    }

    fn settle(&mut self, key: &Key, call: Option<CallId>, job: Job, outcome: Outcome) {
        let Some(id) = call else { return };
        if self.process(key).is_none() {
            return self.outlived(id, key, outcome);
        }
        match (job, outcome) {
            (Job::Ps, Outcome::Pids(pids)) => self.reply_pids(id, &key.container, pids),
            (Job::Ps, Outcome::Failed(refusal)) => self.ps_failed(id, key, refusal),
            (Job::Stats, Outcome::Any(stats)) => self.reply(id, &StatsResponse { stats: Some(stats) }),
            (Job::Create(request), Outcome::Pid(pid)) => self.created(id, request, pid),
            (Job::Create(_), Outcome::Failed(refusal)) => {
                self.effects.push(Effect::Reply(id, Err(refusal)));
                if let Some(container) = self.remove_container(&key.container) {
                    self.refuse_pending(container);
                }
            }
            (Job::Start, Outcome::Done) => self.started(id, key, None),
            (Job::Restore | Job::Exec(_), Outcome::Pid(pid)) => self.started(id, key, Some(pid)),
            (Job::Exec(_), Outcome::Failed(refusal)) => self.exec_failed(id, key, refusal),
            (Job::Delete, Outcome::Done) => self.deleted(id, key),
            (Job::Drain, Outcome::Done) => self.exec_deleted(id, key),
            (Job::Pause, outcome) => self.paused(id, key, outcome),
            (Job::Resume, Outcome::Done) => {
                self.set_frozen(key, State::Paused, State::Running);
                self.effects.push(Effect::Publish(Event::Resumed { container: key.container.clone() }));
                self.reply_empty(id);
            }
            (_, Outcome::Failed(refusal)) => self.effects.push(Effect::Reply(id, Err(refusal))),
            _ => self.reply_empty(id),
        }
    }

    /// The container was deleted while the job was under way.
    fn outlived(&mut self, id: CallId, key: &Key, outcome: Outcome) {
        if !key.is_init() {
            // A runtime that succeeded late has put streams to work.
            self.effects.push(Effect::Forget(key.clone()));
        }
        let refusal = if let Outcome::Failed(refusal) = outcome { refusal } else { no_container() };
        self.effects.push(Effect::Reply(id, Err(refusal)));
    }

    fn ps_failed(&mut self, id: CallId, key: &Key, refusal: Refusal) {
        let ended = self.containers.get(&key.container).is_some_and(|container| {
            container.init.state == State::Stopped || container.init.held_exit.is_some()
        });
        if ended {
            self.reply_pids(id, &key.container, Vec::new());
        } else {
            self.effects.push(Effect::Reply(id, Err(refusal)));
        }
    }

    fn created(&mut self, id: CallId, request: Box<CreateTaskRequest>, pid: u32) {
        let Some(container) = self.containers.get_mut(&request.id) else { return };
        container.init.pid = pid;
        container.init.state = if request.checkpoint.is_empty() { State::Created } else { State::Restorable };
        self.effects.push(Effect::Publish(Event::Create { request, pid }));
        self.reply(id, &PidResponse { pid });
    }

    fn started(&mut self, id: CallId, key: &Key, pid: Option<u32>) {
        self.exec_requests.remove(key);
        let Some(process) = self.process(key) else { return };
        process.state = State::Running;
        process.failed = false;
        process.pid = pid.unwrap_or(process.pid);
        let pid = process.pid;
        let container = key.container.clone();
        self.effects.push(Effect::Publish(match key.is_init() {
            true => Event::Start { container, pid },
            false => Event::ExecStarted { container, exec: key.exec.clone(), pid },
        }));
        self.reply(id, &PidResponse { pid });
    }

    /// A failed start leaves the exec registered, with its waiters answered: nobody will see it end.
    fn exec_failed(&mut self, id: CallId, key: &Key, refusal: Refusal) {
        self.effects.push(Effect::Reply(id, Err(refusal)));
        let Some(process) = self.process(key) else { return };
        process.failed = true;
        self.answer_waiters(key);
    }

    fn deleted(&mut self, id: CallId, key: &Key) {
        self.publish_ooms(&key.container);
        let Some(mut container) = self.remove_container(&key.container) else { return };
        let process = &mut container.init;
        let exit = process.exit.or(process.held_exit).unwrap_or(Exit { status: 0, at: Timestamp::GO_ZERO });
        process.exit = Some(exit);
        let pid = process.pid;
        for waiter in core::mem::take(&mut process.waiters) {
            let answer = process.wait_answer();
            self.reply(waiter, &answer);
        }
        for exec in container.execs.values_mut() {
            for waiter in core::mem::take(&mut exec.waiters) {
                let answer = exec.wait_answer();
                self.reply(waiter, &answer);
            }
        }
        self.refuse_pending(container);
        self.effects.push(Effect::Publish(Event::Delete { container: key.container.clone(), pid, exit }));
        self.reply(id, &DeleteResponse { pid, exit_status: exit.status, exited_at: Some(exit.at) });
    }

    /// Answers whoever waits for something of a container that is gone.
    fn refuse_pending(&mut self, container: Container) {
        let Container { init, execs, listers, .. } = container;
        let mut pending = listers;
        for process in execs.into_values().chain([init]) {
            pending.extend(process.queue.into_iter().map(|(call, _)| call).chain(process.waiters));
        }
        for call in pending {
            self.effects.push(Effect::Reply(call, Err(no_container())));
        }
    }

    fn exec_deleted(&mut self, id: CallId, key: &Key) {
        let Some(container) = self.containers.get_mut(&key.container) else { return };
        let Some(mut process) = container.execs.remove(&key.exec) else { return };
        let answer = DeleteResponse {
            pid: process.pid,
            exit_status: process.exit.map_or(0, |exit| exit.status),
            exited_at: Some(process.exited_at()),
        };
        for waiter in core::mem::take(&mut process.waiters) {
            let gone = process.wait_answer();
            self.reply(waiter, &gone);
        }
        for (queued, _) in core::mem::take(&mut process.queue) {
            let text = format!("process does not exist {}: not found", key.exec);
            self.effects.push(Effect::Reply(queued, Err(Refusal::not_found(text))));
        }
        self.exec_requests.remove(key);
        self.effects.push(Effect::Forget(key.clone()));
        self.reply(id, &answer);
    }

    fn paused(&mut self, id: CallId, key: &Key, outcome: Outcome) {
        if let Some(process) = self.process(key) {
            process.pausing = false;
        }
        if let Outcome::Failed(refusal) = outcome {
            return self.effects.push(Effect::Reply(id, Err(refusal)));
        }
        self.set_frozen(key, State::Running, State::Paused);
        self.effects.push(Effect::Publish(Event::Paused { container: key.container.clone() }));
        self.reply_empty(id);
    }

    /// Changes the state unless the process ended while the job ran.
    fn set_frozen(&mut self, key: &Key, from: State, to: State) {
        if let Some(process) = self.process(key).filter(|process| process.state == from) {
            process.state = to;
        }
    }

    fn end_turn(&mut self, key: &Key) {
        if let Some(process) = self.process(key) {
            process.busy = false;
        }
        self.settle_held_exits(&key.container);
        while let Some((id, call)) = self.process(key).filter(|p| !p.busy).and_then(|p| p.queue.pop_front()) {
            if let Err(refusal) = self.begin(id, key.clone(), &call) {
                self.effects.push(Effect::Reply(id, Err(refusal)));
            }
        }
    }

    /// Forgets calls whose client is gone.
    pub fn abandon(&mut self, calls: &[CallId]) {
        for container in self.containers.values_mut() {
            container.listers.retain(|lister| !calls.contains(lister));
            for process in container.execs.values_mut().chain([&mut container.init]) {
                process.waiters.retain(|waiter| !calls.contains(waiter));
            }
        }
    }

    /// Takes a kill for lack of memory in a container. After its end nobody hears of one: that is of what it left behind.
    pub fn oom(&mut self, container: &str) -> Vec<Effect> {
        if let Some(found) = self.containers.get_mut(container)
            && found.init.exit.is_none()
        {
            found.held_ooms += 1;
            self.settle_held_exits(container);
        }
        core::mem::take(&mut self.effects)
    }

    fn remove_container(&mut self, id: &str) -> Option<Container> {
        let container = self.containers.remove(id)?;
        for exec in container.execs.keys() {
            let key = Key { container: id.to_owned(), exec: exec.clone() };
            self.exec_requests.remove(&key);
            self.effects.push(Effect::Forget(key));
        }
        self.effects.push(Effect::Forget(Key::init(id)));
        Some(container)
    }

    fn find(&mut self, id: &str) -> Result<&mut Container, Refusal> {
        self.containers.get_mut(id).ok_or_else(no_container)
    }

    fn process(&mut self, key: &Key) -> Option<&mut Process> {
        self.containers.get_mut(&key.container)?.process(&key.exec).ok()
    }

    fn run(&mut self, key: Key, call: Option<CallId>, job: Job) {
        self.effects.push(Effect::Run(Ticket { key, call, job }));
    }

    fn reply(&mut self, id: CallId, answer: &impl Message) {
        self.effects.push(Effect::Reply(id, Ok(answer.encode_to_vec())));
    }

    fn reply_empty(&mut self, id: CallId) {
        self.effects.push(Effect::Reply(id, Ok(Vec::new())));
    }
}

/// There is no container of this id.
pub fn no_container() -> Refusal {
    Refusal::not_found("container not created: not found")
}
