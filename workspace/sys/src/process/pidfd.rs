//! pidfds: handles of processes that cannot come to mean another process.

use super::Pid;
use crate::raw::{check_fd, check_unit, errno};
use crate::{Result, SysError};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// `PIDFD_GET_INFO` of linux/pidfd.h for the first published size of its structure.
const PIDFD_GET_INFO: u32 = crate::ioctl::read_write(0xFF, 11, size_of::<PidfdInfo>());
const PIDFD_INFO_PID: u64 = 1;

/// `struct pidfd_info` as of Linux 6.13 (64 bytes).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    thread_group: u32,
    parent: u32,
    identities: [u32; 8],
    exit_code: i32,
}

/// Opens a pidfd of a process (pidfd_open(2)); `ESRCH` when there is none.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: two numbers, no memory.
    let returned = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    check_fd("pidfd_open", returned)
}

/// Sends `signal` to the process of `pidfd`; `ESRCH` once it has been reaped.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let info = std::ptr::null::<libc::c_void>();
    // SAFETY: a null siginfo is allowed and means "as kill(2) would fill it".
    let returned = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    check_unit("pidfd_send_signal", returned)
}

/// Duplicates fd number `fd` of the process of `pidfd` into this process, CLOEXEC (pidfd_getfd(2), needs ptrace rights).
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: three numbers, no memory.
    let returned = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) };
    check_fd("pidfd_getfd", returned)
}

/// The pid of the process of `pidfd` in the caller's pid namespace; none when it was reaped or is not visible here.
///
/// Asks the kernel (`PIDFD_GET_INFO`, 6.13) and falls back to `/proc/self/fdinfo` where it can't be asked.
pub fn pidfd_pid(pidfd: BorrowedFd<'_>) -> Result<Option<Pid>> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_PID, ..PidfdInfo::default() };
    // SAFETY: the request's size is that of `info`, which lives until the call is over.
    let returned = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    if returned == 0 {
        return Ok(visible(info.thread_group as i32));
    }
    match errno() {
        libc::ESRCH => Ok(None),
        libc::ENOTTY | libc::EINVAL => pid_from_fdinfo(pidfd),
        other => Err(SysError::new("ioctl(PIDFD_GET_INFO)", other)),
    }
}

fn visible(raw: i32) -> Option<Pid> {
    (raw > 0).then(|| Pid::from_raw(raw))
}

fn pid_from_fdinfo(pidfd: BorrowedFd<'_>) -> Result<Option<Pid>> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(path)
        .map_err(|error| SysError::new("read fdinfo", error.raw_os_error().unwrap_or(libc::EIO)))?;
    parse_fdinfo(&text).ok_or(SysError::new("read fdinfo", libc::EBADF)).map(visible)
}

/// The number after `Pid:`; none for the fd of something that is no process.
fn parse_fdinfo(text: &str) -> Option<i32> {
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_gives_the_pid_of_a_pidfd_only() {
        assert_eq!(parse_fdinfo("pos:\t0\nflags:\t02\nPid:\t42\nNSpid:\t42\n"), Some(42));
        assert_eq!(parse_fdinfo("pos:\t0\nPid:\t-1\n"), Some(-1));
        assert_eq!(parse_fdinfo("pos:\t0\n"), None);
        assert_eq!(size_of::<PidfdInfo>(), 64);
    }
}
