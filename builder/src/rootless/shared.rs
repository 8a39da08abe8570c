//! The user and mount namespaces that all containers of an ordinary user's store are in, as long as one of them lives.
//!
//! A container's root is mounted where only who is in the same mount namespace sees it, and its processes may be ended and
//! joined only by who has rights in its user namespace. So whoever has to do with containers joins the namespaces of those
//! that run, and makes new ones where none does. `holders/PID` of the store names processes that are in them: commands, the
//! monitors of containers in the background and the runtimes of those in the foreground, each with the time that it began, as
//! pids are used again.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use hull_sys::CloneFlags;
use hull_sys::namespace::setns;
use hull_sys::process::{Pid, pidfd_open};
use rustix::fs::FlockOperation;

use super::{INSIDE, become_root, complete, inside};
use crate::error::{Error, Result};
use crate::signals;

/// Whether [`enter`] made or joined the namespaces that this process is in.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Whether this is an ordinary user's command, root by its namespaces only. Root of a machine's container is root here,
/// though it may have a map of ids as well: it has control groups and a network of its own.
pub(crate) fn is_entered() -> bool {
    ENTERED.load(Ordering::Relaxed)
}

/// Returns `None` where this process goes on, as root of the namespaces; else another one has, and this is its exit code.
///
/// # Errors
/// Where the kernel or its configuration allows no user namespace: [`Error::NoNamespace`].
pub(crate) fn enter(store: &Path) -> Result<Option<ExitCode>> {
    if rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    if std::env::var_os(INSIDE).is_some() {
        become_root(CloneFlags::NEWUSER | CloneFlags::NEWNS)?;
        ENTERED.store(true, Ordering::Relaxed);
        return Ok(None);
    }
    let holders = Holders::open(store)?;
    // Two that make namespaces at once would not see each other's containers.
    let lock = holders.lock()?;
    for (pid, noted) in holders.living()? {
        if join(pid, &noted)? {
            ENTERED.store(true, Ordering::Relaxed);
            holders.add(std::process::id())?;
            return Ok(None);
        }
    }
    let signals = signals::hold().map_err(Error::io("watch", "signals"))?;
    let mut child = signals.spawn(&mut inside()).map_err(Error::io("start", "hull-build"))?;
    let ready = complete(&mut child).and_then(|()| holders.add(child.id()));
    if let Err(error) = ready {
        // It waits for a map that won't come.
        drop(child.kill());
        drop(child.wait());
        return Err(error);
    }
    drop(lock);
    signals::pass_on(signals, &child).map_err(Error::io("watch", "signals"))?;
    let status = child.wait().map_err(Error::io("wait for", "hull-build"))?;
    Ok(Some(super::code_of(status)))
}

/// Notes that a process of these namespaces stays when this one has ended; nothing to be done where it is in those of its
/// caller.
///
/// # Errors
/// The note cannot be written.
pub(crate) fn is_held_by(store: &Path, pid: u32) -> Result<()> {
    match is_entered() {
        true => note(&Holders::open(store)?, pid),
        false => Ok(()),
    }
}

/// Who looks for the living ones would take a half written note for an old one: not while that is done.
fn note(holders: &Holders, pid: u32) -> Result<()> {
    let _lock = holders.lock()?;
    holders.add(pid)
}

/// Joins the namespaces of the process that began when noted; false if it has ended meanwhile.
fn join(pid: u32, noted: &str) -> Result<bool> {
    let Ok(process) = pidfd_open(Pid::from_raw(pid.cast_signed())) else { return Ok(false) };
    // Only now does the pid stay that of this process; before, it may have become another's.
    if began(pid).as_deref() != Some(noted) {
        return Ok(false);
    }
    let here = std::env::current_dir();
    match setns(process.as_fd(), CloneFlags::NEWUSER | CloneFlags::NEWNS) {
        Ok(()) => {}
        Err(error) if error.errno == rustix::io::Errno::SRCH.raw_os_error() => return Ok(false),
        Err(error) => return Err(Error::system("join the containers' namespaces")(error)),
    }
    // Another mount namespace is entered at its root, and that is left to who has no directory any more.
    match here {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        other => other
            .and_then(std::env::set_current_dir)
            .map_err(Error::io("return to", "the working directory"))?,
    }
    Ok(true)
}

/// The notes of who is in the namespaces.
struct Holders {
    dir: PathBuf,
}

impl Holders {
    fn open(store: &Path) -> Result<Self> {
        let dir = store.join("holders");
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(Error::io("make", &dir))?;
        Ok(Self { dir })
    }

    fn lock(&self) -> Result<fs::File> {
        let path = self.dir.with_extension("lock");
        let file = fs::File::create(&path).map_err(Error::io("open", &path))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| Error::io("lock", &path)(errno.into()))?;
        Ok(file)
    }

    /// The lock must be held: a note that is not whole yet is like an old one.
    fn add(&self, pid: u32) -> Result<()> {
        // A process that has ended already holds nothing.
        let Some(began) = began(pid) else { return Ok(()) };
        let path = self.dir.join(pid.to_string());
        fs::write(&path, began).map_err(Error::io("write", &path))
    }

    /// Those that still live, and when they began; notes of others are removed. The lock must be held.
    fn living(&self) -> Result<Vec<(u32, String)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(Error::io("read", &self.dir))? {
            let path = entry.map_err(Error::io("read", &self.dir))?.path();
            let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let noted = fs::read_to_string(&path).ok();
            match pid.zip(noted).filter(|(pid, noted)| began(*pid).as_ref() == Some(noted)) {
                Some(holder) => found.push(holder),
                // Another command may have been quicker.
                None => drop(fs::remove_file(&path)),
            }
        }
        Ok(found)
    }
}

/// When a process began, in ticks since the start of the machine (proc_pid_stat(5), field 22); nothing of one that has
/// ended, waited for or not.
fn began(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    (*fields.first()? != "Z").then(|| fields.get(19).map(|field| (*field).to_owned()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_that_live_hold_the_namespaces() {
        let scratch = tempfile::tempdir().unwrap();
        let holders = Holders::open(scratch.path()).unwrap();
        let own = std::process::id();
        holders.add(own).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        holders.add(child.id()).unwrap();
        // A pid that is used again, and what is no note.
        fs::write(holders.dir.join("1"), "another").unwrap();
        fs::write(holders.dir.join("x"), "").unwrap();
        assert_eq!(holders.living().unwrap(), [(own, began(own).unwrap())]);
        assert_eq!(fs::read_dir(&holders.dir).unwrap().count(), 1);
    }

    #[test]
    fn a_note_is_never_seen_half_written() {
        let scratch = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let holders = Holders::open(scratch.path()).unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _lock = holders.lock().unwrap();
                    holders.living().unwrap();
                }
            });
            let lost = (0..2000).filter(|_| {
                note(&holders, pid).unwrap();
                !holders.dir.join(pid.to_string()).exists()
            });
            let lost = lost.count();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(lost, 0);
        });
    }
}
