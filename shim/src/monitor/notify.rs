//! sd_notify between the container and the host: that it is ready and that it lives is passed on, nothing else.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::{fd, io, socket};

/// Most messages of one turn: a container that sends without end stops nothing else.
const TURN: u32 = 64;
/// What is passed on. The service's main process is for the manager to say: it names the monitor.
const PASSED_ON: [&[u8]; 2] = [b"READY=1", b"WATCHDOG=1"];

/// The socket that the container finds, and the host's.
#[derive(Debug)]
pub struct Notify {
    socket: OwnedFd,
    host: PathBuf,
}

impl Notify {
    /// Binds `notify/notify.sock` in the bundle; any user of the container may write to it.
    pub fn new(bundle: &Path, host: &Path) -> Result<Self, String> {
        let directory = bundle.join("notify");
        let failed =
            |error: &dyn std::fmt::Display| format!("notify socket in {}: {error}", directory.display());
        std::fs::create_dir_all(&directory).map_err(|error| failed(&error))?;
        let path = directory.join("notify.sock");
        // One that is left of an earlier life of this container.
        let _ = std::fs::remove_file(&path);
        let opened = std::fs::File::open(&directory).map_err(|error| failed(&error))?;
        let socket =
            socket::bind_public_datagram_at(opened.as_fd(), "notify.sock").map_err(|error| failed(&error))?;
        fd::set_nonblocking(socket.as_fd(), true).map_err(|error| failed(&error))?;
        Ok(Self { socket, host: host.to_owned() })
    }

    /// What to wait on.
    pub fn fd(&self) -> &OwnedFd {
        &self.socket
    }

    /// Passes on what the container sent, as far as it may be.
    pub fn relay(&self) {
        take_turn(
            |message| io::read(self.socket.as_fd(), message),
            |text| {
                // A host that does not listen does not want to know.
                let _ = socket::send_datagram(&self.host, text);
            },
        );
    }
}

/// Takes messages until none is there, but not for ever.
fn take_turn(mut receive: impl FnMut(&mut [u8]) -> hull_sys::Result<usize>, pass_on: impl Fn(&[u8])) {
    let mut message = [0; 4096];
    for _ in 0..TURN {
        let Ok(got) = receive(&mut message) else { return };
        let text = allowed(&message[..got]);
        if !text.is_empty() {
            pass_on(&text);
        }
    }
}

/// The lines of a message that are passed on.
fn allowed(message: &[u8]) -> Vec<u8> {
    let lines = message.split(|byte| *byte == b'\n');
    lines.filter(|line| PASSED_ON.contains(line)).collect::<Vec<_>>().join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn container_that_sends_without_end_has_its_turn_only() {
        let passed = Cell::new(0);
        let text = b"READY=1";
        let endless = |message: &mut [u8]| {
            message[..text.len()].copy_from_slice(text);
            Ok(text.len())
        };
        take_turn(endless, |_| passed.set(passed.get() + 1));
        assert_eq!(passed.get(), TURN);
        take_turn(|_| Err(hull_sys::SysError::new("read", 11)), |_| passed.set(0));
        assert_eq!(passed.get(), TURN, "nothing came");
    }

    #[test]
    fn readiness_and_life_are_passed_on_and_nothing_else() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"STATUS=up\nREADY=1", b"READY=1"),
            (b"WATCHDOG=1\n", b"WATCHDOG=1"),
            (b"READY=1\nMAINPID=1\nWATCHDOG=1", b"READY=1\nWATCHDOG=1"),
            (b"READY=10\nWATCHDOG=trigger", b""),
            (b"MAINPID=1\nSTOPPING=1", b""),
        ];
        for (message, wanted) in cases {
            assert_eq!(allowed(message), wanted, "{}", String::from_utf8_lossy(message));
        }
    }
}
