//! Create, from the request to the container's first process:
//!
//! ```text
//! begin_create       what the request says is checked and kept; a helper mounts the root, if mounts are asked for
//! create_container   the streams are opened, and the runtime creates the container (a restore leaves that to Start)
//! process_born       its process is watched, its streams are put to work, the client gets the pid (as for an exec)
//! ```
//!
//! Where a step fails:
//!
//! ```text
//! create_cut_off     a runtime that was killed may have left anything: it is called to delete that
//! refuse_create      a helper unmounts the root
//! create_refused     streams and names are let go of, the client gets the reason
//! ```

use crate::api::CreateTaskRequest;
use crate::bundle::{Bundle, options_from};
use crate::cgroup::{OomWatch, Place};
use crate::runtime::{Runtime, Streams};
use crate::task::{Job, Key, Outcome, Stdio, Ticket};
use crate::ttrpc::{Code, Refusal};

use super::jobs::{Running, is_name};
use super::root_job::Next;
use super::{Engine, Mounts, Site, Timer, Token};

impl Engine {
    /// Begins with what a request says.
    pub(super) fn begin_create(&mut self, ticket: Ticket) {
        let Job::Create(request) = &ticket.job else { return };
        match self.take_request(request) {
            Ok(Mounts::None) => self.create_container(ticket),
            Ok(_) => self.mount_root(ticket),
            Err(refusal) => self.create_refused(ticket, refusal),
        }
    }

    fn take_request(&mut self, request: &CreateTaskRequest) -> Result<Mounts, Refusal> {
        let failed =
            |error: std::io::Error| Refusal::unknown(format!("create container {}: {error}", request.id));
        if !is_name(&request.id) || !request.bundle.starts_with('/') {
            let text = "a container needs a name and an absolute bundle path";
            return Err(Refusal::new(Code::InvalidArgument, text));
        }
        let options = options_from(request.options.as_ref()).map_err(failed)?;
        let bundle = Bundle::new(&request.bundle);
        let config = bundle.config().map_err(failed)?;
        bundle.remember(&options).map_err(failed)?;
        let mounts = Mounts::of(&request.rootfs);
        let site = Site {
            bundle,
            runtime: Runtime::new(options, &self.setup.namespace),
            shares_pid_namespace: config.shares_pid_namespace(),
            mounts,
            checkpoint: request.checkpoint.clone(),
            place: None,
            oom: None,
        };
        self.sites.insert(request.id.clone(), site);
        Ok(mounts)
    }

    /// The root is there.
    pub(super) fn create_container(&mut self, ticket: Ticket) {
        match self.call_create(&ticket) {
            Ok(()) if self.is_to_be_restored(&ticket.key) => self.end(ticket, Outcome::Pid(0)),
            Ok(()) => {}
            Err(refusal) => self.refuse_create(ticket, refusal),
        }
    }

    fn call_create(&mut self, ticket: &Ticket) -> Result<(), Refusal> {
        let Job::Create(request) = &ticket.job else { return Ok(()) };
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let mut ends = self
            .open_streams(&ticket.key, &stdio)
            .map_err(|error| Refusal::unknown(format!("failed to create init process I/O: {error}")))?;
        if self.is_to_be_restored(&ticket.key) {
            self.held.entry(ticket.key.clone()).or_default().ends = Some(ends);
            return Ok(());
        }
        let (runtime, bundle) = (self.runtime_of(&ticket.key)?, self.bundle_of(&ticket.key)?);
        let verb = runtime.create(&bundle.dir, &ends.streams(), &request.id);
        let mut running = self.running(ticket, None, Some(bundle.file("init.pid")))?;
        running.flows = std::mem::take(&mut ends.flows);
        self.launch(running, verb, &ends.streams())
    }

    fn is_to_be_restored(&self, key: &Key) -> bool {
        self.sites.get(&key.container).is_some_and(|site| !site.checkpoint.is_empty())
    }

    /// The runtime has created the container: kills for lack of memory are told from now on.
    pub(super) fn watch_cgroup(&mut self, container: &str, pid: u32) {
        let id = self.fresh_id();
        let Ok(place) = Place::of(pid) else { return };
        let watch = OomWatch::new(&place).ok();
        if let Some((signal, flags)) = watch.as_ref().and_then(OomWatch::signal) {
            // Without it the look at the end is the only one.
            let _ = self.poll.add(signal, Token::Oom(id).into(), flags);
        }
        let again = watch.as_ref().and_then(OomWatch::look_again);
        if let Some(site) = self.sites.get_mut(container) {
            site.place = Some(place);
            site.oom = watch.map(|watch| (id, watch));
        }
        if let Some(span) = again {
            // The first look took a signal that came before the kill.
            self.timers.set(Timer::Oom(id), span);
        }
    }

    /// A creation that was cut off may have left anything: the runtime is told to remove it.
    pub(super) fn create_cut_off(&mut self, running: Box<Running>, refusal: Refusal) {
        let verb = Runtime::delete(&running.ticket.key.container, true);
        let started = self.running(&running.ticket, None, None).and_then(|mut clearing| {
            clearing.clears_up = Some(refusal.clone());
            self.launch(clearing, verb, &Streams::default())
        });
        if started.is_err() {
            self.refuse_create(running.ticket, refusal);
        }
    }

    /// Takes back what a creation did before it failed.
    pub(super) fn refuse_create(&mut self, ticket: Ticket, refusal: Refusal) {
        self.unmount_root(ticket, Next::Refuse(refusal));
    }

    /// Nothing is left of it.
    pub(super) fn create_refused(&mut self, ticket: Ticket, refusal: Refusal) {
        self.forget(&ticket.key);
        self.end(ticket, Outcome::Failed(refusal));
    }
}
