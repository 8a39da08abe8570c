//! One direction of one stream: from a pipe, fifo or terminal to a fifo, pipe, terminal or file.

#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use hull_sys::errno::{EAGAIN, EINVAL, EIO, ENOMEM, ENOSPC, EPIPE};
use hull_sys::{SysError, event, io};

use super::far_end::{has_reader, is_hung_up};
use super::spool::Spool;
use super::turn::Turn;

/// Most bytes one stream may move before the others get their turn.
const TURN_LIMIT: usize = 4 << 20;
/// Bytes moved by one splice.
const STEP: usize = 1 << 20;
/// Bytes read at once where splice does not work.
const COPY_STEP: usize = 32 << 10;
/// A reader that is away is looked for after this time first, then after twice as long each time.
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// The longest time between two looks.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// A stream that moved something so shortly before is busy: it is left alone for a moment, so that one turn moves what
/// would have taken many.
const BUSY: Duration = Duration::from_millis(1);
/// How long a busy stream is left alone.
const PAUSE: Duration = Duration::from_millis(1);
/// A stream that moves so much in one turn is a bulk stream.
const MUCH: usize = 32 << 10;
/// How long a bulk stream is left alone. Meanwhile about a third of a grown pipe is written; more, and the pipes would run
/// full and empty; without, each turn would wait for the lock of the pipe, which its writer holds while it copies.
const GATHER: Duration = Duration::from_micros(100);
/// Size of a pipe that nobody has changed (pipe(7)).
const PIPE: usize = 64 << 10;
/// A stream whose pipes were full this many times gets larger ones.
const FULL_BEFORE_GROWTH: u32 = 2;
/// Size of a grown pipe (the kernel's default limit for unprivileged users).
const GROWN_PIPE: usize = 1 << 20;

/// Where a stream goes.
#[derive(Debug)]
pub enum Output {
    /// A fifo whose reader may come and go: what it cannot take meanwhile is spooled.
    Fifo {
        /// Our writing end.
        fd: OwnedFd,
        /// What waits for the reader.
        spool: Spool,
    },
    /// The container's own input: when nobody reads it any more the stream is at its end.
    Inward(OwnedFd),
    /// A file that is appended to, which splice refuses.
    Append(OwnedFd),
    /// The pipe of a logger, whose reader never comes back.
    Logger(OwnedFd),
}

/// A stream under way.
#[derive(Debug)]
pub struct Stream {
    input: OwnedFd,
    output: Output,
    /// Bytes that were read and not yet written, where splice does not work.
    pending: Vec<u8>,
    by_copy: bool,
    input_ended: bool,
    /// The process whose stream it is has ended: a terminal that is closed then is not opened again.
    process_ended: bool,
    /// Its reader was away at the last look.
    away: bool,
    look: Duration,
    /// How often one of its pipes was full.
    full: u32,
    /// What a reader had still to take at the last look after the end of the input, if it was much.
    undelivered: usize,
    /// When it last moved something and found no more.
    last: Option<Instant>,
}

impl Stream {
    /// A stream from `input`, which must not block, to `output`.
    pub fn new(input: OwnedFd, output: Output) -> Self {
        let by_copy = matches!(output, Output::Append(_));
        Self {
            input,
            output,
            pending: Vec::new(),
            by_copy,
            input_ended: false,
            process_ended: false,
            away: false,
            look: FIRST_LOOK,
            full: 0,
            undelivered: 0,
            last: None,
        }
    }

    /// The process whose stream it is has ended.
    pub fn process_has_ended(&mut self) {
        self.process_ended = true;
    }

    /// The end that bytes come from.
    pub fn input(&self) -> &OwnedFd {
        &self.input
    }

    /// The end that bytes go to.
    pub fn output(&self) -> &OwnedFd {
        match &self.output {
            Output::Fifo { fd, .. } | Output::Inward(fd) | Output::Append(fd) | Output::Logger(fd) => fd,
        }
    }

    /// True when nothing can be moved now because its reader is away.
    pub fn reader_is_away(&self) -> bool {
        self.away
    }

    /// True when bytes are known to be on their way (not merely possible).
    pub fn has_backlog(&self) -> bool {
        let spooled = matches!(&self.output, Output::Fifo { spool, .. } if spool.len() > 0);
        spooled || !self.pending.is_empty() || event::bytes_waiting(self.input.as_fd()).unwrap_or(0) > 0
    }

    /// Bytes that came and that the reader, who is there, has not taken yet.
    pub fn unread(&self) -> u64 {
        let waiting = |fd: &OwnedFd| event::bytes_waiting(fd.as_fd()).unwrap_or(0) as u64;
        let kept = match &self.output {
            _ if self.away => return 0,
            Output::Fifo { fd, spool } => spool.len() + waiting(fd),
            Output::Inward(_) | Output::Append(_) | Output::Logger(_) => 0,
        };
        waiting(&self.input) + self.pending.len() as u64 + kept
    }

