//! Signals that would end this process go to the runtime in the foreground, which hands them to the container; or they end
//! it after what it has to put in order.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{self, Child, Command};
use std::{fs, io, thread};

use hull_sys::poll;
use hull_sys::process::{Pid, pidfd_open, pidfd_send_signal};
use hull_sys::signal::{self, SignalSet, signal_name, signal_number};

/// What asks a program to end.
const NAMES: [&str; 4] = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"];

/// Signals that wait for the child that is to have them.
pub(crate) struct Held {
    signals: OwnedFd,
    /// What was blocked before.
    mask: SignalSet,
}

/// From now on holds what this process is sent, for a child that is started next: what comes while it starts ends neither
/// alone. Signals that are ignored stay so.
///
/// # Errors
/// The kernel has no room for a descriptor.
pub(crate) fn hold() -> io::Result<Held> {
    let ignored = ignored();
    let set: SignalSet = NAMES
        .into_iter()
        .filter_map(signal_number)
        .filter(|signal| ignored >> (signal - 1) & 1 == 0)
        .collect();
    let mask = signal::block(&set)?;
    Ok(Held { signals: signal::signal_fd(&set)?, mask })
}

impl Held {
    /// The signal that came first, if one did.
    pub(crate) fn came(&self) -> Option<i32> {
        signal::read_signal(self.signals.as_fd()).ok().flatten().map(|came| came.signo)
    }

    /// Ends the hold: what comes now acts as before.
    ///
    /// # Errors
    /// The kernel refuses the mask that it had before.
    pub(crate) fn release(self) -> io::Result<()> {
        Ok(signal::set_mask(&self.mask).map(drop)?)
    }

    /// Starts the child.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        signal::begin_with(self.mask, command);
        command.spawn()
    }

    /// Has the signal that came first, or comes, end this process when `before` is done; others wait meanwhile.
    ///
    /// # Errors
    /// The kernel has no room for a thread.
    pub(crate) fn end_after(self, before: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let end = move || {
            while poll::wait_readable(self.signals.as_fd(), None).is_ok() {
                let Some(signal) = self.came() else { continue };
                before();
                process::exit(ended_by(signal).into());
            }
        };
        thread::Builder::new().name("signals".into()).spawn(end).map(drop)
    }
}

/// Tells of a signal, and gives the code by which a shell says that one ended a program.
pub(crate) fn ended_by(signal: i32) -> u8 {
    // Where even this cannot be written, the code is all that is left to tell.
    let _ = writeln!(io::stderr(), "hull-build: ended by {}", signal_name(signal));
    128 + u8::try_from(signal).unwrap_or_default()
}

/// Passes on to `child` what was held and what comes, so that both end together and what the container leaves is cleaned up.
///
/// # Errors
/// The kernel has no room for a descriptor or a thread.
pub(crate) fn pass_on(Held { signals, .. }: Held, child: &Child) -> io::Result<()> {
    let process = pidfd_open(Pid::from_raw(child.id().cast_signed()))?;
    let pass = move || {
        while poll::wait_readable(signals.as_fd(), None).is_ok() {
            let Ok(Some(came)) = signal::read_signal(signals.as_fd()) else { continue };
            // Keys of the terminal reach the runtime as well; a terminal that is hung up tells the leader of its session alone.
            let is_of_a_key =
                ["SIGINT", "SIGQUIT"].into_iter().any(|name| signal_number(name) == Some(came.signo));
            if !(came.from_kernel && is_of_a_key) {
                // A runtime that has ended needs none.
                let _ = pidfd_send_signal(process.as_fd(), came.signo);
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(pass).map(drop)
}

/// The signals that this process ignores, N in bit N - 1: a caller such as nohup(1) has set them so.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Nobody would be told that a container's program cannot be asked to end, as all below inherit a mask.
    #[test]
    fn a_child_begins_without_the_signals_blocked_that_are_held() {
        let blocked = |status: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
        };
        let own = || blocked(&fs::read_to_string("/proc/thread-self/status").unwrap());
        let before = own();
        let held = hold().unwrap();
        assert_eq!(own() & 0b100_0000_0000_0111, 0b100_0000_0000_0111, "HUP, INT, QUIT and TERM");
        let mut command = Command::new("cat");
        let command = command.arg("/proc/self/status").stdout(std::process::Stdio::piped());
        let output = held.spawn(command).unwrap().wait_with_output().unwrap();
        assert_eq!(blocked(std::str::from_utf8(&output.stdout).unwrap()), before);
    }
}
