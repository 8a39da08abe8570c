//! [`Root`]: a directory below which every path is resolved by the kernel, inside it.

use crate::error::kind_name;
use crate::resolve::{IN_ROOT, STRICT, kind, open_below, require_kind};
use crate::walk::{self, Last};
use crate::{Error, Proc, Result};
use hull_sys::fs::{self, Dev, FileType, Mode, OFlags};
use hull_sys::{CWD, SysError, io};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

/// How often a path is made that disappears again before it could be opened.
const MAKING_TRIES: u32 = 64;
/// Mode of the directories on the way to something that is created.
const DIRECTORY_MODE: u32 = 0o755;
/// Mode of a file that is created to be mounted on.
const FILE_MODE: u32 = 0o644;

/// An open root directory. All paths given to it are inside: a leading `/` means the root, `..` stops there, and
/// symbolic links are followed as a process chrooted into it would follow them (openat2's `RESOLVE_IN_ROOT`), except
/// those of procfs that lead to open files (`RESOLVE_NO_MAGICLINKS`).
///
/// The tree may change at any time: what comes back is always a handle of something that was inside the root at the
/// moment of the lookup, and only the handle is to be used after it.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens the directory at a path of the host that its owner vouches for; links in it are followed.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::call("open root", path))?;
        Ok(Self { fd })
    }

    /// Takes an open directory as root.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        require_kind(&fd, Path::new("/"), FileType::Directory)?;
        Ok(Self { fd })
    }

    /// Opens `path` as a mere place (`O_PATH`), following links.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_with(path, OFlags::PATH)
    }

    /// The same, without following a link in the last component: then the link itself.
    pub fn open_nofollow(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_with(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    /// Opens `path` as a mere place; none when there is nothing.
    pub fn find(&self, path: impl AsRef<Path>) -> Result<Option<OwnedFd>> {
        match self.open(path) {
            Err(error) if error.is(libc::ENOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Opens `path` as `flags` say, following links. Nothing is created: `CREATE` is `EINVAL`. To read what an image
    /// brought, see [`Root::read_file`]: opening an unknown file may wait or have effects.
    pub fn open_with(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
        self.resolve(path.as_ref(), flags, IN_ROOT)
    }

    /// Reads the regular file at `path`, following links; [`Error::Kind`] for any other file, which is not opened at
    /// all, and [`Error::TooMuch`] when it has more than `limit` bytes.
    pub fn read_file(&self, path: impl AsRef<Path>, proc: &Proc, limit: usize) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let place = self.open(path)?;
        require_kind(&place, path, FileType::RegularFile)?;
        let file = proc.reopen(place.as_fd(), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        match io::read_to_limit(file.as_fd(), limit) {
            Err(error) if error.is(libc::EFBIG) => {
                Err(Error::TooMuch { path: path.to_owned(), limit, unit: "bytes" })
            }
            other => other.map_err(Error::call("read", path)),
        }
    }

    /// Opens `path` where no symbolic link, no `..` above the root and no mount is legitimate.
    pub fn open_strict(&self, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
        let path = path.as_ref();
        // BENEATH refuses absolute paths; here they are inside all the same.
        self.resolve(path.strip_prefix("/").unwrap_or(path), flags, STRICT)
    }

    fn resolve(&self, path: &Path, flags: OFlags, how: fs::ResolveFlags) -> Result<OwnedFd> {
        if flags.intersects(OFlags::CREATE | OFlags::TMPFILE.difference(OFlags::DIRECTORY)) {
            let source = SysError::new("openat2", libc::EINVAL);
            return Err(Error::Call { action: "open", path: path.to_owned(), source });
        }
        open_below(self.fd.as_fd(), path, flags, how)
    }

    /// Opens the directory at `path` as a place, and makes it with `mode` less the umask if it is missing, with the
    /// directories above it (0755). A link to nothing is followed and its target made, inside the root.
    pub fn open_or_create_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<OwnedFd> {
        let path = path.as_ref();
        match self.open_with(path, OFlags::PATH | OFlags::DIRECTORY) {
            // Nearly always only the last name is missing; everything else is the walk's.
            Err(error) if error.is(libc::ENOENT) => self.make_last(path, mode),
            Err(error) if error.is(libc::ENOTDIR) => {}
            other => return other,
        }
        self.open_or_make(path, OFlags::PATH, &Last::Directory { mode })
    }

    /// Makes the directory at `path` where the one above it exists and nothing has its name, a link neither. Where that
    /// does not hold, or fails, nothing is lost: whoever opens the path next finds out why.
    fn make_last(&self, path: &Path, mode: u32) {
        let Ok((above, leaf)) = split(path) else { return };
        let make = |directory: BorrowedFd<'_>| fs::mkdirat(directory, &leaf, Mode::from_raw_mode(mode));
        let _seen_by_the_next_lookup = if above.as_os_str().is_empty() || above == Path::new("/") {
            make(self.fd.as_fd()).is_ok()
        } else {
            let above = self.open_with(above, OFlags::PATH | OFlags::DIRECTORY);
            above.is_ok_and(|directory| make(directory.as_fd()).is_ok())
        };
    }

    /// Opens what is at `path` as a place to mount a file on: anything but a directory. If it is missing, an empty
    /// file is made, as [`Root::open_or_create_dir`] makes directories.
    pub fn open_or_create_file(&self, path: impl AsRef<Path>) -> Result<OwnedFd> {
        self.open_or_make(path.as_ref(), OFlags::PATH, &Last::File { mode: FILE_MODE })
    }

    fn open_or_make(&self, path: &Path, flags: OFlags, last: &Last) -> Result<OwnedFd> {
        for _ in 0..MAKING_TRIES {
            match self.open_with(path, flags) {
                // Whatever the walk went through, the answer is the kernel's lookup of the whole path in the root.
                Err(error) if error.is(libc::ENOENT) => {
                    walk::make(self.fd.as_fd(), path, DIRECTORY_MODE, last)?;
                }
                Err(error) => return Err(error),
                Ok(fd) => return last.check(fd, path),
            }
        }
        Err(Error::Unsettled { path: path.to_owned() })
    }

    /// Opens the directory that `path` lies in, and gives its last name, which nothing was asked about. The caller
    /// must not follow it: `O_NOFOLLOW`, `AT_SYMLINK_NOFOLLOW`, `O_EXCL`.
    pub fn parent_and_leaf(&self, path: impl AsRef<Path>) -> Result<(OwnedFd, OsString)> {
        let path = path.as_ref();
        let (parent, leaf) = split(path)?;
        Ok((self.open_with(parent, OFlags::PATH | OFlags::DIRECTORY)?, leaf))
    }

    /// Makes a symbolic link at `path` with the text `target`; `EEXIST` when something is there.
    pub fn symlink(&self, target: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let (parent, leaf) = self.parent_and_leaf(path)?;
        fs::symlinkat(target.as_ref(), parent.as_fd(), &leaf).map_err(Error::call("make link", path))
    }

    /// Makes a device node, fifo or socket with `mode` less the umask, and gives it as a place; `EEXIST` when
    /// something is there. That what was opened is what was made has been seen by kind and device number.
    pub fn mknod(&self, path: impl AsRef<Path>, kind: FileType, mode: u32, device: Dev) -> Result<OwnedFd> {
        let path = path.as_ref();
        let (parent, leaf) = self.parent_and_leaf(path)?;
        fs::mknodat(parent.as_fd(), &leaf, kind, Mode::from_raw_mode(mode), device)
            .map_err(Error::call("make node", path))?;
        let node = open_below(parent.as_fd(), Path::new(&leaf), OFlags::PATH | OFlags::NOFOLLOW, STRICT)?;
        require_kind(&node, path, kind)?;
        let found = fs::fstat(node.as_fd()).map_err(Error::call("look at", path))?.st_rdev;
        if found != device && matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(Error::Kind {
                path: path.to_owned(),
                found: "another device",
                wanted: kind_name(kind),
            });
        }
        Ok(node)
    }

    /// Removes the file, link or empty directory at `path`; false when there was nothing.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<bool> {
        let path = path.as_ref();
        let (parent, leaf) = match self.parent_and_leaf(path) {
            Err(error) if error.is(libc::ENOENT) => return Ok(false),
            other => other?,
        };
        let removed = match fs::unlinkat(parent.as_fd(), &leaf) {
            Err(error) if error.is(libc::EISDIR) => fs::rmdirat(parent.as_fd(), &leaf),
            other => other,
        };
        match removed {
            Err(error) if error.is(libc::ENOENT) => Ok(false),
            other => other.map(|()| true).map_err(Error::call("remove", path)),
        }
    }

    /// What kind of file is at `path`, of a link the link itself; none when there is nothing.
    pub fn kind_of(&self, path: impl AsRef<Path>) -> Result<Option<FileType>> {
        let path = path.as_ref();
        match self.open_nofollow(path) {
            Err(error) if error.is(libc::ENOENT) => Ok(None),
            other => kind(&other?, path).map(Some),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The path above the last name, and the name.
fn split(path: &Path) -> Result<(&Path, OsString)> {
    let no_name = || Error::NoName { path: path.to_owned() };
    match path.components().next_back() {
        Some(Component::Normal(leaf)) => Ok((path.parent().unwrap_or(Path::new("")), leaf.to_owned())),
        _ => Err(no_name()),
    }
}
