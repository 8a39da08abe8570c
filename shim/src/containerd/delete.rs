//! `delete`: what containerd runs when a container's shim is gone; must work on half a bundle too.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_sys::errno::ECONNREFUSED;
use hull_sys::{process, socket};
use prost::Message;

use crate::api::DeleteResponse;
use crate::bundle::Bundle;
use crate::clock::Clock;
use crate::engine::unmount_until;
use crate::runtime::{Runtime, Streams};
use crate::task::Exit;

use super::flags::Flags;

/// containerd gives the whole action 5 seconds: so long the runtime may take ...
const RUNTIME_LIMIT: Duration = Duration::from_millis(3500);
/// ... and until then, since the start, the root may take to be unmounted. A server or a disk that does not answer must not
/// cost the answer.
const UNMOUNT_LIMIT: Duration = Duration::from_millis(4200);
/// A shim that is there takes a connection at once.
const PATIENCE: Duration = Duration::from_millis(500);
/// 128 + SIGKILL: how the container has ended as far as anybody can know.
const KILLED: u32 = 137;

/// Removes what is left of the container and prints how it ended.
pub fn delete(flags: &Flags) -> Result<(), String> {
    let began = Instant::now();
    let bundle = Bundle::new(bundle_dir(flags)?);
    let runtime = Runtime::new(bundle.remembered(), &flags.namespace);
    let pid = bundle.pid("init.pid").unwrap_or(0);
    remove(&runtime, &bundle, &flags.id, began + RUNTIME_LIMIT);
    // What cannot be unmounted is reported; the answer is given all the same.
    if let Err(text) = unmount_until(&bundle.file("rootfs"), began + UNMOUNT_LIMIT) {
        eprintln!("{text}");
    }
    remove_stale_socket(&bundle);
    let killed = Exit { status: KILLED, at: Clock::new().now() };
    let exit = bundle.recorded_exit().unwrap_or(killed);
    let answer = DeleteResponse { pid, exit_status: exit.status, exited_at: Some(exit.at) };
    std::io::stdout().write_all(&answer.encode_to_vec()).map_err(|error| format!("print the answer: {error}"))
}

/// The working directory may be another container's of the same pod: only its parent is certain.
fn bundle_dir(flags: &Flags) -> Result<PathBuf, String> {
    let current = std::env::current_dir().map_err(|error| format!("find the bundle: {error}"))?;
    let beside = current.parent().unwrap_or(Path::new("/")).join(&flags.id);
    let named = PathBuf::from(&flags.bundle);
    Ok(if !beside.is_dir() && named.is_absolute() { named } else { beside })
}

/// Removes the socket of the shim that is gone; one that serves other containers of the pod answers, and stays.
fn remove_stale_socket(bundle: &Bundle) {
    let Ok(address) = bundle.address() else { return };
    let is_socket = fs::symlink_metadata(&address).is_ok_and(|found| found.file_type().is_socket());
    // A shim that hangs takes nobody, but is there.
    let refused =
        || socket::connect_stream_within(&address, PATIENCE).is_err_and(|error| error.is(ECONNREFUSED));
    if is_socket && refused() {
        // The next start of the same name would remove it as well.
        let _ = fs::remove_file(address);
    }
}

/// Runs `delete --force`; a runtime that hangs is killed, one that is missing changes nothing.
fn remove(runtime: &Runtime, bundle: &Bundle, id: &str, deadline: Instant) {
    let verb = Runtime::delete(id, true);
    match runtime.start(&bundle.file("log.json"), verb, &Streams::default()) {
        Ok(child) => {
            use std::os::fd::AsFd;
            let ended = process::wait_until(child.pidfd.as_fd(), deadline);
            if !matches!(ended, Ok(Some(_))) {
                // It is overdue; its container is left to the next attempt.
                let _ = process::kill_group(child.pid, 9);
                eprintln!("{} delete did not end in time", runtime.name());
            }
        }
        Err(text) => eprintln!("{text}"),
    }
}
