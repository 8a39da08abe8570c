//! From an event of the state machine to the envelope that containerd is sent.

use crate::api::{
    Any, Envelope, TaskCreate, TaskDelete, TaskExec, TaskExit, TaskIo, TaskNamed, TaskStart, Timestamp,
};
use crate::task::Event;

/// Packs an event.
pub fn envelope(event: Event, namespace: &str, now: Timestamp) -> Envelope {
    let (topic, event) = pack(event);
    Envelope {
        timestamp: Some(now),
        namespace: namespace.to_owned(),
        topic: topic.to_owned(),
        event: Some(event),
    }
}

fn pack(event: Event) -> (&'static str, Any) {
    let named = |name, container_id| Any::pack(name, &TaskNamed { container_id });
    match event {
        Event::Create { request, pid } => {
            let io = TaskIo {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            };
            let message = TaskCreate {
                container_id: request.id,
                bundle: request.bundle,
                rootfs: request.rootfs,
                io: Some(io),
                checkpoint: request.checkpoint,
                pid,
            };
            ("/tasks/create", Any::pack("containerd.events.TaskCreate", &message))
        }
        Event::Start { container, pid } => {
            let message = TaskStart { container_id: container, pid };
            ("/tasks/start", Any::pack("containerd.events.TaskStart", &message))
        }
        Event::Exit { key, pid, exit } => {
            let id = if key.is_init() { key.container.clone() } else { key.exec };
            let message = TaskExit {
                container_id: key.container,
                id,
                pid,
                exit_status: exit.status,
                exited_at: Some(exit.at),
            };
            ("/tasks/exit", Any::pack("containerd.events.TaskExit", &message))
        }
        Event::Delete { container, pid, exit } => {
            let message = TaskDelete {
                container_id: container,
                pid,
                exit_status: exit.status,
                exited_at: Some(exit.at),
                id: String::new(),
            };
            ("/tasks/delete", Any::pack("containerd.events.TaskDelete", &message))
        }
        Event::Oom { container } => ("/tasks/oom", named("containerd.events.TaskOOM", container)),
        Event::Paused { container } => ("/tasks/paused", named("containerd.events.TaskPaused", container)),
        Event::Resumed { container } => ("/tasks/resumed", named("containerd.events.TaskResumed", container)),
        Event::ExecAdded { container, exec } => {
            let message = TaskExec { container_id: container, exec_id: exec, pid: 0 };
            ("/tasks/exec-added", Any::pack("containerd.events.TaskExecAdded", &message))
        }
        Event::ExecStarted { container, exec, pid } => {
            let message = TaskExec { container_id: container, exec_id: exec, pid };
            ("/tasks/exec-started", Any::pack("containerd.events.TaskExecStarted", &message))
        }
    }
}
