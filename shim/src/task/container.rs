//! A container: its init process, its execs, and the rules for each call in each state.

use std::collections::{BTreeMap, VecDeque};

use crate::api::CreateTaskRequest;
use crate::ttrpc::{Code, Refusal};

use super::effect::{Call, CallId, Job};
use super::process::{Process, State, Stdio};

/// Most execs that may be registered at once in a container.
const EXECS_LIMIT: usize = 4096;

/// A container of the pod.
#[derive(Debug)]
pub struct Container {
    /// What it was created from.
    pub request: CreateTaskRequest,
    /// Its first process.
    pub init: Process,
    /// Its other processes, by exec id.
    pub execs: BTreeMap<String, Process>,
    /// The runtime lists its processes.
    pub listing: bool,
    /// Calls that want them listed after that, oldest first.
    pub listers: VecDeque<CallId>,
    /// Kills for lack of memory of which nobody has heard yet.
    pub held_ooms: u32,
    /// Its end waits for its execs no longer.
    pub execs_given_up: bool,
}

impl Container {
    /// A container whose creation begins.
    pub fn new(request: CreateTaskRequest) -> Self {
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        Self {
            request,
            init: Process::new(stdio),
            execs: BTreeMap::new(),
            listing: false,
            listers: VecDeque::new(),
            held_ooms: 0,
            execs_given_up: false,
        }
    }

    /// The process named by `exec`, init when it is empty.
    pub fn process(&mut self, exec: &str) -> Result<&mut Process, Refusal> {
        if exec.is_empty() {
            return Ok(&mut self.init);
        }
        let missing = || Refusal::not_found(format!("process does not exist {exec}: not found"));
        self.execs.get_mut(exec).ok_or_else(missing)
    }

    /// True while an exec runs or is being started.
    pub fn has_live_execs(&self) -> bool {
        self.execs.values().any(|exec| exec.is_alive() || (exec.busy && exec.state == State::Registered))
    }

    /// True while its first process may have been started already and nobody has heard of it.
    pub fn may_be_starting(&self) -> bool {
        self.init.busy && matches!(self.init.state, State::Created | State::Restorable)
    }

    /// May an exec of this id be registered now?
    pub fn admits_exec(&self, exec: &str) -> Result<(), Refusal> {
        if self.execs.contains_key(exec) || exec.is_empty() {
            return Err(Refusal::new(Code::AlreadyExists, format!("id {exec}: already exists")));
        }
        match self.init.state {
            State::Paused => return Err(Refusal::unknown("cannot exec in a paused state")),
            State::Stopped => return Err(Refusal::unknown("cannot exec in a stopped state")),
            _ => {}
        }
        if self.execs.len() >= EXECS_LIMIT {
            return Err(Refusal::new(Code::ResourceExhausted, "too many execs in this container"));
        }
        Ok(())
    }

    /// The job that `call` asks of the process `exec`, or why not in its present state.
    pub fn job_for(&self, exec: &str, call: &Call) -> Result<Job, Refusal> {
        match (call, self.execs.get(exec)) {
            (Call::Start(_), None) => self.start_init(),
            (Call::Start(_), Some(process)) => self.start_exec(exec, process),
            (Call::Kill(request), None) => match self.init.state {
                // Of what shares the host's pid namespace something may be left.
                State::Stopped if !request.all => {
                    Err(Refusal::not_found("process already finished: not found"))
                }
                _ => Ok(Job::Kill { signal: request.signal, all: request.all }),
            },
            (Call::Kill(request), Some(process)) => kill_exec(process, request.signal),
            (Call::Delete(_), None) => delete(&self.init, Job::Delete),
            (Call::Delete(_), Some(process)) => delete(process, Job::Drain),
            (Call::Pause(_), _) => self.pause(),
            (Call::Resume(_), _) => self.resume(),
            (Call::Update(request), _) => {
                let resources = request.resources.as_ref().map(|any| any.value.clone()).unwrap_or_default();
                self.unless_stopped("update", Job::Update(resources))
            }
            (Call::Checkpoint(request), _) => match self.init.state {
                State::Created | State::Registered | State::Restorable => {
                    Err(Refusal::unknown("cannot checkpoint a task in created state"))
                }
                State::Stopped => Err(Refusal::unknown("cannot checkpoint a stopped container")),
                State::Running | State::Paused => Ok(Job::Checkpoint(Box::new(request.clone()))),
            },
            _ => Err(Refusal::new(Code::Internal, "this call needs no turn")),
        }
    }

    fn start_init(&self) -> Result<Job, Refusal> {
        match self.init.state {
            State::Created => Ok(Job::Start),
            State::Restorable => Ok(Job::Restore),
            State::Registered => Err(Refusal::unknown("container is not created")),
            State::Running => Err(Refusal::unknown("cannot start a running process")),
            State::Paused => Err(Refusal::unknown("cannot start a paused process")),
            State::Stopped => Err(Refusal::unknown("cannot start a stopped process")),
        }
    }

    fn start_exec(&self, exec: &str, process: &Process) -> Result<Job, Refusal> {
        let id = &self.request.id;
        match process.state {
            State::Running | State::Paused => return Err(Refusal::unknown("cannot start a running process")),
            State::Stopped => return Err(Refusal::unknown("cannot start a stopped process")),
            _ => {}
        }
        if self.init.state == State::Stopped || self.init.held_exit.is_some() {
            let text = format!("container {id} init process is not running: failed precondition");
            return Err(Refusal::new(Code::FailedPrecondition, text));
        }
        Ok(Job::Exec(Box::new(crate::api::ExecProcessRequest {
            id: id.clone(),
            exec_id: exec.to_owned(),
            ..Default::default()
        })))
    }

    fn pause(&self) -> Result<Job, Refusal> {
        match self.init.state {
            State::Running => Ok(Job::Pause),
            State::Paused => Err(Refusal::unknown("cannot pause a paused container")),
            State::Stopped => Err(Refusal::unknown("cannot pause a stopped container")),
            _ => Err(Refusal::unknown("cannot pause task in created state")),
        }
    }

    fn resume(&self) -> Result<Job, Refusal> {
        match self.init.state {
            State::Paused => Ok(Job::Resume),
            State::Running => Err(Refusal::unknown("cannot resume a running process")),
            State::Stopped => Err(Refusal::unknown("cannot resume a stopped container")),
            _ => Err(Refusal::unknown("cannot resume task in created state")),
        }
    }

    fn unless_stopped(&self, verb: &str, job: Job) -> Result<Job, Refusal> {
        match self.init.state {
            State::Stopped => Err(Refusal::unknown(format!("cannot {verb} a stopped container"))),
            _ => Ok(job),
        }
    }
}

fn kill_exec(process: &Process, signal: u32) -> Result<Job, Refusal> {
    match process.state {
        State::Running | State::Paused => Ok(Job::Signal { pid: process.pid, signal }),
        State::Stopped => Err(Refusal::not_found("process already finished: not found")),
        _ => Err(Refusal::new(Code::FailedPrecondition, "process not created: failed precondition")),
    }
}

fn delete(process: &Process, job: Job) -> Result<Job, Refusal> {
    match process.state {
        State::Running => Err(Refusal::unknown("cannot delete a running process")),
        State::Paused => Err(Refusal::unknown("cannot delete a paused process")),
        _ => Ok(job),
    }
}
