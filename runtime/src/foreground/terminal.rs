//! The terminal of a container in the foreground: ours raw, the container's relayed.

use crate::error::{Code, Context, Error, Result};
use hull_sys::CWD;
use hull_sys::errno::EAGAIN;
use hull_sys::fs::{FileType, Mode, OFlags, fstat, openat};
use hull_sys::poll::{Until, wait_any};
use hull_sys::socket::recv_with_fds;
use hull_sys::tty::{RawMode, is_tty, raw_mode, set_window_size, window_size};
use std::io::{ErrorKind, Read, Stdin, Stdout, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::Signals;

/// Most bytes that are read when the program has ended: more than a terminal holds, less than one that it left behind
/// writes for ever.
const LAST: usize = 128 << 10;
/// Most bytes read from the container before they are written, `PIPE_BUF`: a pipe that can be written takes as many.
const AT_ONCE: usize = 4 << 10;
/// A terminal that the container has closed is looked at again after this time, then after twice as long each time ...
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// ... up to this.
const LAST_LOOK: Duration = Duration::from_millis(640);

/// What a terminal waits for.
#[derive(Clone, Copy)]
pub enum Wanted {
    /// Output of the container.
    Output,
    /// That ours takes what was read.
    Shown,
    /// Our input.
    Input,
    /// Room in the container's terminal.
    Room,
}

/// The terminal in the foreground: ours raw, the container's master relayed.
#[derive(Debug)]
pub struct Terminal {
    master: std::fs::File,
    stdin: Stdin,
    stdout: Stdout,
    /// Restores our terminal when it goes.
    raw: Option<RawMode>,
    /// No process of the container has it open: when to look again, and how long after the last look.
    closed: Option<(Instant, Duration)>,
    input_open: bool,
    /// Read from our input, and not taken by the container yet.
    pending: Vec<u8>,
    /// Read from the container, and not written to our output yet.
    unshown: Vec<u8>,
    /// Our output, opened once more so that a write never waits; none where that cannot be had.
    unhurried: Option<OwnedFd>,
}

impl Terminal {
    /// Receives the master from the container's process and makes our terminal raw.
    pub fn receive(socket: BorrowedFd<'_>) -> Result<Self> {
        let mut name = [0; 64];
        let received = recv_with_fds(socket, &mut name, 1).context(|| "receive the terminal")?;
        let master = received
            .fds
            .into_iter()
            .next()
            .ok_or_else(|| Error::new(Code::Console, "the container's process sent no terminal"))?;
        hull_sys::fd::set_nonblocking(master.as_fd(), true).context(|| "prepare the terminal")?;
        let terminal = Self {
            master: master.into(),
            stdin: std::io::stdin(),
            stdout: std::io::stdout(),
            raw: make_raw().context(|| "make the terminal raw")?,
            closed: None,
            input_open: true,
            pending: Vec::new(),
            unshown: Vec::new(),
            unhurried: output_that_never_waits(),
        };
        terminal.follow_size();
        Ok(terminal)
    }

    /// The container's terminal gets the size of ours.
    pub fn follow_size(&self) {
        if let Ok(size) = window_size(self.stdin.as_fd()) {
            // A terminal that is just closing has no size any more.
            let _closing = set_window_size(self.master.as_fd(), size);
        }
    }

    /// What it waits for now.
    pub fn watch<'a>(&'a self, mut watch: impl FnMut(Wanted, BorrowedFd<'a>, Until)) {
        if self.closed.is_none() {
            // Before the output, or a program that writes without end could not be interrupted. Read no faster than the
            // container reads, and not while nobody can: it is for our own shell to interpret then.
            if self.input_open && self.pending.is_empty() {
                watch(Wanted::Input, self.stdin.as_fd(), Until::Readable);
            }
            if !self.pending.is_empty() {
                watch(Wanted::Room, self.master.as_fd(), Until::Writable);
            }
        }
        // The container's output is read no faster than ours is, and signals don't wait for that.
        match self.unshown.is_empty() {
            true if self.closed.is_none() => watch(Wanted::Output, self.master.as_fd(), Until::Readable),
            true => {}
            false => watch(Wanted::Shown, self.stdout.as_fd(), Until::Writable),
        }
    }

    /// When to [`look`](Self::look), whatever else happens.
    pub fn next_look(&self) -> Option<Instant> {
        self.closed.map(|(at, _)| at)
    }

    /// Looks whether a terminal that was closed is open again.
    pub fn look(&mut self) {
        self.read_output();
    }

    /// Goes on after what it waited for; none when nobody reads our output any more.
    pub fn after(mut self, wanted: Wanted) -> Option<Self> {
        match wanted {
            Wanted::Output => drop(self.read_output()),
            Wanted::Input => self.copy_in(),
            Wanted::Room => self.write_pending(),
            Wanted::Shown if !self.show() => return None,
            Wanted::Shown => {}
        }
        Some(self)
    }

    /// Reads what there is from the container; false when no process has its terminal open.
    fn read_output(&mut self) -> bool {
        let mut buffer = [0; AT_ONCE];
        match self.master.read(&mut buffer) {
            Ok(count) if count > 0 => self.unshown.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // EIO: the last one has closed it. An init process that opens its console for each line does so all the time.
            Ok(_) | Err(_) => {
                self.close();
                return false;
            }
        }
        self.reopen();
        true
    }

    /// Our terminal is as it was while the container has none: keys are signals again, for the container by
    /// way of us.
    fn close(&mut self) {
        let span = self.closed.map_or(FIRST_LOOK, |(_, span)| (span * 2).min(LAST_LOOK));
        self.closed = Some((Instant::now() + span, span));
        self.raw = None;
    }

    fn reopen(&mut self) {
        if self.closed.take().is_some() {
            // Ours may be closing.
            self.raw = make_raw().unwrap_or(None);
            self.follow_size();
        }
    }

    /// Writes of what was read what our output takes; false when nobody reads there.
    fn show(&mut self) -> bool {
        let output = self.unhurried.as_ref().map_or(self.stdout.as_fd(), AsFd::as_fd);
        match hull_sys::io::write(output, &self.unshown) {
            Ok(count) => {
                self.unshown.drain(..count);
                true
            }
            Err(error) => error.is(EAGAIN),
        }
    }

    /// Copies what there is from our input to the container.
    fn copy_in(&mut self) {
        const END_OF_TRANSMISSION: &[u8] = &[4];
        let mut buffer = [0; 4 << 10];
        let bytes = match hull_sys::io::read(self.stdin.as_fd(), &mut buffer) {
            Ok(0) | Err(_) => {
                self.input_open = false;
                END_OF_TRANSMISSION
            }
            Ok(count) => &buffer[..count],
        };
        self.pending.extend_from_slice(bytes);
        self.write_pending();
    }

    /// Writes what the container's terminal has room for.
    fn write_pending(&mut self) {
        match self.master.write(&self.pending) {
            Ok(count) => drop(self.pending.drain(..count)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // Nobody is there to read it any more.
            Err(_) => self.pending.clear(),
        }
    }

    /// What the program wrote last, after it ended; given up at a signal that asks us to end.
    pub fn drain(&mut self, signals: &Signals) -> Result<()> {
        let ready = |master: &std::fs::File| {
            hull_sys::poll::wait_readable(master.as_fd(), Some(Instant::now())) == Ok(true)
        };
        let mut left = LAST;
        loop {
            if self.unshown.is_empty() {
                if left == 0 || !(ready(&self.master) && self.read_output()) {
                    return Ok(());
                }
                left = left.saturating_sub(self.unshown.len());
            }
            let fds = [(self.stdout.as_fd(), Until::Writable), (signals.fd.as_fd(), Until::Readable)];
            match wait_any(&fds, None).context(|| "wait for our output")? {
                Some(0) if !self.unshown.is_empty() && !self.show() => return Ok(()),
                Some(1) if signals.ask_to_end()? => return Ok(()),
                _ => {}
            }
        }
    }
}

/// Our input is a terminal, or is left as it is.
fn make_raw() -> hull_sys::Result<Option<RawMode>> {
    let stdin = std::io::stdin();
    is_tty(stdin.as_fd()).then(|| raw_mode(stdin.as_fd())).transpose()
}

/// Another description of our output: to set a flag on the one that we were given would set it for others, too.
fn output_that_never_waits() -> Option<OwnedFd> {
    let stdout = std::io::stdout();
    let is_pipe =
        fstat(stdout.as_fd()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    // A file would be written from its beginning, a socket cannot be opened.
    if !is_pipe && !is_tty(stdout.as_fd()) {
        return None;
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat(CWD, "/proc/self/fd/1", flags, Mode::empty()).ok()
}
