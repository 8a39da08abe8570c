//! How jobs end: the runtime's call is reaped, what it left is taken over or cleared up.

use std::path::PathBuf;
use std::time::Duration;

use hull_sys::process::{self, Pid};

use crate::bundle::read_pid;
use crate::runtime::{outcome_text, plain_text, read_output};
use crate::task::{Job, Outcome, no_container};
use crate::ttrpc::{Code, Refusal};

use super::super::{Engine, Timer, Watched};
use super::{Running, prefix};

const KILL: i32 = 9;
/// A status above it is a signal's number and this.
const SIGNALLED: i32 = 128;
/// A runtime that was killed is reaped within this time, unless it waits for something that cannot be interrupted (a disk, a
/// file server): then its caller is answered without it.
const LAST_WAIT: Duration = Duration::from_secs(2);

impl Engine {
    /// A runtime call, or a helper, takes too long: it is killed with what it started, and fails.
    pub(in crate::engine) fn job_overdue(&mut self, pid: i32) {
        let again = match self.children.get_mut(&pid) {
            Some(Watched::Job(running)) if running.timed_out => return self.leave_behind(pid),
            Some(Watched::Root(job)) if job.timed_out => return self.leave_behind(pid),
            Some(Watched::Job(running)) => {
                running.timed_out = true;
                true
            }
            Some(Watched::Root(job)) => {
                job.timed_out = true;
                true
            }
            // Nobody waits for it.
            Some(Watched::Helper) => false,
            Some(Watched::Process(_) | Watched::LateMount(_)) | None => return,
        };
        // It may have ended just now; then it is reaped next.
        let _ = process::kill_group(Pid::from_raw(pid), KILL);
        let _ = process::kill(Pid::from_raw(pid), KILL);
        if again {
            self.timers.set(Timer::Job(pid), LAST_WAIT);
        }
    }

    /// A runtime was killed and does not end. It will do nothing any more beyond the system call that it is in: its call has
    /// failed, and it is reaped whenever it ends.
    fn leave_behind(&mut self, pid: i32) {
        match self.children.insert(pid, Watched::Helper) {
            Some(Watched::Job(running)) => self.job_ended(pid, running, SIGNALLED + KILL),
            Some(Watched::Root(job)) => self.leave_root_job_behind(pid, *job, SIGNALLED + KILL),
            _ => {}
        }
    }

    /// A container is gone: a runtime call for it that is under way (an exec, a list) has nothing to do any more. Left alone
    /// its end would be taken for that of a call for the next container of this name.
    pub(in crate::engine) fn end_jobs_of(&mut self, container: &str) {
        let is_its =
            |watched: &Watched| matches!(watched, Watched::Job(job) if job.ticket.key.container == container);
        let pids: Vec<i32> =
            self.children.iter().filter(|(_, watched)| is_its(watched)).map(|(pid, _)| *pid).collect();
        for pid in pids {
            // Not reaped yet, so the number is its own still.
            let _ = process::kill_group(Pid::from_raw(pid), KILL);
            let Some(Watched::Job(running)) = self.children.insert(pid, Watched::Helper) else { continue };
            self.timers.stop(&Timer::Job(pid));
            remove_files(&self.exec_files(&running));
            if let Some(call) = running.names {
                self.unclaimed.end(call);
            }
            self.end(running.ticket, Outcome::Failed(no_container()));
        }
    }

    /// A runtime call has ended.
    pub(in crate::engine) fn job_ended(&mut self, pid: i32, running: Box<Running>, status: i32) {
        self.timers.stop(&Timer::Job(pid));
        let names = running.names;
        self.take_result(running, status);
        if let Some(call) = names {
            // What it named is claimed by now.
            self.unclaimed.end(call);
        }
    }

    fn take_result(&mut self, mut running: Box<Running>, status: i32) {
        let key = running.ticket.key.clone();
        if let Some(refusal) = running.clears_up.take() {
            return self.refuse_create(running.ticket, refusal);
        }
        let output = running.output.as_ref().map(read_output).unwrap_or_default();
        if status == 0 && !running.timed_out {
            return self.job_succeeded(running, &output);
        }
        let refusal = self.refusal(&running, status, &output);
        match running.ticket.job {
            Job::Create(_) if running.timed_out || status > SIGNALLED => {
                self.create_cut_off(running, refusal);
            }
            Job::Create(_) => self.refuse_create(running.ticket, refusal),
            Job::Exec(_) => {
                remove_files(&self.exec_files(&running));
                self.forget(&key);
                self.end(running.ticket, Outcome::Failed(refusal));
            }
            Job::Delete => self.runtime_deleted(running.ticket, Err(refusal)),
            _ => self.end(running.ticket, Outcome::Failed(refusal)),
        }
    }

