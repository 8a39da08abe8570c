//! Signals and ended children.

use hull_sys::process::{self, Pid, WaitStatus};
use hull_sys::signal;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::runtime::{Runtime, Streams};
use crate::task::{Exit, Key};

use super::{EXECS_GRACE, Engine, Patience, Timer, Watched, libc_signal};

/// The end of a process whose reader has more to read than this is held until it has: some clients close their end when
/// they hear of it. As much as the pipe of a shim that moves everything at once may hold.
const MUCH: u64 = 64 << 10;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// How long a kill that nobody waits for may take.
const KILL_LIMIT: Duration = Duration::from_secs(30);

impl Engine {
    /// Takes pending signals.
    pub(super) fn take_signals(&mut self) {
        while let Ok(Some(info)) = signal::read_signal(self.signals.as_fd()) {
            match info.signo {
                libc_signal::TERM | libc_signal::INT => self.leaving = Some(std::time::Instant::now()),
                // People are told to send it to containerd's own shim for a dump.
                libc_signal::USR1 => self.warn(format_args!(
                    "{} containers, {} streams ({} without a reader), {} children",
                    self.sites.len(),
                    self.flows.len(),
                    self.readers_away(),
                    self.children.len()
                )),
                _ => {}
            }
        }
        self.reap();
    }

    fn reap(&mut self) {
        loop {
            match process::wait_any_child() {
                Ok(Some((pid, status))) => self.reaped(pid.as_raw(), status),
                Ok(None) => break,
                Err(error) => {
                    self.warn(format_args!("wait for children: {error}"));
                    break;
                }
            }
        }
    }

    fn reaped(&mut self, pid: i32, status: WaitStatus) {
        let exit = Exit { status: u32::try_from(status.code()).unwrap_or(255), at: self.clock.now() };
        match self.children.remove(&pid) {
            Some(Watched::Job(running)) => self.job_ended(pid, running, status.code()),
            Some(Watched::Process(key)) => self.process_ended(&key, exit),
            Some(Watched::Root(job)) => self.root_job_ended(pid, *job, status.code()),
            Some(Watched::LateMount(rootfs)) => self.late_mount_ended(&rootfs),
            Some(Watched::Helper) => self.timers.stop(&Timer::Job(pid)),
            None => self.unclaimed.keep(pid, exit),
        }
        self.work();
    }

    /// The process `pid` is the one of `key`: it is watched from now on, or has ended already.
    pub(super) fn claim(&mut self, pid: u32, key: &Key) {
        let Ok(pid) = i32::try_from(pid) else { return };
        // The end of an earlier process of this number says nothing of one that is our child now.
        let lives = !self.children.contains_key(&pid) && process::is_child(Pid::from_raw(pid));
        match self.unclaimed.claim(pid) {
            Some(exit) if !lives => self.process_ended(key, exit),
            _ => drop(self.children.insert(pid, Watched::Process(key.clone()))),
        }
    }

    pub(super) fn process_ended(&mut self, key: &Key, exit: Exit) {
        // The kill for lack of memory comes before the exit that it caused.
        let oom = self.sites.get(&key.container).and_then(|site| Some(site.oom.as_ref()?.0));
        if let Some(id) = oom {
            self.look_for_oom(id);
        }
        if key.is_init() {
            let recorded = self.sites.get(&key.container).map(|site| site.bundle.record_exit(exit));
            if let Some(Err(error)) = recorded {
                // It is in memory all the same.
                self.warn(format_args!("record the end of {}: {error}", key.container));
            }
        }
        self.end_terminal(key);
        let unread = self.unread_output(key);
        let effects = self.pod.exited(key, exit, unread > MUCH);
        self.todo.extend(effects);
        if unread > MUCH {
            self.ending.insert(key.clone(), Patience::new(unread, Instant::now()));
            self.timers.set(Timer::Output(key.clone()), LOOK);
        }
    }

    /// Looks whether the end of a process needs to be held any longer.
    pub(super) fn look_for_output(&mut self, key: &Key) {
        let unread = self.unread_output(key);
        let Some(patience) = self.ending.get_mut(key) else { return };
        if !patience.is_over(unread, Instant::now()) && unread > 0 {
            return self.timers.set(Timer::Output(key.clone()), LOOK);
        }
        let patience = self.ending.remove(key);
        if let Some(held) = self.held.get_mut(key) {
            held.stuck = patience;
        }
        let effects = self.pod.output_arrived(key);
        self.todo.extend(effects);
        self.work();
    }

    /// Tells of a kill for lack of memory if there was one.
    pub(super) fn look_for_oom(&mut self, id: u32) {
        let mut watched = self.sites.iter_mut().filter_map(|(name, site)| Some((name, site.oom.as_mut()?)));
        let Some((name, (_, watch))) = watched.find(|(_, (number, _))| *number == id) else { return };
        let (container, is_killed) = (name.clone(), watch.look());
        match watch.look_again() {
            Some(span) => self.timers.set(Timer::Oom(id), span),
            None => self.timers.stop(&Timer::Oom(id)),
        }
        if !is_killed {
            return;
        }
        let effects = self.pod.oom(&container);
        self.todo.extend(effects);
    }

    /// A container's init has ended. Without a pid namespace of its own the rest of it lives on and must be killed.
    pub(super) fn init_ended(&mut self, container: String, await_execs: bool) {
        if let Some(site) = self.sites.get(&container).filter(|site| site.shares_pid_namespace) {
            let verb = Runtime::kill(&container, 9, true);
            match site.runtime.start(&site.bundle.file("log-kill.json"), verb, &Streams::default()) {
                Ok(child) => {
                    let pid = child.pid.as_raw();
                    self.children.insert(pid, Watched::Helper);
                    self.timers.set(Timer::Job(pid), KILL_LIMIT);
                }
                Err(error) => self.warn(format_args!("kill what is left of {container}: {error}")),
            }
        }
        if await_execs {
            self.timers.set(Timer::Execs(container), EXECS_GRACE);
        }
    }
}
