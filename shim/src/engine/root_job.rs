//! A container's root, mounted and unmounted by a helper: a process of ours that does this and nothing else.
//!
//! mount(2) and umount2(2) may take for ever: on a file server that does not answer, a file system in user space that
//! hangs, a dead disk. Then one container waits, for a limited time, and the shim serves everybody else.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_sys::process::{self, Child, CloneRequest, Pid};
use hull_sys::{SysError, fd};
use rustix::fs::{Mode, OFlags};

use crate::runtime::{output_file, read_output};
use crate::task::{Job, Outcome, Ticket};
use crate::ttrpc::{Code, Refusal};

use super::jobs::limit;
use super::rootfs::{mount_all, unmount_all, unmount_tree};
use super::{Engine, Mounts, Timer, Watched};

/// How long it may take to unmount the root after a creation that failed: whoever asked for it has waited long enough.
const CLEARING_LIMIT: Duration = Duration::from_secs(30);
/// How long a helper that nobody waits for may take.
const LATE_LIMIT: Duration = Duration::from_secs(30);

/// A helper under way.
#[derive(Debug)]
pub struct RootJob {
    ticket: Ticket,
    next: Next,
    rootfs: PathBuf,
    /// Its error, if it fails.
    said: OwnedFd,
    began: Instant,
    /// It took too long and was killed.
    pub(super) timed_out: bool,
}

/// What its end leads to.
#[derive(Debug)]
pub enum Next {
    /// The root is mounted: the container is created.
    Create,
    /// The root is unmounted: the container is deleted.
    Deleted,
    /// The root of a creation that failed is unmounted: this is the answer.
    Refuse(Refusal),
}

impl Engine {
    /// Has the mounts of a Create request made.
    pub(super) fn mount_root(&mut self, ticket: Ticket) {
        let (Job::Create(request), Ok(bundle)) = (&ticket.job, self.bundle_of(&ticket.key)) else { return };
        let rootfs = bundle.file("rootfs");
        match start_helper(|| mount_all(&request.rootfs, &rootfs)) {
            Ok(helper) => self.await_root(helper, ticket, Next::Create, rootfs),
            Err(text) => self.refuse_create(ticket, Refusal::unknown(text)),
        }
    }

    /// Has the root of a container unmounted that had mounts of ours.
    pub(super) fn unmount_root(&mut self, ticket: Ticket, next: Next) {
        let Some(site) = self.sites.get(&ticket.key.container).filter(|site| site.mounts != Mounts::None)
        else {
            return self.go_on(ticket, next, None);
        };
        let (rootfs, mounts) = (site.bundle.file("rootfs"), site.mounts);
        let unmount = || if mounts == Mounts::Below { unmount_tree(&rootfs) } else { unmount_all(&rootfs) };
        match start_helper(unmount) {
            Ok(helper) => self.await_root(helper, ticket, next, rootfs),
            Err(text) => self.go_on(ticket, next, Some(Refusal::unknown(text))),
        }
    }

    fn await_root(&mut self, helper: (Child, OwnedFd), ticket: Ticket, next: Next, rootfs: PathBuf) {
        let (child, said) = helper;
        let limit = match next {
            Next::Refuse(_) => CLEARING_LIMIT,
            Next::Create | Next::Deleted => {
                let limit = limit(&ticket.job);
                self.connections.timeout(ticket.call).map_or(limit, |client| client.min(limit))
            }
        };
        let pid = child.pid.as_raw();
        self.timers.set(Timer::Job(pid), limit);
        let job = RootJob { ticket, next, rootfs, said, began: Instant::now(), timed_out: false };
        self.children.insert(pid, Watched::Root(Box::new(job)));
    }

    /// A helper has ended, or is waited for no longer.
    pub(super) fn root_job_ended(&mut self, pid: i32, job: RootJob, status: i32) {
        self.timers.stop(&Timer::Job(pid));
        let refusal = (status != 0 || job.timed_out).then(|| job.refusal(status));
        self.connections.spend(job.ticket.call, job.began.elapsed());
        self.go_on(job.ticket, job.next, refusal);
    }

