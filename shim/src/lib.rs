//! Holds a container's streams and its exit code while managers come and go.
//!
//! Two programs: `containerd-shim-hull-v2` serves containerd's Task API over ttrpc, `hull-monitor` does the same for
//! podman and for a person. Both start an OCI runtime as a program and link none. One thread, one epoll loop, no
//! async; what is decided is in [`task`], which is pure. Nothing here trusts a container: its output is bytes to
//! copy, and every buffer, queue and wait is bounded.
#![forbid(unsafe_code)]

pub mod api;
mod background;
mod bundle;
mod cgroup;
mod clock;
pub mod containerd;
mod engine;
mod io;
pub mod monitor;
mod runtime;
mod spawn;
pub mod task;
pub mod ttrpc;
