//! Signals that would end this process go to the runtime in the foreground, which hands them to the container.

use std::os::fd::AsFd;
use std::process::Child;
use std::{fs, io, thread};

use hull_sys::poll;
use hull_sys::process::{Pid, pidfd_open, pidfd_send_signal};
use hull_sys::signal::{self, SignalSet, signal_number};

/// What asks a program to end.
const NAMES: [&str; 4] = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"];

/// From now on passes on to `child` what this process is sent, so that both end together and what the container leaves is
/// cleaned up. Signals that are ignored stay so.
///
/// # Errors
/// The kernel has no room for a descriptor or a thread.
pub(crate) fn pass_on(child: &Child) -> io::Result<()> {
    let ignored = ignored();
    let set: SignalSet = NAMES
        .into_iter()
        .filter_map(signal_number)
        .filter(|signal| ignored >> (signal - 1) & 1 == 0)
        .collect();
    let process = pidfd_open(Pid::from_raw(child.id().cast_signed()))?;
    signal::block(&set)?;
    let signals = signal::signal_fd(&set)?;
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
