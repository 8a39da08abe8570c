//! Namespaces to be joined, held open by a process of the suite.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::suite::Suite;
use crate::verdict::{Finding, Stop};

/// A process in namespaces of its own; it ends when this is dropped.
#[derive(Debug)]
pub struct Held {
    child: Child,
    /// The process whose `/proc/PID/ns` shows the namespaces.
    pub pid: i32,
}

impl Held {
    /// Starts one with new namespaces of these types (`net`, `uts`, `ipc`, `pid`, `user`, `mnt`, `cgroup`, `time`).
    ///
    /// # Errors
    /// When the kernel refuses: the machine lacks that type.
    pub fn new(suite: &Suite, kinds: &[&str]) -> Finding<Self> {
        let mut command = Command::new(suite.probe());
        command.arg("hold").args(kinds).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(pid) => Ok(Self { child, pid }),
            Err(_) => {
                child.wait()?;
                Err(Stop::Skip(format!("needs namespaces of the types {}", kinds.join(", "))))
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Its end is what was wanted, and one that has ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
