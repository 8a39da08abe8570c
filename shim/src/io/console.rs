//! The socket on which the runtime hands over a container's terminal.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hull_sys::{SysError, fd, socket};

/// Longest path that fits into a socket address, with its end mark.
const PATH_LIMIT: usize = 107;

/// A listening socket in a directory that only we may enter; both go away with it.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: OwnedFd,
    directory: PathBuf,
}

impl ConsoleSocket {
    /// Makes one under `base`, or under the system's run directory where there is no base or the path would be too long: the
    /// runtime gets it as a path.
    pub fn new(base: &Path, name: &str) -> Result<Self, std::io::Error> {
        let mut directory = base.join(format!("pty-{name}"));
        if !base.is_absolute() || directory.as_os_str().len() + "/s".len() > PATH_LIMIT {
            directory = run_directory().join(format!("hull-pty-{}-{name}", std::process::id()));
        }
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let made = Self::listen(&directory);
        if made.is_err() {
            // Empty and ours; the listener's own error is the one to report.
            let _ = std::fs::remove_dir(&directory);
        }
        Ok(Self { listener: made?, directory })
    }

    fn listen(directory: &Path) -> Result<OwnedFd, std::io::Error> {
        let opened = std::fs::File::open(directory)?;
        let listener = socket::listen_stream_at(opened.as_fd(), "s")?;
        fd::set_nonblocking(listener.as_fd(), true)?;
        Ok(listener)
    }

    /// Where the runtime connects to.
    pub fn path(&self) -> PathBuf {
        self.directory.join("s")
    }

    /// What to wait on.
    pub fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// Takes the terminal's master from a runtime that has connected; `None` while none has.
    pub fn receive(&self) -> Result<Option<OwnedFd>, SysError> {
        const EAGAIN: i32 = 11;
        let connection = match socket::accept(self.listener.as_fd()) {
            Ok(connection) => connection,
            Err(error) if error.is(EAGAIN) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The runtime sends at once after it has connected; it is not waited for beyond a second.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(1);
        if !socket::poll_in(connection.as_fd(), deadline)? {
            return Ok(None);
        }
        let mut name = [0; 4096];
        let received = socket::recv_with_fds(connection.as_fd(), &mut name, 1)?;
        let Some(master) = received.fds.into_iter().next() else { return Ok(None) };
        fd::set_nonblocking(master.as_fd(), true)?;
        Ok(Some(master))
    }
}

/// A directory with a short path in which we may make another.
fn run_directory() -> PathBuf {
    match std::env::var("XDG_RUNTIME_DIR") {
        Ok(directory) if directory.starts_with('/') && directory.len() < PATH_LIMIT / 2 => {
            PathBuf::from(directory)
        }
        _ if hull_sys::identity::effective_uid() == 0 => PathBuf::from("/run"),
        _ => PathBuf::from("/tmp"),
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // Ours alone; whatever cannot be removed lies in a private directory of the bundle.
        let _ = std::fs::remove_file(self.path());
        let _ = std::fs::remove_dir(&self.directory);
    }
}
