//! What shows of whoever has the other end of a stream.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// True while somebody has the other end of a pipe or fifo open. A look that fails shows nobody; then only the next look
/// comes for nothing.
pub fn has_reader(writer: &OwnedFd) -> bool {
    state(writer).is_some_and(|state| !state.contains(PollFlags::ERR))
}

/// True while nobody has the other side of a terminal open (pty(7)); a pipe's writing end never is.
pub fn is_hung_up(master: &OwnedFd) -> bool {
    state(master).is_some_and(|state| state.contains(PollFlags::HUP))
}

fn state(fd: &OwnedFd) -> Option<PollFlags> {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).ok().map(|_| fds[0].revents())
}
