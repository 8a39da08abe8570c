//! Clients: requests in, answers out, in any order, with a bound on everything a client can make us hold.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use hull_sys::errno::EAGAIN;
use hull_sys::event::EventFlags;
use hull_sys::{SysError, fd, identity, io, socket};
use prost::Message;

use crate::task::CallId;
use crate::ttrpc::{Code, Decoder, Frame, Kind, Refusal, Request, Response, encode};

use super::methods;
use super::{Engine, Timer, Token};

/// Most clients at a time.
const CLIENTS_LIMIT: usize = 1024;
/// Most calls of a client that may be unanswered.
const CALLS_LIMIT: usize = 4096;
/// Most bytes of answers that a client may leave unread.
const UNREAD_LIMIT: usize = 16 << 20;
/// Bytes read from a client at once.
const READ_STEP: usize = 8 << 10;

/// So long nobody is taken when nobody can be (no free descriptor, no memory): who waits would wake us again at once.
pub(super) const RECOVERY: Duration = Duration::from_millis(100);

/// A client.
#[derive(Debug)]
struct Connection {
    fd: OwnedFd,
    decoder: Decoder,
    unsent: Vec<u8>,
    waits_for_room: bool,
    calls: usize,
}

impl Connection {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, decoder: Decoder::default(), unsent: Vec::new(), waits_for_room: false, calls: 0 }
    }
}

/// All clients, and whom each unanswered call belongs to.
#[derive(Debug, Default)]
pub struct Connections {
    open: BTreeMap<u32, Connection>,
    calls: BTreeMap<CallId, (u32, u32)>,
    timeouts: BTreeMap<CallId, Duration>,
    last_call: CallId,
    /// The last client that came could not be taken.
    full: bool,
}

impl Connections {
    /// True when no client is connected.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many clients are connected.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True when every answer has been handed to the kernel.
    pub fn is_flushed(&self) -> bool {
        self.open.values().all(|connection| connection.unsent.is_empty())
    }

    /// How long the client of this call will wait for it, if it said so.
    pub fn timeout(&self, call: Option<CallId>) -> Option<Duration> {
        self.timeouts.get(&call?).copied()
    }

    /// So much of that time has gone by.
    pub fn spend(&mut self, call: Option<CallId>, time: Duration) {
        if let Some(left) = call.and_then(|call| self.timeouts.get_mut(&call)) {
            *left = left.saturating_sub(time);
        }
    }
}

impl Engine {
    /// Takes new clients: only those of our own user or root.
    pub(super) fn accept(&mut self) {
        loop {
            match socket::accept(self.setup.listener.as_fd()) {
                Ok(client) => self.welcome(client),
                Err(error) if error.is(EAGAIN) => return,
                Err(error) => return self.stop_listening(&error),
            }
        }
    }

    fn welcome(&mut self, client: OwnedFd) {
        self.connections.full = false;
        let trusted = socket::peer_credentials(client.as_fd())
            .is_ok_and(|peer| peer.uid == 0 || peer.uid == identity::effective_uid());
        if !trusted || self.connections.open.len() >= CLIENTS_LIMIT {
            return;
        }
        let id = self.fresh_id();
        let ready = fd::set_nonblocking(client.as_fd(), true)
            .and_then(|()| self.poll.add(client.as_fd(), Token::Connection(id).into(), EventFlags::IN));
        if ready.is_ok() {
            self.connections.open.insert(id, Connection::new(client));
        }
    }

    fn stop_listening(&mut self, error: &SysError) {
        if !std::mem::replace(&mut self.connections.full, true) {
            self.warn(format_args!("take a client: {error}"));
        }
        // It is in the set whenever this is called; and a second removal would do no harm.
        let _ = self.poll.remove(self.setup.listener.as_fd());
        self.timers.set(Timer::Accept, RECOVERY);
    }

    /// Waits for clients again after [`Engine::stop_listening`].
    pub(super) fn listen(&mut self) {
        if self.poll.add(self.setup.listener.as_fd(), Token::Listener.into(), EventFlags::IN).is_err() {
            self.timers.set(Timer::Accept, RECOVERY);
        }
    }

