//! Kills for lack of memory: told by the kernel at once, and counted once more at the container's end.

use std::fs::File;
use std::io::{Error, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use hull_sys::event::{self, WatchFlags};

use super::fields::{lookup, read};
use super::place::Place;

/// Watches one cgroup. It is readable when there may be news; the counter tells whether there are any.
#[derive(Debug)]
pub struct OomWatch {
    directory: PathBuf,
    file: &'static str,
    signal: OwnedFd,
    is_v1: bool,
    seen: u64,
}

impl OomWatch {
    /// Starts to watch; fails where the memory controller is off.
    pub fn new(place: &Place) -> Result<Self, Error> {
        match place {
            Place::V1(controllers) => {
                let directory =
                    controllers.get("memory").ok_or_else(|| Error::other("no memory controller"))?;
                let signal = event::event_fd()?;
                let control = File::open(directory.join("memory.oom_control"))?;
                // cgroup-v1/memory.txt section 9: the kernel takes its own reference to both.
                let mut request = File::options().write(true).open(directory.join("cgroup.event_control"))?;
                request.write_all(format!("{} {}", signal.as_raw_fd(), control.as_raw_fd()).as_bytes())?;
                Ok(Self::with(directory.clone(), "memory.oom_control", signal, true))
            }
            Place::V2(directory) => {
                let signal = event::inotify_fd()?;
                event::add_watch(signal.as_fd(), directory.join("memory.events"), WatchFlags::MODIFY)?;
                Ok(Self::with(directory.clone(), "memory.events", signal, false))
            }
        }
    }

    fn with(directory: PathBuf, file: &'static str, signal: OwnedFd, is_v1: bool) -> Self {
        let seen = lookup(&read(&directory, file), "oom_kill");
        Self { directory, file, signal, is_v1, seen }
    }

    /// What to wait on.
    pub fn signal(&self) -> &OwnedFd {
        &self.signal
    }

    /// True when a process was killed since the last look.
    pub fn look(&mut self) -> bool {
        // Only to make it unreadable again: the counter below is what counts.
        if self.is_v1 {
            let _ = event::take_count(self.signal.as_fd());
        } else {
            let _ = event::read_changes(self.signal.as_fd());
        }
        let now = lookup(&read(&self.directory, self.file), "oom_kill");
        let more = now > self.seen;
        self.seen = self.seen.max(now);
        more
    }
}
