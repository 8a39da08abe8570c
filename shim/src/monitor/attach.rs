//! Clients that are attached: each gets the output, what each sends is input.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_sys::errno::EAGAIN;
use hull_sys::event::{Epoll, EventFlags};
use hull_sys::{fd, io, socket};

use super::args::Args;
use super::log::Source;

/// Most bytes of one message, after the byte that names the stream.
pub const MESSAGE: usize = 8192;
/// Most bytes a client may send at once.
pub const INPUT: usize = 32 << 10;
/// While a client has this many messages unread the container's output waits for it ...
const HIGH_WATER: usize = 64;
/// ... but not longer than this without any progress: then the client is dropped, never the container blocked.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where clients connect to.
#[derive(Debug)]
pub struct AttachSocket {
    listener: OwnedFd,
    path: PathBuf,
    link: Option<PathBuf>,
}

impl AttachSocket {
    /// Makes `attach` in the bundle, mode 0600 whatever the bundle's; managers that cannot name long paths get a link to
    /// the bundle in a directory of theirs.
    pub fn new(args: &Args) -> Result<Self, String> {
        let failed =
            |error: hull_sys::SysError| format!("attach socket in {}: {error}", args.bundle.display());
        let directory = std::fs::File::open(&args.bundle).map_err(|error| format!("open bundle: {error}"))?;
        let path = args.bundle.join("attach");
        // One that is left of an earlier life of this container.
        let _ = std::fs::remove_file(&path);
        let listener = socket::listen_seqpacket_at(directory.as_fd(), "attach").map_err(failed)?;
        fd::set_nonblocking(listener.as_fd(), true).map_err(failed)?;
        let link = match &args.socket_dir {
            Some(directory) if !args.full_attach => Some(link_to(directory, args)?),
            _ => None,
        };
        Ok(Self { listener, path, link })
    }

    /// What to wait on.
    pub fn listener(&self) -> &OwnedFd {
        &self.listener
    }
}

fn link_to(directory: &Path, args: &Args) -> Result<PathBuf, String> {
    let link = directory.join(&args.uuid);
    // A stale link of the same container.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&args.bundle, &link)
        .map_err(|error| format!("link {}: {error}", link.display()))?;
    Ok(link)
}

impl Drop for AttachSocket {
    fn drop(&mut self) {
        // The manager removes the bundle as a whole at the latest.
        let _ = std::fs::remove_file(&self.path);
        if let Some(link) = &self.link {
            let _ = std::fs::remove_file(link);
        }
    }
}

/// A client.
#[derive(Debug)]
pub struct Client {
    fd: OwnedFd,
    unsent: VecDeque<Vec<u8>>,
    progress: Instant,
    sends: bool,
    reads: bool,
    /// What the loop waits for on it, if it is in its set.
    awaited: Option<EventFlags>,
}

/// What a client's socket gave.
pub enum Received {
    /// Bytes for the container's input.
    Input(Vec<u8>),
    /// It will send nothing more, but may still read.
    EndOfInput,
    /// Nothing now.
    Nothing,
}

impl Client {
    /// Takes the next client of `listener`.
    pub fn accept(listener: &OwnedFd) -> hull_sys::Result<Self> {
        let fd = socket::accept(listener.as_fd())?;
        fd::set_nonblocking(fd.as_fd(), true)?;
        let (unsent, progress) = (VecDeque::new(), Instant::now());
        Ok(Self { fd, unsent, progress, sends: true, reads: true, awaited: None })
    }

    /// Lets the loop wait for what this client needs; for its input only if that `is_wanted`.
    pub fn wait_on(&mut self, poll: &Epoll, token: u64, is_wanted: bool) -> hull_sys::Result<()> {
        let input = if self.sends && is_wanted { EventFlags::IN } else { EventFlags::empty() };
        let room = if self.has_unsent() { EventFlags::OUT } else { EventFlags::empty() };
        // The end of one shows unasked, and would for as long as its last input is not read.
        let held = self.sends && !is_wanted && room.is_empty();
        let wanted = if held { None } else { Some(input | room) };
        let before = std::mem::replace(&mut self.awaited, wanted);
        match (before, wanted) {
            (before, wanted) if before == wanted => Ok(()),
            (None, Some(flags)) => poll.add(self.fd.as_fd(), token, flags),
            (_, Some(flags)) => poll.modify(self.fd.as_fd(), token, flags),
            (_, None) => poll.remove(self.fd.as_fd()),
        }
    }

    /// It may still send input.
    pub fn sends(&self) -> bool {
        self.sends
    }

    /// It neither sends nor reads any more.
    pub fn is_gone(&self) -> bool {
        !self.sends && !self.reads
    }

    /// It will read nothing more; what it sent before is still to be taken.
    pub fn stop_reading(&mut self) {
        self.reads = false;
        self.unsent = VecDeque::new();
    }

    /// Reads a message.
    pub fn receive(&mut self) -> Received {
        let mut message = [0; INPUT];
        match io::read(self.fd.as_fd(), &mut message) {
            Ok(0) => {
                self.sends = false;
                Received::EndOfInput
            }
            Ok(got) => Received::Input(message[..got].to_vec()),
            Err(error) if error.is(EAGAIN) => Received::Nothing,
            Err(_) => {
                self.sends = false;
                Received::Nothing
            }
        }
    }

    /// Sends output, or keeps it for later.
    pub fn send(&mut self, source: Source, bytes: &[u8]) {
        if !self.reads {
            return;
        }
        let mark = if source == Source::Stdout { 2 } else { 3 };
        for part in bytes.chunks(MESSAGE) {
            let mut message = Vec::with_capacity(part.len() + 1);
            message.push(mark);
            message.extend_from_slice(part);
            self.unsent.push_back(message);
        }
        self.flush();
    }

    /// Sends what was kept.
    pub fn flush(&mut self) {
        while let Some(message) = self.unsent.front() {
            match io::write(self.fd.as_fd(), message) {
                Ok(_) => {
                    self.unsent.pop_front();
                    self.progress = Instant::now();
                }
                Err(error) if error.is(EAGAIN) => return,
                Err(_) => return self.stop_reading(),
            }
        }
        self.progress = Instant::now();
    }

    /// True when something waits to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// True when the container's output should wait for it.
    pub fn is_behind(&self) -> bool {
        self.unsent.len() >= HIGH_WATER
    }

    /// True when it has read nothing for too long.
    pub fn is_stuck(&self) -> bool {
        self.has_unsent() && self.progress.elapsed() >= PATIENCE
    }
}
