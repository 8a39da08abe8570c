//! Resource limits (prlimit(2)).

use crate::Result;
use crate::process::Pid;
use crate::raw::check_unit;

/// No limit.
pub const INFINITY: u64 = u64::MAX;

/// `struct rlimit64`.
#[repr(C)]
struct Limit {
    soft: u64,
    hard: u64,
}

/// Sets the caller's limit `resource` (`RLIMIT_*`); `EPERM` to raise the hard one without `CAP_SYS_RESOURCE`.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    set_rlimit_of(Pid::from_raw(0), resource, soft, hard)
}

/// The same of another process.
pub fn set_rlimit_of(pid: Pid, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let new = Limit { soft, hard };
    prlimit(pid, resource, Some(&new), None)
}

/// The caller's soft and hard limit `resource`.
pub fn get_rlimit(resource: u32) -> Result<(u64, u64)> {
    get_rlimit_of(Pid::from_raw(0), resource)
}

/// The same of another process.
pub fn get_rlimit_of(pid: Pid, resource: u32) -> Result<(u64, u64)> {
    let mut old = Limit { soft: 0, hard: 0 };
    prlimit(pid, resource, None, Some(&mut old))?;
    Ok((old.soft, old.hard))
}

fn prlimit(pid: Pid, resource: u32, new: Option<&Limit>, old: Option<&mut Limit>) -> Result<()> {
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    let old = old.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: each pointer is null or to a limit that outlives the call.
    check_unit("prlimit", unsafe { libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, new, old) })
}
