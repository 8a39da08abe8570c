//! A container in the foreground: signals forwarded, the terminal relayed and restored, the exit status returned.

use crate::error::{Code, Context, Error, Result};
use crate::notify::Listener;
use hull_sys::CWD;
use hull_sys::fs::{FileType, Mode, OFlags, fstat, openat};
use hull_sys::poll::{Until, wait_any};
use hull_sys::process::{Child, WaitStatus, pidfd_send_signal, wait_any_child};
use hull_sys::signal::{self, SignalSet};
use hull_sys::socket::recv_with_fds;
use hull_sys::tty::{RawMode, is_tty, raw_mode, set_window_size, window_size};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

const SIGCHLD: i32 = 17;
const SIGWINCH: i32 = 28;
/// Faults of our own, what cannot be blocked, and job control of our own terminal.
const NOT_FORWARDED: [i32; 12] = [4, 5, 7, 8, 9, 11, 19, 20, 21, 22, 23, 31];

/// SIGHUP, SIGINT, SIGQUIT and SIGTERM.
const TO_END: [i32; 4] = [1, 2, 3, 15];
const EAGAIN: i32 = 11;
/// Most bytes that are read when the program has ended: more than a terminal holds, less than one that it left behind
/// writes for ever.
const LAST: usize = 128 << 10;
/// Most bytes read from the container before they are written, `PIPE_BUF`: a pipe that can be written takes as many.
const AT_ONCE: usize = 4 << 10;

/// Signals, blocked from before the clone so that none is lost.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks what is forwarded, and SIGCHLD.
    pub fn capture() -> Result<Self> {
        let set = NOT_FORWARDED.iter().fold(SignalSet::all(), |set, &number| set.without(number));
        signal::block(&set).context(|| "block signals")?;
        let fd = signal::signal_fd(&set).context(|| "make a signal descriptor")?;
        hull_sys::fd::set_nonblocking(fd.as_fd(), true).context(|| "make a signal descriptor")?;
        Ok(Self { fd })
    }

    /// Whether one has come that asks us to end.
    fn ask_to_end(&self) -> Result<bool> {
        let mut asked = false;
        while let Some(info) = signal::read_signal(self.fd.as_fd()).context(|| "read a signal")? {
            asked |= TO_END.contains(&info.signo);
        }
        Ok(asked)
    }
}

