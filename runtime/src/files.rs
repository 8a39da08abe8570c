//! Small compositions of system calls on files, for places that hull-sys leaves open.

use hull_sys::errno::{EACCES, EILSEQ, EINVAL, EISDIR, ENOENT};
use hull_sys::fs::{self, Dev, FileType, Mode, OFlags, Stat, major, minor};
use hull_sys::{CWD, PathArg, Result, SysError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A directory for reading, links followed.
pub fn open_dir(path: impl PathArg) -> Result<OwnedFd> {
    fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// A directory that must not be a link itself.
pub fn open_own_dir(path: impl PathArg) -> Result<OwnedFd> {
    fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// A place in the file system, for nothing but looking and mounting.
pub fn open_place(path: impl PathArg) -> Result<OwnedFd> {
    fs::openat(CWD, path, OFlags::PATH, Mode::empty())
}

/// A place that is a directory.
pub fn open_place_dir(path: impl PathArg) -> Result<OwnedFd> {
    fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

/// Opens a regular file for reading, without waiting for the writer of a fifo; a link in the last component is
/// followed only with `follow`.
pub fn open_regular(directory: BorrowedFd<'_>, name: impl PathArg, follow: bool) -> Result<OwnedFd> {
    let link = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let file = fs::openat(
        directory,
        name,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | link,
        Mode::empty(),
    )?;
    match file_type(&fs::fstat(file.as_fd())?) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(SysError::new("openat", EISDIR)),
        _ => Err(SysError::new("openat", EINVAL)),
    }
}

/// The host's null device, for both directions.
pub fn null_device() -> Result<OwnedFd> {
    fs::openat(CWD, c"/dev/null", OFlags::RDWR, Mode::empty())
}

/// The text of a small file of the kernel's, such as those of procfs.
pub fn read_text(path: impl PathArg) -> Result<String> {
    const LONGEST: usize = 64 << 10;
    let file = fs::openat(CWD, path, OFlags::RDONLY, Mode::empty())?;
    let bytes = hull_sys::io::read_to_limit(file.as_fd(), LONGEST)?;
    String::from_utf8(bytes).map_err(|_| SysError::new("read", EILSEQ))
}

/// The type in a `stat`.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// True for a directory.
pub fn is_dir(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(file_type(&fs::fstat(fd)?) == FileType::Directory)
}

/// Type and device number of what `fd` is.
pub fn node(fd: BorrowedFd<'_>) -> Result<(FileType, (u32, u32))> {
    let stat = fs::fstat(fd)?;
    Ok((file_type(&stat), numbers(stat.st_rdev)))
}

/// Major and minor number.
pub fn numbers(device: Dev) -> (u32, u32) {
    (major(device), minor(device))
}

/// A regular file that the effective ids may execute (true), may not (false), or an error: `ENOENT`, `EISDIR`, ...
pub fn may_execute(path: &str) -> Result<bool> {
    let file = open_place(path)?;
    match file_type(&fs::fstat(file.as_fd())?) {
        FileType::RegularFile => hull_sys::fs::access_execute(path)
            .map(|()| true)
            .or_else(|error| if error.is(EACCES) { Ok(false) } else { Err(error) }),
        FileType::Directory => Err(SysError::new("execve", EISDIR)),
        _ => Ok(false),
    }
}

/// True when something is there.
pub fn exists(path: impl PathArg) -> bool {
    !matches!(open_place(path), Err(error) if error.is(ENOENT))
}
