//! A container that stands still while its files are read, and goes on however that ends.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::containers::Place;
use crate::signals;

type Failure = Box<dyn std::error::Error>;

/// A paused container: it goes on at the latest when this is dropped, or when a signal ends this process.
pub(super) struct Paused {
    resume: Arc<Mutex<Option<Command>>>,
}

impl Paused {
    /// Pauses a container that runs; none where the runtime won't, as it stands still already.
    ///
    /// # Errors
    /// The runtime cannot be started, or the kernel has no room for a descriptor or a thread.
    pub(super) fn new(place: &Place) -> Result<Option<Self>, Failure> {
        let id = &place.container.id;
        // From before the pause on: a signal must not come between it and who undoes it.
        let signals = signals::hold()?;
        if !place.ask(&["pause", id])?.status.success() {
            signals.release()?;
            return Ok(None);
        }
        let mut resume = place.runtime(&["resume", id]);
        resume.stdin(Stdio::null());
        let paused = Self { resume: Arc::new(Mutex::new(Some(resume))) };
        let shared = Arc::clone(&paused.resume);
        signals.end_after(move || tell(go_on(&shared)))?;
        Ok(Some(paused))
    }

    /// # Errors
    /// It stays paused, as the runtime says.
    pub(super) fn go_on(&self) -> Result<(), String> {
        go_on(&self.resume)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        tell(self.go_on());
    }
}

/// Whoever comes second finds it done, or waits until it is.
fn go_on(resume: &Mutex<Option<Command>>) -> Result<(), String> {
    let mut resume = resume.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut resume) = resume.take() else { return Ok(()) };
    let output = resume.output().map_err(|error| format!("the container stays paused: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("the container stays paused: {}", said.trim()))
        }
    }
}

fn tell(outcome: Result<(), String>) {
    if let Err(reason) = outcome {
        eprintln!("hull-build: {reason}");
    }
}
