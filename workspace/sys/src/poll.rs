//! Waiting for one fd with a deadline.

use crate::raw::uninterrupted;
use crate::{Result, SysError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Waits until `fd` can be read, is hung up or failed; false when `deadline` passes first. No deadline: waits for ever.
pub fn wait_readable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> Result<bool> {
    wait_for(fd, PollFlags::IN, deadline)
}

/// Waits until `fd` can be written, is hung up or failed; false when `deadline` passes first.
pub fn wait_writable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> Result<bool> {
    wait_for(fd, PollFlags::OUT, deadline)
}

fn wait_for(fd: BorrowedFd<'_>, events: PollFlags, deadline: Option<Instant>) -> Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    let ready = uninterrupted(|| {
        let left = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        poll(&mut fds, left.as_ref()).map_err(SysError::from_rustix("poll"))
    })?;
    Ok(ready > 0)
}

/// The same span as the kernel's structure; spans beyond what it can hold become the longest one.
pub(crate) fn timespec(span: Duration) -> Timespec {
    Timespec { tv_sec: span.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: span.subsec_nanos().into() }
}

/// What an fd is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// It can be read.
    Readable,
    /// It can be written.
    Writable,
}

/// Waits until one of `fds` can be read, is hung up or failed, and says which (the first of them); none when `deadline`
/// passes first.
pub fn wait_any_readable(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> Result<Option<usize>> {
    let fds: Vec<_> = fds.iter().map(|fd| (*fd, Until::Readable)).collect();
    wait_any(&fds, deadline)
}

/// The same for reading and writing; an fd may be there for each.
pub fn wait_any(fds: &[(BorrowedFd<'_>, Until)], deadline: Option<Instant>) -> Result<Option<usize>> {
    let flags = |until| if until == Until::Readable { PollFlags::IN } else { PollFlags::OUT };
    let mut polled: Vec<_> =
        fds.iter().map(|(fd, until)| PollFd::from_borrowed_fd(*fd, flags(*until))).collect();
    uninterrupted(|| {
        let left = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        poll(&mut polled, left.as_ref()).map_err(SysError::from_rustix("poll"))
    })?;
    Ok(polled.iter().position(|fd| !fd.revents().is_empty()))
}

/// Waits for a signal to be handled: for processes that are only there to be killed.
pub fn wait_for_signal() -> Result<()> {
    match poll(&mut [], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(SysError::from_rustix("poll")(error)),
    }
}
