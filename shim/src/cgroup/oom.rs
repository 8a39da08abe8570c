//! Kills for lack of memory: told by the kernel at once, and counted once more at the container's end.

use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_sys::event::{self, EventFlags};

use super::fields::{lookup, read};
use super::place::Place;

/// Largest `memory.events` that is read; it has a dozen lines.
const LIMIT: usize = 4096;

/// Version 1 tells before it kills: so long after that comes another look, then after twice as long each time ...
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// ... until a wait was no shorter than this; by then nobody has been killed, because that is disabled, or memory was found.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Watches one cgroup. Its signal is ready when there may be news; the counter tells whether there are any.
#[derive(Debug)]
pub struct OomWatch {
    signal: Signal,
    seen: u64,
    again: Option<Duration>,
}

/// How the kernel tells.
#[derive(Debug)]
enum Signal {
    /// Version 1: a counter that it raises, beside the table.
    Counter { counter: OwnedFd, directory: PathBuf },
    /// Version 2: the table is ready for what is urgent once it has changed since it was last read.
    Table(File),
    /// The cgroup is gone.
    None,
}

impl OomWatch {
    /// Starts to watch; fails where the memory controller is off.
    pub fn new(place: &Place) -> Result<Self, Error> {
        let signal = match place {
            Place::V1(controllers) => {
                let directory =
                    controllers.get("memory").ok_or_else(|| Error::other("no memory controller"))?;
                Signal::counter(directory)?
            }
            Place::V2(directory) => Signal::Table(File::open(directory.join("memory.events"))?),
        };
        let mut watch = Self { signal, seen: 0, again: None };
        watch.look();
        Ok(watch)
    }

    /// What to wait on and for, while there is anything.
    pub fn signal(&self) -> Option<(BorrowedFd<'_>, EventFlags)> {
        match &self.signal {
            Signal::Counter { counter, .. } => Some((counter.as_fd(), EventFlags::IN)),
            Signal::Table(table) => Some((table.as_fd(), EventFlags::PRI)),
            Signal::None => None,
        }
    }

    /// True when a process was killed since the last look.
    pub fn look(&mut self) -> bool {
        let now = lookup(&self.table(), "oom_kill");
        let more = now > self.seen;
        self.seen = self.seen.max(now);
        more
    }

    /// After what time to look again, though nothing may tell, if that is of use.
    pub fn look_again(&self) -> Option<Duration> {
        self.again
    }

    /// The table with the number of kills; reading it takes the signal back.
    fn table(&mut self) -> String {
        match &self.signal {
            Signal::Counter { counter, directory } => {
                let is_told = event::take_count(counter.as_fd()).is_ok_and(|count| count > 0);
                self.again = match self.again {
                    _ if is_told => Some(FIRST_LOOK),
                    Some(before) if before < LAST_LOOK => Some(before * 2),
                    _ => None,
                };
                read(directory, "memory.oom_control")
            }
            Signal::Table(table) => {
                let mut bytes = [0; LIMIT];
                match table.read_at(&mut bytes, 0) {
                    Ok(got) => return String::from_utf8_lossy(&bytes[..got]).into_owned(),
                    // Where memory is short the kernel may have none for the text either: its file stays ready.
                    Err(error) if error.kind() == ErrorKind::OutOfMemory => {}
                    // The cgroup is gone, and its file would be ready for ever.
                    Err(_) => self.signal = Signal::None,
                }
                String::new()
            }
            Signal::None => String::new(),
        }
    }
}

