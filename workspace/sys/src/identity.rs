//! User and group ids of the calling thread, by raw calls.
//!
//! The C library's functions signal every thread to change its ids too; in a process that was cloned without it
//! knowing they are not to be used. These change the calling thread alone.

use crate::Result;
use crate::raw::check_unit;

/// Sets the real, effective and saved user id; `u32::MAX` leaves one as it is.
pub fn set_uids(real: u32, effective: u32, saved: u32) -> Result<()> {
    // SAFETY: three numbers, no memory.
    check_unit("setresuid", unsafe { libc::syscall(libc::SYS_setresuid, real, effective, saved) })
}

/// Sets the real, effective and saved group id; `u32::MAX` leaves one as it is.
pub fn set_gids(real: u32, effective: u32, saved: u32) -> Result<()> {
    // SAFETY: three numbers, no memory.
    check_unit("setresgid", unsafe { libc::syscall(libc::SYS_setresgid, real, effective, saved) })
}

/// Sets the supplementary groups; `EPERM` also where the user namespace denies setgroups.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the pointer is to as many ids as we say.
    let returned = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check_unit("setgroups", returned)
}

/// The effective user id.
pub fn effective_uid() -> u32 {
    // SAFETY: no argument, cannot fail.
    unsafe { libc::syscall(libc::SYS_geteuid) as u32 }
}

/// The effective group id.
pub fn effective_gid() -> u32 {
    // SAFETY: no argument, cannot fail.
    unsafe { libc::syscall(libc::SYS_getegid) as u32 }
}
