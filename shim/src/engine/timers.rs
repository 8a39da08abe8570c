//! Deadlines of the loop; there is one for each [`Timer`] at most.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::task::Key;

/// What is to be done at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// See whether anybody still needs the shim.
    Idle,
    /// Take new clients again.
    Accept,
    /// End a runtime call that takes too long, or go on without it if somebody waits for it.
    Job(i32),
    /// Look again for a runtime that wants to hand over a terminal.
    Console(u32),
    /// Look whether a stream's reader is back.
    Stream(u32),
    /// Look whether a process's streams are drained.
    Drain(Key),
    /// Look whether the output of an ended process is read.
    Output(Key),
    /// Stop waiting for the execs of an ended container.
    Execs(String),
    /// Look again for a kill for lack of memory.
    Oom(u32),
    /// Try to reach the event service again.
    Publish,
    /// Leave, whatever is unsent.
    Farewell,
}

/// The set of timers.
#[derive(Debug, Default)]
pub struct Timers(BTreeMap<Timer, Instant>);

impl Timers {
    /// Sets or moves a timer to `span` from now.
    pub fn set(&mut self, timer: Timer, span: Duration) {
        self.0.insert(timer, Instant::now() + span);
    }

    /// Stops a timer.
    pub fn stop(&mut self, timer: &Timer) {
        self.0.remove(timer);
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// Takes out those that are due at `now`.
    pub fn due(&mut self, now: Instant) -> Vec<Timer> {
        let due: Vec<Timer> =
            self.0.iter().filter(|(_, at)| **at <= now).map(|(timer, _)| timer.clone()).collect();
        for timer in &due {
            self.0.remove(timer);
        }
        due
    }
}
