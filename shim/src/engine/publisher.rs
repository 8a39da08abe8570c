//! Events to containerd: in order, one at a time, kept until it has taken them, however long it is away.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_sys::errno::{EAGAIN, ECONNRESET};
use hull_sys::event::EventFlags;
use hull_sys::io;
use prost::Message;

use crate::api::{Envelope, ForwardRequest};
use crate::ttrpc::{Decoder, Kind, Request, encode};

use super::{Engine, Timer, Token};

/// Most bytes of events that are kept. Past it the oldest go that are neither an exit nor a kill for lack of memory.
const KEPT_LIMIT: usize = 4 << 20;
/// First and last pause between two attempts to reach containerd.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How long containerd may take to answer before the event is sent again on another connection, in case the answer is lost;
/// twice as long each time it was in vain: one that is stopped or waits for its disk takes every copy in the end.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    vital: bool,
}

/// The queue of events and the connection that they go through.
#[derive(Debug, Default)]
pub struct Publisher {
    address: Option<PathBuf>,
    queue: VecDeque<Kept>,
    size: usize,
    connection: Option<(OwnedFd, Decoder)>,
    /// Bytes of the first event that are still to be sent; it is in flight when there are none.
    unsent: Vec<u8>,
    in_flight: bool,
    /// An event went on its way since the time for its answer was last set.
    asked: bool,
    stream: u32,
    pause: Duration,
    /// How long the next answer may take.
    patience: Duration,
    /// Events were added since the queue was last moved on.
    news: bool,
    /// The loop waits for room to send.
    waits_for_room: bool,
}

impl Publisher {
    /// A publisher to containerd's ttrpc socket; without one events are dropped.
    pub fn new(address: Option<PathBuf>) -> Self {
        Self { address, pause: FIRST_PAUSE, patience: ANSWER_LIMIT, stream: 1, ..Self::default() }
    }

    /// True when every event has been taken.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// True when events were added since the queue was last moved on.
    pub fn has_news(&self) -> bool {
        self.news
    }

    /// Adds an event at the end of the queue.
    pub fn push(&mut self, envelope: Envelope) {
        if self.address.is_none() {
            return;
        }
        let vital = matches!(envelope.topic.as_str(), "/tasks/exit" | "/tasks/oom");
        let bytes = ForwardRequest { envelope: Some(envelope) }.encode_to_vec();
        self.size += bytes.len();
        self.queue.push_back(Kept { bytes, vital });
        self.news = true;
        // The first may be in flight: it stays.
        while self.size > KEPT_LIMIT && self.queue.len() > 1 {
            let victim = self.queue.iter().skip(1).position(|kept| !kept.vital).map_or(1, |at| at + 1);
            if let Some(dropped) = self.queue.remove(victim) {
                self.size -= dropped.bytes.len();
            }
        }
    }

    fn taken(&mut self) {
        if let Some(first) = self.queue.pop_front() {
            self.size -= first.bytes.len();
        }
        self.in_flight = false;
        self.pause = FIRST_PAUSE;
        self.patience = ANSWER_LIMIT;
    }

    /// The time for an answer, or the pause before an attempt, is over.
    pub fn overdue(&mut self) {
        if self.in_flight {
            self.patience = (self.patience * 2).min(LAST_ANSWER_LIMIT);
            self.disconnect();
        }
    }

    fn disconnect(&mut self) {
        self.connection = None;
        (self.in_flight, self.asked) = (false, false);
        self.unsent = Vec::new();
    }

    fn connect(&mut self) -> hull_sys::Result<()> {
        if self.connection.is_some() {
            return Ok(());
        }
        let Some(address) = &self.address else { return Ok(()) };
        self.connection = Some((connect(address)?, Decoder::default()));
        self.stream = 1;
        Ok(())
    }

    /// Sends and receives what can be without waiting; an error means that containerd is not there.
    fn advance(&mut self) -> hull_sys::Result<()> {
        self.connect()?;
        loop {
            if !self.in_flight {
                // Between events only the connection's end is of interest.
                let Some(first) = self.queue.front() else { return self.receive().map(drop) };
                let request = Request {
                    service: "containerd.services.events.ttrpc.v1.Events".to_owned(),
                    method: "Forward".to_owned(),
                    payload: first.bytes.clone(),
                    timeout_nano: 0,
                    metadata: Vec::new(),
                };
                self.unsent = encode(self.stream, Kind::Request, &request.encode_to_vec());
                self.stream += 2;
                (self.in_flight, self.asked) = (true, true);
            }
            self.send()?;
            if !self.receive()? {
                return Ok(());
            }
            self.taken();
        }
    }

