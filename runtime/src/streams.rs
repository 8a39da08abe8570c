//! What the standard streams of the runtime are, which become those of the container's program.

use crate::error::{Context, Result, errno_text};
use crate::files;
use hull_plan::{IdMap, Plan, ProcessPlan};
use hull_rooted::Proc;
use hull_sys::CWD;
use hull_sys::fd::{dup_onto, is_writable, standard_streams};
use hull_sys::fs::{FileType, Mode, OFlags, Stat, fchown, fstat, openat, readlinkat};
use hull_sys::identity::effective_uid;
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
pub fn take_own_null(proc: &Proc) -> Result<()> {
    let streams = standard_streams().into_iter().filter(|stream| is_null(*stream));
    let mut own = None;
    for stream in streams {
        let Some(null) = own.get_or_insert_with(|| own_null(proc)) else { return Ok(()) };
        dup_onto(null.as_fd(), stream.as_raw_fd()).context(|| "open the container's null device")?;
    }
    Ok(())
}

/// The container's null device, where it has one. What an image has in its place is not opened: a device or a fifo may
/// act on that, or wait. The place that was seen is the one that is opened, whatever the path leads to by then (R4).
fn own_null(proc: &Proc) -> Option<OwnedFd> {
    let place = openat(CWD, c"/dev/null", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    is_null(place.as_fd()).then(|| proc.reopen(place.as_fd(), OFlags::RDWR).ok())?
}

fn is_null(file: BorrowedFd<'_>) -> bool {
    files::node(file).is_ok_and(|node| node == (FileType::CharacterDevice, (1, 3)))
}

/// Gives the streams to the user of the program, who opens `/dev/stdout` by a name and so as the owner or not at all. The
/// group stays. Says of which this failed: a file of nobody in this user namespace, on a file system that cannot be
/// written to or that knows no owners, stays whose it is.
pub fn hand_to(uid: u32) -> Vec<String> {
    let refused = |(name, stream): (&str, BorrowedFd<'static>)| {
        fstat(stream).ok().filter(|stat| stat.st_uid != uid && is_callers_own(stream, stat))?;
        let error = fchown(stream, uid, u32::MAX).err()?;
        Some(format!("standard {name} is not the user's: {}", errno_text(error.errno)))
    };
    ["input", "output", "error"].into_iter().zip(standard_streams()).filter_map(refused).collect()
}

/// The same, while this process is outside of the container's user namespace, where the streams' owner may be nobody that
/// has an id in there. What fails here is tried again inside, and told then.
pub fn hand_through(process: &ProcessPlan, uid_map: &[IdMap]) {
    // The program has a terminal of its own, and these stay the caller's.
    if process.terminal {
        return;
    }
    let uid = process.uid;
    let outside = |map: &IdMap| {
        let offset = uid.checked_sub(map.inside).filter(|offset| *offset < map.size)?;
        map.outside.checked_add(offset)
    };
    if let Some(outside) = uid_map.iter().find_map(outside) {
        let _tried_again = hand_to(outside);
    }
}

/// Streams of a command in the foreground that are files of the caller's. They are the program's for as long as this lives:
/// what somebody has redirected to a file is theirs afterwards, as with runc, which copies the streams there.
#[derive(Debug)]
pub struct Lent(Vec<BorrowedFd<'static>>);

impl Lent {
    /// Takes down what is the caller's. What is somebody else's may be lent by another command in this moment.
    pub fn take_stock() -> Self {
        let own = effective_uid();
        let is_own =
            |stat: &Stat, stream: &BorrowedFd<'static>| stat.st_uid == own && is_callers_own(*stream, stat);
        let lent = standard_streams().into_iter();
        Self(lent.filter(|stream| fstat(*stream).is_ok_and(|stat| is_own(&stat, stream))).collect())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let own = effective_uid();
        for stream in &self.0 {
            if fstat(*stream).is_ok_and(|stat| stat.st_uid != own) {
                // An ordinary user has given it to one of a range of theirs, and may not take it back.
                let _stays = fchown(*stream, own, u32::MAX);
            }
        }
    }
}

/// The mapping of a process's user namespace; empty where it cannot be read.
pub fn uid_map_of(pid: i32) -> Vec<IdMap> {
    let text = files::read_text(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        Some(IdMap { inside: numbers.next()??, outside: numbers.next()??, size: numbers.next()?? })
    };
    text.lines().filter_map(range).collect()
}

/// Pipes, and files that the caller opened for writing: made for this program. Who owns a file can make it writable, so one
/// that was only to be read stays whose it is. So does a device, and a terminal among them: the next words that somebody
/// types there are not for whoever has the number of the container's user.
fn is_callers_own(stream: BorrowedFd<'_>, stat: &Stat) -> bool {
    match files::file_type(stat) {
        FileType::Fifo => true,
        FileType::RegularFile => is_writable(stream).unwrap_or(false),
        _ => false,
    }
}
