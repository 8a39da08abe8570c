//! The few lines every raw system call of this crate goes through.

use crate::{Result, SysError};
use rustix::path::Arg;
use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The errno that libc stored for the calling thread.
pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Turns what `libc::syscall` (or a libc function with the same convention) gave back into a result.
pub(crate) fn check(call: &'static str, returned: libc::c_long) -> Result<libc::c_long> {
    if returned == -1 { Err(SysError::new(call, errno())) } else { Ok(returned) }
}

/// The same for a call whose success has nothing to say.
pub(crate) fn check_unit(call: &'static str, returned: libc::c_long) -> Result<()> {
    check(call, returned).map(drop)
}

/// The same for a call that gives a new fd, which the caller then owns.
pub(crate) fn check_fd(call: &'static str, returned: libc::c_long) -> Result<OwnedFd> {
    let fd = check(call, returned)? as RawFd;
    // SAFETY: the kernel has just given this fd to us and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives `body` the NUL-terminated form of `path`; a path with a NUL inside is `EINVAL` of `call`.
pub(crate) fn with_path<T>(
    call: &'static str,
    path: impl Arg,
    body: impl FnOnce(&CStr) -> Result<T>,
) -> Result<T> {
    path.into_with_c_str(|c| Ok(body(c))).map_err(SysError::from_rustix(call))?
}

/// Calls prctl(2) with number arguments only.
pub(crate) fn prctl(option: libc::c_int, arguments: [libc::c_ulong; 4]) -> Result<libc::c_long> {
    let [second, third, fourth, fifth] = arguments;
    // SAFETY: callers pass options whose arguments are plain numbers, so the kernel reads no memory of ours.
    let returned = unsafe { libc::syscall(libc::SYS_prctl, option, second, third, fourth, fifth) };
    check("prctl", returned)
}

/// Repeats `call` while it fails with `EINTR`.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(error) if error.is(libc::EINTR) => {}
            other => return other,
        }
    }
}
