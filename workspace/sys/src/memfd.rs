//! Anonymous files that can be sealed.

use crate::Result;
use crate::raw::{check_fd, check_unit, with_path};
use rustix::path::Arg;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const MFD_CLOEXEC: u32 = 1;
const MFD_ALLOW_SEALING: u32 = 2;
const MFD_NOEXEC_SEAL: u32 = 8;
const MFD_EXEC: u32 = 0x10;
const F_SEAL_EXEC: i32 = 0x20;

/// An empty anonymous file that can be sealed; fill it, then [`seal_all`]. `exec` says whether it is a program.
pub fn sealed_memfd(name: impl Arg, exec: bool) -> Result<OwnedFd> {
    let mode = if exec { MFD_EXEC } else { MFD_NOEXEC_SEAL };
    with_path("memfd_create", name, |name| {
        let create = |flags: u32| {
            // SAFETY: `name` ends in NUL and outlives the call.
            check_fd("memfd_create", unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) })
        };
        match create(MFD_CLOEXEC | MFD_ALLOW_SEALING | mode) {
            // Before 6.3 the kernel knows neither mode; files are executable then.
            Err(error) if error.is(libc::EINVAL) => create(MFD_CLOEXEC | MFD_ALLOW_SEALING),
            other => other,
        }
    })
}

/// Fixes content, size and (6.3) the executable bit of an anonymous file for ever, and the seals themselves.
/// `EBUSY` when somebody has it mapped for writing.
pub fn seal_all(fd: BorrowedFd<'_>) -> Result<()> {
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    match add_seals(fd, seals | F_SEAL_EXEC) {
        Err(error) if error.is(libc::EINVAL) => add_seals(fd, seals),
        other => other,
    }
}

/// True when [`seal_all`] was done: content, size and the seals are fixed.
pub fn is_sealed(fd: BorrowedFd<'_>) -> Result<bool> {
    let wanted = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: the command takes no argument.
    let returned = unsafe { libc::syscall(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_GET_SEALS) };
    match crate::raw::check("fcntl(F_GET_SEALS)", returned) {
        Ok(seals) => Ok(seals as i32 & wanted == wanted),
        // No file of memory at all.
        Err(error) if error.is(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

fn add_seals(fd: BorrowedFd<'_>, seals: i32) -> Result<()> {
    // SAFETY: three numbers, no memory.
    let returned = unsafe {
        libc::syscall(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_ADD_SEALS, libc::c_long::from(seals))
    };
    check_unit("fcntl(F_ADD_SEALS)", returned)
}
