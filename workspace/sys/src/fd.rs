//! File descriptors as such.

use crate::raw::{check, check_fd, check_unit};
use crate::{Result, SysError};
use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

const CLOSE_RANGE_CLOEXEC: u32 = 4;

/// Marks every fd from number `first` on close-on-exec (close_range(2), 5.11).
pub fn mark_cloexec_from(first: u32) -> Result<()> {
    close_range(first, CLOSE_RANGE_CLOEXEC)
}

/// Closes every fd from number `first` on. The caller must not own one of them any more.
pub fn close_from(first: u32) -> Result<()> {
    close_range(first, 0)
}

fn close_range(first: u32, flags: u32) -> Result<()> {
    // SAFETY: three numbers, no memory. Closing the fd of a live OwnedFd is the caller's to avoid; it can break that
    // owner's logic, but no memory.
    check_unit("close_range", unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) })
}

/// Makes number `target` mean the file of `fd`, to be inherited by the next program (no CLOEXEC); what `target` was
/// before is closed. With `fd` itself at `target`, takes its CLOEXEC away.
pub fn dup_onto(fd: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    if fd.as_raw_fd() == target {
        return set_cloexec(fd, false);
    }
    // SAFETY: three numbers, no memory.
    check_unit("dup3", unsafe { libc::syscall(libc::SYS_dup3, fd.as_raw_fd(), target, 0) })
}

/// Duplicates `fd` to the lowest free number not below `lowest`, CLOEXEC.
pub fn dup_above(fd: BorrowedFd<'_>, lowest: RawFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, lowest).map_err(SysError::from_rustix("fcntl(F_DUPFD_CLOEXEC)"))
}

/// Says whether `fd` is closed by execve.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flags = if on { FdFlags::CLOEXEC } else { FdFlags::empty() };
    rustix::io::fcntl_setfd(fd, flags).map_err(SysError::from_rustix("fcntl(F_SETFD)"))
}

/// True when `fd` is closed by execve.
pub fn is_cloexec(fd: BorrowedFd<'_>) -> Result<bool> {
    let flags = rustix::io::fcntl_getfd(fd).map_err(SysError::from_rustix("fcntl(F_GETFD)"))?;
    Ok(flags.contains(FdFlags::CLOEXEC))
}

/// Says whether reads and writes of the open file behind `fd` fail with `EAGAIN` instead of waiting. It holds for
/// everybody who shares the open file: never set it on a stream that was inherited.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(SysError::from_rustix("fcntl(F_GETFL)"))?;
    let mut wanted = flags;
    wanted.set(OFlags::NONBLOCK, on);
    rustix::fs::fcntl_setfl(fd, wanted).map_err(SysError::from_rustix("fcntl(F_SETFL)"))
}

/// True when the open file behind `fd` may be written to.
pub fn is_writable(fd: BorrowedFd<'_>) -> Result<bool> {
    let flags = rustix::fs::fcntl_getfl(fd).map_err(SysError::from_rustix("fcntl(F_GETFL)"))?;
    Ok(flags.intersects(OFlags::WRONLY | OFlags::RDWR))
}

/// A pipe: the end to read from, the end to write to.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(SysError::from_rustix("pipe2"))
}

/// A pipe whose both ends do not block.
pub fn nonblocking_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
    rustix::pipe::pipe_with(flags).map_err(SysError::from_rustix("pipe2"))
}

/// The standard streams, which are open from the first step of main on ([`open_std_fds`]).
pub fn standard_streams() -> [BorrowedFd<'static>; 3] {
    // SAFETY: nobody closes these numbers, they only come to mean other files.
    [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Opens `/dev/null` on those of the fds 0 to 2 that are closed, so that no later file gets such a number. To be
/// called first thing in main.
pub fn open_std_fds() -> Result<()> {
    loop {
        let flags = OFlags::RDWR;
        let fd =
            rustix::fs::open("/dev/null", flags, Mode::empty()).map_err(SysError::from_rustix("open"))?;
        // The lowest free number is what open gives: above 2 all three are taken.
        if fd.as_raw_fd() > 2 {
            return Ok(());
        }
        let _stays_open = fd.into_raw_fd();
    }
}

/// Takes ownership of an fd number that this process was given by its caller, such as `--preserve-fds`, and marks it
/// CLOEXEC; `EBADF` when nothing is open there. Each number may be adopted once.
pub fn adopt(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: asking for the flags of a number is fine whatever the number.
    let flags = unsafe { libc::syscall(libc::SYS_fcntl, number, libc::F_GETFD) };
    check("fcntl(F_GETFD)", flags)?;
    let owned = check_fd("fcntl(F_GETFD)", number.into())?;
    set_cloexec(owned.as_fd(), true)?;
    Ok(owned)
}

/// Takes over every descriptor that the caller of this process left open from `first` up, and marks it CLOEXEC: those
/// that are not, since whatever this process opened itself is, and what it adopted before.
pub fn adopt_inherited(first: RawFd) -> Result<Vec<OwnedFd>> {
    let failed = |error: std::io::Error| SysError::new("open", error.raw_os_error().unwrap_or(libc::EIO));
    let mut inherited = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let number: Option<RawFd> = name.to_str().and_then(|name| name.parse().ok());
        let Some(number) = number.filter(|number| *number >= first) else { continue };
        // SAFETY: asking for the flags of a number is fine whatever the number.
        let flags = unsafe { libc::syscall(libc::SYS_fcntl, number, libc::F_GETFD) };
        if flags >= 0 && flags & libc::c_long::from(libc::FD_CLOEXEC) == 0 {
            inherited.push(adopt(number)?);
        }
    }
    Ok(inherited)
}

/// How many descriptors are open in a row from 3 up: those that the caller passed, as long as nothing else was opened.
pub fn count_inherited() -> u32 {
    // SAFETY: asking for the flags of a number is fine whatever the number.
    let is_open = |number: u32| unsafe { libc::syscall(libc::SYS_fcntl, number, libc::F_GETFD) } != -1;
    (0..).take_while(|index| is_open(3 + index)).last().map_or(0, |last| last + 1)
}

/// Closes every descriptor from 3 up but those of `keep` (close_range(2) on the gaps).
///
/// For a process that was just cloned: what the parent holds for itself must not live on in the child.
pub fn close_all_but(mut keep: Vec<RawFd>) -> Result<()> {
    keep.sort_unstable();
    let mut first = 3;
    for kept in keep.into_iter().filter(|&fd| fd >= 3) {
        let kept = kept.cast_unsigned();
        if kept > first {
            close_span(first, kept - 1)?;
        }
        first = first.max(kept + 1);
    }
    close_span(first, u32::MAX)
}

fn close_span(first: u32, last: u32) -> Result<()> {
    // SAFETY: close_range takes numbers only; whoever owned these descriptors is gone with the parent's stack.
    check_unit("close_range", unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}
