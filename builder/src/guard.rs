//! A process beside a build that ends the containers of its steps when the build is gone before they are.
//!
//! A build that is killed can end nothing itself. The guard is this program once more, in the build's mount namespace and
//! in a process group of its own; it is started before the first step that runs a command. It lives as long as the build:
//!
//! | message | with it | meaning |
//! |---|---|---|
//! | guard: `ready` | | it holds the store's lease: what the build leaves is not swept away before it has ended |
//! | build: `+ID` | the reading end of the container's output | the runtime is about to make this container |
//! | build: `-ID` | | the container is gone |
//! | end of file | | the build is gone, and with it the guard once every container told of is |
//!
//! The output's end is what tells that a container is gone: runtime and processes hold its other end, however far the
//! making of the container has come.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use hull_image::Store;
use hull_sys::signal::{self, SignalSet};
use hull_sys::{poll, socket};

use crate::commands::Outcome;
use crate::error::{Error, Result};
use crate::{deadline, host};

/// Longest wait of a build for its guard.
const START: Duration = Duration::from_secs(10);
/// How long containers are killed before the runtime is to delete them in whatever state they are.
const KILLING: Duration = Duration::from_secs(2);
/// Longest that a guard kills without its build; then each container has one more call, within [`DELETE`] for all.
const ENDING: Duration = Duration::from_secs(30);
/// Longest call that kills, and that deletes.
const KILL: Duration = Duration::from_secs(1);
const DELETE: Duration = Duration::from_secs(10);
/// Between two looks at what still runs.
const LOOK: Duration = Duration::from_millis(10);
/// Longest message: a sign and a container's id.
const MESSAGE: usize = 256;
const READY: &[u8] = b"ready";

/// The build's side. The guard ends when this is dropped, or when the build ends in whatever way.
pub(crate) struct Guard {
    /// Closed before the process is waited for.
    socket: Option<OwnedFd>,
    process: Child,
}

/// A container that the guard ends if the build does not; until this is dropped.
pub(crate) struct Guarded<'a> {
    socket: BorrowedFd<'a>,
    id: &'a str,
}

impl Guard {
    /// Starts the process; `workspace` is the directory below which the runtime keeps its state.
    pub(crate) fn start(runtime: &Path, workspace: &Path) -> Result<Self> {
        let (socket, its) = socket::seqpacket_pair().map_err(Error::system("make a socket"))?;
        let mut command = Command::new("/proc/self/exe");
        let store = std::path::absolute(host::store_dir()).map_err(Error::io("resolve", "the store"))?;
        command.arg0("hull-build").arg("--root").arg(store);
        command.arg("guard-steps").arg(runtime).arg(workspace).current_dir(workspace);
        // Not in the terminal's foreground, nor in the group that somebody kills.
        command.process_group(0).stdin(its).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(Error::io("start", "hull-build guard-steps"))?;
        drop(command);
        let guard = Self { socket: Some(socket), process };
        let mut answer = [0; READY.len()];
        let came = poll::wait_readable(guard.socket()?, Some(Instant::now() + START))
            .map_err(Error::system("wait for the guard of the steps"))?;
        if came {
            // Its end is an empty message.
            socket::recv_with_fds(guard.socket()?, &mut answer[..], 0)
                .map_err(Error::system("hear the guard of the steps"))?;
        }
        match answer == READY {
            true => Ok(guard),
            false => Err(Error::fact("the guard of the steps did not start")),
        }
    }

    /// Has the container ended with the build, of which `output` can be read for as long as it is there.
    pub(crate) fn watch<'a>(&'a self, id: &'a str, output: BorrowedFd<'_>) -> Result<Guarded<'a>> {
        let socket = self.socket()?;
        socket::send_with_fds(socket, format!("+{id}").as_bytes(), &[output])
            .map_err(Error::system("tell the guard of the steps"))?;
        Ok(Guarded { socket, id })
    }

    fn socket(&self) -> Result<BorrowedFd<'_>> {
        self.socket.as_ref().map(OwnedFd::as_fd).ok_or_else(|| Error::fact("the guard has been let go"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.socket.take());
        // It ends at the end of file; where it hangs, it is killed as nothing needs it.
        let _ = deadline::wait(&mut self.process, Instant::now() + START);
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        // A guard that has died watches nothing any more.
        let _ = socket::send_with_fds(self.socket, format!("-{}", self.id).as_bytes(), &[]);
    }
}