impl Signal {
    fn counter(directory: &Path) -> Result<Self, Error> {
        let counter = event::event_fd()?;
        let control = File::open(directory.join("memory.oom_control"))?;
        // cgroup-v1/memory.txt section 9: the kernel takes its own reference to both.
        let mut request = File::options().write(true).open(directory.join("cgroup.event_control"))?;
        request.write_all(format!("{} {}", counter.as_raw_fd(), control.as_raw_fd()).as_bytes())?;
        Ok(Self::Counter { counter, directory: directory.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted_whether_or_not_they_are_told() {
        let directory = std::env::temp_dir().join(format!("hull-oom-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let count =
            |kills| std::fs::write(directory.join("memory.events"), format!("oom 9\noom_kill {kills}\n"));
        let place = Place::V2(directory.clone());
        assert!(OomWatch::new(&place).is_err(), "no memory controller");
        count(1).unwrap();
        let mut watch = OomWatch::new(&place).unwrap();
        assert!(!watch.look(), "what was before is not its own");
        count(2).unwrap();
        assert!(watch.look() && !watch.look());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn kill_that_comes_after_its_signal_is_looked_for_again() {
        let directory = std::env::temp_dir().join(format!("hull-oom-1-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let count =
            |kills| std::fs::write(directory.join("memory.oom_control"), format!("oom_kill {kills}\n"));
        count(0).unwrap();
        let signal = Signal::Counter { counter: event::event_fd().unwrap(), directory: directory.clone() };
        let mut watch = OomWatch { signal, seen: 0, again: None };
        assert!(!watch.look() && watch.look_again().is_none());
        let Some((counter, EventFlags::IN)) = watch.signal() else { panic!("a counter") };
        event::raise_event(counter).unwrap();
        assert!(!watch.look());
        assert_eq!(watch.look_again(), Some(FIRST_LOOK));
        count(1).unwrap();
        assert!(watch.look() && !watch.look());
        let looks = (0..10).take_while(|_| !watch.look() && watch.look_again().is_some()).count();
        assert_eq!(looks, 5, "it ends");
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// A cgroup with a process in it; neither outlives the test, however that ends.
    struct Populated {
        directory: PathBuf,
        sleeper: Option<std::process::Child>,
    }

    impl Populated {
        fn end_sleeper(&mut self) {
            if let Some(mut sleeper) = self.sleeper.take() {
                sleeper.kill().unwrap();
                sleeper.wait().unwrap();
            }
        }
    }

    impl Drop for Populated {
        fn drop(&mut self) {
            self.end_sleeper();
            let _ = std::fs::remove_dir(&self.directory);
        }
    }

    /// Needs no memory controller: every file of a version 2 cgroup that changes tells in the same way.
    #[test]
    fn table_of_version_2_is_ready_when_it_has_changed_and_for_ever_when_it_is_gone() {
        let base = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let Some(base) = base.into_iter().find(|base| base.join("cgroup.controllers").exists()) else {
            return hull_testkit::gate::skipped("no control groups of version 2");
        };
        let directory = base.join(format!("hull-oom-{}", std::process::id()));
        if std::fs::create_dir(&directory).is_err() {
            return hull_testkit::gate::skipped("may not make a cgroup");
        }
        let mut group = Populated { directory: directory.clone(), sleeper: None };
        let table = File::open(directory.join("cgroup.events")).unwrap();
        let mut watch = OomWatch { signal: Signal::Table(table), seen: 0, again: None };
        watch.look();
        let poll = event::Epoll::new(1).unwrap();
        let (fd, flags) = watch.signal().unwrap();
        poll.add(fd, 1, flags).unwrap();
        let mut poll = poll;
        let mut is_ready = |millis| {
            let deadline = std::time::Instant::now() + std::time::Duration::from_millis(millis);
            !poll.wait(Some(deadline)).unwrap().is_empty()
        };
        assert!(!is_ready(0), "nothing has changed");
        let sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let sleeper = group.sleeper.insert(sleeper);
        std::fs::write(directory.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        assert!(is_ready(40_000), "it is populated");
        assert!(!watch.look() && !is_ready(100), "looking takes it back");
        group.end_sleeper();
        assert!(is_ready(40_000), "it is empty");
        std::fs::remove_dir(&directory).unwrap();
        assert!(is_ready(40_000) && !watch.look() && watch.signal().is_none());
        assert!(!is_ready(0), "it would wake its shim again and again");
    }
}
