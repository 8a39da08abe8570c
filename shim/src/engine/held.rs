//! What is held for a process: its streams, its terminal, its logger.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::event::EventFlags;
use hull_sys::tty::{self, WindowSize};

use crate::background;
use crate::io::{ConsoleSocket, Output, Stream, Turn};
use crate::task::Key;

use super::connections::RECOVERY;
use super::streams::Ends;
use super::{Engine, Patience, Timer, Token, Watched};

/// A process's streams and terminal.
#[derive(Debug, Default)]
pub struct Held {
    /// Streams under way.
    pub flows: Vec<u32>,
    /// Our own writing end of its input.
    pub stdin_keeper: Option<OwnedFd>,
    /// Its terminal, once the runtime has handed it over.
    pub terminal: Option<OwnedFd>,
    /// A size that was asked for before the terminal was there.
    pub early_size: Option<(u16, u16)>,
    /// Where the runtime hands over its terminal.
    pub console: Option<(u32, ConsoleSocket)>,
    /// What goes to and comes from the terminal once it is there.
    pub terminal_input: Option<OwnedFd>,
    /// See `terminal_input`.
    pub terminal_output: Option<Output>,
    /// How its reader stood when its end was told.
    pub stuck: Option<Patience>,
    /// The process has ended.
    pub process_ended: bool,
    /// The container's ends, kept for a restore that comes later.
    pub ends: Option<Ends>,
}

/// A stream and what the loop waits for on it.
#[derive(Debug)]
pub struct Flow {
    /// Whose it is.
    pub key: Key,
    stream: Stream,
    inward: bool,
    waits_for_input: bool,
    waits_for_room: bool,
}

impl Engine {
    /// Puts a stream to work.
    pub(super) fn add_flow(&mut self, key: &Key, input: OwnedFd, output: Output) {
        let inward = matches!(output, Output::Inward(_));
        let id = self.fresh_id();
        let mut stream = Stream::new(input, output);
        let held = self.held.entry(key.clone()).or_default();
        held.flows.push(id);
        if held.process_ended {
            stream.process_has_ended();
        }
        let flow = Flow { key: key.clone(), stream, inward, waits_for_input: false, waits_for_room: false };
        self.flows.insert(id, flow);
        self.turn(id);
    }

