//! Making a process without exec: clone3(2).

use super::Pid;
use crate::Result;
use crate::namespace::CloneFlags;
use crate::raw::check;
use std::convert::Infallible;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Not in every C library's headers.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the new process shall be.
#[derive(Debug, Default, Clone, Copy)]
pub struct CloneRequest<'fd> {
    /// The namespaces to make with it.
    pub flags: CloneFlags,
    /// The cgroup v2 directory it is born in (`CLONE_INTO_CGROUP`).
    pub into_cgroup: Option<BorrowedFd<'fd>>,
    /// It becomes a child of the caller's parent instead of the caller (`CLONE_PARENT`).
    pub as_sibling: bool,
}

/// A process made by [`spawn`].
#[derive(Debug)]
pub struct Child {
    /// Its id in the caller's pid namespace.
    pub pid: Pid,
    /// Its pidfd, CLOEXEC.
    pub pidfd: OwnedFd,
}

/// `struct clone_args` of linux/sched.h, 88 bytes.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Runs `child` in a new process with a copy of this one's memory, and gives its pidfd.
///
/// The closure cannot return, so the caller's guards are never dropped twice; if it panics the child dies by SIGABRT.
/// Only the calling thread exists in the child: the caller should have no other, since a lock that one of them
/// held stays locked there. The child exits by [`exit_now`], not through libc.
pub fn spawn(request: &CloneRequest<'_>, child: impl FnOnce() -> Infallible) -> Result<Child> {
    let mut pidfd: RawFd = -1;
    let mut arguments = clone_arguments(request, &raw mut pidfd);
    let cached_id = cached_thread_id();
    if let Some(cached) = cached_id {
        // Libc's abort and raise signal the id it remembers: without this they would hit the parent.
        arguments.flags |= libc::CLONE_CHILD_SETTID as u64;
        arguments.child_tid = cached as u64;
    }
    // SAFETY: the structure has the size we say. There is neither CLONE_VM nor a stack, so the child goes on with
    // a copy of this one, as after fork; the pointers in it are to memory of this process that outlives the call.
    let returned = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<CloneArgs>()) };
    if check("clone3", returned)? == 0 {
        run(child);
    }
    // SAFETY: CLONE_PIDFD stored a new fd here that nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: Pid::from_raw(returned as i32), pidfd })
}

fn clone_arguments(request: &CloneRequest<'_>, pidfd: *mut RawFd) -> CloneArgs {
    let mut arguments = CloneArgs {
        flags: request.flags.bits() | libc::CLONE_PIDFD as u64,
        pidfd: pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = request.into_cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    if request.as_sibling {
        // The kernel takes the caller's own exit signal then and refuses another.
        arguments.flags |= libc::CLONE_PARENT as u64;
        arguments.exit_signal = 0;
    }
    arguments
}

/// Ends the child when its closure unwinds instead of diverging.
struct NeverUnwind;

impl Drop for NeverUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

pub(super) fn run(child: impl FnOnce() -> Infallible) -> ! {
    let _guard = NeverUnwind;
    match child() {}
}

/// Ends the process at once (exit_group(2)): nothing is flushed, dropped or run. Where a seccomp filter denies even that
/// call, it dies by an illegal instruction.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: one number; the call comes back only when a filter denies it.
    unsafe { libc::syscall(libc::SYS_exit_group, code) };
    illegal_instruction()
}

/// Needs no system call, and the kernel kills also who ignores or blocks the signal (`force_sig`).
fn illegal_instruction() -> ! {
    // SAFETY: the instruction touches nothing and does not come back: nobody here handles SIGILL.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("ud2", options(noreturn, nomem, nostack))
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("udf #0", options(noreturn, nomem, nostack))
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    std::process::abort()
}

/// Where the C library keeps the calling thread's id, if it is where known versions of it have it.
///
/// Neither musl nor glibc tells, and both believe the value for ever. The place is looked for by its content, among
/// the words of the thread's control block that hold it in the versions there are.
pub(super) fn cached_thread_id() -> Option<*mut i32> {
    #[cfg(target_env = "musl")]
    const OFFSETS: [usize; 2] = [0x30, 0x20];
    #[cfg(not(target_env = "musl"))]
    const OFFSETS: [usize; 2] = [0x2d0, 0xd0];
    // SAFETY: no argument, cannot fail.
    let block = unsafe { libc::pthread_self() } as usize;
    let own = super::thread_id().as_raw();
    OFFSETS.iter().map(|offset| (block + offset) as *mut i32).find(|&place| {
        // SAFETY: in the C libraries of this target pthread_self is the address of a control block that is longer
        // than both offsets; they are multiples of 4.
        own == unsafe { place.read_volatile() }
    })
}
