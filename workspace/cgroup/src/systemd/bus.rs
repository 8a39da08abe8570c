//! A connection to a D-Bus daemon: blocking, one thread, every wait with a deadline.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_sys::SysError;
use hull_sys::socket::{connect_stream_within, poll_in};

use super::wire::{self, Argument, ERROR, FIXED, MESSAGE_MAX, Message, REPLY, SIGNAL, Target};

const BUS: Target = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// Why a call did not succeed.
#[derive(Debug)]
pub(super) enum Failed {
    /// There is no way to the bus: its socket, and why.
    Unreachable(PathBuf, SysError),
    /// The connection.
    Io(SysError),
    /// The deadline passed, or what came back was no D-Bus.
    Broken(&'static str),
    /// The called program's answer: (name, text).
    Refused(String, String),
}

pub(super) type Outcome<T> = std::result::Result<T, Failed>;

/// A connection, until a deadline.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    deadline: Instant,
    /// Whose signals are listened to.
    speaker: Option<String>,
    /// Those that came in while an answer was waited for.
    signals: Vec<Message>,
}

impl Bus {
    /// Connects to the socket of a daemon and introduces itself.
    pub fn connect(path: &Path, deadline: Instant) -> Outcome<Self> {
        let unreachable = |error| Failed::Unreachable(path.to_owned(), error);
        let stream = UnixStream::from(connect_stream_within(path, left(deadline)?).map_err(unreachable)?);
        let mut bus = Self { stream, serial: 0, deadline, speaker: None, signals: Vec::new() };
        bus.authenticate()?;
        bus.call(BUS, "Hello", &[])?;
        Ok(bus)
    }

    /// Has the signals of a program delivered from now on, once it has done what `member` asks of it.
    ///
    /// Anybody on the bus may send anybody a signal of any name (the policy of the system bus allows it), also to this
    /// connection alone, whatever it has asked for. So what counts is who sent it: the one who answers here.
    pub fn watch(&mut self, target: Target, signal: &str, member: &str) -> Outcome<()> {
        let Target { destination, interface, .. } = target;
        let rule = format!("type='signal',sender='{destination}',interface='{interface}',member='{signal}'");
        self.call(BUS, "AddMatch", &[Argument::Text(&rule)])?;
        self.speaker = Some(self.call(target, member, &[])?.sender);
        Ok(())
    }

    /// Calls a method and waits for its answer.
    pub fn call(&mut self, target: Target, member: &str, arguments: &[Argument<'_>]) -> Outcome<Message> {
        self.serial += 1;
        let bytes = wire::call(self.serial, target, member, arguments);
        self.send(&bytes)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                REPLY if message.answers == self.serial => return Ok(message),
                ERROR if message.answers == self.serial => {
                    let text = message.texts.into_iter().next().unwrap_or_default();
                    return Err(Failed::Refused(message.error, text));
                }
                _ => self.note(message),
            }
        }
    }

    /// Waits for a signal, which may have come already.
    pub fn signal(&mut self, wanted: impl Fn(&Message) -> bool) -> Outcome<Message> {
        loop {
            if let Some(found) = self.signals.iter().position(&wanted) {
                return Ok(self.signals.swap_remove(found));
            }
            let message = self.receive()?;
            self.note(message);
        }
    }

    /// Keeps a signal that may be waited for.
    fn note(&mut self, message: Message) {
        if message.kind == SIGNAL && self.speaker.as_ref() == Some(&message.sender) {
            self.signals.push(message);
        }
    }

    /// SASL: the kernel tells the daemon who we are (D-Bus specification, "EXTERNAL"). No user id is sent: in a user
    /// namespace ours is not the daemon's.
    fn authenticate(&mut self) -> Outcome<()> {
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\n")?;
        let mut line = self.line()?;
        if line == b"DATA\r\n" {
            line = self.line()?;
        }
        if !line.starts_with(b"OK ") {
            return Err(Failed::Broken("the bus does not let this user in"));
        }
        self.send(b"BEGIN\r\n")
    }

    fn line(&mut self) -> Outcome<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > 1024 {
                return Err(Failed::Broken("the bus does not speak D-Bus"));
            }
            line.extend(self.read_exactly(1)?);
        }
        Ok(line)
    }

    fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        self.stream
            .set_write_timeout(Some(left(self.deadline)?))
            .map_err(|error| io("setsockopt", &error))?;
        self.stream.write_all(bytes).map_err(|error| io("write", &error))
    }

    /// The next message that can be read. Others on the bus may send what they like, as long and in whichever byte order:
    /// that is passed over.
    fn receive(&mut self) -> Outcome<Message> {
        const DAMAGED: Failed = Failed::Broken("the bus sent a damaged message");
        loop {
            let mut bytes = self.read_exactly(FIXED)?;
            let length = wire::length(&bytes).ok_or(DAMAGED)?;
            let message = if length > MESSAGE_MAX {
                self.pass_over(length - FIXED)?;
                None
            } else {
                bytes.extend(self.read_exactly(length - FIXED)?);
                wire::parse(&bytes)
            };
            match message {
                Some(message) => return Ok(message),
                None if wire::is_answer(&bytes) => return Err(DAMAGED),
                None => {}
            }
        }
    }

    fn pass_over(&mut self, mut count: usize) -> Outcome<()> {
        while count > 0 {
            count -= self.read_exactly(count.min(MESSAGE_MAX))?.len();
        }
        Ok(())
    }

    fn read_exactly(&mut self, count: usize) -> Outcome<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut got = 0;
        while got < count {
            if !poll_in(self.stream.as_fd(), self.deadline).map_err(Failed::Io)? {
                return Err(Failed::Broken("no answer in time"));
            }
            match self.stream.read(&mut bytes[got..]).map_err(|error| io("read", &error))? {
                0 => return Err(Failed::Broken("the bus closed the connection")),
                more => got += more,
            }
        }
        Ok(bytes)
    }
}

