//! Deleting: first the output is drained (within limits), then the runtime forgets the container, then a helper unmounts the root.

use std::time::{Duration, Instant};

use crate::runtime::Runtime;
use crate::task::{Job, Key, Outcome, Ticket};
use crate::ttrpc::Refusal;

use super::root_job::Next;
use super::{Engine, Patience, Timer};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// A delete that waits for output.
#[derive(Debug)]
pub struct Draining {
    ticket: Ticket,
    patience: Patience,
}

impl Engine {
    /// Waits for a process's output to reach its reader, then goes on with the job.
    pub(super) fn begin_drain(&mut self, ticket: Ticket) {
        let key = ticket.key.clone();
        let (unread, now) = (self.unread_output(&key), Instant::now());
        let stuck = self.held.get(&key).and_then(|held| held.stuck);
        let patience = stuck.map_or(Patience::new(unread, now), |stuck| stuck.again(unread, now));
        self.draining.insert(key.clone(), Draining { ticket, patience });
        self.check_drained(&key);
    }

    /// Looks whether a delete needs to wait any longer.
    pub(super) fn check_drained(&mut self, key: &Key) {
        let (has_output, unread) = (self.has_open_output(key), self.unread_output(key));
        let Some(draining) = self.draining.get_mut(key) else { return };
        if has_output && !draining.patience.is_over(unread, Instant::now()) {
            return self.timers.set(Timer::Drain(key.clone()), LOOK);
        }
        self.timers.stop(&Timer::Drain(key.clone()));
        if let Some(draining) = self.draining.remove(key) {
            self.drained(draining.ticket);
        }
    }

    fn drained(&mut self, ticket: Ticket) {
        if ticket.job == Job::Drain {
            return self.end(ticket, Outcome::Done);
        }
        if let Err(refusal) = self.call(&ticket, Runtime::delete(&ticket.key.container, false)) {
            self.end(ticket, Outcome::Failed(refusal));
        }
    }

    /// The runtime has forgotten the container, or never knew it: the root goes.
    pub(super) fn runtime_deleted(&mut self, ticket: Ticket, deleted: Result<(), Refusal>) {
        match deleted {
            Err(refusal) if !refusal.text.contains("does not exist") => {
                self.end(ticket, Outcome::Failed(refusal));
            }
            _ => self.unmount_root(ticket, Next::Deleted),
        }
    }

    /// Nothing is left of the container.
    pub(super) fn root_is_gone(&mut self, ticket: Ticket) {
        self.end(ticket, Outcome::Done);
        // Another client may be about to make the pod's next container.
        if self.pod.is_empty() && self.connections.len() <= 1 {
            // Before the answer: once that is out, nobody clears up after a shim that is killed.
            self.remove_socket();
        }
    }
}
