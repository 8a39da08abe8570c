//! The container's terminal: taken from the runtime, resized, closed and opened again.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hull_sys::event::EventFlags;
use hull_sys::fd;
use hull_sys::tty::{self, WindowSize};

use super::super::control::{ControlFifo, Request};
use super::{STDOUT, Watch};

/// A terminal that was closed is looked at after this time first, then after twice as long each time, up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_secs(1);

impl Watch<'_> {
    pub(super) fn take_console(&mut self) {
        let Some(console) = &mut self.console else { return };
        let master = match console.receive() {
            Ok(Some(master)) => master,
            Ok(None) => return,
            Err(_) => {
                // It would wake us again at once. There is one more look when the runtime has ended.
                let _ = self.poll.remove(console.readable());
                return;
            }
        };
        self.console = None;
        if let Some(size) = self.size {
            let _ = tty::set_window_size(master.as_fd(), size);
        }
        let copies = [fd::dup_above(master.as_fd(), 3), fd::dup_above(master.as_fd(), 3)];
        let [output, input] = copies;
        self.stdin = input.ok();
        self.terminal = Some(master);
        if let Ok(output) = output
            && self.poll.add(output.as_fd(), STDOUT, EventFlags::IN).is_ok()
        {
            self.outputs[0] = Some(output);
        }
    }

    pub(super) fn take_requests(&mut self) {
        let mut requests = self.control.as_mut().map(ControlFifo::requests).unwrap_or_default();
        requests.extend(self.sizes.as_mut().map(ControlFifo::requests).unwrap_or_default());
        for request in requests {
            match request {
                Request::ReopenLog => self.logs.reopen(),
                Request::Resize { rows, columns } => {
                    let size = WindowSize { rows, columns };
                    self.size = Some(size);
                    if let Some(terminal) = &self.terminal {
                        // A terminal whose other side is gone has no size.
                        let _ = tty::set_window_size(terminal.as_fd(), size);
                    }
                }
            }
        }
    }

    /// Reads again from a terminal that was closed at the last look, and gives it what was typed meanwhile.
    pub(super) fn look_at_terminal(&mut self) {
        let before = self.hung_up;
        self.read_output(0);
        if self.hung_up == before {
            self.hung_up = None;
            if let Some(output) = &self.outputs[0] {
                // It is in the set already when clients held it up meanwhile.
                let _ = self.poll.add(output.as_fd(), STDOUT, EventFlags::IN);
            }
            self.write_input();
            self.settle_clients();
        }
    }

    /// Programs close their terminal and open it again later (an init does, and whatever writes to /dev/console): only with
    /// the container is it closed for good. It is not waited on meanwhile, as that would tell of nothing but the hangup.
    pub(super) fn hang_up(&mut self) {
        self.stop_waiting_for_room();
        if let Some(output) = &self.outputs[0] {
            // It is in the set unless this is another look.
            let _ = self.poll.remove(output.as_fd());
        }
        let span = self.hung_up.map_or(FIRST_LOOK, |(_, span)| (span * 2).min(LAST_LOOK));
        self.hung_up = Some((Instant::now() + span, span));
    }
}