fn left(deadline: Instant) -> Outcome<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(Failed::Broken("no answer in time")) } else { Ok(left) }
}

fn io(call: &'static str, error: &std::io::Error) -> Failed {
    Failed::Io(SysError::new(call, error.raw_os_error().unwrap_or(libc::EIO)))
}

/// The socket of the system's or the user's own bus: what the environment says, else the usual place.
pub(super) fn address(user: bool) -> PathBuf {
    let name = if user { "DBUS_SESSION_BUS_ADDRESS" } else { "DBUS_SYSTEM_BUS_ADDRESS" };
    let told = std::env::var(name).ok();
    match (told.as_deref().and_then(socket_path), user) {
        (Some(path), _) => PathBuf::from(path),
        (None, false) => PathBuf::from("/run/dbus/system_bus_socket"),
        (None, true) => {
            let uid = hull_sys::identity::effective_uid();
            let runtime = std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| format!("/run/user/{uid}"));
            Path::new(&runtime).join("bus")
        }
    }
}

/// The first socket with a path in a list of addresses (D-Bus specification, "Server addresses"): they are parted by
/// semicolons, their keys by commas, and the keys have no order.
fn socket_path(addresses: &str) -> Option<&str> {
    let sockets = addresses.split(';').filter_map(|address| address.strip_prefix("unix:"));
    sockets.flat_map(|keys| keys.split(',')).find_map(|key| key.strip_prefix("path="))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_bus_that_never_answers_is_given_up_at_the_deadline() {
        let scratch = hull_testkit::place::Scratch::new("bus");
        let path = scratch.join("bus");
        let _listener = UnixListener::bind(&path).unwrap();
        let failed = Bus::connect(&path, Instant::now() + Duration::from_millis(30)).err();
        assert!(matches!(failed, Some(Failed::Broken("no answer in time"))), "{failed:?}");
    }

    #[test]
    fn the_socket_is_the_first_one_with_a_path() {
        let cases = [
            ("unix:path=/run/bus", Some("/run/bus")),
            ("unix:path=/run/bus,guid=1f", Some("/run/bus")),
            ("unix:guid=1f,path=/run/bus", Some("/run/bus")),
            ("unix:abstract=/tmp/x;unix:path=/a;unix:path=/b", Some("/a")),
            ("tcp:host=localhost,port=1;unix:path=/a", Some("/a")),
            ("tcp:path=/a", None),
            ("", None),
        ];
        for (addresses, path) in cases {
            assert_eq!(socket_path(addresses), path, "{addresses}");
        }
    }

    #[test]
    fn a_bus_that_takes_nobody_is_given_up_at_the_deadline() {
        let scratch = hull_testkit::place::Scratch::new("bus");
        let path = scratch.join("bus");
        let directory = std::fs::File::open(scratch.path()).unwrap();
        let listener = hull_sys::socket::listen_stream_at(directory.as_fd(), "bus").unwrap();
        // Each stays in the queue, and the last one finds no place there.
        let connect = || Bus::connect(&path, Instant::now() + Duration::from_millis(10)).err();
        let refused = (0..100).find_map(|_| match connect() {
            Some(Failed::Unreachable(_, error)) => Some(error.errno),
            _ => None,
        });
        drop(listener);
        assert_eq!(refused, Some(libc::EAGAIN));
    }

    #[test]
    fn a_peer_that_talks_something_else_is_refused() {
        let scratch = hull_testkit::place::Scratch::new("bus");
        let path = scratch.join("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
            peer
        });
        let failed = Bus::connect(&path, Instant::now() + Duration::from_secs(10)).err();
        assert!(matches!(failed, Some(Failed::Broken("the bus does not let this user in"))), "{failed:?}");
        drop(server.join().unwrap());
    }
}
