//! The vocabulary between the state machine and the engine.

use crate::api::{
    Any, CheckpointTaskRequest, CloseIoRequest, CreateTaskRequest, ExecProcessRequest, KillRequest,
    ProcessRequest, ResizePtyRequest, ShutdownRequest, UpdateTaskRequest,
};
use crate::ttrpc::Refusal;

use super::process::Exit;

/// Names one call until it is answered.
pub type CallId = u64;

/// A process that the shim watches: a container's init (`exec` empty) or one of its execs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The container's id.
    pub container: String,
    /// The exec's id, empty for init.
    pub exec: String,
}

impl Key {
    /// The init process of `container`.
    pub fn init(container: &str) -> Self {
        Self { container: container.to_owned(), exec: String::new() }
    }

    /// True for a container's init process.
    pub fn is_init(&self) -> bool {
        self.exec.is_empty()
    }
}

/// A decoded call of the Task service.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Call {
    Create(CreateTaskRequest),
    Start(ProcessRequest),
    State(ProcessRequest),
    Wait(ProcessRequest),
    Kill(KillRequest),
    Delete(ProcessRequest),
    Exec(ExecProcessRequest),
    ResizePty(ResizePtyRequest),
    CloseIo(CloseIoRequest),
    Pause(ProcessRequest),
    Resume(ProcessRequest),
    Pids(ProcessRequest),
    Stats(ProcessRequest),
    Update(UpdateTaskRequest),
    Checkpoint(CheckpointTaskRequest),
    Connect(ProcessRequest),
    Shutdown(ShutdownRequest),
}

impl Call {
    /// Whose turn it takes, if it takes one: calls on the whole container take init's.
    pub(super) fn turn(&self) -> Option<Key> {
        let (container, exec) = match self {
            Self::Start(request) | Self::Delete(request) => (&request.id, request.exec_id.as_str()),
            Self::Kill(request) => (&request.id, request.exec_id.as_str()),
            Self::Pause(request) | Self::Resume(request) => (&request.id, ""),
            Self::Update(request) => (&request.id, ""),
            Self::Checkpoint(request) => (&request.id, ""),
            _ => return None,
        };
        Some(Key { container: container.clone(), exec: exec.to_owned() })
    }
}

/// Work that takes time: the engine reports its [`Outcome`] under the same ticket.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticket {
    /// The process concerned.
    pub key: Key,
    /// The call that waits for it; `None` for work the shim does of its own accord.
    pub call: Option<CallId>,
    /// What to do.
    pub job: Job,
}

/// What the engine does for the state machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Mount the root, open the streams, run `create`: gives [`Outcome::Pid`]. With a checkpoint named, everything
    /// but running the runtime: gives pid 0.
    Create(Box<CreateTaskRequest>),
    /// Run `start`.
    Start,
    /// Run `restore` in place of `start`: gives [`Outcome::Pid`].
    Restore,
    /// Open the streams and run `exec`: gives [`Outcome::Pid`].
    Exec(Box<ExecProcessRequest>),
    /// Run `kill` with a signal number, for every process of the container or only for init.
    Kill {
        /// Signal number.
        signal: u32,
        /// Every process.
        all: bool,
    },
    /// Signal one process of ours (an exec).
    Signal {
        /// Process id.
        pid: u32,
        /// Signal number.
        signal: u32,
    },
    /// Wait until the streams are drained (bounded), run `delete`, unmount the root.
    Delete,
    /// Wait until an exec's streams are drained (bounded) and forget them.
    Drain,
    /// Run `pause`.
    Pause,
    /// Run `resume`.
    Resume,
    /// Run `update` with these resources.
    Update(Vec<u8>),
    /// Run `checkpoint`.
    Checkpoint(Box<CheckpointTaskRequest>),
    /// Run `ps`: gives [`Outcome::Pids`].
    Ps,
    /// Read the cgroup: gives [`Outcome::Any`].
    Stats,
}

/// How a [`Job`] ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done, nothing to tell.
    Done,
    /// Done; the process's id.
    Pid(u32),
    /// The container's processes.
    Pids(Vec<u32>),
    /// A message for the caller.
    Any(Any),
    /// Not done; the caller gets this.
    Failed(Refusal),
}

/// What the state machine wants done; an engine performs them in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answer a call with an encoded message or a refusal.
    Reply(CallId, Result<Vec<u8>, Refusal>),
    /// Do a job and report back.
    Run(Ticket),
    /// Publish an event.
    Publish(Event),
    /// Set the size of a process's terminal, if it has one.
    Resize {
        /// Whose.
        key: Key,
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Close our own writing end of a process's input, so that it sees end of file once the client closes its.
    CloseStdin(Key),
    /// Let go of what is kept for a process (streams).
    Forget(Key),
    /// A container's init has ended. Whatever shares its pid namespace by sharing the host's must be killed, and
    /// with `await_execs` the end is published once its execs have ended or [`Pod::execs_overdue`] is called.
    ///
    /// [`Pod::execs_overdue`]: super::Pod::execs_overdue
    InitEnded {
        /// Whose init.
        container: String,
        /// Some exec is still alive.
        await_execs: bool,
    },
    /// End the shim once the answer is out.
    Exit,
}

/// An event to publish, in the order in which clients rely on it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Event {
    Create { request: Box<CreateTaskRequest>, pid: u32 },
    Start { container: String, pid: u32 },
    Exit { key: Key, pid: u32, exit: Exit },
    Delete { container: String, pid: u32, exit: Exit },
    Oom { container: String },
    ExecAdded { container: String, exec: String },
    ExecStarted { container: String, exec: String, pid: u32 },
    Paused { container: String },
    Resumed { container: String },
}
