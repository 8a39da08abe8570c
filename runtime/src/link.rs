//! The conversation between parent and child during `create`, `run` and `exec`: one enum a direction, over one
//! `SOCK_SEQPACKET` pair. docs/protocol.md has the diagram; a message that is not there does not exist.

use crate::error::{Code, Context, Error, Result};
use crate::log::Level;
use crate::step::Step;
use hull_sys::errno::{ECONNRESET, EPIPE};
use hull_sys::socket::{recv_with_fds, send_with_fds, seqpacket_pair};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Longest message in bytes (a longer text is cut).
pub const LONGEST: usize = 16_000;

/// What the child says.
#[derive(Debug)]
pub enum ToParent {
    /// The container's process is this one (a pidfd travels): the first child was only the relay.
    InitPid(OwnedFd),
    /// The tree of the mount with this index in the plan; asks for its ids to be mapped, and for [`ToChild::IdsMapped`].
    MapIds(usize, OwnedFd),
    /// Mounts and devices are there; asks for [`ToChild::HooksDone`].
    RootReady,
    /// Everything but the filter is done.
    Ready,
    /// The filter is loaded.
    Sealed,
    /// The filter is loaded, and this is its listener.
    SeccompFd(OwnedFd),
    /// A remark for the log.
    Log(Level, String),
    /// The child gives up.
    Failed(Box<Error>),
}

/// What the parent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToChild {
    /// Id mappings are written and the control groups are joined.
    Proceed,
    /// The tree has its id mapping.
    IdsMapped,
    /// The hooks of the runtime's side have run.
    HooksDone,
    /// `run` only, where no gate is needed: start the program.
    Start,
}

/// One end of the pair.
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

/// An error on the wire.
#[derive(Serialize, Deserialize)]
struct Wire {
    code: Code,
    message: String,
    field: Option<String>,
    step: Option<u8>,
    syscall: Option<String>,
    errno: Option<i32>,
    object: Option<String>,
    hint: Option<String>,
}

impl Link {
    /// Makes both ends: the parent's and the child's.
    pub fn pair() -> Result<(Self, Self)> {
        let (parent, child) = seqpacket_pair().context(|| "make the link to the container's process")?;
        Ok((Self { socket: parent }, Self { socket: child }))
    }

    /// The socket itself, for poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Child: says `message`.
    pub fn tell(&self, message: &ToParent) -> Result<()> {
        let (tag, body, fd) = match message {
            ToParent::InitPid(fd) => (b'i', Vec::new(), Some(fd)),
            ToParent::MapIds(index, tree) => (b'u', index.to_le_bytes().to_vec(), Some(tree)),
            ToParent::RootReady => (b'm', Vec::new(), None),
            ToParent::Ready => (b'r', Vec::new(), None),
            ToParent::Sealed => (b's', Vec::new(), None),
            ToParent::SeccompFd(fd) => (b'n', Vec::new(), Some(fd)),
            ToParent::Log(level, text) => {
                (b'l', [&[*level as u8], cut(text, LONGEST).as_bytes()].concat(), None)
            }
            ToParent::Failed(error) => (b'f', encode_error(error), None),
        };
        let bytes = [&[tag], body.as_slice()].concat();
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        send_with_fds(self.fd(), &bytes, &fds).context(|| "tell the runtime")?;
        Ok(())
    }

    /// Parent: hears the next message; nothing at the end of the conversation.
    pub fn hear(&self, deadline: Instant) -> Result<Option<ToParent>> {
        self.wait(deadline, "the container's process")?;
        let mut buffer = [0; LONGEST + 4096];
        let received = match recv_with_fds(self.fd(), &mut buffer, 1) {
            // Its end, with something that we said unread.
            Err(error) if error.is(ECONNRESET) => return Ok(None),
            other => other.context(|| "hear the container's process")?,
        };
        let Some((tag, body)) = buffer[..received.len].split_first() else { return Ok(None) };
        let mut fds = received.fds.into_iter();
        let unexpected =
            || Error::new(Code::InitDied, format!("the container's process sent {:?}", char::from(*tag)));
        let message = match tag {
            b'i' => ToParent::InitPid(fds.next().ok_or_else(unexpected)?),
            b'u' => {
                let index = body.try_into().map_err(|_| unexpected())?;
                ToParent::MapIds(usize::from_le_bytes(index), fds.next().ok_or_else(unexpected)?)
            }
            b'm' => ToParent::RootReady,
            b'r' => ToParent::Ready,
            b's' => ToParent::Sealed,
            b'n' => ToParent::SeccompFd(fds.next().ok_or_else(unexpected)?),
            b'l' => {
                let (level, text) = body.split_first().ok_or_else(unexpected)?;
                ToParent::Log(Level::from_number(*level), String::from_utf8_lossy(text).into_owned())
            }
            b'f' => ToParent::Failed(Box::new(decode_error(body).ok_or_else(unexpected)?)),
            _ => return Err(unexpected()),
        };
        Ok(Some(message))
    }

