//! A socket of a step's own in front of an agent's: it has the mode and the owner that the step asked for, and it is gone
//! with the step.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::directory::open_directory;
use crate::error::{Error, Result};

/// A listening socket, and the thread that serves it until this is dropped.
pub(super) struct Relay {
    /// Its directory: names of sockets are short, paths may not be.
    directory: OwnedFd,
    name: OsString,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens at `socket`, which is made, and passes each connection on to the agent's.
    pub(super) fn listen(socket: &Path, agent: &Path, mode: u32, owner: (u32, u32)) -> Result<Self> {
        if !fs::metadata(agent).is_ok_and(|meta| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()))
        {
            return Err(Error::fact(format!("there is no agent's socket at {}", agent.display())));
        }
        let name = socket.file_name().ok_or_else(|| Error::fact("a socket has no name"))?.to_owned();
        let directory = open_directory(socket.parent().unwrap_or(Path::new("/")))?;
        let listener =
            UnixListener::bind(short(&directory, &name)).map_err(Error::io("listen at", socket))?;
        let open = fs::Permissions::from_mode(mode);
        fs::set_permissions(socket, open).map_err(Error::io("change mode of", socket))?;
        chown(socket, Some(owner.0), Some(owner.1)).map_err(Error::io("change owner of", socket))?;
        let over = Arc::new(AtomicBool::new(false));
        let (ended, agent) = (Arc::clone(&over), agent.to_owned());
        let thread = std::thread::spawn(move || serve(&listener, &agent, &ended));
        Ok(Self { directory, name, over, thread: Some(thread) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread; connections that are open end with the step's processes, which are gone.
        drop(UnixStream::connect(short(&self.directory, &self.name)));
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing to tell.
            let _ = thread.join();
        }
    }
}

/// A path of a few bytes for a socket in an open directory.
fn short(directory: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}

fn serve(listener: &UnixListener, agent: &Path, over: &AtomicBool) {
    for stream in listener.incoming() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        // A step whose connection fails sees it closed, as with an agent that has gone.
        let Ok((step, agent)) = stream.and_then(|step| Ok((step, UnixStream::connect(agent)?))) else {
            continue;
        };
        let Ok((from_step, to_agent)) = step.try_clone().and_then(|one| Ok((one, agent.try_clone()?))) else {
            continue;
        };
        std::thread::spawn(move || pass(from_step, to_agent));
        std::thread::spawn(move || pass(agent, step));
    }
}

/// Copies until one end closes, and says so to the other.
fn pass(mut from: UnixStream, mut to: UnixStream) {
    // Which end closed first doesn't matter.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_relay_has_its_own_mode_and_ends_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        fs::create_dir(&deep).unwrap();
        let (agent, socket) = (dir.path().join("agent"), deep.join("socket"));
        let listener = UnixListener::bind(&agent).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).unwrap();
            stream.write_all(&[b"answer to ", &asked[..]].concat()).unwrap();
        });
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let relay = Relay::listen(&socket, &agent, 0o660, own).unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().mode() & 0o7777, 0o660);
        let own_directory = open_directory(&deep).unwrap();
        let connect = || UnixStream::connect(short(&own_directory, OsStr::new("socket")));
        let mut stream = connect().unwrap();
        stream.write_all(b"question").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer to question");
        server.join().unwrap();
        drop(relay);
        assert!(connect().is_err(), "nobody listens any more");
        assert!(Relay::listen(&dir.path().join("other"), &dir.path().join("none"), 0o600, own).is_err());
    }
}
