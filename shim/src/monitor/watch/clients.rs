//! Attached clients: the container's input from them, and output that waits for them.

use std::os::fd::{AsFd, BorrowedFd};

use hull_sys::event::{Epoll, EventFlags};
use hull_sys::io;

use super::super::attach::{Client, Received};
use super::{STDERR, STDIN, STDOUT, Watch};

/// Most bytes of input that wait for the container to read them.
const INPUT_LIMIT: usize = 1 << 20;
const EAGAIN: i32 = 11;

impl Watch<'_> {
    /// Output waits while an attached client is far behind; what it has not read is bounded by that.
    pub(super) fn pause_or_resume(&mut self) {
        let reading = !self.clients.values().any(Client::is_behind);
        if reading == self.reading {
            return;
        }
        self.reading = reading;
        for (output, token) in self.outputs.iter().zip([STDOUT, STDERR]) {
            if let Some(output) = output {
                // It fails only for an fd that is not in the set, or twice in it.
                let _ = match reading {
                    true => self.poll.add(output.as_fd(), token, EventFlags::IN),
                    false => self.poll.remove(output.as_fd()),
                };
            }
        }
    }

    pub(super) fn take_clients(&mut self) {
        const CLIENTS_LIMIT: usize = 256;
        while let Some(client) = self.attach.as_ref().and_then(|attach| Client::accept(attach.listener())) {
            if self.clients.len() >= CLIENTS_LIMIT {
                continue;
            }
            let token = self.next_client;
            self.next_client += 1;
            if self.poll.add(client.fd().as_fd(), token, EventFlags::IN).is_ok() {
                self.clients.insert(token, client);
            }
        }
    }

    pub(super) fn serve(&mut self, token: u64, flags: EventFlags) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        if flags.contains(EventFlags::OUT) {
            if !client.flush() {
                return drop(self.clients.remove(&token));
            }
            if !client.has_unsent() {
                let input = if client.sends { EventFlags::IN } else { EventFlags::empty() };
                want(&self.poll, client.fd().as_fd(), token, input);
            }
        }
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) && !flags.contains(EventFlags::IN) {
            return drop(self.clients.remove(&token));
        }
        if !flags.contains(EventFlags::IN) || !client.sends {
            return;
        }
        match client.receive() {
            Received::Input(bytes) => {
                // A client that sends faster than the container reads loses input rather than memory being lost.
                if self.stdin.is_some() && self.input.len() + bytes.len() <= INPUT_LIMIT {
                    self.input.extend(bytes);
                }
                self.write_input();
            }
            Received::EndOfInput => {
                want(&self.poll, client.fd().as_fd(), token, EventFlags::empty());
                if !self.args.leave_stdin_open && !self.args.terminal {
                    self.input_ends = true;
                    self.write_input();
                }
            }
            Received::Nothing => {}
            Received::Gone => drop(self.clients.remove(&token)),
        }
    }

    /// Gives the container what its clients sent, as fast as it reads.
    pub(super) fn write_input(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        while !self.input.is_empty() {
            match io::write(stdin.as_fd(), &self.input) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(error) if error.is(EAGAIN) => {
                    if !self.stdin_waits {
                        self.stdin_waits = self.poll.add(stdin.as_fd(), STDIN, EventFlags::OUT).is_ok();
                    }
                    return;
                }
                Err(_) => {
                    self.input.clear();
                    self.input_ends = !self.args.terminal;
                }
            }
        }
        if self.stdin_waits {
            // It was added above.
            let _ = self.poll.remove(stdin.as_fd());
            self.stdin_waits = false;
        }
        if self.input_ends {
            self.stdin = None;
        }
    }
}

/// Waits for something else on a client from now on.
pub(super) fn want(poll: &Epoll, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) {
    // It fails only for an fd that is not in the set, and every client's is.
    let _ = poll.modify(fd, token, flags);
}
