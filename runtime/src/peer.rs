//! Sockets of other programs: a console's, a seccomp agent's, whoever wants a pidfd. One that is stuck holds no command
//! up (R19).

use crate::error::{Code, Error, Result};
use hull_sys::SysError;
use hull_sys::errno::EAGAIN;
use hull_sys::socket::{connect_stream_within, send_with_fds};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long a peer may take for a connection, and for each message.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to the stream socket at `path`; `what` is done by it and begins the error.
pub fn connect(path: &Path, what: &str) -> Result<OwnedFd> {
    connect_stream_within(path, PATIENCE)
        .map_err(|error| explain(what, error).object(path.display().to_string()))
}

/// Sends `bytes`, with `fds` beside the first of them.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], what: &str) -> Result<()> {
    send_with_fds(socket, bytes, fds)
        .and_then(|sent| hull_sys::io::write_all(socket.as_fd(), &bytes[sent..]))
        .map_err(|error| explain(what, error))
}

fn explain(what: &str, error: SysError) -> Error {
    if !error.is(EAGAIN) {
        return Error::sys(what, error);
    }
    Error::new(Code::Timeout, format!("{what}: the other side did not answer within {PATIENCE:?}"))
        .hint("the program that listens there is stuck, stopped or overloaded")
}