    /// Tells a process's streams that it has ended: a terminal that was closed before is at its end now.
    pub(super) fn end_terminal(&mut self, key: &Key) {
        let Some(held) = self.held.get_mut(key) else { return };
        held.process_ended = true;
        let has_terminal = held.terminal.is_some();
        for id in held.flows.clone() {
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.stream.process_has_ended();
            }
            if has_terminal {
                self.turn(id);
            }
        }
    }

    /// Lets a stream move what it can, then waits for what it needs.
    pub(super) fn turn(&mut self, id: u32) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let turn = flow.stream.take_turn();
        match turn {
            Turn::Gather(_) => background::give_way(),
            Turn::Input | Turn::Ended | Turn::Failed(_) => background::compete(),
            _ => {}
        }
        let (input, room, look) = match turn {
            Turn::Input => (true, false, None),
            Turn::Room => (false, true, None),
            Turn::InputOrLook(span) => (true, false, Some(span)),
            Turn::Look(span) | Turn::Gather(span) => (false, false, Some(span)),
            Turn::Again => (false, false, Some(std::time::Duration::ZERO)),
            Turn::Ended => return self.end_flow(id),
            Turn::Failed(error) => {
                let what = if flow.inward { "input" } else { "output" };
                let container = flow.key.container.clone();
                self.warn(format_args!("the {what} of a process of {container} ends early: {error}"));
                return self.end_flow(id);
            }
        };
        let token = Token::Stream(id).into();
        // An fd that is not waited for leaves the set: a closed other end would wake us without being asked for.
        let mut result = Ok(());
        let ends = [
            (flow.stream.input().as_fd(), EventFlags::IN, &mut flow.waits_for_input, input),
            (flow.stream.output().as_fd(), EventFlags::OUT, &mut flow.waits_for_room, room),
        ];
        for (fd, flags, waits, wanted) in ends {
            if *waits != wanted {
                let changed = if wanted { self.poll.add(fd, token, flags) } else { self.poll.remove(fd) };
                *waits = wanted && changed.is_ok();
                result = result.and(changed);
            }
        }
        match look {
            Some(span) => self.timers.set(Timer::Stream(id), span),
            None => self.timers.stop(&Timer::Stream(id)),
        }
        if let Err(error) = result {
            // A regular file as input is always ready and no epoll takes it.
            self.timers.set(Timer::Stream(id), std::time::Duration::from_millis(10));
            self.warn(format_args!("wait for a stream: {error}"));
        }
    }

    fn end_flow(&mut self, id: u32) {
        let Some(flow) = self.flows.remove(&id) else { return };
        self.timers.stop(&Timer::Stream(id));
        if flow.waits_for_input {
            // It was added under this number; closing it below takes it out in any case but a shared terminal's.
            let _ = self.poll.remove(flow.stream.input().as_fd());
        }
        if flow.waits_for_room {
            // The same, and the terminal stays: it would tell of a stream that is no more, for ever.
            let _ = self.poll.remove(flow.stream.output().as_fd());
        }
        if let Some(held) = self.held.get_mut(&flow.key) {
            held.flows.retain(|other| *other != id);
        }
        let key = flow.key.clone();
        drop(flow);
        if self.draining.contains_key(&key) {
            self.check_drained(&key);
        }
    }

    /// How many streams keep what comes until their reader is back.
    pub(super) fn readers_away(&self) -> usize {
        self.flows.values().filter(|flow| flow.stream.reader_is_away()).count()
    }

    /// True while an output stream of a process is not at its end.
    pub(super) fn has_open_output(&self, key: &Key) -> bool {
        let flows = self.held.get(key).into_iter().flat_map(|held| &held.flows);
        flows.filter_map(|id| self.flows.get(id)).any(|flow| !flow.inward)
    }

    /// Bytes of a process's output that readers who are there have not taken yet.
    pub(super) fn unread_output(&self, key: &Key) -> u64 {
        let flows = self.held.get(key).into_iter().flat_map(|held| &held.flows);
        let outputs = flows.filter_map(|id| self.flows.get(id)).filter(|flow| !flow.inward);
        outputs.map(|flow| flow.stream.unread()).sum()
    }

    /// Lets go of everything held for a process.
    pub(super) fn forget(&mut self, key: &Key) {
        let mut held = self.held.remove(key).unwrap_or_default();
        for id in std::mem::take(&mut held.flows) {
            self.end_flow(id);
        }
        if let Some((id, _)) = held.console.take() {
            self.consoles.remove(&id);
        }
        if key.is_init() {
            self.end_jobs_of(&key.container);
            self.sites.remove(&key.container);
            for watched in self.children.values_mut() {
                // Its end is not that of a process of the next container of this name.
                if matches!(watched, Watched::Process(other) if other.container == key.container) {
                    *watched = Watched::Helper;
                }
            }
        }
    }

    /// Opens the socket on which the runtime will hand over the terminal of `key`.
    pub(super) fn expect_console(&mut self, key: &Key, socket: ConsoleSocket) -> hull_sys::Result<()> {
        let id = self.fresh_id();
        self.poll.add(socket.readable(), Token::Console(id).into(), EventFlags::IN)?;
        self.consoles.insert(id, key.clone());
        self.held.entry(key.clone()).or_default().console = Some((id, socket));
        Ok(())
    }

    /// Waits for a terminal again that could not be taken.
    pub(super) fn wait_for_console(&mut self, id: u32) {
        let key = self.consoles.get(&id);
        if let Some((_, socket)) = key.and_then(|key| self.held.get(key)?.console.as_ref())
            && self.poll.add(socket.readable(), Token::Console(id).into(), EventFlags::IN).is_err()
        {
            self.timers.set(Timer::Console(id), RECOVERY);
        }
    }

    /// Takes a terminal and starts to copy from and to it.
    pub(super) fn take_console(&mut self, id: u32) {
        let Some(key) = self.consoles.get(&id).cloned() else { return };
        let Some(held) = self.held.get_mut(&key) else { return };
        let Some((_, socket)) = &mut held.console else { return };
        let received = socket.receive();
        let master = match received {
            Ok(Some(master)) => master,
            Ok(None) => return,
            Err(error) => {
                // As it is in the set until then, it would wake us again at once.
                let _ = self.poll.remove(socket.readable());
                self.timers.set(Timer::Console(id), RECOVERY);
                return self.warn(format_args!("receive the terminal of {}: {error}", key.container));
            }
        };
        held.console = None;
        self.consoles.remove(&id);
        if let Some((width, height)) = held.early_size.take() {
            set_size(&master, width, height);
        }
        let (input, output) = (held.terminal_input.take(), held.terminal_output.take());
        let copies = [hull_sys::fd::dup_above(master.as_fd(), 3), hull_sys::fd::dup_above(master.as_fd(), 3)];
        held.terminal = Some(master);
        let [to, from] = copies;
        if let (Some(output), Ok(from)) = (output, from) {
            self.add_flow(&key, from, output);
        }
        if let (Some(input), Ok(to)) = (input, to) {
            self.add_flow(&key, input, Output::Inward(to));
        }
    }

    /// Sets a terminal's size; without a terminal nothing happens, as with the Go shim.
    pub(super) fn resize(&mut self, key: &Key, width: u16, height: u16) {
        let Some(held) = self.held.get_mut(key) else { return };
        match &held.terminal {
            Some(terminal) => set_size(terminal, width, height),
            None => held.early_size = Some((width, height)),
        }
    }
}

fn set_size(terminal: &OwnedFd, columns: u16, rows: u16) {
    // A terminal whose other side is gone has no size; the caller is told by the container's end.
    let _ = tty::set_window_size(terminal.as_fd(), WindowSize { rows, columns });
}
