//! Attached clients: the container's input from them, and output that waits for them.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hull_sys::errno::EAGAIN;
use hull_sys::event::EventFlags;
use hull_sys::io;

use crate::io::is_hung_up;

use super::super::attach::{Client, Received};
use super::{ATTACH, STDERR, STDIN, STDOUT, Watch};

/// While so many bytes of input wait for the container to read them, clients are not asked for more.
const INPUT_LIMIT: usize = 256 << 10;
/// So long nobody is taken when nobody can be.
const RECOVERY: Duration = Duration::from_millis(100);

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
        let is_wanted = self.wants_input();
        while let Some(attach) = &self.attach {
            let mut client = match Client::accept(attach.listener()) {
                Ok(client) => client,
                Err(error) if error.is(EAGAIN) => return,
                Err(_) => {
                    // It is in the set whenever this is called.
                    let _ = self.poll.remove(attach.listener().as_fd());
                    self.deaf_until = Some(Instant::now() + RECOVERY);
                    return;
                }
            };
            if self.clients.len() >= CLIENTS_LIMIT {
                continue;
            }
            let token = self.next_client;
            self.next_client += 1;
            if client.wait_on(&self.poll, token, is_wanted).is_ok() {
                self.clients.insert(token, client);
            }
        }
    }

    /// Waits for clients again after none could be taken (no free descriptor, no memory).
    pub(super) fn listen_again(&mut self) {
        if self.deaf_until.take_if(|until| Instant::now() >= *until).is_some()
            && let Some(attach) = &self.attach
        {
            // If it fails nobody can attach any more, which is no reason to end the container.
            let _ = self.poll.add(attach.listener().as_fd(), ATTACH, EventFlags::IN);
        }
    }

    pub(super) fn serve(&mut self, token: u64, flags: EventFlags) {
        let is_wanted = self.wants_input();
        let Some(client) = self.clients.get_mut(&token) else { return };
        if flags.contains(EventFlags::OUT) {
            client.flush();
        }
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            client.stop_reading();
        }
        let received = if is_wanted && client.sends() { client.receive() } else { Received::Nothing };
        match received {
            // Without an input there is nobody to keep it for.
            Received::Input(bytes) if self.stdin.is_some() => self.input.extend(bytes),
            Received::EndOfInput => self.input_ends |= !self.args.leave_stdin_open && !self.args.terminal,
            Received::Input(_) | Received::Nothing => {}
        }
        self.write_input();
        self.settle_clients();
    }

    /// Waits on each client for what it needs, and lets go of those that need nothing more.
    pub(super) fn settle_clients(&mut self) {
        let is_wanted = self.wants_input();
        let Self { clients, poll, .. } = self;
        clients.retain(|token, client| !client.is_gone() && client.wait_on(poll, *token, is_wanted).is_ok());
    }

    fn wants_input(&self) -> bool {
        self.input.len() < INPUT_LIMIT
    }

    /// Gives the container what its clients sent, as fast as it reads.
    pub(super) fn write_input(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        while !self.input.is_empty() {
            match io::write(stdin.as_fd(), &self.input) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(error) if error.is(EAGAIN) => return self.wait_for_room(),
                Err(_) => {
                    self.input.clear();
                    self.input_ends = !self.args.terminal;
                }
            }
        }
        self.stop_waiting_for_room();
        if self.input_ends {
            self.stdin = None;
        }
    }

    /// A terminal that is closed takes what its buffers hold and no more; whoever waits for its room is told of nothing but the
    /// hangup, again and again. So it is looked at now and then.
    fn wait_for_room(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        if self.terminal.is_some() && is_hung_up(stdin) {
            self.stop_waiting_for_room();
            if self.hung_up.is_none() && self.exit.is_none() {
                self.hang_up();
            }
        } else if !self.stdin_waits {
            self.stdin_waits = self.poll.add(stdin.as_fd(), STDIN, EventFlags::OUT).is_ok();
        }
    }

    pub(super) fn stop_waiting_for_room(&mut self) {
        if let Some(stdin) = self.stdin.as_ref().filter(|_| self.stdin_waits) {
            // It was added above.
            let _ = self.poll.remove(stdin.as_fd());
            self.stdin_waits = false;
        }
    }
}
