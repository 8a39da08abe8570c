//! `tmpcopyup`: the fresh tmpfs starts with what lies below it (R18). Everything is walked by descriptors, links are
//! copied as links, and devices, sockets and fifos are left out, as runc does.

use crate::files::{file_type, open_regular};
use hull_sys::errno::ELOOP;
use hull_sys::fs::{self, FileType, Mode, OFlags, Stat};
use hull_sys::{Result, SysError, io};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Deepest nesting that is followed.
const DEEPEST: usize = 255;

/// Bytes that one call copies at most.
const AT_ONCE: usize = 1 << 20;

/// Copies the tree at `from` into the directory `to`.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    copy_directory(from, to, 0)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(SysError::new("openat", ELOOP));
    }
    // The handle may be a mere place; names are read from an opened directory.
    let from = directory(from, c".")?;
    for entry in fs::read_directory(from.as_fd())? {
        let name = entry.name.as_c_str();
        let stat = fs::statat(from.as_fd(), name)?;
        match file_type(&stat) {
            FileType::Directory => {
                fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let target = directory(to, name)?;
                copy_directory(directory(from.as_fd(), name)?.as_fd(), target.as_fd(), depth + 1)?;
                keep_metadata(target.as_fd(), &stat)?;
            }
            FileType::RegularFile => copy_file(from.as_fd(), to, name, &stat)?,
            FileType::Symlink => {
                fs::symlinkat(fs::readlinkat(from.as_fd(), name)?, to, name)?;
                fs::fchownat(to, name, stat.st_uid, stat.st_gid)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    let source = open_regular(from, name, false)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let target = fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
    while io::sendfile(source.as_fd(), target.as_fd(), AT_ONCE)? > 0 {}
    keep_metadata(target.as_fd(), stat)
}

/// Owner first: a change of owner clears set-id bits.
fn keep_metadata(file: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    fs::fchown(file, stat.st_uid, stat.st_gid)?;
    fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))
}
