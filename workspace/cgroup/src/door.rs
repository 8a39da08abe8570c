//! The quick way in: a process is born in the version 2 group and moves itself into the version 1 groups.
//!
//! A write to `cgroup.procs` takes a lock over every process of the machine, and the first one after a while waits for
//! all processors to pass through the scheduler (a grace period of RCU): 5 to 10 ms. Neither a birth in a group
//! (`CLONE_INTO_CGROUP`) nor a thread that moves itself alone (`0` written to `tasks`) needs that lock.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use hull_sys::fs::OFlags;
use hull_sys::io;

use crate::cgroup::Cgroup;
use crate::error::{CgroupError, Result};
use crate::hierarchies::open_below;
use crate::make::attach_hint;

/// The file of version 1 that takes single threads.
const TASKS: &str = "tasks";

/// A container's version 1 directories, opened for a process of one thread to enter.
#[derive(Debug)]
pub struct Door(Vec<(OwnedFd, String)>);

impl Cgroup {
    /// Opens the way in. The kernel judges the writer by who opened it, so the process may have become another user.
    /// None where systemd has yet to make the group around the process.
    ///
    /// # Errors
    /// A directory was removed, or is not the caller's to enter.
    pub fn door(&self) -> Result<Option<Door>> {
        if self.pending.is_some() {
            return Ok(None);
        }
        let mut files = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.iter().filter(|node| !node.is_v2()) {
            let Some(dir) = node.dir()? else { continue };
            let path = node.path_of(TASKS);
            match open_below(dir, TASKS, OFlags::WRONLY) {
                Ok(file) => files.push((file, path)),
                Err(source) => return Err(CgroupError::File { action: "open", path, source }),
            }
        }
        Ok(Some(Door(files)))
    }
}

impl Door {
    /// Numbers of its descriptors, which must live on in the process that enters.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.0.iter().map(|(file, _)| file.as_raw_fd())
    }

    /// Moves the calling process, which has one thread, into every group.
    ///
    /// # Errors
    /// The kernel refuses, or a directory was removed.
    pub fn enter(&self) -> Result<()> {
        for (file, path) in &self.0 {
            io::write(file.as_fd(), b"0").map_err(|source| {
                let (path, hint) = (path.clone(), attach_hint(&source));
                CgroupError::Attach { pid: 0, path, hint, source }
            })?;
        }
        Ok(())
    }
}
