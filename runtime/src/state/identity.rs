//! Who a process is, beyond its number: a reused pid is never taken for the container's.

use crate::error::{Code, Context, Error, Result};
use crate::files::read_text;
use hull_sys::errno::{EINVAL, ESRCH};
use hull_sys::process::{Pid, kill_group, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};

/// A pid with its start time and the boot it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process id in the runtime's pid namespace.
    pub pid: i32,
    /// Clock ticks since boot (field 22 of proc_pid_stat(5)).
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// What `/proc/PID/stat` says.
struct Stat {
    ended: bool,
    never_executed: bool,
    start_time: u64,
}

impl ProcessIdentity {
    /// Takes down the identity of a process that exists.
    pub fn of(pid: Pid) -> Result<Self> {
        let stat = read_stat(pid.as_raw())
            .ok_or_else(|| Error::new(Code::InitDied, format!("process {} is gone", pid.as_raw())))?;
        Ok(Self { pid: pid.as_raw(), start_time: stat.start_time, boot_id: boot_id()? })
    }

    /// True while this very process runs; a zombie does not, unless threads of it do (pthread_exit(3) in the first one).
    pub fn is_alive(&self) -> bool {
        read_stat(self.pid).is_some_and(|stat| !stat.ended && stat.start_time == self.start_time)
            && boot_id().is_ok_and(|boot| boot == self.boot_id)
    }

    /// A pidfd of this very process, or nothing when it is gone.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        match pidfd_open(Pid::from_raw(self.pid)) {
            // Checked after the pidfd exists: from here on the number cannot be reused under us.
            Ok(pidfd) => Ok(self.is_alive().then_some(pidfd)),
            Err(error) if error.is(ESRCH) || error.is(EINVAL) => Ok(None),
            Err(error) => Err(Error::sys(format!("open process {}", self.pid), error)),
        }
    }

    /// Sends `signal` to a process that leads, or is about to lead, a session of its own, and to its group.
    pub fn signal_session(&self, signal: i32) -> Result<bool> {
        let Some(_held) = self.open()? else { return Ok(false) };
        // As long as the leader is there no other group has its number.
        let _no_group_yet = kill_group(Pid::from_raw(self.pid), signal);
        self.signal(signal)
    }

    /// Sends `signal`; false when the process is gone.
    pub fn signal(&self, signal: i32) -> Result<bool> {
        let Some(pidfd) = self.open()? else { return Ok(false) };
        match pidfd_send_signal(pidfd.as_fd(), signal) {
            Ok(()) => Ok(true),
            Err(error) if error.is(ESRCH) => Ok(false),
            Err(error) => Err(Error::sys(format!("signal process {}", self.pid), error)),
        }
    }
}

/// True when `pid`, a child that is not reaped yet, has not executed a program since its clone. The kernel clears the
/// mark (`PF_FORKNOEXEC`) before an exec closes descriptors, so after the end of a conversation this tells an exec from a
/// death.
pub fn never_executed(pid: Pid) -> bool {
    read_stat(pid.as_raw()).is_some_and(|stat| stat.never_executed)
}

/// Forked and not executed (include/linux/sched.h).
const PF_FORKNOEXEC: u64 = 0x40;

fn read_stat(pid: i32) -> Option<Stat> {
    let text = read_text(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&text)
}

/// The command name is in parentheses and may hold anything, parentheses included: fields count from the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let flags: u64 = fields.nth(5)?.parse().ok()?;
    let threads: u64 = fields.nth(10)?.parse().ok()?;
    let start_time = fields.nth(1)?.parse().ok()?;
    // The state is the first thread's alone.
    let ended = matches!(state, "Z" | "X" | "x") && threads <= 1;
    Some(Stat { ended, never_executed: flags & PF_FORKNOEXEC != 0, start_time })
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(read_text(path).context(|| format!("read {path}"))?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        let stat = parse_stat("7 (a) b) Z 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0").expect("fields");
        assert!(stat.ended);
        assert_eq!(stat.start_time, 4242);
    }

    #[test]
    fn a_process_lives_as_long_as_one_of_its_threads() {
        let stat = parse_stat("7 (a) Z 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 2 0 4242 0 0").expect("fields");
        assert!(!stat.ended);
    }

    #[test]
    fn only_a_program_that_was_executed_counts() {
        let own = hull_sys::process::effective_pid();
        assert!(!never_executed(own), "this test is one");
        let forked =
            parse_stat("7 (a) S 1 7 7 0 -1 4194368 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0").expect("fields");
        assert!(forked.never_executed);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = ProcessIdentity::of(hull_sys::process::effective_pid()).expect("own identity");
        assert!(own.is_alive());
        assert!(!ProcessIdentity { start_time: own.start_time + 1, ..own.clone() }.is_alive());
        assert!(!ProcessIdentity { boot_id: "other".into(), ..own }.is_alive());
    }
}
