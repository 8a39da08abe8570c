//! What a container is doing, from its record and the kernel.

use super::{Record, StateDir};
use crate::gate;

/// runtime.md "State", and `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// Waiting for `start`.
    Created,
    /// The program runs.
    Running,
    /// All of its processes are frozen.
    Paused,
    /// The first process is gone.
    Stopped,
}

impl Status {
    /// The name in state documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }

    /// Finds out.
    pub fn of(directory: &StateDir, record: &Record) -> Self {
        let Some(init) = record.init.as_ref().filter(|_| !record.creating || record.in_hooks) else {
            return if directory.is_being_changed() { Self::Creating } else { Self::Stopped };
        };
        if !init.is_alive() {
            return Self::Stopped;
        }
        // A state that cannot be read is not a frozen one.
        if hull_cgroup::Cgroup::open(&record.cgroup).is_frozen().unwrap_or(false) {
            return Self::Paused;
        }
        if record.in_hooks || gate::is_closed(directory) { Self::Created } else { Self::Running }
    }

    /// The first process exists.
    pub const fn has_process(self) -> bool {
        matches!(self, Self::Created | Self::Running | Self::Paused)
    }
}