    fn go_on(&mut self, ticket: Ticket, next: Next, failed: Option<Refusal>) {
        match (next, failed) {
            (Next::Create, None) => self.create_container(ticket),
            (Next::Create, Some(refusal)) => self.refuse_create(ticket, refusal),
            (Next::Deleted, None) => self.root_is_gone(ticket),
            (Next::Deleted, Some(refusal)) => self.end(ticket, Outcome::Failed(refusal)),
            (Next::Refuse(refusal), None) => self.create_refused(ticket, refusal),
            (Next::Refuse(mut refusal), Some(left)) => {
                refusal.text = format!("{} ({})", refusal.text, left.text);
                self.create_refused(ticket, refusal);
            }
        }
    }

    /// A helper was killed and does not end. What it waits for may still come true: then a root is mounted of which nobody
    /// knows.
    pub(super) fn leave_root_job_behind(&mut self, pid: i32, job: RootJob, status: i32) {
        if matches!(job.next, Next::Create) {
            self.children.insert(pid, Watched::LateMount(job.rootfs.clone()));
        }
        self.root_job_ended(pid, job, status);
    }

    /// A helper that was left behind has ended. What it has mounted goes, with the root of whoever has this bundle now.
    pub(super) fn late_mount_ended(&mut self, rootfs: &Path) {
        if self.sites.values().any(|site| site.bundle.file("rootfs") == rootfs) {
            return;
        }
        match start_helper(|| unmount_tree(rootfs)) {
            Ok((child, _said)) => {
                let pid = child.pid.as_raw();
                self.children.insert(pid, Watched::Helper);
                self.timers.set(Timer::Job(pid), LATE_LIMIT);
            }
            Err(text) => self.warn(format_args!("unmount {}: {text}", rootfs.display())),
        }
    }
}

impl RootJob {
    fn refusal(&self, status: i32) -> Refusal {
        let verb = if matches!(self.next, Next::Create) { "mount" } else { "unmount" };
        let rootfs = self.rootfs.display();
        if self.timed_out {
            let text = format!("failed to {verb} {rootfs}: it did not end in time");
            return Refusal::new(Code::DeadlineExceeded, text);
        }
        let said = String::from_utf8_lossy(&read_output(&self.said)).into_owned();
        let text = if said.is_empty() { format!("failed to {verb} {rootfs}: status {status}") } else { said };
        Refusal::unknown(text)
    }
}

/// Unmounts everything on and below `rootfs`, and waits for that until `deadline`. What does not end by then is killed.
pub fn unmount_until(rootfs: &Path, deadline: Instant) -> Result<(), String> {
    let (child, said) = start_helper(|| unmount_tree(rootfs))?;
    match process::wait_until(child.pidfd.as_fd(), deadline) {
        Ok(Some(status)) if status.code() == 0 => Ok(()),
        Ok(Some(_)) => Err(String::from_utf8_lossy(&read_output(&said)).into_owned()),
        Ok(None) => {
            // It may have ended just now.
            let _ = process::kill(child.pid, 9);
            Err(format!("failed to unmount {}: it did not end in time", rootfs.display()))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Does `work` in a process of its own, which ends with 0, or says its error and ends with 1.
///
/// It leads a process group, as a runtime call does, and dies with us: nothing may be mounted when the delete action looks.
fn start_helper(work: impl FnOnce() -> Result<(), String>) -> Result<(Child, OwnedFd), String> {
    let said = output_file()?;
    let parent = process::effective_pid();
    crate::background::compete();
    let child = process::spawn(&CloneRequest::default(), || {
        let done = stand_alone(&said, parent).map_err(|error| error.to_string()).and_then(|()| work());
        if let Err(text) = &done {
            // The status tells as well that it failed.
            let _ = hull_sys::io::write_all(said.as_fd(), text.as_bytes());
        }
        process::exit_now(i32::from(done.is_err()))
    });
    Ok((child.map_err(|error| error.to_string())?, said))
}

/// A helper that hangs must hold nothing that belongs to others: a stream's end, a client, the socket.
fn stand_alone(said: &OwnedFd, parent: Pid) -> Result<(), SysError> {
    process::set_parent_death_signal(9)?;
    if process::parent_pid() != parent {
        process::exit_now(137);
    }
    process::setsid()?;
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).map_err(SysError::from_rustix("open"))?;
    for number in 0..3 {
        fd::dup_onto(null.as_fd(), number)?;
    }
    drop(null);
    fd::close_all_but(vec![said.as_raw_fd()])
}