    /// Moves what can be moved without waiting.
    pub fn take_turn(&mut self) -> Turn {
        let mut moved = 0;
        while moved < TURN_LIMIT {
            match self.step() {
                Ok(Moved::Bytes(more)) => moved += more,
                Ok(Moved::Spliced(more)) => return self.wait_or_pause(moved + more),
                Ok(Moved::Stop(Turn::Input)) if moved > 0 => return self.wait_or_pause(moved),
                Ok(Moved::Stop(turn)) => return turn,
                // Nobody reads there any more.
                Err(error) if error.is(EPIPE) => return Turn::Ended,
                Err(error) => return Turn::Failed(error),
            }
        }
        Turn::Again
    }

    /// What a stream waits for that is up to date: for a moment to pass if it is busy.
    fn wait_or_pause(&mut self, moved: usize) -> Turn {
        let now = Instant::now();
        let before = self.last.replace(now);
        match moved {
            _ if !is_busy(before, now) => Turn::Input,
            ..MUCH => Turn::Look(PAUSE),
            _ => Turn::Gather(GATHER),
        }
    }

    fn step(&mut self) -> Result<Moved, SysError> {
        if self.away {
            return self.step_while_away();
        }
        match self.forward() {
            Ok(Moved::Bytes(0)) if self.input_ended => Ok(Moved::Stop(self.end())),
            Ok(Moved::Bytes(0)) => {
                self.input_ended = true;
                Ok(Moved::Bytes(0))
            }
            Ok(moved) => {
                self.look = FIRST_LOOK;
                Ok(moved)
            }
            Err(error) if error.is(EAGAIN) => Ok(Moved::Stop(self.what_to_wait_for())),
            Err(error) if error.is(EPIPE) => self.lose_reader(error),
            Err(error) if self.is_hangup(error) => Ok(self.hang_up()),
            Err(error) if error.is(EINVAL) && !self.by_copy => {
                self.by_copy = true;
                Ok(Moved::Bytes(0))
            }
            // A full disk or an immutable file: try again later, the container waits.
            Err(_) if matches!(self.output, Output::Append(_)) => {
                Ok(Moved::Stop(Turn::Look(self.next_look())))
            }
            Err(error) if [ENOMEM, ENOSPC].iter().any(|&short| error.is(short)) => {
                Ok(Moved::Stop(Turn::Look(self.next_look())))
            }
            Err(error) => Err(error),
        }
    }

    /// True for the error of a terminal whose other side is closed; a file has the same for a broken disk, be it the log's or
    /// the spool's, which is read first.
    fn is_hangup(&self, error: SysError) -> bool {
        let replays = matches!(&self.output, Output::Fifo { spool, .. } if spool.len() > 0);
        error.is(EIO) && !replays && (error.call == "read" || !matches!(self.output, Output::Append(_)))
    }

    /// Programs close their terminal and open it again later (an init does, and whatever writes to /dev/console): only with
    /// its process is it closed for good. Its file is not waited on meanwhile, as that would tell of nothing but the hangup.
    fn hang_up(&mut self) -> Moved {
        if !self.process_ended {
            return Moved::Stop(Turn::Look(self.next_look()));
        }
        if matches!(self.output, Output::Inward(_)) {
            return Moved::Stop(Turn::Ended);
        }
        self.input_ended = true;
        Moved::Bytes(0)
    }

    /// Moves bytes toward a reader that is there: first what was kept, then what comes. 0 is the end of both.
    fn forward(&mut self) -> Result<Moved, SysError> {
        if let Output::Fifo { fd, spool } = &mut self.output
            && spool.len() > 0
        {
            return spool.replay(fd.as_fd()).map(Moved::Bytes);
        }
        if !self.pending.is_empty() {
            return self.write_pending().map(Moved::Bytes);
        }
        if self.input_ended {
            return Ok(Moved::Bytes(0));
        }
        if !self.by_copy {
            let moved = io::splice(self.input.as_fd(), self.output().as_fd(), STEP)?;
            if moved >= PIPE {
                self.found_full();
            }
            return Ok(match moved {
                0 => Moved::Bytes(0),
                _ => Moved::Spliced(moved),
            });
        }
        match self.fill_pending()? {
            0 => Ok(Moved::Bytes(0)),
            _ => self.write_pending().map(Moved::Bytes),
        }
    }

    fn fill_pending(&mut self) -> Result<usize, SysError> {
        self.pending.resize(COPY_STEP, 0);
        let got = io::read(self.input.as_fd(), &mut self.pending);
        self.pending.truncate(*got.as_ref().unwrap_or(&0));
        if self.pending.is_empty() {
            // An idle stream keeps no buffer.
            self.pending = Vec::new();
        }
        got
    }

