//! What the standard streams of the runtime are, which become those of the container's program.

use crate::error::{Context, Result};
use crate::files;
use hull_plan::Plan;
use hull_sys::CWD;
use hull_sys::fd::{dup_onto, set_nonblocking, standard_streams};
use hull_sys::fs::{FileType, Mode, OFlags, openat, readlinkat};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Their names as the kernel gives them, such as `pipe:[123]`; none when the program has a terminal of its own.
pub fn names(plan: &Plan) -> Vec<String> {
    if plan.process.as_ref().is_none_or(|process| process.terminal) {
        return Vec::new();
    }
    let name = |number| {
        let link = readlinkat(CWD, format!("/proc/self/fd/{number}").as_str());
        // Without procfs nothing can be checkpointed either.
        link.ok().and_then(|link| link.into_string().ok()).unwrap_or_default()
    };
    (0..=2).map(name).collect()
}

/// In the container: streams that are the host's null device become the container's own, as under runc. What is of the
/// host cannot be named in the images of a checkpoint for whoever restores them but hull.
pub fn take_own_null() -> Result<()> {
    let streams = standard_streams().into_iter().filter(|stream| is_null(*stream));
    let mut own = None;
    for stream in streams {
        let Some(null) = own.get_or_insert_with(own_null) else { return Ok(()) };
        dup_onto(null.as_fd(), stream.as_raw_fd()).context(|| "open the container's null device")?;
    }
    Ok(())
}

/// The container's null device, where it has one. What an image has in its place is not opened: a device or a fifo may
/// act on that, or wait.
fn own_null() -> Option<OwnedFd> {
    const PATH: &std::ffi::CStr = c"/dev/null";
    let place = openat(CWD, PATH, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    if !is_null(place.as_fd()) {
        return None;
    }
    // Should it have been replaced meanwhile.
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let own = openat(CWD, PATH, OFlags::RDWR | careful, Mode::empty()).ok()?;
    set_nonblocking(own.as_fd(), false).ok().map(|()| own)
}

fn is_null(file: BorrowedFd<'_>) -> bool {
    files::node(file).is_ok_and(|node| node == (FileType::CharacterDevice, (1, 3)))
}
