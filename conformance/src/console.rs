//! The caller's side of a terminal: a socket that receives its master, and the words that come over it.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::lab::Lab;
use crate::verdict::{Finding, fail};

/// A socket on which a runtime delivers descriptors.
#[derive(Debug)]
pub struct Console(UnixListener);

/// What came over one connection.
#[derive(Debug)]
pub struct Delivery {
    /// The bytes, up to the end of the connection.
    pub text: String,
    /// The descriptors of the first message.
    pub descriptors: Vec<OwnedFd>,
    /// Whether descriptors came with a later message than the first.
    pub late: bool,
}

impl Console {
    /// Listens at `path`.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn listen(path: &Path) -> Finding<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Waits for a connection; `None` when none comes.
    fn accept(&self, lab: &Lab) -> Finding<Option<UnixStream>> {
        let mut stream = None;
        lab.eventually(|| {
            stream = self.0.accept().ok().map(|(stream, _)| stream);
            stream.is_some()
        });
        if let Some(stream) = &stream {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        }
        Ok(stream)
    }

    /// Whether somebody has connected.
    #[must_use]
    pub fn was_called(&self) -> bool {
        self.0.accept().is_ok()
    }

    /// Receives everything of one connection.
    ///
    /// # Errors
    /// A failure when nobody connects.
    pub fn delivery(&self, lab: &Lab) -> Finding<Delivery> {
        let Some(stream) = self.accept(lab)? else { return fail("a connection to the socket", "none") };
        let mut delivery = Delivery { text: String::new(), descriptors: Vec::new(), late: false };
        loop {
            let (bytes, descriptors) = receive(&stream)?;
            delivery.late |= !descriptors.is_empty() && !delivery.text.is_empty();
            delivery.descriptors.extend(descriptors);
            if bytes.is_empty() {
                return Ok(delivery);
            }
            delivery.text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Receives the master of a terminal.
    ///
    /// # Errors
    /// A failure when none comes.
    pub fn master(&self, lab: &Lab) -> Finding<Master> {
        let Some(stream) = self.accept(lab)? else {
            return fail("a connection to the console socket", "none");
        };
        let (_, descriptors) = receive(&stream)?;
        descriptors
            .into_iter()
            .next()
            .map_or_else(|| fail("the master of a terminal", "no descriptor"), |fd| Ok(Master(fd)))
    }
}

fn receive(stream: &UnixStream) -> Finding<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 16384];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let messages = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = messages.flatten().collect();
    bytes.truncate(got.bytes);
    Ok((bytes, descriptors))
}

/// The master of a container's terminal.
#[derive(Debug)]
pub struct Master(OwnedFd);

impl Master {
    /// Reads until the other side is closed everywhere, which the kernel tells as an error.
    ///
    /// # Errors
    /// A failure when that does not happen.
    pub fn read_to_end(self, lab: &Lab) -> Finding<String> {
        rustix::io::ioctl_fionbio(&self.0, true)?;
        let (mut file, mut all) = (std::fs::File::from(self.0), Vec::new());
        let ended = lab.eventually(|| {
            loop {
                let mut part = [0; 4096];
                match file.read(&mut part) {
                    Ok(0) => return true,
                    Ok(count) => all.extend_from_slice(&part[..count]),
                    Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
                }
            }
        });
        let text = String::from_utf8_lossy(&all).replace('\r', "");
        if ended {
            Ok(text)
        } else {
            fail("an end of the terminal", format!("it stays open; so far: {text:?}"))
        }
    }
}