    fn job_succeeded(&mut self, mut running: Box<Running>, output: &[u8]) {
        let key = running.ticket.key.clone();
        let outcome = match &running.ticket.job {
            Job::Create(_) | Job::Restore | Job::Exec(_) => match self.process_born(&mut running) {
                Ok(pid) => Outcome::Pid(pid),
                Err(refusal) if matches!(running.ticket.job, Job::Create(_)) => {
                    return self.create_cut_off(running, refusal);
                }
                Err(refusal) => Outcome::Failed(refusal),
            },
            Job::Ps => match serde_json::from_slice::<Option<Vec<u32>>>(output) {
                Ok(pids) => Outcome::Pids(pids.unwrap_or_default()),
                Err(error) => Outcome::Failed(Refusal::unknown(format!("OCI runtime ps failed: {error}"))),
            },
            Job::Delete => return self.runtime_deleted(running.ticket, Ok(())),
            _ => Outcome::Done,
        };
        let pid = if let Outcome::Pid(pid) = outcome { Some(pid) } else { None };
        let files = self.exec_files(&running);
        self.end(running.ticket, outcome);
        if let Some(pid) = pid {
            self.claim(pid, &key);
        }
        if !files.is_empty() {
            // The answer leaves first: a client waits for it.
            self.work();
            remove_files(&files);
        }
    }

    /// The runtime has left us a process: watch it, and put its streams to work.
    fn process_born(&mut self, running: &mut Running) -> Result<u32, Refusal> {
        let key = running.ticket.key.clone();
        let file = running.pid_file.clone().unwrap_or_default();
        let pid = read_pid(&file).map_err(|error| {
            Refusal::unknown(format!("failed to retrieve OCI runtime pid from {}: {error}", file.display()))
        })?;
        if key.is_init() {
            self.watch_cgroup(&key.container, pid);
        }
        // The terminal may lie in the socket still.
        if let Some(id) = self.held.get(&key).and_then(|held| Some(held.console.as_ref()?.0)) {
            self.take_console(id);
        }
        for (input, output) in std::mem::take(&mut running.flows) {
            self.add_flow(&key, input, output);
        }
        Ok(pid)
    }

    /// What an exec's runtime call was started with and left behind; none for other calls.
    fn exec_files(&self, running: &Running) -> Vec<PathBuf> {
        let key = &running.ticket.key;
        let (Job::Exec(_), Ok(bundle)) = (&running.ticket.job, self.bundle_of(key)) else {
            return Vec::new();
        };
        let spec = bundle.file(&format!("exec-{}.json", key.exec));
        [spec, running.log.clone()].into_iter().chain(running.pid_file.clone()).collect()
    }

    fn refusal(&self, running: &Running, status: i32, output: &[u8]) -> Refusal {
        let name = self
            .runtime_of(&running.ticket.key)
            .map_or_else(|_| "runtime".to_owned(), |r| r.name().to_owned());
        let prefix = prefix(&running.ticket.job);
        if running.timed_out {
            let text = format!("{prefix}: {name} did not end in time and was killed");
            return Refusal::new(Code::DeadlineExceeded, text);
        }
        let plain = match status {
            126 | 127 if running.output.is_none() => {
                format!("{name} could not be executed (status {status})")
            }
            _ => plain_text(&name, status, output),
        };
        let text = outcome_text(prefix, &plain, &running.log, running.log_from);
        match running.ticket.job {
            Job::Kill { .. } => kill_refusal(&format!("{text} {plain}"), &plain),
            _ => Refusal::unknown(text),
        }
    }
}

/// They are in the bundle, which goes as a whole at the latest.
fn remove_files(files: &[PathBuf]) {
    for file in files {
        let _ = std::fs::remove_file(file);
    }
}

/// What the texts of the runtimes mean for a kill.
fn kill_refusal(said: &str, plain: &str) -> Refusal {
    let gone = ["os: process already finished", "container not running", "not running"];
    if gone.iter().any(|text| said.contains(text)) || said.to_ascii_lowercase().contains("no such process") {
        return Refusal::not_found("process already finished: not found");
    }
    if said.contains("does not exist") {
        return Refusal::not_found("no such container: not found");
    }
    Refusal::unknown(format!("unknown error after kill: {plain}"))
}
