//! openat2 with its limits on resolution, repeated while the tree moves.

use crate::error::kind_name;
use crate::{Error, Result};
use hull_sys::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a lookup is repeated without a pause when the kernel saw a rename or mount beside a `..` (`EAGAIN`); each
/// costs microseconds.
const TRIES: u32 = 4096;

/// How long it is repeated: on a busy machine somebody who renames without pause, anywhere, may win against thousands of
/// tries in a row.
const PATIENCE: Duration = Duration::from_secs(2);

/// What others get of the processor then.
const PAUSE: Duration = Duration::from_millis(1);

/// The root is the highest there is: absolute paths, links and `..` stay inside. No link of procfs leads out.
pub(crate) const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// No link and no mount is crossed at all.
pub(crate) const STRICT: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens `path` below `dirfd`; [`Error::Unsettled`] when it never held still.
pub(crate) fn open_below(
    dirfd: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    // openat2 takes no empty path; the root itself is ".".
    let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut end = None;
    loop {
        for _ in 0..TRIES {
            match fs::openat2(dirfd, name, flags, Mode::empty(), resolve) {
                Err(error) if error.is(libc::EAGAIN) || error.is(libc::EINTR) => {}
                other => return other.map_err(Error::call("open", path)),
            }
        }
        if Instant::now() >= *end.get_or_insert_with(|| Instant::now() + PATIENCE) {
            return Err(Error::Unsettled { path: path.to_owned() });
        }
        std::thread::sleep(PAUSE);
    }
}

/// What kind of file is behind `fd`.
pub(crate) fn kind(fd: &OwnedFd, path: &Path) -> Result<FileType> {
    let found = fs::fstat(fd.as_fd()).map_err(Error::call("look at", path))?;
    Ok(FileType::from_raw_mode(found.st_mode))
}

/// Refuses `path` when it is not of the `wanted` kind.
pub(crate) fn require_kind(fd: &OwnedFd, path: &Path, wanted: FileType) -> Result<()> {
    let found = kind(fd, path)?;
    if found == wanted {
        return Ok(());
    }
    Err(Error::Kind { path: path.to_owned(), found: kind_name(found), wanted: kind_name(wanted) })
}
