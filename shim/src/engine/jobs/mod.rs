//! Jobs: most are one call of the runtime, started here and ended when it is reaped; none is waited for.

mod outcomes;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_sys::errno::{EINVAL, ESRCH};
use hull_sys::process::{self, Pid};
use prost::Message;

use crate::api::{CheckpointOptions, CheckpointTaskRequest, ExecProcessRequest};
use crate::bundle::{Bundle, write_private};
use crate::cgroup;
use crate::io::Output;
use crate::runtime::{Runtime, Streams, output_file, words};
use crate::task::{Exit, Job, Key, Outcome, Stdio, Ticket, no_container};
use crate::ttrpc::{Code, Refusal};

use super::{Engine, Timer, Watched};

/// The exit status of a process that could not be restored.
const NEVER_WAS: u32 = 255;
/// How long it may take to clear up after a creation that was cut off: whoever asked for it has waited long enough.
const CLEARING_LIMIT: Duration = Duration::from_secs(30);
/// A runtime's log that is longer than this is begun anew before the next call.
const LOG_LIMIT: u64 = 1 << 20;

/// A call of the runtime under way.
#[derive(Debug)]
pub struct Running {
    pub(super) ticket: Ticket,
    log: PathBuf,
    /// The log's length at the start.
    log_from: u64,
    /// What it prints, where that is not the container's output.
    output: Option<OwnedFd>,
    pid_file: Option<PathBuf>,
    /// Streams that are put to work when it succeeds.
    pub(super) flows: Vec<(OwnedFd, Output)>,
    timed_out: bool,
    /// Since when it may name a process, if it will: see [`Unclaimed::begin`].
    ///
    /// [`Unclaimed::begin`]: super::unclaimed::Unclaimed::begin
    names: Option<u64>,
    /// It clears up after a failed creation, for which this is the answer.
    pub(super) clears_up: Option<Refusal>,
}

/// How far a job got at once.
pub enum Begun {
    /// It is over.
    Now(Outcome),
    /// A runtime call is under way.
    Later,
}

impl Running {
    /// True for calls that end with a process of ours.
    fn names_a_process(&self) -> bool {
        let job = &self.ticket.job;
        self.clears_up.is_none() && matches!(job, Job::Create(_) | Job::Exec(_) | Job::Restore)
    }
}

impl From<Result<(), Refusal>> for Begun {
    fn from(started: Result<(), Refusal>) -> Self {
        match started {
            Ok(()) => Self::Later,
            Err(refusal) => Self::Now(Outcome::Failed(refusal)),
        }
    }
}

impl Engine {
    /// Begins a job; its result comes back to the state machine now or later.
    pub(super) fn begin(&mut self, ticket: Ticket) {
        let key = ticket.key.clone();
        let begun = match &ticket.job {
            Job::Exec(request) => self.begin_exec(&ticket, request).into(),
            Job::Restore => self.begin_restore(&ticket).into(),
            Job::Signal { pid, signal } => Begun::Now(self.send_signal(&key, *pid, *signal)),
            Job::Stats => Begun::Now(self.statistics(&key)),
            Job::Create(_) => return self.begin_create(ticket),
            Job::Drain | Job::Delete => return self.begin_drain(ticket),
            Job::Start => self.call(&ticket, words(&["start", &key.container])).into(),
            Job::Kill { signal, all } => {
                self.call(&ticket, Runtime::kill(&key.container, *signal, *all)).into()
            }
            Job::Pause => self.call(&ticket, words(&["pause", &key.container])).into(),
            Job::Resume => self.call(&ticket, words(&["resume", &key.container])).into(),
            Job::Ps => self.call(&ticket, words(&["ps", "--format", "json", &key.container])).into(),
            Job::Update(resources) => self.begin_update(&ticket, resources).into(),
            Job::Checkpoint(request) => self.begin_checkpoint(&ticket, request).into(),
        };
        if let Begun::Now(outcome) = begun {
            self.end(ticket, outcome);
        }
    }

    /// Gives a job's result to the state machine.
    pub(super) fn end(&mut self, ticket: Ticket, outcome: Outcome) {
        let fails_to_restore = ticket.job == Job::Restore && matches!(outcome, Outcome::Failed(_));
        let never_was = fails_to_restore.then(|| ticket.key.clone());
        let effects = self.pod.done(ticket, outcome);
        self.todo.extend(effects);
        if let Some(key) = never_was {
            // There will be no process whose end could be awaited, and a client that removes the task awaits it.
            let exit = Exit { status: NEVER_WAS, at: self.clock.now() };
            self.process_ended(&key, exit);
        }
    }

    fn begin_exec(&mut self, ticket: &Ticket, request: &ExecProcessRequest) -> Result<(), Refusal> {
        if !is_name(&request.exec_id) {
            return Err(Refusal::new(Code::InvalidArgument, "an exec needs a name"));
        }
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let begun = self.launch_exec(ticket, request, &stdio);
        if begun.is_err() {
            self.forget(&ticket.key);
        }
        begun
    }

