//! Learning that the container ran out of memory.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_sys::SysError;
use hull_sys::event::{WatchFlags, add_watch_fd, event_fd, inotify_fd, read_changes, take_count};
use hull_sys::fs::OFlags;

use crate::cgroup::Cgroup;
use crate::error::{CgroupError, Result};
use crate::hierarchies::{open_below, read_whole};
use crate::node::Node;

/// What happened since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oom {
    /// Nothing of interest.
    Nothing,
    /// A process was, or is about to be, killed for lack of memory.
    Happened,
    /// The group is gone, or (version 2) empty: nothing more will happen.
    Gone,
}

/// A watch on the container's memory. Poll its fd for reading, then call [`OomWatch::take`].
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    dir: OwnedFd,
    /// Kills that were reported (version 2); `None` for version 1, which counts the events itself.
    reported: Option<u64>,
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Cgroup {
    /// Watches for the container running out of memory; `None` when it has no directory that counts memory.
    ///
    /// # Errors
    /// The kernel refuses the watch.
    pub fn oom_events(&self) -> Result<Option<OomWatch>> {
        let (node, watch): (_, fn(BorrowedFd<'_>) -> _) = match (self.v1("memory"), self.v2()) {
            (Some(node), _) => (node, watch_v1),
            (None, Some(node)) if node.read(EVENTS)?.is_some() => (node, watch_v2),
            _ => return Ok(None),
        };
        let Some(dir) = node.dir()? else { return Ok(None) };
        watch(dir).map(Some).map_err(|source| failed(node, source))
    }
}

/// What an error report says about a container that ran out of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryDeath {
    /// Processes that the kernel killed for lack of memory.
    pub kills: u64,
    /// The limit in bytes; `None` without one.
    pub limit: Option<u64>,
    /// What was used at most, in bytes, where the kernel remembers it.
    pub peak: Option<u64>,
}

impl Cgroup {
    /// What the kernel remembers about the container's memory; `None` when nothing counts it.
    ///
    /// # Errors
    /// A counter cannot be read.
    pub fn memory_death(&self) -> Result<Option<MemoryDeath>> {
        let (node, files) = match (self.v1("memory"), self.v2()) {
            (Some(node), _) => (node, [CONTROL, "memory.limit_in_bytes", "memory.max_usage_in_bytes"]),
            (None, Some(node)) => (node, [EVENTS, "memory.max", "memory.peak"]),
            (None, None) => return Ok(None),
        };
        let Some(events) = node.read(files[0])? else { return Ok(None) };
        let number = |file: &str| -> Result<Option<u64>> {
            Ok(node.read(file)?.and_then(|text| text.trim().parse().ok()))
        };
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0);
        Ok(Some(MemoryDeath { kills, limit: number(files[1])?, peak: number(files[2])? }))
    }
}

const EVENTS: &str = "memory.events";
const GROUP_EVENTS: &str = "cgroup.events";
const CONTROL: &str = "memory.oom_control";

/// Registers an eventfd with `cgroup.event_control` (memory.rst, "OOM control").
fn watch_v1(dir: BorrowedFd<'_>) -> std::result::Result<OomWatch, SysError> {
    let control = open_below(dir, CONTROL, OFlags::RDONLY)?;
    let fd = event_fd()?;
    let numbers = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
    crate::node::write_file(dir, "cgroup.event_control", &numbers)?;
    Ok(OomWatch { fd, dir: reopen(dir)?, reported: None })
}

/// Watches `memory.events` and `cgroup.events`, which report their changes as modifications (cgroup-v2.rst).
fn watch_v2(dir: BorrowedFd<'_>) -> std::result::Result<OomWatch, SysError> {
    let fd = inotify_fd()?;
    for name in [EVENTS, GROUP_EVENTS] {
        let watched = open_below(dir, name, OFlags::RDONLY)?;
        add_watch_fd(fd.as_fd(), watched.as_fd(), WatchFlags::MODIFY)?;
    }
    let dir = reopen(dir)?;
    let reported = Some(counter(&dir, EVENTS, "oom_kill")?.unwrap_or(0));
    Ok(OomWatch { fd, dir, reported })
}

impl OomWatch {
    /// Says what happened since the last call. Does not block.
    ///
    /// # Errors
    /// The event queue or a counter cannot be read.
    pub fn take(&mut self) -> Result<Oom> {
        let taken = match self.reported {
            None => self.take_v1(),
            Some(reported) => self.take_v2(reported),
        };
        taken.map_err(|source| CgroupError::File { action: "read", path: "memory events".to_owned(), source })
    }

    fn take_v1(&self) -> std::result::Result<Oom, SysError> {
        let raised = take_count(self.fd.as_fd())? > 0;
        // Removing the group raises the event too.
        Ok(match counter(&self.dir, CONTROL, "under_oom")? {
            None => Oom::Gone,
            Some(_) if raised => Oom::Happened,
            Some(_) => Oom::Nothing,
        })
    }

    fn take_v2(&mut self, reported: u64) -> std::result::Result<Oom, SysError> {
        read_changes(self.fd.as_fd())?;
        let kills = counter(&self.dir, EVENTS, "oom_kill")?;
        if let Some(kills) = kills.filter(|kills| *kills > reported) {
            self.reported = Some(kills);
            return Ok(Oom::Happened);
        }
        let populated = counter(&self.dir, GROUP_EVENTS, "populated")?;
        Ok(if kills.is_some() && populated == Some(1) { Oom::Nothing } else { Oom::Gone })
    }
}

/// A line `name number` of a file; `None` when the group is gone.
fn counter(dir: &OwnedFd, file: &str, name: &str) -> std::result::Result<Option<u64>, SysError> {
    match read_whole(dir.as_fd(), file) {
        Ok(text) => {
            Ok(text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()))
        }
        Err(error) if [libc::ENOENT, libc::ENODEV].contains(&error.errno) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An fd of its own for the watch, which may outlive the group.
fn reopen(dir: BorrowedFd<'_>) -> std::result::Result<OwnedFd, SysError> {
    open_below(dir, ".", OFlags::DIRECTORY | OFlags::PATH)
}

fn failed(node: &Node, source: SysError) -> CgroupError {
    CgroupError::File { action: "watch the memory of", path: node.place.host_path(), source }
}
