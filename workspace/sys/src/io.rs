//! Reading and writing.

use crate::raw::uninterrupted;
use crate::{Result, SysError};
use rustix::pipe::SpliceFlags;
use std::os::fd::BorrowedFd;

/// Reads once; 0 is the end. Repeats when a signal interrupts.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    uninterrupted(|| rustix::io::read(fd, &mut *buffer).map_err(SysError::from_rustix("read")))
}

/// Reads once from `offset` on, which the fd's own offset is not changed by; 0 is the end.
pub fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
    uninterrupted(|| rustix::io::pread(fd, &mut *buffer, offset).map_err(SysError::from_rustix("pread64")))
}

/// Writes once and says how much went. Repeats when a signal interrupts.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    uninterrupted(|| rustix::io::write(fd, bytes).map_err(SysError::from_rustix("write")))
}

/// Writes everything, in as many calls as it takes.
pub fn write_all(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        match write(fd, left)? {
            0 => return Err(SysError::new("write", libc::EIO)),
            written => left = &left[written..],
        }
    }
    Ok(())
}

/// Reads to the end; `EFBIG` when there is more than `limit` bytes.
pub fn read_to_limit(fd: BorrowedFd<'_>, limit: usize) -> Result<Vec<u8>> {
    // On the stack, since nearly every file read here is a small one of the kernel's.
    let mut chunk = [0; 16 << 10];
    let mut bytes = Vec::new();
    loop {
        let wanted = chunk.len().min(limit.saturating_sub(bytes.len()).saturating_add(1));
        match read(fd, &mut chunk[..wanted])? {
            0 => return Ok(bytes),
            got if bytes.len() + got > limit => return Err(SysError::new("read", libc::EFBIG)),
            got => bytes.extend_from_slice(&chunk[..got]),
        }
    }
}

/// Moves up to `len` bytes where one of the two is a pipe, without waiting; 0 is the end, `EAGAIN` nothing yet.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    rustix::pipe::splice(from, None, to, None, len, flags).map_err(SysError::from_rustix("splice"))
}

/// Copies up to `len` bytes from pipe to pipe without taking them out, without waiting.
pub fn tee(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize> {
    rustix::pipe::tee(from, to, len, SpliceFlags::NONBLOCK).map_err(SysError::from_rustix("tee"))
}

/// Copies up to `len` bytes from a file's current place to any fd; 0 is the end.
pub fn sendfile(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize> {
    uninterrupted(|| rustix::fs::sendfile(to, from, None, len).map_err(SysError::from_rustix("sendfile")))
}

/// Copies up to `len` bytes from file to file inside the kernel, sharing storage where the file system can.
pub fn copy_file_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize> {
    uninterrupted(|| {
        rustix::fs::copy_file_range(from, None, to, None, len)
            .map_err(SysError::from_rustix("copy_file_range"))
    })
}