    fn launch_exec(
        &mut self,
        ticket: &Ticket,
        request: &ExecProcessRequest,
        stdio: &Stdio,
    ) -> Result<(), Refusal> {
        let failed = |error: std::io::Error| {
            Refusal::unknown(format!("OCI runtime exec failed: {}: {error}", request.exec_id))
        };
        let mut ends = self.open_streams(&ticket.key, stdio).map_err(failed)?;
        let runtime = self.runtime_of(&ticket.key)?;
        let bundle = self.bundle_of(&ticket.key)?;
        let process = bundle.file(&format!("exec-{}.json", request.exec_id));
        let spec = request.spec.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
        write_private(&process, spec).map_err(failed)?;
        let pid_file = bundle.file(&format!("exec-{}.pid", request.exec_id));
        let verb = runtime.exec(&process, &pid_file, &ends.streams(), &request.id);
        let mut running = self.running(ticket, None, Some(pid_file))?;
        running.flows = std::mem::take(&mut ends.flows);
        self.launch(running, verb, &ends.streams())
    }

    fn begin_restore(&mut self, ticket: &Ticket) -> Result<(), Refusal> {
        let runtime = self.runtime_of(&ticket.key)?;
        let bundle = self.bundle_of(&ticket.key)?;
        let image =
            self.sites.get(&ticket.key.container).map(|site| site.checkpoint.clone()).unwrap_or_default();
        let mut ends = self.held.get_mut(&ticket.key).and_then(|held| held.ends.take()).unwrap_or_default();
        let verb = runtime.restore(&bundle.dir, &image, &ends.streams(), &ticket.key.container);
        let mut running = self.running(ticket, None, Some(bundle.file("init.pid")))?;
        running.flows = std::mem::take(&mut ends.flows);
        self.launch(running, verb, &ends.streams())?;
        Ok(())
    }

    fn begin_update(&mut self, ticket: &Ticket, resources: &[u8]) -> Result<(), Refusal> {
        // The runtime reads it from its standard input; a file in memory needs nobody to feed it.
        let failed = |error: String| Refusal::unknown(format!("OCI runtime update failed: {error}"));
        serde_json::from_slice::<serde::de::IgnoredAny>(resources)
            .map_err(|error| Refusal::unknown(error.to_string()))?;
        let input = output_file().map_err(failed)?;
        rustix::io::pwrite(&input, resources, 0).map_err(|errno| failed(errno.to_string()))?;
        self.call_with(ticket, words(&["update", "--resources", "-", &ticket.key.container]), Some(input))
    }

    fn begin_checkpoint(&mut self, ticket: &Ticket, request: &CheckpointTaskRequest) -> Result<(), Refusal> {
        let options = match &request.options {
            Some(any) => CheckpointOptions::decode(any.value.as_slice())
                .map_err(|error| Refusal::new(Code::InvalidArgument, error.to_string()))?,
            None => CheckpointOptions::default(),
        };
        let runtime = self.runtime_of(&ticket.key)?;
        let bundle = self.bundle_of(&ticket.key)?;
        self.call(ticket, runtime.checkpoint(&bundle.dir, &request.path, &options, &request.id))
    }

    /// Calls the runtime with what it prints kept for us.
    pub(super) fn call(&mut self, ticket: &Ticket, verb: Vec<String>) -> Result<(), Refusal> {
        self.call_with(ticket, verb, None)
    }

    fn call_with(
        &mut self,
        ticket: &Ticket,
        verb: Vec<String>,
        input: Option<OwnedFd>,
    ) -> Result<(), Refusal> {
        use std::os::fd::AsFd;
        let output = output_file().map_err(Refusal::unknown)?;
        let copy = hull_sys::fd::dup_above(output.as_fd(), 3)
            .map_err(|error| Refusal::unknown(error.to_string()))?;
        let running = self.running(ticket, Some(output), None)?;
        let fds = [input.as_ref().map(AsFd::as_fd), Some(copy.as_fd()), Some(copy.as_fd())];
        self.launch(running, verb, &Streams { fds, console: None })
    }

    pub(super) fn running(
        &self,
        ticket: &Ticket,
        output: Option<OwnedFd>,
        pid_file: Option<PathBuf>,
    ) -> Result<Running, Refusal> {
        let log = self.bundle_of(&ticket.key)?.file(&log_name(ticket));
        if let Some(stale) = pid_file.as_ref().filter(|_| ticket.key.is_init()) {
            // An exec's goes with it. Mostly there is none; one that cannot be removed shows when the runtime cannot write it either.
            let _ = std::fs::remove_file(stale);
        }
        let log_from = self.log_length(&log);
        let (ticket, flows) = (ticket.clone(), Vec::new());
        let (timed_out, names, clears_up) = (false, None, None);
        Ok(Running { ticket, log, log_from, output, pid_file, flows, timed_out, names, clears_up })
    }