    /// Parent: says `message`. A child that has just died is noticed by the next [`Self::hear`].
    pub fn order(&self, message: ToChild) -> Result<()> {
        match send_with_fds(self.fd(), &[message as u8], &[]) {
            Err(error) if !error.is(EPIPE) && !error.is(ECONNRESET) => {
                Err(Error::sys("tell the container's process", error))
            }
            _ => Ok(()),
        }
    }

    /// Child: waits for exactly `expected`. The end of the conversation means that the runtime is gone.
    pub fn await_order(&self, expected: ToChild) -> Result<()> {
        let mut byte = [0; 1];
        let received = recv_with_fds(self.fd(), &mut byte, 0).context(|| "hear the runtime")?;
        if received.len == 1 && byte[0] == expected as u8 {
            return Ok(());
        }
        Err(Error::new(Code::InitDied, format!("the runtime went away before it said {expected:?}")))
    }

    fn wait(&self, deadline: Instant, whom: &str) -> Result<()> {
        if hull_sys::poll::wait_readable(self.fd(), Some(deadline))
            .context(|| "wait for the container's process")?
        {
            return Ok(());
        }
        Err(Error::new(Code::Timeout, format!("{whom} did not answer in time")))
    }
}

fn cut(text: &str, longest: usize) -> &str {
    if text.len() <= longest {
        return text;
    }
    let end = (0..=longest).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

/// The bytes of an error, as link and gate carry them.
pub fn encode_error(error: &Error) -> Vec<u8> {
    let mut wire = Wire {
        code: error.code,
        message: cut(&error.message, LONGEST / 8).to_owned(),
        field: error.field.clone(),
        step: error.step.map(|step| step as u8),
        syscall: error.syscall.clone(),
        errno: error.errno,
        object: error.object.clone(),
        hint: error.hint.clone(),
    };
    let bytes = serde_json::to_vec(&wire).unwrap_or_default();
    if bytes.len() <= LONGEST {
        return bytes;
    }
    (wire.field, wire.object, wire.hint) = (None, None, None);
    serde_json::to_vec(&wire).unwrap_or_default()
}

/// The error in `bytes`.
pub fn decode_error(bytes: &[u8]) -> Option<Error> {
    let wire: Wire = serde_json::from_slice(bytes).ok()?;
    Some(Error {
        code: wire.code,
        message: wire.message,
        field: wire.field,
        step: wire.step.and_then(Step::from_number),
        syscall: wire.syscall,
        errno: wire.errno,
        object: wire.object,
        hint: wire.hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_error_crosses_the_link_whole() {
        let (parent, child) = Link::pair().expect("pair");
        let error =
            Error::new(Code::Syscall, "mount /proc").field("/mounts/0").step(Step::Mounts).hint("look");
        child.tell(&ToParent::Failed(Box::new(error))).expect("tell");
        let heard = parent.hear(Instant::now() + Duration::from_secs(5)).expect("hear");
        let Some(ToParent::Failed(error)) = heard else { panic!("heard {heard:?}") };
        assert_eq!((error.field.as_deref(), error.step), (Some("/mounts/0"), Some(Step::Mounts)));
    }

    #[test]
    fn a_very_long_text_is_cut_not_lost() {
        let (parent, child) = Link::pair().expect("pair");
        let error = Error::new(Code::Syscall, "ä".repeat(200_000)).field("x".repeat(100_000));
        child.tell(&ToParent::Failed(Box::new(error))).expect("tell");
        let heard = parent.hear(Instant::now() + Duration::from_secs(5)).expect("hear");
        assert!(matches!(heard, Some(ToParent::Failed(error)) if error.message.starts_with('ä')));
    }

    #[test]
    fn the_end_of_the_conversation_is_no_message() {
        let (parent, child) = Link::pair().expect("pair");
        drop(child);
        assert!(parent.hear(Instant::now() + Duration::from_secs(5)).expect("hear").is_none());
    }
}
