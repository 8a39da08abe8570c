//! seccomp(2): loading a filter, and the notification side of it.

use crate::raw::{check, check_fd, check_unit, prctl, uninterrupted};
use crate::{Result, SysError, ioctl};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The filter applies to all threads.
pub const SECCOMP_FILTER_FLAG_TSYNC: u32 = 1;
/// Actions other than "allow" are logged.
pub const SECCOMP_FILTER_FLAG_LOG: u32 = 1 << 1;
/// No speculative store bypass mitigation.
pub const SECCOMP_FILTER_FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// Loading gives an fd for notifications.
pub const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = 1 << 3;
/// A notified call waits killably (5.19).
pub const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

const SECCOMP_SET_MODE_FILTER: u32 = 1;
const SECCOMP_GET_ACTION_AVAIL: u32 = 2;

/// One instruction of classic BPF (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeccompInstruction {
    /// The operation.
    pub code: u16,
    /// How far to jump when true.
    pub jump_true: u8,
    /// How far to jump when false.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u16,
    instructions: *const SeccompInstruction,
}

/// Loads a filter for the calling thread, for good, with `SECCOMP_FILTER_FLAG_*`; gives the listener's fd, CLOEXEC,
/// when `NEW_LISTENER` is among them. `EINVAL` for a program the kernel's checker refuses or of more than 4096
/// instructions, `EACCES` without no_new_privs and without `CAP_SYS_ADMIN`.
pub fn load_filter(filter: &[SeccompInstruction], flags: u32) -> Result<Option<OwnedFd>> {
    let len = u16::try_from(filter.len()).map_err(|_| SysError::new("seccomp", libc::EINVAL))?;
    let program = Program { len, instructions: filter.as_ptr() };
    // SAFETY: the program's pointer is to as many instructions as it says; both outlive the call.
    let returned =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
        return check_fd("seccomp", returned).map(Some);
    }
    match check("seccomp", returned)? {
        0 => Ok(None),
        // With TSYNC: the id of a thread that has another filter.
        _thread => Err(SysError::new("seccomp", libc::ESRCH)),
    }
}

/// True when this kernel knows the action (`SECCOMP_RET_*`).
pub fn action_available(action: u32) -> bool {
    // SAFETY: the argument is a pointer to a number that outlives the call.
    let returned =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    returned == 0
}

/// True when this kernel knows the filter flag (`SECCOMP_FILTER_FLAG_*`). It loads nothing: with a known flag the
/// missing program is `EFAULT`, an unknown flag is `EINVAL`.
pub fn flag_available(flag: u32) -> bool {
    // WAIT_KILLABLE_RECV is refused without NEW_LISTENER.
    let flags = if flag == SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV {
        flag | SECCOMP_FILTER_FLAG_NEW_LISTENER
    } else {
        flag
    };
    let nothing = std::ptr::null::<Program>();
    // SAFETY: a null program is refused with EFAULT and never read.
    let returned = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, nothing) };
    check_unit("seccomp", returned).is_err_and(|error| error.is(libc::EFAULT))
}

/// The calling thread's mode: 0 none, 2 filter.
pub fn current_mode() -> Result<i32> {
    Ok(prctl(libc::PR_GET_SECCOMP, [0; 4])? as i32)
}

/// A call that a filter gave to its listener (`struct seccomp_notif`).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct Notification {
    /// Names it in the answer.
    pub id: u64,
    /// The calling thread, as the listener's pid namespace sees it.
    pub pid: u32,
    /// Unused.
    pub flags: u32,
    /// The call's number.
    pub number: i32,
    /// `AUDIT_ARCH_*`.
    pub architecture: u32,
    /// Where it was made.
    pub instruction_pointer: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// The answer to a [`Notification`] (`struct seccomp_notif_resp`).
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct NotificationAnswer {
    /// The notification's.
    pub id: u64,
    /// What the call gives back, without an error.
    pub value: i64,
    /// A negative errno, or 0.
    pub error: i32,
    /// 1: let the call go on.
    pub flags: u32,
}

/// Waits for the next call of `listener`.
pub fn receive_notification(listener: BorrowedFd<'_>) -> Result<Notification> {
    const RECV: u32 = ioctl::read_write(b'!', 0, size_of::<Notification>());
    let mut notification = Notification::default();
    uninterrupted(|| {
        // SAFETY: the request's size is that of the structure, which is zero as the kernel wants it.
        let returned =
            unsafe { libc::syscall(libc::SYS_ioctl, listener.as_raw_fd(), RECV, &raw mut notification) };
        check_unit("ioctl(SECCOMP_IOCTL_NOTIF_RECV)", returned)
    })?;
    Ok(notification)
}

/// Answers a call of `listener`; `ENOENT` when the caller is gone.
pub fn send_notification_answer(listener: BorrowedFd<'_>, answer: &NotificationAnswer) -> Result<()> {
    const SEND: u32 = ioctl::read_write(b'!', 1, size_of::<NotificationAnswer>());
    let mut answer = *answer;
    // SAFETY: the request's size is that of the structure.
    let returned = unsafe { libc::syscall(libc::SYS_ioctl, listener.as_raw_fd(), SEND, &raw mut answer) };
    check_unit("ioctl(SECCOMP_IOCTL_NOTIF_SEND)", returned)
}