/// The terminal in the foreground: ours raw, the container's master relayed.
#[derive(Debug)]
pub struct Terminal {
    master: std::fs::File,
    /// Restores our terminal when it goes.
    _raw: Option<RawMode>,
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
        let stdin = std::io::stdin();
        let raw = is_tty(stdin.as_fd()).then(|| raw_mode(stdin.as_fd())).transpose();
        let terminal = Self {
            master: master.into(),
            _raw: raw.context(|| "make the terminal raw")?,
            input_open: true,
            pending: Vec::new(),
            unshown: Vec::new(),
            unhurried: output_that_never_waits(),
        };
        terminal.follow_size();
        Ok(terminal)
    }

    /// The container's terminal gets the size of ours.
    fn follow_size(&self) {
        if let Ok(size) = window_size(std::io::stdin().as_fd()) {
            // A terminal that is just closing has no size any more.
            let _closing = set_window_size(self.master.as_fd(), size);
        }
    }

    /// Reads what there is from the container; false at its end.
    fn read_output(&mut self) -> bool {
        let mut buffer = [0; AT_ONCE];
        match self.master.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.unshown.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock || error.kind() == ErrorKind::Interrupted,
        }
    }

    /// Writes of what was read what our output takes; false when nobody reads there.
    fn show(&mut self) -> bool {
        let stdout = std::io::stdout();
        let output = self.unhurried.as_ref().map_or(stdout.as_fd(), AsFd::as_fd);
        match hull_sys::io::write(output, &self.unshown) {
            Ok(count) => {
                self.unshown.drain(..count);
                true
            }
            Err(error) => error.is(EAGAIN),
        }
    }

    /// The terminal, unless a step of copying its output was the last one.
    fn after(mut self, step: impl FnOnce(&mut Self) -> bool) -> Option<Self> {
        step(&mut self).then_some(self)
    }

    /// Our input is read no faster than the container reads.
    fn wants_input(&self) -> bool {
        self.input_open && self.pending.is_empty()
    }

    /// Copies what there is from our input to the container.
    fn copy_in(&mut self) {
        const END_OF_TRANSMISSION: &[u8] = &[4];
        let mut buffer = [0; 4 << 10];
        let bytes = match hull_sys::io::read(std::io::stdin().as_fd(), &mut buffer) {
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
    fn drain(&mut self, signals: &Signals) -> Result<()> {
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
            let stdout = std::io::stdout();
            let fds = [(stdout.as_fd(), Until::Writable), (signals.fd.as_fd(), Until::Readable)];
            match wait_any(&fds, None).context(|| "wait for our output")? {
                Some(0) if !self.unshown.is_empty() && !self.show() => return Ok(()),
                Some(1) if signals.ask_to_end()? => return Ok(()),
                _ => {}
            }
        }
    }
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

/// What [`attend`] waits for.
#[derive(Clone, Copy)]
enum Event {
    Ended,
    Signal,
    Output,
    Shown,
    Input,
    Room,
    Notice,
}

/// Waits for the process, forwarding signals, relaying the terminal and its notice that it is ready; returns how it
/// ended.
pub fn attend(
    child: &Child,
    signals: &Signals,
    mut terminal: Option<Terminal>,
    mut notify: Option<Listener>,
) -> Result<WaitStatus> {
    let pidfd = child.pidfd.as_fd();
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    loop {
        if let Some(status) = reap(child)? {
            if let Some(terminal) = &mut terminal {
                terminal.drain(signals)?;
            }
            return Ok(status);
        }
        let mut events = vec![Event::Ended, Event::Signal];
        let mut fds = vec![(pidfd, Until::Readable), (signals.fd.as_fd(), Until::Readable)];
        let mut watch = |event, fd, until| {
            events.push(event);
            fds.push((fd, until));
        };
        if let Some(notify) = &notify {
            watch(Event::Notice, notify.fd(), Until::Readable);
        }
        if let Some(terminal) = &terminal {
            // Before the output, or a program that writes without end could not be interrupted.
            if terminal.wants_input() {
                watch(Event::Input, stdin.as_fd(), Until::Readable);
            }
            // The container's output is read no faster than ours is, and signals don't wait for that.
            match terminal.unshown.is_empty() {
                true => watch(Event::Output, terminal.master.as_fd(), Until::Readable),
                false => watch(Event::Shown, stdout.as_fd(), Until::Writable),
            }
            if !terminal.pending.is_empty() {
                watch(Event::Room, terminal.master.as_fd(), Until::Writable);
            }
        }
        let ready = wait_any(&fds, None).context(|| "wait for the container")?;
        match ready.map(|index| events[index]) {
            Some(Event::Signal) => forward(pidfd, signals, terminal.as_ref())?,
            // At its end the last process closed its side: our terminal is restored, and the exit status comes next.
            Some(Event::Output) => terminal = terminal.and_then(|it| it.after(Terminal::read_output)),
            Some(Event::Shown) => terminal = terminal.and_then(|it| it.after(Terminal::show)),
            Some(Event::Input) => terminal.iter_mut().for_each(Terminal::copy_in),
            Some(Event::Room) => terminal.iter_mut().for_each(Terminal::write_pending),
            Some(Event::Notice) => {
                // A caller that cannot be told does not end its container.
                let told = notify.as_ref().is_none_or(|notify| notify.hear(child.pid).unwrap_or(true));
                notify = notify.filter(|_| !told);
            }
            Some(Event::Ended) | None => {}
        }
    }
}

fn forward(pidfd: BorrowedFd<'_>, signals: &Signals, terminal: Option<&Terminal>) -> Result<()> {
    while let Some(info) = signal::read_signal(signals.fd.as_fd()).context(|| "read a signal")? {
        match info.signo {
            // Reaped at the top of the loop.
            SIGCHLD => {}
            SIGWINCH if terminal.is_some() => terminal.map_or((), Terminal::follow_size),
            number => {
                // Gone in this moment: the exit status is next.
                let _gone = pidfd_send_signal(pidfd, number);
            }
        }
    }
    Ok(())
}

/// Reaps whatever has ended: as a subreaper we inherit processes whose parents ended. Returns the status of the
/// container's own first process once that is among them.
fn reap(child: &Child) -> Result<Option<WaitStatus>> {
    while let Some((pid, status)) = wait_any_child().context(|| "wait for the container")? {
        if pid == child.pid {
            return Ok(Some(status));
        }
    }
    Ok(None)
}
