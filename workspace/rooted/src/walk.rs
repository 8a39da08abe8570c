//! Making what is missing on a path, one component at a time, each by the fd of the directory before it.
//!
//! The kernel resolves a path inside a root, but cannot make directories on the way. So the names are gone through
//! here, as libraries for kernels without openat2 do it: a stack of directories stands for the way from the root, so
//! `..` takes one off and never asks the file system, and links are read and put in place of their name.

use crate::error::kind_name;
use crate::resolve::kind;
use crate::{Error, Result};
use hull_sys::SysError;
use hull_sys::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

/// As many links as the kernel follows in one lookup.
const MOST_LINKS: u32 = 40;
/// How often one name may be found missing and then taken, or the other way round.
const MOST_STEPS: u32 = 8192;

/// What the end of the path shall be.
pub(crate) enum Last {
    /// A directory, made with this mode.
    Directory { mode: u32 },
    /// Anything but a directory; an empty file with this mode is made.
    File { mode: u32 },
}

impl Last {
    /// Refuses what is at the end of the path if it is of the wrong kind.
    pub(crate) fn check(&self, fd: OwnedFd, path: &Path) -> Result<OwnedFd> {
        let found = kind(&fd, path)?;
        let wanted = match self {
            Self::Directory { .. } if found != FileType::Directory => "a directory",
            Self::File { .. } if found == FileType::Directory => "a file",
            _ => return Ok(fd),
        };
        Err(Error::Kind { path: path.to_owned(), found: kind_name(found), wanted })
    }
}

/// Makes what is missing of `path` below `root`, so that a lookup may now find it.
pub(crate) fn make(root: BorrowedFd<'_>, path: &Path, directory_mode: u32, last: &Last) -> Result<()> {
    let mut walk = Walk {
        root,
        path,
        above: Vec::new(),
        left: names(path).collect(),
        links: 0,
        made: false,
        directory_mode,
    };
    for _ in 0..MOST_STEPS {
        let Some(name) = walk.left.pop_front() else { return Ok(()) };
        if walk.step(name, last)?.is_end() {
            return Ok(());
        }
    }
    Err(Error::Unsettled { path: path.to_owned() })
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    path: &'a Path,
    /// The directories from below the root to where we are.
    above: Vec<OwnedFd>,
    /// The names still to be gone through.
    left: VecDeque<OsString>,
    links: u32,
    made: bool,
    directory_mode: u32,
}

/// Where a step led.
#[derive(PartialEq, Eq)]
enum Step {
    Onwards,
    End,
}

impl Step {
    fn is_end(&self) -> bool {
        *self == Self::End
    }
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.above.last().map_or(self.root, AsFd::as_fd)
    }

    fn step(&mut self, name: OsString, last: &Last) -> Result<Step> {
        if name == ".." {
            return self.step_up();
        }
        // One name without a slash leads nowhere but into this directory, or onto what is mounted there.
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        match fs::openat2(self.here(), &name, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
            Err(error) if error.is(libc::ENOENT) => self.make_one(name, last),
            Err(source) => Err(self.failed("open", source)),
            Ok(fd) => self.step_onto(fd, last),
        }
    }

    /// Goes up without asking the file system, where the directory may have been moved.
    fn step_up(&mut self) -> Result<Step> {
        if self.made {
            let reason = "goes back up through a directory that does not exist";
            return Err(Error::Path { path: self.path.to_owned(), reason });
        }
        self.above.pop();
        Ok(Step::Onwards)
    }

    fn step_onto(&mut self, fd: OwnedFd, last: &Last) -> Result<Step> {
        let at_end = self.left.is_empty();
        match kind(&fd, self.path)? {
            FileType::Symlink => self.follow(&fd),
            FileType::Directory if !(at_end && matches!(last, Last::File { .. })) => {
                self.above.push(fd);
                Ok(Step::Onwards)
            }
            _ if at_end => last.check(fd, self.path).map(|_| Step::End),
            _ => Err(self.failed("open", SysError::new("openat2", libc::ENOTDIR))),
        }
    }

    /// Puts the names of a link's target in the place of its own name.
    fn follow(&mut self, link: &OwnedFd) -> Result<Step> {
        self.links += 1;
        let kind = fs::fs_type(link.as_fd()).map_err(|source| self.failed("look at", source))?;
        // The text of a link of procfs is not where it leads, and nothing can be made there.
        if self.links > MOST_LINKS || kind == fs::PROC_SUPER_MAGIC {
            return Err(self.failed("follow link in", SysError::new("readlinkat", libc::ELOOP)));
        }
        let target =
            fs::readlinkat(link.as_fd(), c"").map_err(|source| self.failed("read link in", source))?;
        let target = OsString::from_vec(target.into_bytes());
        let target = Path::new(&target);
        if target.is_absolute() {
            self.above.clear();
        }
        let new: Vec<OsString> = names(target).collect();
        for name in new.into_iter().rev() {
            self.left.push_front(name);
        }
        Ok(Step::Onwards)
    }

    /// Makes `name` here and puts it back, to be opened like everything else: it may have been replaced already.
    fn make_one(&mut self, name: OsString, last: &Last) -> Result<Step> {
        let made = match last {
            Last::File { mode } if self.left.is_empty() => self.make_file(&name, *mode),
            Last::Directory { mode } if self.left.is_empty() => self.make_directory(&name, *mode),
            _ => self.make_directory(&name, self.directory_mode),
        };
        match made {
            Err(error) if error.is(libc::EEXIST) => {}
            Err(source) => return Err(self.failed("make", source)),
            Ok(()) => self.made = true,
        }
        self.left.push_front(name);
        Ok(Step::Onwards)
    }

    fn make_directory(&self, name: &OsStr, mode: u32) -> hull_sys::Result<()> {
        fs::mkdirat(self.here(), name, Mode::from_raw_mode(mode))
    }

    /// Like `O_CREAT|O_EXCL`: it follows nothing and takes nothing that is there, and leaves no file open for writing.
    fn make_file(&self, name: &OsStr, mode: u32) -> hull_sys::Result<()> {
        fs::mknodat(self.here(), name, FileType::RegularFile, Mode::from_raw_mode(mode), 0)
    }

    fn failed(&self, action: &'static str, source: SysError) -> Error {
        Error::call(action, self.path)(source)
    }
}

/// The names of a path: without the root, `.` and empty ones.
fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}
