//! A copy of what unpacked layers show together, for who can put them together by no overlay.

use std::collections::{BTreeMap, btree_map};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::entry::{Entry, Kind, join, split};
use crate::error::{Error, Result};
use crate::extract::metadata;
use crate::extract::{Devices, Owners, Rights};
use crate::merged::Merged;
use crate::tree;

/// Copies what `lowers` (topmost first) show as one tree into the empty directory `target`, which keeps its own owner, mode
/// and time.
///
/// A file with several names becomes several files, as each name that is written to does in an overlay: a change by one
/// name is none by another.
///
/// # Errors
/// What cannot be read or made, by its path; what was made before stays.
pub fn copy_merged(lowers: &[OwnedFd], target: BorrowedFd<'_>) -> Result<()> {
    copy(lowers, target, None)
}

/// Copies the same for whom the topmost tree is their own, to go on in the copy: names of one file there stay names of one
/// file, and the copy's root has its owner, mode and time.
///
/// # Errors
/// As [`copy_merged`].
pub fn copy_with_own(lowers: &[OwnedFd], target: BorrowedFd<'_>) -> Result<()> {
    copy(lowers, target, Some(Own { names: BTreeMap::new() }))?;
    let Some(own) = lowers.first() else { return Ok(()) };
    let root = tree::read_entry(own.as_fd(), b"")?;
    metadata::set(target, &root, Rights::here().owners)?;
    metadata::set_time(target, &root)
}

/// Files of the topmost tree that have several names.
struct Own {
    /// The first name that each got in the copy, by device and inode.
    names: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Own {
    /// The name by which a file is in the copy already; a new one is noted by this.
    fn earlier(&mut self, layer: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let fd = tree::look(layer, path).map_err(Error::file("look at", path))?;
        let stat = rustix::fs::fstat(&fd).map_err(Error::file("look at", path))?;
        if stat.st_nlink < 2 {
            return Ok(None);
        }
        match self.names.entry((stat.st_dev, stat.st_ino)) {
            btree_map::Entry::Occupied(first) => Ok(Some(first.get().clone())),
            btree_map::Entry::Vacant(place) => {
                place.insert(path.to_vec());
                Ok(None)
            }
        }
    }
}

fn copy(lowers: &[OwnedFd], target: BorrowedFd<'_>, mut own: Option<Own>) -> Result<()> {
    let from = Merged(lowers);
    let rights = Rights::here();
    let top = lowers.first().map(AsRawFd::as_raw_fd);
    let mut directories: Vec<Entry> = Vec::new();
    let mut left: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(directory) = left.pop() {
        let place = tree::open_directory(target, &directory)?;
        for name in from.names(&directory)? {
            let path = join(&directory, &name);
            // What is gone since is gone from the copy, too.
            let Some((layer, entry)) = from.find(&path)? else { continue };
            let own =
                own.as_mut().filter(|_| Some(layer.as_raw_fd()) == top && entry.kind != Kind::Directory);
            match own.map_or(Ok(None), |own| own.earlier(layer, &path))? {
                Some(first) => link(target, &first, place.as_fd(), &path)?,
                None => make(layer, place.as_fd(), &entry, rights)?,
            }
            if entry.kind == Kind::Directory {
                left.push(path);
                directories.push(entry);
            }
        }
    }
    // Their times change with what is put into them.
    for entry in directories.iter().rev() {
        metadata::set_time(tree::open_directory(target, &entry.path)?.as_fd(), entry)?;
    }
    Ok(())
}

/// Gives a file of the copy one more name.
fn link(target: BorrowedFd<'_>, first: &[u8], parent: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    let (directory, name) = split(first);
    let directory = tree::open_directory(target, directory)?;
    rustix::fs::linkat(&directory, name, parent, split(path).1, AtFlags::empty())
        .map_err(Error::file("link", path))
}

/// Makes one entry in `parent`.
fn make(layer: BorrowedFd<'_>, parent: BorrowedFd<'_>, entry: &Entry, rights: Rights) -> Result<()> {
    let name = split(&entry.path).1;
    let Rights { devices, owners } = rights;
    match &entry.kind {
        Kind::File { .. } => file(layer, parent, entry, owners),
        Kind::Directory => {
            rustix::fs::mkdirat(parent, name, Mode::RWXU)
                .map_err(Error::file("make directory", &entry.path))?;
            metadata::set(tree::open_directory(parent, name)?.as_fd(), entry, owners)
        }
        Kind::Symlink(to) => {
            rustix::fs::symlinkat(&to[..], parent, name).map_err(Error::file("make link", &entry.path))?;
            metadata::set_link(parent, name, entry, owners)
        }
        Kind::Char { .. } | Kind::Block { .. } if devices == Devices::Skip => Ok(()),
        Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => {
            metadata::make_node(parent, name, entry)?;
            metadata::set_node(parent, name, entry, owners)
        }
        // Trees on the disk have none: each name is a file.
        Kind::Hardlink(_) => Ok(()),
    }
}

fn file(layer: BorrowedFd<'_>, parent: BorrowedFd<'_>, entry: &Entry, owners: Owners) -> Result<()> {
    let mut from = tree::open_file(layer, &entry.path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, split(&entry.path).1, flags, Mode::RUSR | Mode::WUSR)
        .map_err(Error::file("create", &entry.path))?;
    let mut to = File::from(fd);
    // By copy_file_range(2), which shares the blocks where the file system can.
    std::io::copy(&mut from, &mut to).map_err(Error::file("copy", &entry.path))?;
    metadata::set(to.as_fd(), entry, owners)?;
    metadata::set_time(to.as_fd(), entry)
}
