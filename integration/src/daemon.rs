//! A manager's daemon: started by the test, stopped by its id, its log shown when the test fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hull_testkit::call::{PATIENCE, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a daemon with its output in `log` and waits until `socket` answers the existence test.
    ///
    /// # Panics
    /// When it cannot be started or makes no socket in time.
    #[must_use]
    pub fn start(command: &mut Command, log: &Path, socket: &Path) -> Self {
        let file = File::create(log).expect("make the daemon's log");
        let errors = file.try_clone().expect("duplicate a descriptor");
        let child =
            command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn().expect("start the daemon");
        let mut daemon = Self { child, log: log.to_path_buf() };
        let up = eventually(PATIENCE, || socket.exists() || daemon.ended());
        assert!(up && !daemon.ended(), "{command:?} did not come up");
        daemon
    }

    /// The daemon's process id.
    ///
    /// # Panics
    /// Never: ids of processes are positive.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().expect("ask for a child of ours").is_some()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.ended() {
            // It may end between the question and the signal; its id is ours until it has been waited for.
            let _ = kill_process(self.pid(), Signal::TERM);
        }
        if !eventually(PATIENCE, || self.ended()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("level=info")).collect();
            eprintln!("the daemon's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