    fn send(&mut self) -> hull_sys::Result<()> {
        let Some((connection, _)) = &self.connection else { return Ok(()) };
        while !self.unsent.is_empty() {
            match io::write(connection.as_fd(), &self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.is(EAGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }

    /// True once the answer to the event in flight has come, whatever it says: containerd has seen the event.
    fn receive(&mut self) -> hull_sys::Result<bool> {
        let closed = || hull_sys::SysError::new("read", ECONNRESET);
        let stream = self.stream.wrapping_sub(2);
        let Some((connection, decoder)) = &mut self.connection else { return Ok(false) };
        loop {
            while let Some(frame) = decoder.next_frame().map_err(|_| closed())? {
                if frame.kind == Kind::Response && frame.stream == stream {
                    return Ok(true);
                }
            }
            let mut bytes = [0; 1024];
            match io::read(connection.as_fd(), &mut bytes) {
                Ok(0) => return Err(closed()),
                Ok(got) => decoder.feed(&bytes[..got]),
                Err(error) if error.is(EAGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Connects without waiting: a containerd that is stopped with a full queue of clients gives EAGAIN.
fn connect(address: &Path) -> hull_sys::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(hull_sys::SysError::from_rustix("socket"))?;
    let address = SocketAddrUnix::new(address).map_err(hull_sys::SysError::from_rustix("connect"))?;
    connect(&socket, &address).map_err(hull_sys::SysError::from_rustix("connect"))?;
    Ok(socket)
}

impl Engine {
    /// Moves the queue on. Between events the connection is kept, and only its end is of interest.
    pub(super) fn publish(&mut self) {
        let publisher = &mut self.setup.publisher;
        publisher.news = false;
        if publisher.is_idle() && publisher.connection.is_none() {
            return;
        }
        let was_connected = publisher.connection.is_some();
        let advanced = publisher.advance();
        match advanced {
            Ok(()) if publisher.is_idle() => self.timers.stop(&Timer::Publish),
            // News behind an event that is not answered give it no more time.
            Ok(()) if std::mem::take(&mut publisher.asked) => {
                self.timers.set(Timer::Publish, publisher.patience);
            }
            Ok(()) => {}
            Err(_) => {
                publisher.disconnect();
                if !publisher.is_idle() {
                    let pause = publisher.pause;
                    publisher.pause = (pause * 2).min(LAST_PAUSE);
                    self.timers.set(Timer::Publish, pause);
                }
            }
        }
        self.wait_for_event_service(was_connected);
    }

    fn wait_for_event_service(&mut self, was_connected: bool) {
        let publisher = &mut self.setup.publisher;
        let Some((connection, _)) = &publisher.connection else { return };
        let waits_for_room = !publisher.unsent.is_empty();
        if was_connected && waits_for_room == publisher.waits_for_room {
            return;
        }
        let flags = if waits_for_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        publisher.waits_for_room = waits_for_room;
        let waited = if was_connected {
            self.poll.modify(connection.as_fd(), Token::Publisher.into(), flags)
        } else {
            self.poll.add(connection.as_fd(), Token::Publisher.into(), flags)
        };
        if let Err(error) = waited {
            self.warn(format_args!("wait for the event service: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_for_an_answer_begins_with_its_event() {
        let place = hull_testkit::Scratch::new("events");
        let path = place.join("events");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let mut publisher = Publisher::new(Some(path));
        for begins in [true, false, false] {
            publisher.push(Envelope { topic: "/tasks/exit".to_owned(), ..Envelope::default() });
            publisher.advance().unwrap();
            assert_eq!(std::mem::take(&mut publisher.asked), begins);
        }
        publisher.overdue();
        publisher.advance().unwrap();
        assert!(publisher.asked, "it is asked again");
        assert_eq!(publisher.patience, ANSWER_LIMIT * 2);
    }

    #[test]
    fn exits_outlive_the_bound_on_kept_events() {
        let mut publisher = Publisher::new(Some("/nowhere".into()));
        let envelope = |topic: &str, size| Envelope {
            topic: topic.to_owned(),
            namespace: "x".repeat(size),
            ..Envelope::default()
        };
        publisher.push(envelope("/tasks/create", 10));
        publisher.push(envelope("/tasks/exit", 10));
        for _ in 0..10 {
            publisher.push(envelope("/tasks/exec-added", KEPT_LIMIT / 4));
        }
        assert!(publisher.size <= KEPT_LIMIT);
        let vital: Vec<bool> = publisher.queue.iter().map(|kept| kept.vital).collect();
        assert_eq!(vital[..2], [false, true]);
        assert_eq!(publisher.queue.iter().map(|kept| kept.bytes.len()).sum::<usize>(), publisher.size);
    }
}
