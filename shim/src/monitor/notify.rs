//! sd_notify between the container and the host: its readiness is passed on, nothing else.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::{fd, io, socket};

/// Most messages of one turn: a container that sends without end stops nothing else.
const TURN: u32 = 64;

/// The socket that the container finds, and the host's.
#[derive(Debug)]
pub struct Notify {
    socket: OwnedFd,
    host: PathBuf,
}

impl Notify {
    /// Binds `notify/notify.sock` in the bundle; any user of the container may write to it.
    pub fn new(bundle: &Path, host: &Path) -> Result<Self, String> {
        use std::os::unix::fs::PermissionsExt;
        let directory = bundle.join("notify");
        let failed =
            |error: &dyn std::fmt::Display| format!("notify socket in {}: {error}", directory.display());
        std::fs::create_dir_all(&directory).map_err(|error| failed(&error))?;
        let path = directory.join("notify.sock");
        // One that is left of an earlier life of this container.
        let _ = std::fs::remove_file(&path);
        let opened = std::fs::File::open(&directory).map_err(|error| failed(&error))?;
        let socket =
            socket::bind_datagram_at(opened.as_fd(), "notify.sock").map_err(|error| failed(&error))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
            .map_err(|error| failed(&error))?;
        fd::set_nonblocking(socket.as_fd(), true).map_err(|error| failed(&error))?;
        Ok(Self { socket, host: host.to_owned() })
    }

    /// What to wait on.
    pub fn fd(&self) -> &OwnedFd {
        &self.socket
    }

    /// Passes on that the container is ready, with `main_pid` as the service's process.
    pub fn relay(&self, main_pid: u32) {
        let mut message = [0; 4096];
        for _ in 0..TURN {
            let Ok(got) = io::read(self.socket.as_fd(), &mut message) else { return };
            if is_ready(&message[..got]) {
                let text = format!("MAINPID={main_pid}\nREADY=1");
                // A host that does not listen does not want to know.
                let _ = socket::send_datagram(&self.host, text.as_bytes());
            }
        }
    }
}

fn is_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::is_ready;

    #[test]
    fn only_readiness_is_passed_on() {
        assert!(is_ready(b"STATUS=up\nREADY=1"));
        assert!(!is_ready(b"READY=10"));
        assert!(!is_ready(b"MAINPID=1\nSTOPPING=1"));
    }
}
