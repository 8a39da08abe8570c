//! Making a process that only starts another program: no memory is copied for it, the caller stands still meanwhile.

use std::cell::Cell;
use std::convert::Infallible;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::Pid;
use super::spawn::{Child, cached_thread_id, exit_now, run};
use crate::raw::{check, check_unit};
use crate::{Result, SysError};

/// Bytes of the child's stack; execve and what goes before it take a few thousand.
const STACK: usize = 64 << 10;
/// The page below it, which nobody may touch.
const GUARD: usize = 4 << 10;

/// Runs `child` in a new process that borrows this one's memory (vfork(2)), and gives its pidfd once the child has
/// started another program or ended.
///
/// The closure cannot return. What it changes in memory stays changed, and what it allocates stays allocated: it should
/// do nothing but system calls. Descriptors, working directory and signal dispositions are its own, as after fork. The
/// caller should have no other thread, and no signal handler: that would run in the child, in the caller's memory.
pub fn spawn_program<F: FnOnce() -> Infallible>(child: F) -> Result<Child> {
    // Taken away while it is in use: the child may come here too.
    let stack = SPARE.take().map_or_else(Stack::new, Ok)?;
    let mut child = Some(child);
    let mut pidfd: RawFd = -1;
    let cached_id = cached_thread_id();
    let own_id = super::thread_id().as_raw();
    let mut flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    if cached_id.is_some() {
        // As in `spawn`: abort in the child hits the child.
        flags |= libc::CLONE_CHILD_SETTID;
    }
    // SAFETY: the stack is writable, ends on a page boundary and is freed after the child has left it, since with
    // CLONE_VFORK the call comes back only then; `enter::<F>` gets the `Option<F>` that it expects, which lives on this
    // waiting frame; the kernel writes an fd to `pidfd` and a thread id to where libc has one.
    let pid = unsafe {
        libc::clone(
            enter::<F>,
            stack.top(),
            flags,
            (&raw mut child).cast(),
            &raw mut pidfd,
            ptr::null_mut::<libc::c_void>(),
            cached_id.unwrap_or(ptr::null_mut()),
        )
    };
    let pid = check("clone", pid.into());
    SPARE.set(Some(stack));
    if let Some(cached) = cached_id {
        // SAFETY: the place where libc keeps this thread's id, which the kernel has overwritten with the child's.
        unsafe { cached.write_volatile(own_id) };
    }
    let pid = pid?;
    // SAFETY: CLONE_PIDFD stored a new fd here that nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid: Pid::from_raw(pid as i32), pidfd })
}

/// The child's first function; `argument` is an `Option<F>` that is not empty.
extern "C" fn enter<F: FnOnce() -> Infallible>(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn_program` passes a pointer to its own variable of this type, and stands still.
    let child = unsafe { &mut *argument.cast::<Option<F>>() };
    match child.take() {
        Some(child) => run(child),
        None => exit_now(127),
    }
}

thread_local! {
    /// The stack of the last child, for the next one.
    static SPARE: Cell<Option<Stack>> = const { Cell::new(None) };
}

/// Memory for the child to run on.
struct Stack {
    bottom: *mut libc::c_void,
}

impl Stack {
    fn new() -> Result<Self> {
        let length = STACK + GUARD;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new mapping at a place of the kernel's choice overlaps nothing.
        let bottom = unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        if bottom == libc::MAP_FAILED {
            return Err(SysError::new("mmap", crate::raw::errno()));
        }
        let stack = Self { bottom };
        // SAFETY: all of it but its first page, and nobody has it yet.
        let opened = unsafe {
            libc::mprotect(bottom.wrapping_byte_add(GUARD), STACK, libc::PROT_READ | libc::PROT_WRITE)
        };
        check_unit("mprotect", opened.into())?;
        Ok(stack)
    }

    fn top(&self) -> *mut libc::c_void {
        self.bottom.wrapping_byte_add(STACK + GUARD)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody runs on any more; it cannot fail for one that is whole.
        unsafe { libc::munmap(self.bottom, STACK + GUARD) };
    }
}
