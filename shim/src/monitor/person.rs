//! `hull-monitor attach`: a person's terminal, or whatever the standard streams are, at a container's.

use std::fs;
use std::io::{Error, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hull_sys::errno::{EAGAIN, ECONNRESET, EPIPE};
use hull_sys::signal::{self, SignalSet};
use hull_sys::tty::{self, RawMode};
use hull_sys::{fd, poll, socket};
use rustix::event::{PollFd, PollFlags};

use super::attach::{INPUT, MESSAGE};

/// Bytes of input that are read at once.
const STEP: usize = INPUT / 4;
/// What was typed before the keys may take this long to be sent.
const LAST_SEND: Duration = Duration::from_secs(1);

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;
const SIGPIPE: i32 = 13;
const SIGTERM: i32 = 15;
const SIGWINCH: i32 = 28;

/// How a person has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// By the keys.
    Keys,
    /// By this signal.
    Signal(i32),
    /// With the container.
    Ended,
}

/// Stays with the container whose directory is `home` until it ends, the keys are pressed, or a signal ends it: then a
/// terminal is as it was before.
pub fn attach(home: &Path) -> Result<Left, Error> {
    let directory = fs::File::open(home.join("bundle"))?;
    let connection = socket::connect_seqpacket_at(directory.as_fd(), "attach")?;
    fd::set_nonblocking(connection.as_fd(), true)?;
    // A closed output is an error of a write, not the end of this process.
    signal::block(&SignalSet::empty().with(SIGPIPE))?;
    let terminal = tty::is_tty(std::io::stdin().as_fd()).then(|| Terminal::take(home)).transpose()?;
    let mut person =
        Person { connection, terminal, keys: DetachKeys::default(), unsent: Vec::new(), input_open: true };
    let left = person.stay();
    let had_terminal = person.terminal.take().is_some();
    if had_terminal && matches!(left, Ok(Left::Keys | Left::Signal(_))) {
        // What the container shows stays on its own line. Nobody may be there to see it.
        let _ = writeln!(std::io::stdout());
    }
    left
}

/// A person's terminal in raw mode. It is given back when this is dropped, so the signals that end us by default are read.
struct Terminal<'a> {
    home: &'a Path,
    signals: OwnedFd,
    _raw: RawMode,
}

impl<'a> Terminal<'a> {
    fn take(home: &'a Path) -> Result<Self, Error> {
        let set: SignalSet = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH].into_iter().collect();
        signal::block(&set)?;
        let signals = signal::signal_fd(&set)?;
        let terminal = Self { home, signals, _raw: tty::raw_mode(std::io::stdin().as_fd())? };
        terminal.send_size();
        Ok(terminal)
    }

    /// Lets the container's terminal have the size of this one.
    fn send_size(&self) {
        // A fifo that nobody reads is an error then, not a wait.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let fifo = fs::File::options().write(true).custom_flags(flags).open(self.home.join("bundle/ctl"));
        if let (Ok(size), Ok(mut fifo)) = (tty::window_size(std::io::stdin().as_fd()), fifo) {
            // Without a size the terminal keeps the one it has.
            let _ = fifo.write_all(format!("1 {} {}\n", size.rows, size.columns).as_bytes());
        }
    }

    /// The signal that ends us, if one came.
    fn take_signals(&self) -> Option<i32> {
        while let Ok(Some(info)) = signal::read_signal(self.signals.as_fd()) {
            if info.signo != SIGWINCH {
                return Some(info.signo);
            }
            self.send_size();
        }
        None
    }
}

struct Person<'a> {
    connection: OwnedFd,
    terminal: Option<Terminal<'a>>,
    keys: DetachKeys,
    /// What the monitor does not take yet; output is read meanwhile, as it may be waiting for that.
    unsent: Vec<u8>,
    input_open: bool,
}

