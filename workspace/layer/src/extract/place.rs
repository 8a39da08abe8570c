//! Where a path of an archive leads: parents are walked one part at a time, and the kernel follows no link.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Owners, metadata};
use crate::entry::{Entry, Kind, Time, join};
use crate::error::{Error, Result};
use crate::merged::Merged;

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// Directories below one root.
pub struct Places<'a> {
    /// The root.
    pub root: BorrowedFd<'a>,
    /// How many parents were missing.
    pub implied: u64,
    lowers: Merged<'a>,
    /// The directory found last, by its name in the archive.
    last: Option<(Vec<u8>, OwnedFd)>,
    made: Vec<(Vec<u8>, Time)>,
}

/// Opens a directory by one name, not following a link.
pub fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

impl<'a> Places<'a> {
    /// Places below `root`; parents it lacks are looked up in `lowers`, topmost first.
    pub fn new(root: BorrowedFd<'a>, lowers: &'a [OwnedFd]) -> Self {
        Self { root, lowers: Merged(lowers), implied: 0, last: None, made: Vec::new() }
    }

    /// Forgets what was found: something that is no file was removed.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// The directories made since the last call, with the times they shall have.
    pub fn take_made(&mut self) -> Vec<(Vec<u8>, Time)> {
        std::mem::take(&mut self.made)
    }

    /// The directory that the archive calls `dir`; missing ones are made as the lower layers have them, else 0755.
    pub fn directory(&mut self, dir: &[u8], owners: Owners) -> Result<OwnedFd> {
        if let Some((name, fd)) = &self.last
            && name == dir
        {
            return fd.try_clone().map_err(Error::file("open directory", dir));
        }
        let fd = self.walk(dir, Some(owners))?.ok_or_else(|| not_a_directory(dir))?;
        let copy = fd.try_clone().map_err(Error::file("open directory", dir))?;
        self.last = Some((dir.to_vec(), copy));
        Ok(fd)
    }

    /// The same, but `None` where it does not exist.
    pub fn existing(&mut self, dir: &[u8]) -> Result<Option<OwnedFd>> {
        self.walk(dir, None)
    }

    /// A directory by its real path, without any link in it; `None` when it is there no more.
    pub fn physical(&self, path: &[u8]) -> Result<Option<OwnedFd>> {
        if path.is_empty() {
            return self.root.try_clone_to_owned().map(Some).map_err(Error::file("open directory", path));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(Error::file("open directory", path)(errno)),
        }
    }

    /// Walks `dir` part by part; with `make` missing directories are made.
    fn walk(&mut self, dir: &[u8], make: Option<Owners>) -> Result<Option<OwnedFd>> {
        let mut rest: VecDeque<Vec<u8>> = parts(dir).collect();
        let mut real: Vec<Vec<u8>> = Vec::new();
        let mut fds = vec![self.root.try_clone_to_owned().map_err(Error::file("open root", b""))?];
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part == b".." {
                // Above the root is the root, as in a container.
                if real.pop().is_some() {
                    fds.pop();
                }
                continue;
            }
            let path = join(&real.join(&b'/'), &part);
            let parent = fds.last().expect("the root is never popped").as_fd();
            match self.step(parent, &part, &path, make)? {
                Step::Into(fd) => {
                    fds.push(fd);
                    real.push(part);
                }
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::file("follow links of", dir)(Errno::LOOP));
                    }
                    if target.first() == Some(&b'/') {
                        real.clear();
                        fds.truncate(1);
                    }
                    parts(&target).rev().for_each(|part| rest.push_front(part));
                }
                Step::Nothing => return Ok(None),
            }
        }
        Ok(fds.pop())
    }

    fn step(
        &mut self,
        parent: BorrowedFd<'_>,
        part: &[u8],
        path: &[u8],
        make: Option<Owners>,
    ) -> Result<Step> {
        match rustix::fs::statat(parent, part, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    open_directory(parent, part).map(Step::Into).map_err(Error::file("open directory", path))
                }
                FileType::Symlink => rustix::fs::readlinkat(parent, part, Vec::new())
                    .map(|target| Step::Link(target.into_bytes()))
                    .map_err(Error::file("read link", path)),
                _ => match make {
                    // A file where the archive now has a directory: the later entry wins.
                    Some(owners) => self.replace(parent, part, path, owners),
                    None => Ok(Step::Nothing),
                },
            },
            Err(Errno::NOENT) => match make {
                Some(owners) => self.make(parent, part, path, owners),
                None => Ok(Step::Nothing),
            },
            Err(errno) => Err(Error::file("look at", path)(errno)),
        }
    }

    fn replace(&mut self, parent: BorrowedFd<'_>, part: &[u8], path: &[u8], owners: Owners) -> Result<Step> {
        crate::tree::remove(parent, part, path)?;
        self.make_directory(parent, part, Entry::directory(path), owners)
    }

    /// Makes a directory that the archive takes for granted.
    fn make(&mut self, parent: BorrowedFd<'_>, part: &[u8], path: &[u8], owners: Owners) -> Result<Step> {
        self.implied += 1;
        match self.lowers.find(path)? {
            Some((_, entry)) if entry.kind == Kind::Directory => {
                self.make_directory(parent, part, entry, owners)
            }
            Some((_, Entry { kind: Kind::Symlink(target), mtime, uid, gid, .. })) => {
                rustix::fs::symlinkat(&target[..], parent, part).map_err(Error::file("make link", path))?;
                let link = Entry { mtime, uid, gid, ..Entry::directory(path) };
                metadata::set_link(parent, part, &link, owners)?;
                Ok(Step::Link(target))
            }
            _ => self.make_directory(parent, part, Entry::directory(path), owners),
        }
    }

    fn make_directory(
        &mut self,
        parent: BorrowedFd<'_>,
        part: &[u8],
        entry: Entry,
        owners: Owners,
    ) -> Result<Step> {
        rustix::fs::mkdirat(parent, part, Mode::RWXU).map_err(Error::file("make directory", &entry.path))?;
        let fd = open_directory(parent, part).map_err(Error::file("open directory", &entry.path))?;
        metadata::set(fd.as_fd(), &entry, owners)?;
        self.made.push((entry.path, entry.mtime));
        Ok(Step::Into(fd))
    }
}

enum Step {
    Into(OwnedFd),
    Link(Vec<u8>),
    Nothing,
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}

fn not_a_directory(path: &[u8]) -> Error {
    Error::file("use as a directory", path)(Errno::NOTDIR)
}
