//! Who may make or remove the container's directories right now.
//!
//! Two containers may be given the same path. While the one is being made there the directories are empty, as those of the
//! other are that has ended, and the delete of that one would take them away under the hands of the first one's maker. So
//! both take turns, by a lock (flock(2)) on the directory in the first hierarchy that has one:
//!
//! - who makes directories makes that one first, locks it, and has the lock until the container's process is in there;
//! - who removes them locks it, looks then who is in there, and removes it last.
//!
//! Whoever gets the lock looks whether the directory still is the one by its name. If not, it was removed by the one who
//! had the turn before, and there is another one to be made, or to be looked for. The lock is the open directory's, so
//! nobody who is killed keeps it.
//!
//! Anybody who can read the directory, the container's own processes among them, can have its lock as well. So nobody waits
//! for long, and who waited in vain goes on: the turns keep makers and deletes from hurting each other, and guard nothing.
//! A unit's directories are systemd's to make; only who removes them takes a turn there.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use hull_sys::SysError;
use hull_sys::fs::{Lock, is_in_place, try_flock};

use crate::cgroup::Cgroup;
use crate::error::{CgroupError, Result};
use crate::wait::wait_until;

/// What came of waiting for a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is the caller's, until the directory is closed.
    Taken,
    /// The one before has removed the directory.
    Removed,
    /// Somebody else's, still.
    Waiting,
}

/// Waits for the lock of `dir`, which was opened as `path` below `root`.
pub(crate) fn take(
    dir: BorrowedFd<'_>,
    (root, path): (BorrowedFd<'_>, &str),
    deadline: Instant,
) -> std::result::Result<Turn, SysError> {
    if !wait_until(deadline, || try_flock(dir, Lock::Exclusive))? {
        return Ok(Turn::Waiting);
    }
    Ok(if is_in_place(dir, root, path) { Turn::Taken } else { Turn::Removed })
}

impl Cgroup {
    /// Takes the turn to remove the container's directories, until this value is dropped; false when it was somebody else's
    /// until `deadline`.
    ///
    /// # Errors
    /// A directory exists and cannot be opened or locked.
    pub fn take_turn(&mut self, deadline: Instant) -> Result<bool> {
        for node in &mut self.nodes {
            match node.take_turn(deadline) {
                Ok(Some(taken)) => return Ok(taken),
                Ok(None) => {}
                // No such hierarchy any more.
                Err(CgroupError::NotCgroup { .. }) => {}
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Lets the next one have the turn, before this value is dropped.
    pub(crate) fn give_turn_back(&self) {
        let first = self.nodes.iter().find_map(|node| node.dir().ok().flatten());
        // What cannot be unlocked is when it is closed.
        let _later = first.map(|dir| try_flock(dir, Lock::None));
    }
}