/// Arguments of the guard.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The runtime program
    runtime: PathBuf,
    /// The build's private place, to tell guards apart by their command lines
    workspace: PathBuf,
}

/// The runtime's state: by the directory that this process is in, as the path leads nowhere any more where somebody
/// removed the store of a killed build.
const STATE: &str = "/proc/self/cwd/state";

/// The guard's side: follows the containers until the build is gone, and ends those that are left.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    // Whoever ends all processes of the build, one after the other, may begin with this one.
    let ending = ["HUP", "INT", "QUIT", "TERM"].into_iter().filter_map(signal::signal_number);
    signal::block(&ending.collect::<SignalSet>())?;
    // Not opened: who finds itself alone on a store empties its tmp, and here that shows the build's own mounts.
    let _lease = Store::lease(&host::store_dir())?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    socket::send_with_fds(socket.as_fd(), READY, &[])?;
    let mut containers = BTreeMap::new();
    while follow(socket.as_fd(), &mut containers)? {}
    arguments.end(containers);
    Ok(ExitCode::SUCCESS)
}

/// Takes one message; false at the end of file.
fn follow(
    socket: BorrowedFd<'_>,
    containers: &mut BTreeMap<String, File>,
) -> std::result::Result<bool, Box<dyn std::error::Error>> {
    let mut message = [0; MESSAGE];
    let mut received = socket::recv_with_fds(socket, &mut message, 1)?;
    let text = str::from_utf8(&message[..received.len])?;
    match (text.split_at_checked(1), received.fds.pop()) {
        (Some(("+", id)), Some(output)) => drop(containers.insert(id.to_owned(), output.into())),
        (Some(("-", id)), None) => drop(containers.remove(id)),
        _ if text.is_empty() => return Ok(false),
        _ => return Err(format!("the build says what no guard understands: \"{text}\"").into()),
    }
    Ok(true)
}

impl Arguments {
    /// Kills containers until they are gone, and has the runtime delete those that it still knows then or that won't go.
    fn end(&self, containers: BTreeMap<String, File>) {
        let ids: Vec<String> = containers.keys().cloned().collect();
        let mut left = containers;
        let start = Instant::now();
        let limit = start + ENDING;
        loop {
            left.retain(|_, output| !is_over(output));
            if left.is_empty() || Instant::now() > limit {
                break;
            }
            // One that is just being made is none yet: a later round finds it.
            for id in left.keys() {
                match start.elapsed() < KILLING {
                    true => self.call(&["kill", id, "KILL"], limit.min(Instant::now() + KILL)),
                    false => self.call(&["delete", "--force", id], limit.min(Instant::now() + DELETE)),
                }
            }
            std::thread::sleep(LOOK);
        }
        for id in ids.iter().filter(|id| Path::new(STATE).join(id).exists()) {
            self.call(&["delete", "--force", id], limit + DELETE);
        }
    }

    fn call(&self, arguments: &[&str], deadline: Instant) {
        let mut command = Command::new(&self.runtime);
        command.env_clear().env("PATH", crate::graph::DEFAULT_PATH);
        command.args(["--root", STATE]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // There is nobody to tell; what it did not do is seen in the next round.
        let _ = deadline::status(&mut command, deadline);
    }
}

/// Whether nobody can write to an output any more. What is in it is read, so that it holds nobody up.
fn is_over(output: &mut File) -> bool {
    match poll::wait_readable(output.as_fd(), Some(Instant::now())) {
        Ok(true) => output.read(&mut [0; 64 << 10]).map_or(true, |count| count == 0),
        _ => false,
    }
}