impl Person<'_> {
    /// Copies both ways.
    fn stay(&mut self) -> Result<Left, Error> {
        loop {
            let [connection, input, signals] = self.wait()?;
            if signals && let Some(signal) = self.terminal.as_ref().and_then(Terminal::take_signals) {
                return Ok(Left::Signal(signal));
            }
            if input && self.read_input()? {
                self.send_rest();
                return Ok(Left::Keys);
            }
            self.send()?;
            if connection && !self.print_message()? {
                return Ok(Left::Ended);
            }
        }
    }

    /// Waits, and says of which there is something: the connection (to be read), the input, signals.
    fn wait(&self) -> Result<[bool; 3], Error> {
        let stdin = std::io::stdin();
        let wants = |wanted: bool, flags| if wanted { flags } else { PollFlags::empty() };
        let room = wants(!self.unsent.is_empty(), PollFlags::OUT);
        let reads = self.input_open && self.unsent.is_empty();
        let mut polled = vec![PollFd::new(&self.connection, PollFlags::IN | room)];
        polled.extend(self.terminal.as_ref().map(|terminal| PollFd::new(&terminal.signals, PollFlags::IN)));
        // One that is hung up tells it unasked.
        polled.extend(reads.then(|| PollFd::new(&stdin, PollFlags::IN)));
        rustix::event::poll(&mut polled, None)?;
        let is_ready = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let signals = self.terminal.is_some() && is_ready(1);
        let input = reads && is_ready(polled.len() - 1);
        Ok([polled[0].revents().intersects(!PollFlags::OUT), input, signals])
    }

    /// True when the keys were pressed.
    fn read_input(&mut self) -> Result<bool, Error> {
        let mut bytes = vec![0; STEP];
        let got = std::io::stdin().lock().read(&mut bytes)?;
        bytes.truncate(got);
        if got == 0 {
            self.input_open = false;
            self.unsent = self.keys.rest();
            self.send()?;
            rustix::net::shutdown(&self.connection, rustix::net::Shutdown::Write)?;
        }
        if self.terminal.is_none() {
            self.unsent = bytes;
            return Ok(false);
        }
        let (bytes, pressed) = self.keys.take(&bytes);
        self.unsent.extend(bytes);
        Ok(pressed)
    }

    /// Sends what is kept, which is one message, if there is room for it.
    fn send(&mut self) -> Result<(), Error> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match hull_sys::io::write(self.connection.as_fd(), &self.unsent) {
            Ok(_) => self.unsent.clear(),
            Err(error) if error.is(EAGAIN) => {}
            // The container has ended without it; what it said last is still to be read.
            Err(error) if error.is(EPIPE) || error.is(ECONNRESET) => self.unsent.clear(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Sends what was typed before the keys; a container that reads nothing keeps nobody here.
    fn send_rest(&mut self) {
        let deadline = Instant::now() + LAST_SEND;
        while !self.unsent.is_empty()
            && poll::wait_writable(self.connection.as_fd(), Some(deadline)).is_ok_and(|ready| ready)
            && self.send().is_ok()
        {}
    }

    /// Prints a message to the stream that it came from; false when there will be no more.
    fn print_message(&self) -> Result<bool, Error> {
        let mut message = [0; MESSAGE + 1];
        match hull_sys::io::read(self.connection.as_fd(), &mut message) {
            Err(error) if error.is(EAGAIN) => {}
            // Told once, before what is in the queue: some of our input was not read.
            Err(error) if error.is(ECONNRESET) => {}
            Ok(0) | Err(_) => return Ok(false),
            Ok(got) if message[0] == 3 => std::io::stderr().write_all(&message[1..got])?,
            Ok(got) => {
                let mut out = std::io::stdout().lock();
                out.write_all(&message[1..got])?;
                out.flush()?;
            }
        }
        Ok(true)
    }
}

/// The keys that leave, ctrl-p and then ctrl-q, in what is typed.
#[derive(Debug, Default)]
struct DetachKeys {
    /// The first was typed last.
    begun: bool,
}

impl DetachKeys {
    const FIRST: u8 = 16;
    const SECOND: u8 = 17;

    /// What of `bytes` is the container's, and whether the keys were pressed. The first key is kept back until the next one
    /// tells whose it is, as docker and podman do.
    fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut for_container = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            let before = self.rest();
            if byte == Self::SECOND && !before.is_empty() {
                return (for_container, true);
            }
            for_container.extend(before);
            self.begun = byte == Self::FIRST;
            for_container.extend((!self.begun).then_some(byte));
        }
        (for_container, false)
    }

    /// What is kept back.
    fn rest(&mut self) -> Vec<u8> {
        if std::mem::take(&mut self.begun) { vec![Self::FIRST] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_wherever_they_are_and_nothing_else_is_lost() {
        // What is read at once, one after the other; what the container gets; whether the person leaves.
        type Case = (&'static [&'static [u8]], &'static [u8], bool);
        let cases: [Case; 9] = [
            (&[b"abc"], b"abc", false),
            (&[b"\x10\x11"], b"", true),
            (&[b"\x10", b"\x11"], b"", true),
            (&[b"abc\x10\x11def"], b"abc", true),
            (&[b"a\x10", b"b"], b"a\x10b", false),
            (&[b"\x10\x10\x11"], b"\x10", true),
            (&[b"\x11\x10"], b"\x11\x10", false),
            (&[b"\x10x\x11"], b"\x10x\x11", false),
            (&[b"\x10"], b"\x10", false),
        ];
        for (reads, wanted, leaves) in cases {
            let (mut keys, mut got, mut left) = (DetachKeys::default(), Vec::new(), false);
            for bytes in reads {
                let (bytes, pressed) = keys.take(bytes);
                got.extend(bytes);
                left = pressed;
            }
            // The end of the input.
            got.extend(keys.rest());
            assert_eq!((got.as_slice(), left), (wanted, leaves), "{reads:?}");
        }
        assert_eq!(DetachKeys::default().take(b"\x10").0, b"", "it is kept back");
    }
}
