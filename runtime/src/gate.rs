//! The start gate: where a created container waits for `start`.
//!
//! A `SOCK_SEQPACKET` listener in the state directory, inherited by the container's process. `start` connects, says go,
//! and reads either a failure or the end of the stream, which is the exec itself (the connection is close-on-exec). A
//! refused connection means that nobody waits any more. Where the seccomp profile denies the calls this takes, a fifo
//! serves instead, without the report.

use crate::error::{Code, Context, Error, Result};
use crate::link::{LONGEST, decode_error, encode_error};
use crate::state::StateDir;
use hull_sys::errno::{EAGAIN, ECONNREFUSED, ENOENT, ENXIO};
use hull_sys::fs::{FileType, Mode};
use hull_sys::poll::wait_readable;
use hull_sys::socket::{accept, connect_seqpacket_at, listen_seqpacket_at, recv_with_fds, send_with_fds};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::{Duration, Instant};

const NAME: &str = "gate";
const GO: &[u8] = b"go";

/// The waiting side.
#[derive(Debug)]
pub enum Gate {
    /// The normal form.
    Socket(OwnedFd),
    /// For profiles that deny accept4, recvmsg, sendmsg or close.
    Fifo(File),
}

/// The caller of `start`, from the inside.
#[derive(Debug)]
pub struct Starter {
    connection: Option<OwnedFd>,
}

impl Gate {
    /// Makes the gate in `directory`.
    pub fn make(directory: &StateDir, simple: bool) -> Result<Self> {
        if simple {
            hull_sys::fs::mknodat(
                directory.handle().as_fd(),
                NAME,
                FileType::Fifo,
                Mode::from_raw_mode(0o600),
                0,
            )
            .context(|| "make the start gate")?;
            let fifo = File::options().read(true).write(true).open(directory.path().join(NAME));
            return Ok(Self::Fifo(fifo.context(|| "open the start gate")?));
        }
        let listener =
            listen_seqpacket_at(directory.handle().as_fd(), NAME).context(|| "make the start gate")?;
        Ok(Self::Socket(listener))
    }

    /// The descriptor's number.
    pub fn descriptor(&self) -> RawFd {
        match self {
            Self::Socket(listener) => listener.as_raw_fd(),
            Self::Fifo(fifo) => fifo.as_raw_fd(),
        }
    }

    /// Waits until somebody starts the container. A connection that says nothing was only a look.
    pub fn wait(&self) -> Result<Starter> {
        match self {
            Self::Fifo(fifo) => {
                let mut byte = [0; 1];
                (&mut &*fifo).read_exact(&mut byte).context(|| "wait at the start gate")?;
                Ok(Starter { connection: None })
            }
            Self::Socket(listener) => loop {
                let connection = accept(listener.as_fd()).context(|| "wait at the start gate")?;
                let mut buffer = [0; 8];
                if let Ok(received) = recv_with_fds(connection.as_fd(), &mut buffer, 0)
                    && &buffer[..received.len] == GO
                {
                    return Ok(Starter { connection: Some(connection) });
                }
            },
        }
    }
}

impl Starter {
    /// Tells the caller of `start` why the program does not run.
    pub fn fail(&self, error: &Error) {
        if let Some(connection) = &self.connection {
            // Nobody is left to tell when this fails: the process ends with status 1 either way.
            let _gone = send_with_fds(connection.as_fd(), &encode_error(error), &[]);
        }
    }
}

/// True while the gate has not been opened and somebody waits behind it.
pub fn is_closed(directory: &StateDir) -> bool {
    let path = directory.path().join(NAME);
    let Ok(metadata) = path.symlink_metadata() else { return false };
    if metadata.file_type().is_fifo() {
        // The container's process holds it until it executes the program, also where the `start` that opened the gate
        // was killed before it could take it away.
        return writable(directory).is_ok();
    }
    match connect_seqpacket_at(directory.handle().as_fd(), NAME) {
        Ok(_) => true,
        // Stopped, it takes no connections, but it is there.
        Err(error) => error.is(EAGAIN),
    }
}

/// Opens the gate; returns when the program runs, or with the reason why it does not.
pub fn open(directory: &StateDir, deadline: Instant) -> Result<()> {
    let path = directory.path().join(NAME);
    if path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return open_fifo(directory);
    }
    let connection = loop {
        match connect_seqpacket_at(directory.handle().as_fd(), NAME) {
            Ok(connection) => break connection,
            Err(error) if error.is(ECONNREFUSED) || error.is(ENOENT) => return Err(not_waiting()),
            Err(error) if error.is(EAGAIN) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(Error::sys("open the start gate", error)),
        }
    };
    send_with_fds(connection.as_fd(), GO, &[]).context(|| "open the start gate")?;
    if !wait_readable(connection.as_fd(), Some(deadline)).context(|| "wait for the program")? {
        return Err(Error::new(Code::Timeout, "the program did not start in time"));
    }
    let mut buffer = [0; LONGEST];
    let received = recv_with_fds(connection.as_fd(), &mut buffer, 0).context(|| "wait for the program")?;
    remove(directory);
    if received.len == 0 {
        return Ok(());
    }
    Err(decode_error(&buffer[..received.len])
        .unwrap_or_else(|| Error::new(Code::InitDied, "the container's process failed without a reason")))
}

/// The fifo's other end; ENXIO when nobody holds it.
fn writable(directory: &StateDir) -> std::io::Result<File> {
    let nonblocking = hull_sys::fs::OFlags::NONBLOCK.bits().cast_signed();
    File::options().write(true).custom_flags(nonblocking).open(directory.path().join(NAME))
}

fn open_fifo(directory: &StateDir) -> Result<()> {
    match writable(directory) {
        Ok(mut fifo) => {
            fifo.write_all(b"g").context(|| "open the start gate")?;
            remove(directory);
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(ENXIO) => {
            Err(not_waiting())
        }
        Err(error) => Err(error).context(|| "open the start gate"),
    }
}

fn not_waiting() -> Error {
    Error::new(Code::ContainerState, "the container's process does not wait for start any more")
}

fn remove(directory: &StateDir) {
    // A gate that stays refuses connections, which reads the same as no gate.
    let _stays = std::fs::remove_file(directory.path().join(NAME));
}