    fn write_pending(&mut self) -> Result<usize, SysError> {
        let written = io::write(self.output().as_fd(), &self.pending)?;
        if written == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..written);
        }
        Ok(written)
    }

    /// EAGAIN does not say which end it means; a file always has room, or fails. A terminal that is closed takes what its
    /// buffers hold and no more: to wait for its room would tell of nothing but the hangup, again and again.
    fn what_to_wait_for(&mut self) -> Turn {
        if matches!(self.output, Output::Append(_)) || !self.has_backlog() {
            return Turn::Input;
        }
        if matches!(self.output, Output::Inward(_)) && is_hung_up(self.output()) {
            return if self.process_ended { Turn::Ended } else { Turn::Look(self.next_look()) };
        }
        self.found_full();
        Turn::Room
    }

    fn found_full(&mut self) {
        self.full = self.full.saturating_add(1);
        if self.full == FULL_BEFORE_GROWTH {
            // Best effort: with the kernel's size it only takes more turns.
            let _ = rustix::pipe::fcntl_setpipe_size(&self.input, GROWN_PIPE);
            let _ = rustix::pipe::fcntl_setpipe_size(self.output(), GROWN_PIPE);
        }
    }

    fn lose_reader(&mut self, error: SysError) -> Result<Moved, SysError> {
        if !matches!(self.output, Output::Fifo { .. }) {
            return Err(error);
        }
        self.away = true;
        self.step_while_away()
    }

    /// Looks whether the reader is back; if not, keeps what comes as long as there is room.
    fn step_while_away(&mut self) -> Result<Moved, SysError> {
        let Output::Fifo { fd, spool } = &mut self.output else { return Ok(Moved::Stop(Turn::Ended)) };
        if spool.len() > 0 {
            match spool.replay(fd.as_fd()) {
                Ok(moved) => {
                    self.away = false;
                    return Ok(Moved::Bytes(moved));
                }
                Err(error) if error.is(EAGAIN) => {
                    self.away = false;
                    return Ok(Moved::Stop(Turn::Room));
                }
                // Of a fifo without a reader that is told first: the reader is back, and the spool cannot be read.
                Err(error) if error.is(EIO) => return Err(error),
                Err(_) => {}
            }
        }
        match self.absorb() {
            Ok(0) => {
                self.input_ended = true;
                match &self.output {
                    Output::Fifo { spool, .. } if spool.len() > 0 => {
                        Ok(Moved::Stop(Turn::Look(self.next_look())))
                    }
                    _ => Ok(Moved::Stop(self.end())),
                }
            }
            Ok(moved) => Ok(Moved::Bytes(moved)),
            Err(error) if error.is(EAGAIN) && self.has_backlog() => {
                Ok(Moved::Stop(Turn::InputOrLook(self.next_look())))
            }
            // Nothing to deliver: whether the reader is back shows when there is.
            Err(error) if error.is(EAGAIN) => {
                self.away = false;
                Ok(Moved::Stop(Turn::Input))
            }
            // The spool is full, or its disk: the container waits, as it would without a spool. With nothing in the
            // spool the reader itself is tried next.
            Err(_) => {
                self.away = matches!(&self.output, Output::Fifo { spool, .. } if spool.len() > 0);
                Ok(Moved::Stop(Turn::Look(self.next_look())))
            }
        }
    }

    /// What a reader left in its fifo when it went lasts as long as the fifo is open: ours may be the only end. And while
    /// we have it, it shows how much a reader who is there has still to take.
    fn end(&mut self) -> Turn {
        let Output::Fifo { fd, .. } = &self.output else { return Turn::Ended };
        let unread = event::bytes_waiting(fd.as_fd()).unwrap_or(0);
        self.away = unread > 0 && !has_reader(fd);
        if self.away {
            return Turn::Look(self.next_look());
        }
        let is_much = unread > PIPE || self.undelivered > 0;
        if !is_much || unread == 0 {
            return Turn::Ended;
        }
        if std::mem::replace(&mut self.undelivered, unread) != unread {
            self.look = FIRST_LOOK;
        }
        Turn::Look(self.next_look())
    }

    fn absorb(&mut self) -> Result<usize, SysError> {
        let Output::Fifo { spool, .. } = &mut self.output else { return Ok(0) };
        if spool.room() == 0 {
            return Err(SysError::new("spool", EPIPE));
        }
        if !self.pending.is_empty() {
            let kept = spool.push(&self.pending)?;
            self.pending.drain(..kept);
            return Ok(kept);
        }
        if self.input_ended {
            return Ok(0);
        }
        if !self.by_copy {
            match spool.absorb(self.input.as_fd()) {
                // From a terminal bytes can be spliced into a fifo, not into a file.
                Err(error) if error.is(EINVAL) => self.by_copy = true,
                moved => return moved,
            }
        }
        match self.fill_pending() {
            Err(error) if error.is(EIO) && self.process_ended => Ok(0),
            Ok(got) if got > 0 => self.absorb(),
            other => other,
        }
    }

    fn next_look(&mut self) -> Duration {
        let look = self.look;
        self.look = (look * 2).min(LAST_LOOK);
        look
    }
}

enum Moved {
    Bytes(usize),
    /// All there was, most likely. If not, epoll tells: to try again at once would wait for the lock of the pipe's writer.
    Spliced(usize),
    Stop(Turn),
}

fn is_busy(before: Option<Instant>, now: Instant) -> bool {
    before.is_some_and(|before| now.saturating_duration_since(before) < BUSY)
}
