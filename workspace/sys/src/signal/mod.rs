//! Signals: sets, masks, signalfd, dispositions, names.

mod names;

pub use names::{signal_name, signal_number};

use crate::process::Pid;
use crate::raw::{check_fd, check_unit};
use crate::{Result, SysError};
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

/// The highest signal number.
pub const LAST_SIGNAL: i32 = 64;
/// The kernel's signal set has 64 bits on every architecture hull knows.
const SET_SIZE: usize = 8;

/// A set of signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Every signal.
    pub const fn all() -> Self {
        Self(u64::MAX)
    }

    /// This set and `signal`; numbers out of range change nothing.
    #[must_use]
    pub const fn with(self, signal: i32) -> Self {
        Self(self.0 | Self::bit(signal))
    }

    /// This set without `signal`.
    #[must_use]
    pub const fn without(self, signal: i32) -> Self {
        Self(self.0 & !Self::bit(signal))
    }

    /// True when `signal` is in the set.
    pub const fn contains(self, signal: i32) -> bool {
        self.0 & Self::bit(signal) != 0
    }

    const fn bit(signal: i32) -> u64 {
        if signal >= 1 && signal <= LAST_SIGNAL { 1 << (signal - 1) } else { 0 }
    }
}

impl FromIterator<i32> for SignalSet {
    fn from_iter<I: IntoIterator<Item = i32>>(signals: I) -> Self {
        signals.into_iter().fold(Self::empty(), Self::with)
    }
}

/// Blocks the signals of `set` in the calling thread, beside those blocked already; gives the mask from before.
pub fn block(set: &SignalSet) -> Result<SignalSet> {
    change_mask(libc::SIG_BLOCK, set)
}

/// Makes `set` the calling thread's mask; gives the one from before.
pub fn set_mask(set: &SignalSet) -> Result<SignalSet> {
    change_mask(libc::SIG_SETMASK, set)
}

/// Blocks every signal that can be blocked.
pub fn block_all() -> Result<SignalSet> {
    set_mask(&SignalSet::all())
}

/// Blocks no signal.
pub fn unblock_all() -> Result<SignalSet> {
    set_mask(&SignalSet::empty())
}

/// Has `command` begin with this mask, whatever is blocked here when it is started: a mask stays over execve.
pub fn begin_with(mask: SignalSet, command: &mut Command) {
    let set = move || match set_mask(&mask) {
        Ok(_) => Ok(()),
        Err(error) => Err(std::io::Error::from_raw_os_error(error.errno)),
    };
    // SAFETY: between fork and execve only a system call is made, and nothing allocated.
    unsafe { command.pre_exec(set) };
}

fn change_mask(how: i32, set: &SignalSet) -> Result<SignalSet> {
    let mut before = SignalSet::empty();
    // SAFETY: both pointers are to 8 bytes, the size we say, that outlive the call.
    let returned = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set.0, &raw mut before.0, SET_SIZE)
    };
    check_unit("rt_sigprocmask", returned)?;
    Ok(before)
}

/// An fd that can be read when a signal of `set` is pending; CLOEXEC, not blocking. The signals must be blocked.
pub fn signal_fd(set: &SignalSet) -> Result<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the pointer is to 8 bytes, the size we say.
    let returned = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const set.0, SET_SIZE, flags) };
    check_fd("signalfd4", returned)
}

/// A signal that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalInfo {
    /// Its number.
    pub signo: i32,
    /// Who sent it, or whose end it tells; none when not visible here.
    pub pid: Option<Pid>,
    /// No process sent it, but the kernel: a terminal's keys, for one (`SI_KERNEL`, sigaction(2)).
    pub from_kernel: bool,
}

/// Reads one signal from [`signal_fd`]; none when none is pending.
pub fn read_signal(fd: BorrowedFd<'_>) -> Result<Option<SignalInfo>> {
    // struct signalfd_siginfo: 128 bytes; signo at 0, code at 8, pid at 12.
    let mut info = [0u8; 128];
    match rustix::io::read(fd, &mut info) {
        Ok(_) => Ok(Some(SignalInfo {
            signo: word(&info, 0),
            pid: Some(word(&info, 12)).filter(|pid| *pid > 0).map(Pid::from_raw),
            from_kernel: word(&info, 8) == libc::SI_KERNEL,
        })),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(errno) => Err(SysError::from_rustix("read")(errno)),
    }
}

fn word(bytes: &[u8; 128], at: usize) -> i32 {
    i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Gives every signal its default disposition: ignored ones would stay ignored over execve.
pub fn reset_dispositions() -> Result<()> {
    reset_ignored(u64::MAX)
}

/// The same for the signals of `ignored` only, signal N in bit N - 1 as `SigIgn` of proc_pid_status(5) has them: caught
/// ones get their default by execve itself.
pub fn reset_ignored(ignored: u64) -> Result<()> {
    // The kernel's struct sigaction: handler, flags, restorer, mask; all zero is SIG_DFL.
    let default = [0u64; 4];
    let nothing = std::ptr::null_mut::<u64>();
    let meant =
        |signal: &i32| ignored >> (signal - 1) & 1 == 1 && ![libc::SIGKILL, libc::SIGSTOP].contains(signal);
    for signal in (1..=LAST_SIGNAL).filter(meant) {
        // SAFETY: the structure is as long as the kernel's; SIG_DFL names no code of ours.
        let returned =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nothing, SET_SIZE) };
        check_unit("rt_sigaction", returned)?;
    }
    Ok(())
}

/// Ignores SIGPIPE, as every Rust program does from its start: a write to a pipe that nobody reads is an error then, and
/// no death. [`reset_ignored`] with [`SIGPIPE`] undoes it.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is a disposition that signal(2) takes; no code of ours is named.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// SIGPIPE as [`reset_ignored`] has it.
pub const SIGPIPE: u64 = 1 << (libc::SIGPIPE - 1);

/// Makes SIGHUP, SIGINT, SIGQUIT and SIGTERM end the process, with 128 and the signal's number as its status, also where
/// the kernel would ignore them: in process 1 of a pid namespace (pid_namespaces(7)). Gone with the next exec.
pub fn end_on_termination_signals() {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: exit_group takes a number, is safe in a signal handler, and does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, 128 + signal) };
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the handler is a function of the kind that signal(2) takes and touches no memory.
        unsafe { libc::signal(signal, end as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

/// Has SIGHUP, SIGINT, SIGQUIT and SIGTERM written into the pipe `to`, a byte with the number each, in place of what they do; those
/// that are ignored stay so. Children get back what there was by their exec.
pub fn tell_termination_signals(to: OwnedFd) {
    static TO: AtomicI32 = AtomicI32::new(-1);
    extern "C" fn tell(signal: libc::c_int) {
        let byte = signal as u8;
        let errno = crate::raw::errno();
        // SAFETY: write(2) is safe in a signal handler, the byte outlives it, and the descriptor is never closed.
        unsafe { libc::syscall(libc::SYS_write, TO.load(Ordering::Relaxed), &raw const byte, 1usize) };
        // SAFETY: it only gives a place, which every thread has.
        let place = unsafe { libc::__errno_location() };
        // SAFETY: nobody else writes there; the interrupted code must find it as it was.
        unsafe { *place = errno };
    }
    TO.store(to.into_raw_fd(), Ordering::Relaxed);
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        // SAFETY: the handler is a function of the kind that signal(2) takes; it touches one atomic number.
        let old = unsafe { libc::signal(signal, tell as extern "C" fn(libc::c_int) as libc::sighandler_t) };
        if old == libc::SIG_IGN {
            // SAFETY: as it was.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
    }
}
