//! Waiting for children.

use super::Pid;
use crate::poll::wait_readable;
use crate::raw::{check, uninterrupted};
use crate::{Result, SysError};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStatus {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
}

impl WaitStatus {
    /// The code as a shell shows it: the exit code, or 128 and the signal's number.
    pub const fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// Waits without a deadline for the child of `pidfd` and reaps it; `ECHILD` when it is no child of ours.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<WaitStatus> {
    let found = wait_id(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, 0)?;
    // Without WNOHANG the call comes back with a child or an error.
    found.map(|(_, status)| status).ok_or(SysError::new("waitid", libc::ECHILD))
}

/// Reaps the child of `pidfd` if it has ended; none while it lives.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> Result<Option<WaitStatus>> {
    let found = wait_id(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, libc::WNOHANG)?;
    Ok(found.map(|(_, status)| status))
}

/// Waits for the child of `pidfd` until `deadline` and reaps it; none when it still lives then.
pub fn wait_until(pidfd: BorrowedFd<'_>, deadline: Instant) -> Result<Option<WaitStatus>> {
    // Some event here may be only a thread group leader's exit: look, and poll again if nobody was to be reaped.
    while wait_readable(pidfd, Some(deadline))? {
        if let Some(status) = try_wait(pidfd)? {
            return Ok(Some(status));
        }
    }
    try_wait(pidfd)
}

/// Reaps one ended child, whichever; none when no child has ended or there is no child.
pub fn wait_any_child() -> Result<Option<(Pid, WaitStatus)>> {
    match wait_id(libc::P_ALL, 0, libc::WNOHANG) {
        Err(error) if error.is(libc::ECHILD) => Ok(None),
        other => other,
    }
}

/// True while a process of this number is a child of ours, alive or not yet reaped.
pub fn is_child(pid: Pid) -> bool {
    let Ok(id) = libc::id_t::try_from(pid.as_raw()) else { return false };
    wait_id(libc::P_PID, id, libc::WNOHANG | libc::WNOWAIT).is_ok()
}

fn wait_id(kind: libc::idtype_t, id: libc::id_t, flags: i32) -> Result<Option<(Pid, WaitStatus)>> {
    // __WALL: a child of clone with no exit signal is a child too.
    let flags = flags | libc::WEXITED | libc::__WALL;
    // SAFETY: siginfo_t is plain old data for which all zero bytes are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let no_usage = std::ptr::null::<libc::c_void>();
    uninterrupted(|| {
        // SAFETY: `info` is a siginfo_t that lives until the call is over; no resource usage is asked for.
        let returned = unsafe { libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, flags, no_usage) };
        check("waitid", returned)
    })?;
    // SAFETY: waitid fills the SIGCHLD form of siginfo, or leaves the zeros.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let value = unsafe { info.si_status() };
    let status = if info.si_code == libc::CLD_EXITED {
        WaitStatus::Exited(value)
    } else {
        WaitStatus::Signaled(value)
    };
    Ok((pid != 0).then(|| (Pid::from_raw(pid), status)))
}
