//! The end of a build by a signal: the containers of its steps end with it, and what it made for itself is removed.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use hull_sys::process::{self, Pid};
use hull_sys::signal;

/// How long the build has to end by itself once its containers are killed.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Between two looks for containers to kill: one that is just being made is none yet.
const LOOK: Duration = Duration::from_millis(20);

/// The signal that came, or 0.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// What is there to end.
static CONTAINERS: Mutex<Vec<Container>> = Mutex::new(Vec::new());

struct Container {
    id: String,
    kill: Command,
}

/// Registered until it is dropped.
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

/// Has `kill` started for the container when a signal comes.
pub(crate) fn register(id: &str, kill: Command) -> Registered {
    CONTAINERS.lock().expect("no thread panics with it").push(Container { id: id.to_owned(), kill });
    Registered(id.to_owned())
}

impl Drop for Registered {
    fn drop(&mut self) {
        CONTAINERS.lock().expect("no thread panics with it").retain(|container| container.id != self.0);
    }
}

/// Kills the containers until the build has ended, or has had its time.
fn end(signal: i32) {
    SIGNAL.store(signal, Ordering::Relaxed);
    let limit = Instant::now() + PATIENCE;
    while Instant::now() < limit {
        for container in CONTAINERS.lock().expect("no thread panics with it").iter_mut() {
            drop(container.kill.status());
        }
        std::thread::sleep(LOOK);
    }
    // What still goes on has no container: nothing outlives the process.
    let _ = signal::reset_dispositions();
    let _ = process::kill(Pid::from_raw(std::process::id().cast_signed()), signal);
}
