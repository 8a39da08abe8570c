//! A container in the foreground: signals forwarded, the terminal relayed and restored, the exit status returned.

mod terminal;

pub use terminal::Terminal;
use terminal::Wanted;

use crate::error::{Context, Result};
use crate::notify::Listener;
use hull_sys::poll::{Until, wait_any};
use hull_sys::process::{Child, WaitStatus, pidfd_send_signal, wait_any_child};
use hull_sys::signal::{self, SignalSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SIGCHLD: i32 = 17;
const SIGWINCH: i32 = 28;
/// Faults of our own, what cannot be blocked, and job control of our own terminal.
const NOT_FORWARDED: [i32; 12] = [4, 5, 7, 8, 9, 11, 19, 20, 21, 22, 23, 31];

/// SIGHUP, SIGINT, SIGQUIT and SIGTERM.
const TO_END: [i32; 4] = [1, 2, 3, 15];
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

/// What [`attend`] waits for.
#[derive(Clone, Copy)]
enum Event {
    Ended,
    Signal,
    Terminal(Wanted),
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
            terminal.watch(|wanted, fd, until| watch(Event::Terminal(wanted), fd, until));
        }
        let look = terminal.as_ref().and_then(Terminal::next_look);
        let ready = wait_any(&fds, look).context(|| "wait for the container")?;
        match ready.map(|index| events[index]) {
            Some(Event::Signal) => forward(pidfd, signals, terminal.as_ref())?,
            Some(Event::Terminal(wanted)) => terminal = terminal.and_then(|it| it.after(wanted)),
            Some(Event::Notice) => {
                // A caller that cannot be told does not end its container.
                let told = notify.as_ref().is_none_or(|notify| notify.hear(child.pid).unwrap_or(true));
                notify = notify.filter(|_| !told);
            }
            None => terminal.iter_mut().for_each(Terminal::look),
            Some(Event::Ended) => {}
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
