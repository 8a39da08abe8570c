//! Signals for everything in the container, and the end of it.

use std::time::{Duration, Instant};

use hull_sys::Pid;
use hull_sys::process::kill;

use crate::cgroup::Cgroup;
use crate::error::{CgroupError, Result};
use crate::freeze::{ThawOnDrop, is_frozen_node, thaw_step};
use crate::node::Node;
use crate::processes::below;
use crate::wait::wait_until;

/// How long one round of stop, kill and let go may wait for the stop, and for the deaths.
const ROUND: Duration = Duration::from_millis(100);
/// How many processes are named when the deadline passes.
const NAMED: usize = 8;

impl Cgroup {
    /// Sends `signal` to every process of the container, stopped meanwhile so that none is missed by being born.
    /// A container that was frozen stays frozen. On version 2 `SIGKILL` is the one write of `cgroup.kill`
    /// (cgroup-v2.rst, "Core Interface Files"), which no fork outruns and nobody who is frozen waits out.
    ///
    /// # Errors
    /// The list cannot be read, or a signal may not be sent.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        let Some(node) = self.main() else { return Ok(()) };
        if signal == libc::SIGKILL && node.is_v2() && self.kill_v2(node)? {
            return Ok(());
        }
        let _thaw = self.stop_for_a_while(Instant::now() + ROUND);
        send(&below(node, true)?, signal, node)
    }

    /// Kills every process of the container and waits until none is left: `cgroup.kill` where there is a version 2
    /// directory, and in version 1 hierarchies rounds of stop, kill and let go with new forks forbidden. A frozen
    /// container is thawed, as nobody dies frozen there.
    ///
    /// # Errors
    /// Processes are left at `deadline`: they are named with what they wait for.
    pub fn kill_all(&self, deadline: Instant) -> Result<()> {
        let mut sent = false;
        if let Some(node) = self.v2() {
            sent = self.kill_v2(node)?;
        }
        let Some(node) = self.v1("freezer").or_else(|| self.main()) else { return Ok(()) };
        if let Some(pids) = self.v1("pids") {
            // Best effort: the rounds below end without it too, as long as forks are slower than signals.
            let _ = pids.write("pids.max", "0");
        }
        loop {
            if is_frozen_node(node)? {
                thaw_step(node)?;
            }
            let round = if sent { deadline.min(Instant::now() + ROUND) } else { Instant::now() };
            if wait_until(round, || below(node, true).map(|found| found.is_empty()))? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(left_over(node)?);
            }
            let _thaw = self.stop_for_a_while(deadline.min(Instant::now() + ROUND));
            send(&below(node, true)?, libc::SIGKILL, node)?;
            sent = true;
        }
    }

    /// Kills the version 2 subtree at once; false on a kernel without the file, which leaves it to the rounds.
    fn kill_v2(&self, node: &Node) -> Result<bool> {
        match node.write("cgroup.kill", "1") {
            Ok(()) => Ok(true),
            Err(error) if error.is(libc::ENOENT) => Ok(false),
            Err(source) => {
                Err(CgroupError::File { action: "write", path: node.path_of("cgroup.kill"), source })
            }
        }
    }

    /// Stops the processes until the guard is dropped. `None` when they were stopped before, cannot be stopped, or do
    /// not stop in time: the signal is sent all the same.
    fn stop_for_a_while(&self, deadline: Instant) -> Option<ThawOnDrop<'_>> {
        let freezer = self.freezer().ok()?;
        let running = is_frozen_node(freezer).is_ok_and(|frozen| !frozen);
        // Made for who was stopped here alone: a guard that is not handed out thaws just as well.
        (running && self.freeze(deadline).is_ok()).then(|| ThawOnDrop(freezer))
    }
}

/// Sends a signal to each; one that is gone by now has what it was to get.
fn send(pids: &[i32], signal: i32, node: &Node) -> Result<()> {
    for &pid in pids {
        match kill(Pid::from_raw(pid), signal) {
            Err(error) if !error.is(libc::ESRCH) => {
                let path = format!("process {pid} of {}", node.place.host_path());
                return Err(CgroupError::File { action: "signal", path, source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Names who does not die, and the kernel function each one waits in.
fn left_over(node: &Node) -> Result<CgroupError> {
    let pids = below(node, true)?;
    let named: Vec<_> = pids
        .iter()
        .take(NAMED)
        .map(|pid| {
            let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
            let state = if wchan.is_empty() || wchan == "0" { "running" } else { wchan.as_str() };
            format!("{pid} in {state}")
        })
        .collect();
    let more = if pids.len() > NAMED { format!(" and {} more", pids.len() - NAMED) } else { String::new() };
    let detail = format!(" (not dead yet: {}{more})", named.join(", "));
    Ok(CgroupError::Late { what: "kill the processes of", path: node.place.host_path(), detail })
}
