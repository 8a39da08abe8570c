//! Marks for removed files: `.wh.NAME`, and `.wh..wh..opq` for all that lower layers have in a directory.

use std::hash::BuildHasher;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, XattrFlags};
use rustix::io::Errno;

use super::{Whiteouts, Work, place};
use crate::entry::join;
use crate::error::{Error, Result};
use crate::tree;

/// Applies the mark `hidden` in `dir`.
///
/// # Errors
/// `None` for a mark that names nothing that can be removed.
pub fn apply(work: &mut Work<'_>, dir: &[u8], hidden: &[u8]) -> std::result::Result<(), Option<Error>> {
    match hidden {
        b".wh..opq" => opaque(work, dir).map_err(Some),
        // Other programs' own marks, such as aufs's `.wh..wh.plnk`.
        _ if hidden.starts_with(b".wh.") => Ok(()),
        b"" | b"." | b".." => Err(None),
        _ => remove(work, dir, hidden).map_err(Some),
    }
}

fn remove(work: &mut Work<'_>, dir: &[u8], name: &[u8]) -> Result<()> {
    let path = join(dir, name);
    match work.options.whiteouts {
        Whiteouts::Overlay { user } => hide(work, dir, name, &path, user),
        _ => {
            let Some(parent) = work.places.existing(dir)? else { return Ok(()) };
            let hash = work.hasher.hash_one(&path);
            if work.made.contains(&hash) {
                return clear_lower(work, parent.as_fd(), name, &path);
            }
            work.places.forget();
            tree::remove(parent.as_fd(), name, &path)
        }
    }
}

/// What this layer made stays; of a directory, what lower layers put into it goes.
fn clear_lower(work: &mut Work<'_>, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
    match place::open_directory(parent, name) {
        Ok(fd) => empty(work, fd.as_fd(), path),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::file("open directory", path)(errno)),
    }
}

fn hide(work: &mut Work<'_>, dir: &[u8], name: &[u8], path: &[u8], user: bool) -> Result<()> {
    let parent = work.parent(dir)?;
    match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            let fd =
                place::open_directory(parent.as_fd(), name).map_err(Error::file("open directory", path))?;
            make_opaque(fd.as_fd(), user, path)
        }
        Ok(_) => Ok(()),
        Err(Errno::NOENT) => rustix::fs::mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(Error::file("mark as removed", path)),
        Err(errno) => Err(Error::file("look at", path)(errno)),
    }
}

fn opaque(work: &mut Work<'_>, dir: &[u8]) -> Result<()> {
    match work.options.whiteouts {
        Whiteouts::Overlay { user } => {
            let fd = work.parent(dir)?;
            make_opaque(fd.as_fd(), user, dir)
        }
        _ => match work.places.existing(dir)? {
            Some(fd) => empty(work, fd.as_fd(), dir),
            None => Ok(()),
        },
    }
}

/// Tells overlayfs that nothing of lower layers is seen in a directory.
pub fn make_opaque(dir: BorrowedFd<'_>, user: bool, path: &[u8]) -> Result<()> {
    let name = if user { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
    rustix::fs::fsetxattr(dir, name, b"y", XattrFlags::empty()).map_err(Error::file("make opaque", path))
}

/// Removes what this layer did not make from a directory, at any depth.
fn empty(work: &mut Work<'_>, dir: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    work.places.forget();
    for name in tree::names(dir, path)? {
        let below = join(path, &name);
        let hash = work.hasher.hash_one(&below);
        match work.made.contains(&hash) {
            true => clear_lower(work, dir, &name, &below)?,
            false => tree::remove(dir, &name, &below)?,
        }
    }
    Ok(())
}