    /// The length of a runtime's log. A long one is begun anew when nobody writes to it: warnings of many calls add up.
    fn log_length(&self, log: &Path) -> u64 {
        let length = std::fs::metadata(log).map_or(0, |found| found.len());
        let writes = |watched: &Watched| matches!(watched, Watched::Job(running) if running.log == log);
        if length < LOG_LIMIT || self.children.values().any(writes) {
            return length;
        }
        match std::fs::File::options().write(true).truncate(true).open(log) {
            Ok(_) => 0,
            Err(_) => length,
        }
    }

    pub(super) fn launch(
        &mut self,
        mut running: Running,
        verb: Vec<String>,
        streams: &Streams<'_>,
    ) -> Result<(), Refusal> {
        let runtime = self.runtime_of(&running.ticket.key)?;
        let prefix = prefix(&running.ticket.job);
        let child = runtime
            .start(&running.log, verb, streams)
            .map_err(|text| Refusal::unknown(format!("{prefix}: {text}")))?;
        let pid = child.pid.as_raw();
        let limit = match running.clears_up {
            // However long the client waits still: nobody else would remove what is there.
            Some(_) => CLEARING_LIMIT,
            None => {
                let limit = limit(&running.ticket.job);
                self.connections.timeout(running.ticket.call).map_or(limit, |client| client.min(limit))
            }
        };
        self.timers.set(Timer::Job(pid), limit);
        running.names = running.names_a_process().then(|| self.unclaimed.begin());
        self.children.insert(pid, Watched::Job(Box::new(running)));
        Ok(())
    }

    fn statistics(&self, key: &Key) -> Outcome {
        match self.sites.get(&key.container).and_then(|site| site.place.as_ref()) {
            Some(place) => Outcome::Any(cgroup::statistics(place)),
            None => Outcome::Failed(Refusal::not_found("cgroup does not exist: not found")),
        }
    }

    fn send_signal(&self, key: &Key, pid: u32, signal: u32) -> Outcome {
        let (Ok(pid), Ok(signal)) = (i32::try_from(pid), i32::try_from(signal)) else {
            return Outcome::Failed(Refusal::unknown("invalid argument"));
        };
        let gone = || Outcome::Failed(Refusal::not_found("process already finished: not found"));
        // Once it is reaped, which the state machine may not know yet, the number may be another's.
        if !matches!(self.children.get(&pid), Some(Watched::Process(watched)) if watched == key) {
            return gone();
        }
        match process::kill(Pid::from_raw(pid), signal) {
            Ok(()) => Outcome::Done,
            Err(error) if error.is(ESRCH) => gone(),
            Err(error) if error.is(EINVAL) => Outcome::Failed(Refusal::unknown(
                "exec kill error: unknown error after kill: invalid argument",
            )),
            Err(error) => Outcome::Failed(Refusal::unknown(format!(
                "exec kill error: unknown error after kill: {error}"
            ))),
        }
    }

    pub(super) fn runtime_of(&self, key: &Key) -> Result<Runtime, Refusal> {
        let site = self.sites.get(&key.container);
        site.map(|site| site.runtime.clone()).ok_or_else(no_container)
    }

    pub(super) fn bundle_of(&self, key: &Key) -> Result<Bundle, Refusal> {
        let site = self.sites.get(&key.container);
        site.map(|site| site.bundle.clone()).ok_or_else(no_container)
    }
}

/// Names become file names in the bundle.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    !name.is_empty() && name.len() <= 200 && !name.starts_with('.') && name.bytes().all(allowed)
}

/// The runtime's log. Calls for one process take turns, those for others run beside them: in a log that both write to, one
/// would find the other's error.
fn log_name(ticket: &Ticket) -> String {
    match &ticket.job {
        Job::Ps => "log-ps.json".to_owned(),
        _ if ticket.key.is_init() => "log.json".to_owned(),
        _ => format!("exec-{}.log", ticket.key.exec),
    }
}

fn prefix(job: &Job) -> &'static str {
    match job {
        Job::Create(_) => "OCI runtime create failed",
        Job::Start => "OCI runtime start failed",
        Job::Restore => "OCI runtime restore failed",
        Job::Exec(_) => "OCI runtime exec failed",
        Job::Kill { .. } | Job::Signal { .. } => "OCI runtime kill failed",
        Job::Delete | Job::Drain => "failed to delete task",
        Job::Pause => "OCI runtime pause failed",
        Job::Resume => "OCI runtime resume failed",
        Job::Update(_) => "OCI runtime update failed",
        Job::Checkpoint(_) => "CRIU checkpoint failed",
        Job::Ps => "OCI runtime ps failed",
        Job::Stats => "failed to read statistics",
    }
}

/// How long a runtime call, or what a helper does for it, may take; hooks and images take their time.
pub(super) fn limit(job: &Job) -> Duration {
    Duration::from_secs(match job {
        Job::Create(_) | Job::Start | Job::Restore | Job::Checkpoint(_) => 300,
        Job::Exec(_) | Job::Delete => 120,
        _ => 30,
    })
}
