//! [`Proc`]: a procfs that is one, whatever is mounted on `/proc`.

use crate::error::{Error, Result};
use crate::mountinfo::{self, MountEntry};
use crate::resolve::open_below;
use crate::value;
use hull_sys::fs::{self, Mode, OFlags, ResolveFlags};
use hull_sys::{CWD, Pid, SysError, io, mount};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// The inode number of procfs's root, on every kernel.
const ROOT_INODE: u64 = 1;
/// More than any file of procfs that is read here as a whole, but the table of mounts.
const FILE_LIMIT: usize = 1 << 20;
/// 100 000 mounts (`fs.mount-max`) of some hundred bytes.
const MOUNTINFO_LIMIT: usize = 64 << 20;
/// Links are only those of procfs itself (`self`); nothing above, on top or elsewhere.
const INSIDE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_XDEV).union(ResolveFlags::NO_MAGICLINKS);

/// How much of procfs the handle shall show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Everything, `sys` too.
    Whole,
    /// Processes only (`subset=pid`) where the kernel can: a leaked handle then gives away less.
    Processes,
}

/// A file of procfs; each path is relative and has no `..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'p> {
    /// Of the calling process: below `self`.
    Own(&'p str),
    /// Of the calling thread: below `thread-self`.
    OwnThread(&'p str),
    /// Of a process, by its id in the pid namespace that the handle belongs to.
    Of(Pid, &'p str),
    /// A kernel parameter: below `sys`, with slashes.
    Parameter(&'p str),
    /// Any other, from the top.
    Top(&'p str),
}

impl Entry<'_> {
    fn path(&self) -> Result<PathBuf> {
        let (base, rest) = match self {
            Self::Own(rest) => (PathBuf::from("self"), *rest),
            Self::OwnThread(rest) => (PathBuf::from("thread-self"), *rest),
            Self::Of(pid, rest) => (PathBuf::from(pid.to_string()), *rest),
            Self::Parameter(rest) => (PathBuf::from("sys"), *rest),
            Self::Top(rest) => (PathBuf::new(), *rest),
        };
        let plain = Path::new(rest).components().all(|part| matches!(part, Component::Normal(_)));
        if plain {
            return Ok(base.join(rest));
        }
        Err(Error::Path { path: rest.into(), reason: "is no plain relative path" })
    }
}

/// What is known of a value after it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was read back.
    Confirmed,
    /// The file says something new, but not this: the kernel has its own form or limit for it.
    Adjusted,
    /// The file cannot be read.
    Unreadable,
}

/// A verified handle of procfs.
///
/// It belongs to the pid namespace of whoever opened it. After a clone into a new pid namespace it goes on showing the
/// old one, where `self` is the child by its id out there; a procfs of a namespace that the caller is not in has no
/// `self` at all (`ENOENT`).
#[derive(Debug)]
pub struct Proc {
    root: OwnedFd,
}

impl Proc {
    /// Opens a procfs: a new one that is mounted nowhere; else a copy of `/proc` that nothing else can be mounted on;
    /// else `/proc` itself. Whichever it is, it was seen to be procfs's root, and no lookup leaves its mount.
    pub fn open(view: View) -> Result<Self> {
        let detached = fresh(view).or_else(|_| copy(false)).or_else(|_| copy(true));
        let root = detached.or_else(|_| {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            fs::openat(CWD, "/proc", flags, Mode::empty())
        });
        Self::from_fd(root.map_err(Error::call("open", Path::new("/proc")))?)
    }

    /// Takes the open root of a procfs; [`Error::NotProc`] for any other file.
    pub fn from_fd(root: OwnedFd) -> Result<Self> {
        let path = Path::new("/proc");
        if fs::fs_type(root.as_fd()).map_err(Error::call("look at", path))? != fs::PROC_SUPER_MAGIC {
            return Err(Error::NotProc { reason: "is another file system" });
        }
        if fs::fstat(root.as_fd()).map_err(Error::call("look at", path))?.st_ino != ROOT_INODE {
            return Err(Error::NotProc {
                reason: "is not there as a whole: a directory of it is in its place",
            });
        }
        Ok(Self { root })
    }

    /// Opens a file of procfs. A link that leads to an open file, a namespace or the like is `ELOOP`.
    pub fn open_entry(&self, entry: Entry<'_>, flags: OFlags) -> Result<OwnedFd> {
        open_below(self.root.as_fd(), &entry.path()?, flags, INSIDE)
    }

    /// Opens a file of the calling process.
    pub fn open_self(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        self.open_entry(Entry::Own(path), flags)
    }

    /// Opens a file of another process. A pid may be reused: who must be sure compares by pidfd, after.
    pub fn open_pid(&self, pid: Pid, path: &str, flags: OFlags) -> Result<OwnedFd> {
        self.open_entry(Entry::Of(pid, path), flags)
    }

    /// Opens a kernel parameter for reading and writing, such as `net/ipv4/ip_forward`; needs [`View::Whole`].
    pub fn open_sys(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        self.open_entry(Entry::Parameter(path), flags)
    }

    /// Opens what a link of procfs leads to: `ns/net`, `fd/3`, `exe`. The link was seen to be procfs's own before.
    pub fn open_link(&self, entry: Entry<'_>, flags: OFlags) -> Result<OwnedFd> {
        let path = entry.path()?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::NoName { path });
        };
        let directory = open_below(self.root.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY, INSIDE)?;
        // Opening the link itself fails if something is mounted on it.
        open_below(directory.as_fd(), Path::new(name), OFlags::PATH | OFlags::NOFOLLOW, INSIDE)?;
        fs::openat(directory.as_fd(), name, flags, Mode::empty()).map_err(Error::call("open link", &path))
    }

    /// Opens the file behind `fd` anew, as `flags` say: a place (`O_PATH`) can be read that way once one has seen what
    /// it is.
    pub fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
        self.open_link(Entry::OwnThread(&format!("fd/{}", fd.as_raw_fd())), flags)
    }

    /// The kernel's name for the file behind `fd`, as seen from the process's root.
    pub fn fd_link(&self, fd: BorrowedFd<'_>) -> Result<PathBuf> {
        let name = format!("fd/{}", fd.as_raw_fd());
        let link = self.open_entry(Entry::OwnThread(&name), OFlags::PATH | OFlags::NOFOLLOW)?;
        let text = fs::readlinkat(link.as_fd(), c"").map_err(Error::call("read link", Path::new(&name)))?;
        Ok(std::ffi::OsString::from_vec(text.into_bytes()).into())
    }

    /// Reads a file as a whole, at most 1 MiB.
    pub fn read(&self, entry: Entry<'_>) -> Result<Vec<u8>> {
        self.read_bounded(entry, FILE_LIMIT)
    }

    fn read_bounded(&self, entry: Entry<'_>, limit: usize) -> Result<Vec<u8>> {
        let path = entry.path()?;
        let file = self.open_entry(entry, OFlags::RDONLY)?;
        match io::read_to_limit(file.as_fd(), limit) {
            Err(error) if error.is(libc::EFBIG) => Err(Error::TooMuch { path, limit, unit: "bytes" }),
            other => other.map_err(Error::call("read", &path)),
        }
    }

    /// The mounts that the calling process sees.
    pub fn mounts(&self) -> Result<Vec<MountEntry>> {
        Ok(mountinfo::parse(&self.read_bounded(Entry::OwnThread("mountinfo"), MOUNTINFO_LIMIT)?)?)
    }

    /// Writes a value in one call, as the kernel wants it, and reads it back if the file can be read.
    /// [`Error::NotKept`] when the file goes on saying what it said before: then the write went nowhere.
    pub fn write(&self, entry: Entry<'_>, value: &[u8]) -> Result<Written> {
        let path = entry.path()?;
        let file = match self.open_entry(entry, OFlags::RDWR) {
            Err(error) if error.is(libc::EACCES) || error.is(libc::EPERM) => {
                return self.write_only(entry, value).map(|()| Written::Unreadable);
            }
            other => other?,
        };
        let before = said(&file);
        put(&file, value, &path)?;
        match said(&file) {
            None => Ok(Written::Unreadable),
            Some(found) if value::same(&found, value) => Ok(Written::Confirmed),
            found if found != before => Ok(Written::Adjusted),
            Some(found) => Err(Error::NotKept { path, wanted: text(value), found: text(&found) }),
        }
    }

    /// Writes a value in one call without reading it back, where what is read is something else than what is written.
    pub fn write_only(&self, entry: Entry<'_>, value: &[u8]) -> Result<()> {
        let path = entry.path()?;
        let file = self.open_entry(entry, OFlags::WRONLY)?;
        put(&file, value, &path)
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

fn put(file: &OwnedFd, value: &[u8], path: &Path) -> Result<()> {
    let written = io::write(file.as_fd(), value).map_err(Error::call("write", path))?;
    if written == value.len() {
        return Ok(());
    }
    Err(Error::call("write", path)(SysError::new("write", libc::EIO)))
}

/// What a file says from its beginning, if it can be read; values have a page at most.
fn said(file: &OwnedFd) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let len = io::read_at(file.as_fd(), &mut value, 0).ok()?;
    value.truncate(len);
    Some(value)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim().to_owned()
}

/// A new procfs of the caller's pid namespace that is mounted nowhere.
fn fresh(view: View) -> hull_sys::Result<OwnedFd> {
    let context = mount::fsopen("proc")?;
    if view == View::Processes {
        // Older than 5.8: a whole one shows more, but serves.
        match mount::fsconfig_string(context.as_fd(), "subset", "pid") {
            Err(error) if error.is(libc::EINVAL) => {}
            other => other?,
        }
    }
    mount::fsconfig_create(context.as_fd())?;
    let attributes = mount::MOUNT_ATTR_NOSUID | mount::MOUNT_ATTR_NODEV | mount::MOUNT_ATTR_NOEXEC;
    mount::fsmount(context.as_fd(), attributes)
}

/// A copy of the mount on `/proc`. In a user namespace the mounts below may not be left out (`recursive`); no lookup
/// enters them either way.
fn copy(recursive: bool) -> hull_sys::Result<OwnedFd> {
    mount::open_tree(CWD, "/proc", true, recursive)
}
