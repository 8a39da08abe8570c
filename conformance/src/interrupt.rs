//! An end that somebody asks for: ^C, or the signal of a job's manager. What runs is killed, and each case clears up.

use std::sync::atomic::{AtomicI32, Ordering};
use std::{process, thread};

use nix::sys::signal::{SigSet, Signal};

static ASKED: AtomicI32 = AtomicI32::new(0);

/// The signals that ask for an end, held back from now on in this thread and those that it starts; the standard library
/// starts programs without a mask.
///
/// # Errors
/// Whatever the kernel says.
pub fn hold() -> nix::Result<SigSet> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    signals.thread_block()?;
    Ok(signals)
}

/// Waits for one of the held signals in a thread of its own. Whoever asks twice gets an end without clearing up.
pub fn watch(signals: SigSet) {
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            let number = signal as i32;
            if ASKED.swap(number, Ordering::Relaxed) != 0 {
                process::exit(128 + number);
            }
        }
    });
}

/// The number of the signal that asked for an end.
#[must_use]
pub fn asked() -> Option<i32> {
    Some(ASKED.load(Ordering::Relaxed)).filter(|number| *number != 0)
}
