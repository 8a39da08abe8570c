//! The state root and the directories below it.

use super::{ContainerId, Record};
use crate::error::{Code, Context, Error, Result};
use crate::files::{open_own_dir, open_regular};
use hull_sys::errno::{ELOOP, ENOENT, ENOTDIR};
use hull_sys::fs::{DirectoryEntry, read_directory};
use hull_sys::io::read_to_limit;
use hull_sys::{CWD, SysError};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{ErrorKind, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest record that is read, in bytes (R19).
/// It holds the annotations, so it can be longer than the configuration: a control character may take six bytes.
const LONGEST_RECORD: usize = (4 << 20) + 6 * crate::bundle::LONGEST_CONFIG;

/// How long a command waits for another one that changes the same container.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

/// How long a directory without a record may be on its way to one.
const RECORD_DEADLINE: Duration = Duration::from_millis(200);

/// Longest note that is read, in bytes.
const LONGEST_NOTE: usize = 4 << 10;

const RECORD: &str = "state.json";

/// The directory that holds a directory for each container.
#[derive(Debug, Clone)]
pub struct StateRoot {
    path: PathBuf,
}

impl StateRoot {
    /// The state root at `path`; nothing is made yet.
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory of a new container, locked; exactly one of several callers gets it.
    ///
    /// A delete that takes the still empty directory away before it is locked is answered with another one.
    pub fn reserve(&self, id: &ContainerId) -> Result<StateDir> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .context(|| format!("make state root {}", self.path.display()))?;
        let deadline = Instant::now() + LOCK_DEADLINE;
        loop {
            match self.reserve_once(id) {
                Err(error) if error.code == Code::ContainerNotFound && Instant::now() < deadline => {}
                other => return other,
            }
        }
    }

    fn reserve_once(&self, id: &ContainerId) -> Result<StateDir> {
        let path = self.path.join(id.as_str());
        match DirBuilder::new().mode(0o711).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::new(Code::ContainerExists, "container with given ID already exists")
                    .object(id.as_str()));
            }
            Err(error) => return Err(error).context(|| format!("make {}", path.display())),
        }
        let locked = StateDir::open(id.clone(), path.clone()).and_then(|mut directory| {
            directory.lock_now()?;
            Ok(directory)
        });
        match locked {
            Ok(mut directory) => {
                directory.remove_on_drop = true;
                Ok(directory)
            }
            // It is gone, or somebody else's by now.
            Err(error) if matches!(error.code, Code::ContainerNotFound | Code::Timeout) => Err(error),
            Err(error) => {
                // That error is the one to report; an empty directory is what `delete --force` removes.
                let _stays = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    /// Finds an existing container.
    pub fn find(&self, id: &ContainerId) -> Result<StateDir> {
        StateDir::open(id.clone(), self.path.join(id.as_str()))
    }

    /// The ids below the root, in order; entries that cannot be containers are left out.
    pub fn ids(&self) -> Result<Vec<ContainerId>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(|| format!("read {}", self.path.display())),
        };
        let mut ids: Vec<_> = entries
            .filter_map(std::result::Result::ok)
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| ContainerId::parse(entry.file_name().to_str()?).ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

/// The directory of one container.
#[derive(Debug)]
pub struct StateDir {
    id: ContainerId,
    path: PathBuf,
    handle: File,
    locked: bool,
    remove_on_drop: bool,
}

impl StateDir {
    fn open(id: ContainerId, path: PathBuf) -> Result<Self> {
        let handle = match open_own_dir(path.as_path()) {
            Ok(handle) => File::from(handle),
            Err(error) if error.is(ENOENT) || error.is(ENOTDIR) || error.is(ELOOP) => {
                return Err(not_found(&id));
            }
            Err(error) => return Err(Error::sys(format!("open {}", path.display()), error)),
        };
        Ok(Self { id, path, handle, locked: false, remove_on_drop: false })
    }

    /// The container's id.
    pub const fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub const fn handle(&self) -> &File {
        &self.handle
    }

    /// Takes the lock for a change of the life cycle. A container that is not made whole yet is left to its maker for a
    /// while, since between the making of the directory and its lock there is a moment.
    pub fn lock(&mut self) -> Result<()> {
        let deadline = Instant::now() + RECORD_DEADLINE;
        loop {
            self.lock_now()?;
            if Instant::now() >= deadline || self.path.join(RECORD).symlink_metadata().is_ok() {
                return Ok(());
            }
            self.locked = false;
            self.handle.unlock().context(|| "unlock the state directory")?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The directory, with its lock.
    pub fn locked(mut self) -> Result<Self> {
        self.lock()?;
        Ok(self)
    }

    /// Takes the lock; gives up after ten seconds, so a stuck command blocks nobody for good. Who had the lock before
    /// may have deleted the container: then it does not exist.
    fn lock_now(&mut self) -> Result<()> {
        let deadline = Instant::now() + LOCK_DEADLINE;
        loop {
            match self.handle.try_lock() {
                Ok(()) if self.is_in_place() => {
                    self.locked = true;
                    return Ok(());
                }
                Ok(()) => return Err(not_found(&self.id)),
                Err(TryLockError::Error(error)) => return Err(error).context(|| "lock the state directory"),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(Error::new(
                        Code::Timeout,
                        format!("another command has been changing container {} for ten seconds", self.id),
                    ));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// True when another command is changing the container right now. The look is a shared lock, so that it does not
    /// pass for a change itself.
    pub fn is_being_changed(&self) -> bool {
        if self.locked {
            return false;
        }
        match File::open(&self.path) {
            Ok(other) => matches!(other.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(_) => false,
        }
    }

    /// Nobody has removed the directory since it was opened.
    fn is_in_place(&self) -> bool {
        hull_sys::fs::is_in_place(self.handle.as_fd(), CWD, &self.path)
    }

    /// Reads the record.
    pub fn read(&self) -> Result<Record> {
        let file = match open_regular(self.handle.as_fd(), RECORD, false) {
            Err(error) if error.is(ENOENT) => self.open_late()?,
            other => other.map_err(|error| self.unreadable(error))?,
        };
        let bytes = read_to_limit(file.as_fd(), LONGEST_RECORD)
            .context(|| format!("read the state of container {}", self.id))?;
        Record::decode(&bytes, &self.id)
    }

    /// Between its making and its record, and between the removal of both, a container does not exist: both
    /// happen under the lock. Only a directory that nobody is changing for a while is what an interrupted command left,
    /// and an empty one is all that was left of a container.
    fn open_late(&self) -> Result<OwnedFd> {
        let deadline = Instant::now() + RECORD_DEADLINE;
        while !self.locked && Instant::now() < deadline {
            if self.is_being_changed() || !self.is_in_place() {
                return Err(not_found(&self.id));
            }
            match open_regular(self.handle.as_fd(), RECORD, false) {
                Err(error) if error.is(ENOENT) => std::thread::sleep(Duration::from_millis(5)),
                other => return other.map_err(|error| self.unreadable(error)),
            }
        }
        if self.entries().is_ok_and(|entries| entries.is_empty()) {
            return Err(not_found(&self.id));
        }
        Err(Error::new(
            Code::StateDamaged,
            format!("state of container {} is missing: create was interrupted", self.id),
        )
        .hint("'delete --force' removes what is left of it"))
    }

    fn unreadable(&self, error: SysError) -> Error {
        Error::sys(format!("open the state of container {}", self.id), error)
    }

    /// Replaces the record.
    pub fn write(&self, record: &Record) -> Result<()> {
        self.replace(RECORD, record.encode()?.as_bytes())
    }

    /// Writes `name` anew, by a temporary file and a rename.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (temporary, path) = (self.path.join(format!("{name}.new")), self.path.join(name));
        let write = || -> std::io::Result<()> {
            File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?
                .write_all(bytes)?;
            fs::rename(&temporary, &path)
        };
        write().context(|| format!("write {}", path.display()))
    }

    /// Takes a note away again; one that stays is read by nobody who knows better.
    pub fn discard(&self, name: &str) {
        let _stays = fs::remove_file(self.path.join(name));
    }

    /// A note of another command's, if it can be read.
    pub fn note(&self, name: &str) -> Option<Vec<u8>> {
        let file = open_regular(self.handle.as_fd(), name, false).ok()?;
        read_to_limit(file.as_fd(), LONGEST_NOTE).ok()
    }

    /// The configuration as it was at create.
    pub fn config(&self) -> Result<Vec<u8>> {
        let file = open_regular(self.handle.as_fd(), "config.json", false).map_err(|error| {
            // A removal takes it away first, and the record last.
            if error.is(ENOENT) && (self.is_being_changed() || !self.is_in_place()) {
                return not_found(&self.id);
            }
            Error::sys(format!("open the configuration of container {}", self.id), error)
        })?;
        read_to_limit(file.as_fd(), crate::bundle::LONGEST_CONFIG)
            .context(|| format!("read the configuration of container {}", self.id))
    }

    /// What is in it, by the handle: what failed may be that no more files can be opened.
    fn entries(&self) -> std::io::Result<Vec<DirectoryEntry>> {
        // An earlier look moved the handle's offset.
        (&self.handle).rewind()?;
        Ok(read_directory(self.handle.as_fd())?)
    }

    /// Success: the directory stays.
    pub fn keep(&mut self) {
        self.remove_on_drop = false;
    }

    /// Removes the directory and what is in it.
    pub fn remove(mut self) -> Result<()> {
        self.remove_on_drop = false;
        self.remove_all().context(|| format!("remove {}", self.path.display()))
    }

    /// The record goes last, so that an interrupted removal can be taken up again.
    fn remove_all(&self) -> std::io::Result<()> {
        let found = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        };
        for entry in self.entries()? {
            let name = OsStr::from_bytes(entry.name.as_bytes());
            if name != RECORD {
                found(remove_any(&self.path.join(name)))?;
            }
        }
        found(remove_any(&self.path.join(RECORD)))?;
        found(fs::remove_dir(&self.path))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if self.remove_on_drop {
            // The error that led here is the one to report; what stays is found by `delete --force`.
            let _stays = self.remove_all();
        }
    }
}

fn remove_any(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => fs::remove_dir_all(path),
        other => other,
    }
}

fn not_found(id: &ContainerId) -> Error {
    Error::new(Code::ContainerNotFound, "container does not exist").object(id.as_str())
}
