//! PURE: what the shim answers, in what order, and what it asks of the kernel and of the runtime.
//!
//! Nothing here touches a file, a clock or a process: [`Pod`] takes calls, finished jobs and exits, and returns
//! [`Effect`]s. The engine carries them out and reports back with the [`Ticket`] it was given.

mod container;
mod effect;
mod pod;
mod process;
#[cfg(test)]
mod tests;

pub use container::Container;
pub use effect::{Call, CallId, Effect, Event, Job, Key, Outcome, Ticket};
pub use pod::{Pod, no_container};
pub use process::{Exit, Process, State, Stdio};
