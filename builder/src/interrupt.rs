//! The end of a build before it is done, by a signal or by a step that failed: the containers of its steps end with it.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hull_sys::process::{self, Pid};
use hull_sys::signal;

use crate::deadline;
use crate::error::{Error, Result};

/// How long a build that a signal ends has to end by itself.
const AFTER_SIGNAL: Duration = Duration::from_millis(1500);
/// Longest that a build whose step failed waits for the others to end: each ends by being killed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// Between two looks for containers to kill: one that is just being made is none yet.
const LOOK: Duration = Duration::from_millis(10);

/// The signal that came, or 0.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Whether a step failed.
static FAILED: AtomicBool = AtomicBool::new(false);

/// What is there to end.
static CONTAINERS: Mutex<Vec<Container>> = Mutex::new(Vec::new());

struct Container {
    id: String,
    kill: Command,
}

/// A container that is ended with the build, until this is dropped.
pub(crate) struct Registered(String);

/// From now on a signal that would end the process ends the containers first. Whoever calls this sees what the runtime sees:
/// it is called in the mount namespace in which the steps run.
pub(crate) fn watch() -> io::Result<()> {
    let (mut told, to) = io::pipe()?;
    signal::tell_termination_signals(OwnedFd::from(to));
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut number = [0];
        if told.read_exact(&mut number).is_ok() {
            end(i32::from(number[0]));
        }
    })?;
    Ok(())
}

/// The signal that ends the build, if one does.
pub(crate) fn signal() -> Option<i32> {
    Some(SIGNAL.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// Whether no step is to begin any more.
pub(crate) fn is_cancelled() -> bool {
    FAILED.load(Ordering::Relaxed) || signal().is_some()
}

/// Has `kill` started for the container, which is about to be made, when the build ends before it.
///
/// # Errors
/// The build is ending.
pub(crate) fn register(id: &str, kill: Command) -> Result<Registered> {
    // Looked at with the list held: who ends the build sees this container, or this sees the end.
    let mut containers = containers();
    if is_cancelled() {
        return Err(Error::Cancelled);
    }
    containers.push(Container { id: id.to_owned(), kill });
    Ok(Registered(id.to_owned()))
}

impl Drop for Registered {
    fn drop(&mut self) {
        containers().retain(|container| container.id != self.0);
    }
}

/// Ends all running steps, and lets no other begin, as one failed.
pub(crate) fn cancel() {
    FAILED.store(true, Ordering::Relaxed);
    kill_all(Instant::now() + AFTER_FAILURE);
}

/// Kills the containers and lets the build end, for a while.
fn end(signal: i32) {
    SIGNAL.store(signal, Ordering::Relaxed);
    let limit = Instant::now() + AFTER_SIGNAL;
    kill_all(limit);
    std::thread::sleep(limit.saturating_duration_since(Instant::now()));
    // What still goes on has no container: nothing outlives the process.
    let _ = signal::reset_dispositions();
    let _ = process::kill(Pid::from_raw(std::process::id().cast_signed()), signal);
}

/// Kills the containers until none is left, or until `limit`.
fn kill_all(limit: Instant) {
    loop {
        let mut containers = containers();
        if containers.is_empty() || Instant::now() > limit {
            return;
        }
        let calls: Vec<_> = containers.iter_mut().map(|container| container.kill.spawn()).collect();
        // One that could not be started or does not end is seen in the next round.
        calls.into_iter().flatten().for_each(|mut call| drop(deadline::wait(&mut call, limit)));
        drop(containers);
        std::thread::sleep(LOOK);
    }
}

fn containers() -> MutexGuard<'static, Vec<Container>> {
    CONTAINERS.lock().expect("no thread panics with it")
}