    /// Reads and writes what can be read from and written to a client.
    pub(super) fn serve(&mut self, id: u32, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(id);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) && !self.read_calls(id) {
            self.hang_up(id);
        }
    }

    /// False when the client is gone or talks nonsense.
    fn read_calls(&mut self, id: u32) -> bool {
        let Some(connection) = self.connections.open.get_mut(&id) else { return true };
        let mut bytes = [0; READ_STEP];
        match io::read(connection.fd.as_fd(), &mut bytes) {
            Ok(0) => return false,
            Ok(got) => connection.decoder.feed(&bytes[..got]),
            Err(error) => return error.is(EAGAIN),
        }
        loop {
            let Some(connection) = self.connections.open.get_mut(&id) else { return true };
            match connection.decoder.next_frame() {
                Ok(Some(frame)) => self.take_frame(id, frame),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn take_frame(&mut self, id: u32, frame: Frame) {
        if frame.kind != Kind::Request {
            return;
        }
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        if connection.calls >= CALLS_LIMIT {
            let refusal = Refusal::new(Code::ResourceExhausted, "too many calls on this connection");
            return self.answer(id, frame.stream, Err(refusal));
        }
        connection.calls += 1;
        self.connections.last_call += 1;
        let call_id = self.connections.last_call;
        self.connections.calls.insert(call_id, (id, frame.stream));
        let decoded = Request::decode(frame.payload.as_slice())
            .map_err(|error| Refusal::new(Code::InvalidArgument, error.to_string()))
            .and_then(|request| Ok((request.timeout_nano, methods::decode(&request)?)));
        match decoded {
            Ok((timeout, call)) => {
                if let Some(timeout) = u64::try_from(timeout).ok().filter(|nanos| *nanos > 0) {
                    self.connections.timeouts.insert(call_id, Duration::from_nanos(timeout));
                }
                let effects = self.pod.call(call_id, call);
                self.todo.extend(effects);
            }
            Err(refusal) => self.reply(call_id, Err(refusal)),
        }
        self.work();
    }

    /// Answers a call, if its client is still there.
    pub(super) fn reply(&mut self, call: CallId, answer: Result<Vec<u8>, Refusal>) {
        self.connections.timeouts.remove(&call);
        let Some((id, stream)) = self.connections.calls.remove(&call) else { return };
        if let Some(connection) = self.connections.open.get_mut(&id) {
            connection.calls -= 1;
        }
        self.answer(id, stream, answer);
    }

    fn answer(&mut self, id: u32, stream: u32, answer: Result<Vec<u8>, Refusal>) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        connection.unsent.extend(encode(stream, Kind::Response, &Response::encode(answer)));
        if connection.unsent.len() > UNREAD_LIMIT {
            self.hang_up(id);
        } else {
            self.flush(id);
        }
    }

    fn flush(&mut self, id: u32) {
        let Some(connection) = self.connections.open.get_mut(&id) else { return };
        while !connection.unsent.is_empty() {
            match io::write(connection.fd.as_fd(), &connection.unsent) {
                Ok(sent) => drop(connection.unsent.drain(..sent)),
                Err(error) if error.is(EAGAIN) => break,
                // Its reading side will tell that it is gone.
                Err(_) => connection.unsent.clear(),
            }
        }
        if connection.unsent.is_empty() {
            connection.unsent = Vec::new();
        }
        let waits_for_room = !connection.unsent.is_empty();
        if waits_for_room == connection.waits_for_room {
            return;
        }
        connection.waits_for_room = waits_for_room;
        let wanted = if waits_for_room { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        // It fails only for an fd that is not in the set, and this one is.
        let _ = self.poll.modify(connection.fd.as_fd(), Token::Connection(id).into(), wanted);
    }

    fn hang_up(&mut self, id: u32) {
        self.connections.open.remove(&id);
        let belongs = |(call, (client, _)): (&CallId, &(u32, u32))| (*client == id).then_some(*call);
        let gone: Vec<CallId> = self.connections.calls.iter().filter_map(belongs).collect();
        for call in &gone {
            self.connections.calls.remove(call);
            self.connections.timeouts.remove(call);
        }
        self.pod.abandon(&gone);
        self.timers.set(Timer::Idle, super::IDLE_LIMIT);
    }
}
