//! Kills for lack of memory: told by the kernel at once, and counted once more at the container's end.
//!
//! On version 2 the kernel tells through inotify, of which a user may have 128 queues (fs.inotify.max_user_instances): root has one
//! for each container. Whoever gets none more learns of the kill at the end.

use std::fs::File;
use std::io::{Error, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use hull_sys::event::{self, WatchFlags};

use super::fields::{lookup, read};
use super::place::Place;

/// Watches one cgroup. Its signal is readable when there may be news; the counter tells whether there are any.
#[derive(Debug)]
pub struct OomWatch {
    directory: PathBuf,
    file: &'static str,
    signal: Option<OwnedFd>,
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
                Ok(Self::with(directory.clone(), "memory.oom_control", Some(signal), true))
            }
            Place::V2(directory) => {
                let file = directory.join("memory.events");
                if !file.exists() {
                    return Err(Error::other("no memory controller"));
                }
                let watched = |queue: OwnedFd| {
                    event::add_watch(queue.as_fd(), &file, WatchFlags::MODIFY)?;
                    Ok::<_, hull_sys::SysError>(queue)
                };
                let signal = event::inotify_fd().and_then(watched).ok();
                Ok(Self::with(directory.clone(), "memory.events", signal, false))
            }
        }
    }

    fn with(directory: PathBuf, file: &'static str, signal: Option<OwnedFd>, is_v1: bool) -> Self {
        let seen = lookup(&read(&directory, file), "oom_kill");
        Self { directory, file, signal, is_v1, seen }
    }

    /// What to wait on, if there is anything; without it the look at the end is the only one.
    pub fn signal(&self) -> Option<&OwnedFd> {
        self.signal.as_ref()
    }

    /// True when a process was killed since the last look.
    pub fn look(&mut self) -> bool {
        // Only to make it unreadable again: the counter below is what counts.
        match &self.signal {
            Some(signal) if self.is_v1 => drop(event::take_count(signal.as_fd())),
            Some(signal) => drop(event::read_changes(signal.as_fd())),
            None => {}
        }
        let now = lookup(&read(&self.directory, self.file), "oom_kill");
        let more = now > self.seen;
        self.seen = self.seen.max(now);
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_with_and_without_a_signal() {
        let directory = std::env::temp_dir().join(format!("hull-oom-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let count =
            |kills| std::fs::write(directory.join("memory.events"), format!("oom 9\noom_kill {kills}\n"));
        assert!(OomWatch::new(&Place::V2(directory.clone())).is_err(), "no memory controller");
        count(1).unwrap();
        let mut told = OomWatch::new(&Place::V2(directory.clone())).unwrap();
        let mut silent = OomWatch::with(directory.clone(), "memory.events", None, false);
        assert!(!told.look() && !silent.look(), "what was before is not its own");
        count(2).unwrap();
        let readable = |watch: &OomWatch| {
            hull_sys::socket::poll_in(watch.signal().unwrap().as_fd(), std::time::Instant::now()).unwrap()
        };
        assert!(readable(&told) && told.look() && silent.look());
        assert!(!readable(&told) && !told.look() && !silent.look());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
