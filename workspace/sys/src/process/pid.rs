//! Process ids, and signals sent by them.

use crate::raw::check_unit;
use crate::{Result, SysError};
use std::fmt;

/// A process id as the caller's pid namespace sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(i32);

impl Pid {
    /// The id with this number; nothing says that such a process exists.
    pub const fn from_raw(raw: i32) -> Self {
        Self(raw)
    }

    /// The number.
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Sends `signal` to one process; 0 only asks whether it can be signalled. Prefer a pidfd: a pid may be reused.
/// `EINVAL` for a pid that is not positive, because kill(2) reads those as groups or as everybody.
pub fn kill(pid: Pid, signal: i32) -> Result<()> {
    if pid.0 < 1 {
        return Err(SysError::new("kill", libc::EINVAL));
    }
    send(pid.0, signal)
}

/// Sends `signal` to every process of the process group `leader`. `EINVAL` for a group that is not greater than 1:
/// -1 would reach every process of the namespace, 0 the caller's own group.
pub fn kill_group(leader: Pid, signal: i32) -> Result<()> {
    if leader.0 < 2 {
        return Err(SysError::new("kill", libc::EINVAL));
    }
    send(-leader.0, signal)
}

fn send(target: i32, signal: i32) -> Result<()> {
    // SAFETY: kill takes two numbers and touches no memory.
    check_unit("kill", unsafe { libc::syscall(libc::SYS_kill, target, signal) })
}
