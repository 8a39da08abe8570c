//! One process of a container and where it stands.

use std::collections::VecDeque;

use crate::api::{StateResponse, Status, Timestamp, WaitResponse};

use super::effect::{Call, CallId};

/// Most calls that may wait for their turn at one process.
pub const QUEUE_LIMIT: usize = 256;
/// Most calls that may wait for one process's end.
pub const WAITERS_LIMIT: usize = 4096;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + the signal.
    pub status: u32,
    /// When the shim reaped it.
    pub at: Timestamp,
}

/// Where a process stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Registered (exec), or `create` has not ended (init).
    Registered,
    /// Created, not started.
    Created,
    /// Created from a checkpoint: `start` will restore it.
    Restorable,
    /// Started.
    Running,
    /// Started and frozen.
    Paused,
    /// Ended, or its start failed for good.
    Stopped,
}

/// The paths of a process's streams as the client named them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Stdio {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// A process, its waiters, and the calls that wait for their turn.
#[derive(Debug)]
pub struct Process {
    /// Where it stands.
    pub state: State,
    /// Its id on the host, 0 until it has one; kept after its end.
    pub pid: u32,
    /// Its streams.
    pub stdio: Stdio,
    /// How it ended.
    pub exit: Option<Exit>,
    /// An end seen while the answer to its start is still to come: published after it.
    pub held_exit: Option<Exit>,
    /// It has ended, and much of its output is on its way to a reader still: its end is held until that is there.
    pub output_moves: bool,
    /// The last size that was asked for its terminal, in columns and rows.
    pub size: Option<(u16, u16)>,
    /// A client will send no more input.
    pub input_closed: bool,
    /// A pause is under way.
    pub pausing: bool,
    /// Its start failed: nobody will ever see it end.
    pub failed: bool,
    /// Calls that are answered at its end.
    pub waiters: Vec<CallId>,
    /// A job for it is under way: calls that need one wait in `queue`.
    pub busy: bool,
    /// Calls waiting for their turn, oldest first.
    pub queue: VecDeque<(CallId, Call)>,
}

impl Process {
    /// A process of which only its streams are known.
    pub fn new(stdio: Stdio) -> Self {
        Self {
            state: State::Registered,
            pid: 0,
            stdio,
            exit: None,
            held_exit: None,
            output_moves: false,
            size: None,
            input_closed: false,
            pausing: false,
            failed: false,
            waiters: Vec::new(),
            busy: false,
            queue: VecDeque::new(),
        }
    }

    /// The answer to State, without the fields that belong to the container.
    pub fn describe(&self) -> StateResponse {
        let status = match self.state {
            State::Registered | State::Created | State::Restorable => Status::Created,
            _ if self.pausing => Status::Pausing,
            State::Running => Status::Running,
            State::Paused => Status::Paused,
            State::Stopped => Status::Stopped,
        };
        StateResponse {
            pid: self.pid,
            status: status.into(),
            stdin: self.stdio.stdin.clone(),
            stdout: self.stdio.stdout.clone(),
            stderr: self.stdio.stderr.clone(),
            terminal: self.stdio.terminal,
            exit_status: self.exit.map_or(0, |exit| exit.status),
            exited_at: Some(self.exited_at()),
            ..StateResponse::default()
        }
    }

    /// The answer to Wait.
    pub fn wait_answer(&self) -> WaitResponse {
        let exit_status = self.exit.map_or(0, |exit| exit.status);
        WaitResponse { exit_status, exited_at: Some(self.exited_at()) }
    }

    /// Time of the end, Go's zero time before it.
    pub fn exited_at(&self) -> Timestamp {
        self.exit.map_or(Timestamp::GO_ZERO, |exit| exit.at)
    }

    /// True from its start to its end.
    pub fn is_alive(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }
}
