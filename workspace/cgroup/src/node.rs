//! The container's directory in one hierarchy: opened when first needed, every file by its name below it.

use std::cell::OnceCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use hull_sys::fs::{OFlags, read_directory};
use hull_sys::{SysError, io};

use crate::error::{CgroupError, Result};
use crate::hierarchies::{open_below, open_root, read_whole};
use crate::turn::{self, Turn};
use crate::{Place, Version};

/// One directory of a container.
#[derive(Debug)]
pub(crate) struct Node {
    pub place: Place,
    root: OnceCell<Rc<OwnedFd>>,
    dir: OnceCell<Option<Rc<OwnedFd>>>,
}

impl Node {
    /// A directory that nobody has looked at yet.
    pub fn saved(place: Place) -> Self {
        Self { place, root: OnceCell::new(), dir: OnceCell::new() }
    }

    /// A directory that is open already; `None` where it could not be made.
    pub fn opened(place: Place, root: Rc<OwnedFd>, dir: Option<OwnedFd>) -> Self {
        Self { place, root: OnceCell::from(root), dir: OnceCell::from(dir.map(Rc::new)) }
    }

    /// The open directory; `None` when it is gone (or was never there).
    ///
    /// # Errors
    /// It exists and cannot be opened, or the hierarchy is no longer mounted there.
    pub fn dir(&self) -> Result<Option<BorrowedFd<'_>>> {
        if self.dir.get().is_none() {
            let found = self.open_dir()?;
            self.dir.set(found.map(Rc::new)).expect("it was empty two lines above, and there is one thread");
        }
        Ok(self.dir.get().and_then(Option::as_ref).map(|dir| dir.as_fd()))
    }

    /// Does without the directory from now on: the caller may not use it. An empty one is removed.
    pub fn forget(&mut self) {
        if let Ok(root) = self.root() {
            // Whether it could be removed changes nothing: nobody is in it.
            let _ = hull_sys::fs::rmdirat(root, self.below_root());
        }
        self.dir = OnceCell::from(None);
    }

    /// Waits for the turn at the directory; true when it is the caller's, false when it was somebody else's all the
    /// time, and `None` where there is no directory.
    pub fn take_turn(&mut self, deadline: Instant) -> Result<Option<bool>> {
        loop {
            let Some(dir) = self.dir()? else { return Ok(None) };
            let place = (self.root()?, self.below_root());
            let turn = turn::take(dir, place, deadline).map_err(|source| CgroupError::File {
                action: "lock",
                path: self.place.host_path(),
                source,
            })?;
            match turn {
                Turn::Taken => return Ok(Some(true)),
                Turn::Removed if Instant::now() < deadline => self.dir = OnceCell::new(),
                Turn::Removed | Turn::Waiting => return Ok(Some(false)),
            }
        }
    }

    /// The hierarchy's mount point.
    pub fn root(&self) -> Result<BorrowedFd<'_>> {
        if self.root.get().is_none() {
            let root = open_root(&self.place.mount_point, self.place.version)?;
            self.root.set(Rc::new(root)).expect("it was empty two lines above, and there is one thread");
        }
        Ok(self.root.get().expect("set above").as_fd())
    }

    fn open_dir(&self) -> Result<Option<OwnedFd>> {
        match open_below(self.root()?, self.below_root(), OFlags::DIRECTORY | OFlags::RDONLY) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.is(libc::ENOENT) => Ok(None),
            Err(source) => Err(CgroupError::File { action: "open", path: self.place.host_path(), source }),
        }
    }

    /// The path below the mount point, without a slash in front.
    pub fn below_root(&self) -> &str {
        self.place.path.trim_start_matches('/')
    }

    pub fn is_v2(&self) -> bool {
        self.place.version == Version::V2
    }

    /// Reads a file; `None` when the directory or the file is not there, or the kernel does not support reading it.
    pub fn read(&self, file: &str) -> Result<Option<String>> {
        let Some(dir) = self.dir()? else { return Ok(None) };
        match read_whole(dir, file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if GONE.contains(&error.errno) => Ok(None),
            Err(source) => Err(CgroupError::File { action: "read", path: self.path_of(file), source }),
        }
    }

    /// Writes a file with one write(2), as cgroup files want it. `ENOENT` when the directory is gone.
    pub fn write(&self, file: &str, value: &str) -> std::result::Result<(), SysError> {
        match self.dir() {
            Ok(Some(dir)) => write_file(dir, file, value),
            _ => Err(SysError::new("openat2", libc::ENOENT)),
        }
    }

    /// As [`Node::write`], with the path in the error.
    pub fn put(&self, file: &str, value: &str) -> Result<()> {
        let name = |source| CgroupError::File { action: "write", path: self.path_of(file), source };
        self.write(file, value).map_err(name)
    }

    /// Lists what stands between `prefix` and `suffix` in the names of its files, in order.
    pub fn files_between(&self, prefix: &str, suffix: &str) -> Result<Vec<String>> {
        let Some(dir) = self.dir()? else { return Ok(Vec::new()) };
        let fail = |source| CgroupError::File { action: "list", path: self.place.host_path(), source };
        let again = open_below(dir, ".", OFlags::DIRECTORY | OFlags::RDONLY).map_err(fail)?;
        let entries = read_directory(again.as_fd()).map_err(fail)?;
        let middle = |name: &str| Some(name.strip_prefix(prefix)?.strip_suffix(suffix)?.to_owned());
        let mut found: Vec<_> =
            entries.iter().filter_map(|entry| middle(entry.name.to_str().ok()?)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Path of one of its files on the host, for messages.
    pub fn path_of(&self, file: &str) -> String {
        format!("{}/{file}", self.place.host_path())
    }
}

/// What reading a file of a directory that was removed, or of a controller that cannot say, gives.
const GONE: [i32; 3] = [libc::ENOENT, libc::ENODEV, libc::EOPNOTSUPP];

/// Writes `value` to `file` of `dir` at once.
pub(crate) fn write_file(dir: BorrowedFd<'_>, file: &str, value: &str) -> std::result::Result<(), SysError> {
    let opened = open_below(dir, file, OFlags::WRONLY)?;
    io::write(opened.as_fd(), value.as_bytes()).map(drop)
}
