//! What a process says of itself: session, dumpability, privileges flags, personality.

use super::Pid;
use crate::Result;
use crate::raw::{check, check_unit, prctl};

/// The calling process's id, asked from the kernel (libc's idea of it may be stale after a raw clone).
pub fn effective_pid() -> Pid {
    // SAFETY: no argument, cannot fail.
    Pid::from_raw(unsafe { libc::syscall(libc::SYS_getpid) } as i32)
}

/// The parent's id; 0 when the parent is outside the pid namespace.
pub fn parent_pid() -> Pid {
    // SAFETY: no argument, cannot fail.
    Pid::from_raw(unsafe { libc::syscall(libc::SYS_getppid) } as i32)
}

/// The calling thread's id, asked from the kernel.
pub fn thread_id() -> Pid {
    // SAFETY: no argument, cannot fail.
    Pid::from_raw(unsafe { libc::syscall(libc::SYS_gettid) } as i32)
}

/// Makes orphaned descendants children of this process (`PR_SET_CHILD_SUBREAPER`).
pub fn set_child_subreaper(on: bool) -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, [on.into(), 0, 0, 0]).map(drop)
}

/// Asks for `signal` when the parent thread dies; 0 takes the wish back. The caller must then check that the parent
/// still is who it was, since it may have died before.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, [signal as libc::c_ulong, 0, 0, 0]).map(drop)
}

/// Says whether others of the same user may trace this process or read its fds and memory.
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, [on.into(), 0, 0, 0]).map(drop)
}

/// True when the process is dumpable by its user (state 1; 2 is root only and counts as not).
pub fn is_dumpable() -> Result<bool> {
    Ok(prctl(libc::PR_GET_DUMPABLE, [0; 4])? == 1)
}

/// Gives up gaining privileges by execve, for good (`PR_SET_NO_NEW_PRIVS`).
pub fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]).map(drop)
}

/// Keeps permitted capabilities over a change of the user id away from 0, until the next execve.
pub fn set_keep_capabilities(on: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, [on.into(), 0, 0, 0]).map(drop)
}

/// Makes the process leader of a new session without a terminal; `EPERM` for a leader of a process group.
pub fn setsid() -> Result<Pid> {
    // SAFETY: no argument, no memory.
    Ok(Pid::from_raw(check("setsid", unsafe { libc::syscall(libc::SYS_setsid) })? as i32))
}

/// Sets the file mode creation mask and gives the old one; cannot fail.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: one number, cannot fail.
    unsafe { libc::syscall(libc::SYS_umask, mask) as u32 }
}

/// Sets the execution domain, as personality(2): `PER_LINUX32` and the flags beside it.
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: one number, no memory.
    check_unit("personality", unsafe { libc::syscall(libc::SYS_personality, persona) })
}
