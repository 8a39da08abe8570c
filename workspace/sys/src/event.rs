//! Waiting for many things at once: epoll, timers, counters, file changes.

use crate::poll::timespec;
use crate::raw::{check_unit, uninterrupted};
use crate::{Result, SysError};
use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, poll};
use rustix::fs::inotify;
use rustix::path::Arg;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

pub use rustix::event::epoll::EventFlags;
pub use rustix::fs::inotify::{ReadFlags, WatchFlags};

/// Waits that end on time, not at the next millisecond.
const SHORT: Duration = Duration::from_millis(2);

/// A level-triggered epoll set: tells which of its fds are ready, by the token each was added with.
pub struct Epoll {
    fd: OwnedFd,
    space: Vec<epoll::Event>,
}

/// One ready fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The token it was added with.
    pub token: u64,
    /// What it is ready for; `ERR` and `HUP` come without being asked for.
    pub flags: EventFlags,
}

impl Epoll {
    /// An empty set that gives at most `most` ready fds at a time.
    pub fn new(most: usize) -> Result<Self> {
        let fd =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(SysError::from_rustix("epoll_create1"))?;
        Ok(Self { fd, space: Vec::with_capacity(most.max(1)) })
    }

    /// Adds `fd` under `token`. A closed fd leaves the set by itself, unless a duplicate of it is open elsewhere.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) -> Result<()> {
        epoll::add(&self.fd, fd, epoll::EventData::new_u64(token), flags)
            .map_err(SysError::from_rustix("epoll_ctl"))
    }

    /// Changes what `fd` is waited for.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) -> Result<()> {
        let data = epoll::EventData::new_u64(token);
        epoll::modify(&self.fd, fd, data, flags).map_err(SysError::from_rustix("epoll_ctl"))
    }

    /// Takes `fd` out.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> Result<()> {
        epoll::delete(&self.fd, fd).map_err(SysError::from_rustix("epoll_ctl"))
    }

    /// Waits until something is ready, or `deadline`: then the list is empty. No deadline waits for ever.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<Vec<Ready>> {
        let Self { fd, space } = self;
        uninterrupted(|| {
            space.clear();
            let mut left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            // epoll_wait(2) counts milliseconds and would be late by one.
            if let Some(short) = left.filter(|left| *left < SHORT) {
                let mut one = [PollFd::new(&*fd, PollFlags::IN)];
                poll(&mut one, Some(&timespec(short))).map_err(SysError::from_rustix("ppoll"))?;
                left = Some(Duration::ZERO);
            }
            epoll::wait(&*fd, rustix::buffer::spare_capacity(space), left.map(timespec).as_ref())
                .map(drop)
                .map_err(SysError::from_rustix("epoll_wait"))
        })?;
        Ok(space.iter().map(|event| Ready { token: event.data.u64(), flags: event.flags }).collect())
    }
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Epoll").field(&self.fd).finish()
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A timer on the monotonic clock that can be read once it has fired; CLOEXEC, not blocking, not set.
pub fn timer_fd() -> Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    timerfd_create(TimerfdClockId::Monotonic, flags).map_err(SysError::from_rustix("timerfd_create"))
}

/// Lets the timer fire once after `span` (zero: at once); none stops it.
pub fn set_timer(timer: BorrowedFd<'_>, span: Option<Duration>) -> Result<()> {
    // A value of zero would stop the timer instead.
    let value = span.map_or(Duration::ZERO, |span| span.max(Duration::from_nanos(1)));
    let setting = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(value) };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &setting)
        .map(drop)
        .map_err(SysError::from_rustix("timerfd_settime"))
}

/// A counter; CLOEXEC, not blocking, 0. Readable while it is not 0.
pub fn event_fd() -> Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    rustix::event::eventfd(0, flags).map_err(SysError::from_rustix("eventfd2"))
}

/// Adds 1 to a counter of [`event_fd`].
pub fn raise_event(counter: BorrowedFd<'_>) -> Result<()> {
    crate::io::write_all(counter, &1u64.to_ne_bytes())
}

/// Reads a counter of [`event_fd`] or the number of times a [`timer_fd`] fired, and sets it to 0; 0 when it was.
pub fn take_count(fd: BorrowedFd<'_>) -> Result<u64> {
    let mut count = [0u8; 8];
    match crate::io::read(fd, &mut count) {
        Ok(_) => Ok(u64::from_ne_bytes(count)),
        Err(error) if error.is(libc::EAGAIN) => Ok(0),
        Err(error) => Err(error),
    }
}

/// An inotify queue; CLOEXEC, not blocking.
pub fn inotify_fd() -> Result<OwnedFd> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    inotify::init(flags).map_err(SysError::from_rustix("inotify_init1"))
}

/// Watches `path`, which is followed, and gives the watch's number.
pub fn add_watch(queue: BorrowedFd<'_>, path: impl Arg, flags: WatchFlags) -> Result<i32> {
    inotify::add_watch(queue, path, flags).map_err(SysError::from_rustix("inotify_add_watch"))
}

/// Watches the file behind `fd`, and gives the watch's number.
pub fn add_watch_fd(queue: BorrowedFd<'_>, fd: BorrowedFd<'_>, flags: WatchFlags) -> Result<i32> {
    add_watch(queue, format!("/proc/self/fd/{}", fd.as_raw_fd()), flags)
}

/// A change that inotify saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// The watch's number; -1 when the queue overflowed.
    pub watch: i32,
    /// What happened.
    pub flags: ReadFlags,
    /// The name in a watched directory.
    pub name: Option<std::ffi::CString>,
}

/// The changes that are in the queue now.
pub fn read_changes(queue: BorrowedFd<'_>) -> Result<Vec<FileChange>> {
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(queue, &mut space);
    let mut changes = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => changes.push(FileChange {
                watch: event.wd(),
                flags: event.events(),
                name: event.file_name().map(ToOwned::to_owned),
            }),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(changes),
            Err(errno) => return Err(SysError::from_rustix("read")(errno)),
        }
    }
}

/// Lets the bytes that wait in a socket or terminal be counted (`FIONREAD`).
pub fn bytes_waiting(fd: BorrowedFd<'_>) -> Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the argument is a pointer to an int that outlives the call.
    let returned = unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    check_unit("ioctl(FIONREAD)", returned)?;
    Ok(count.max(0) as usize)
}
