//! Owner, mode, attributes and times of what was made: by descriptor, in the order that keeps set-id bits and capabilities.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Owners;
use crate::entry::{Entry, Kind};
use crate::error::{Error, Result};

/// Takes the attributes that layers may carry: capabilities, and the user's but overlayfs's own.
///
/// Attributes of the host's security modules are passed over: they mean nothing elsewhere. `trusted.*` and
/// `user.overlay.*` would steer overlayfs and are refused.
pub fn allowed(
    raw: &[(Vec<u8>, Vec<u8>)],
    limit: usize,
) -> std::result::Result<BTreeMap<Vec<u8>, Vec<u8>>, String> {
    let total: usize = raw.iter().map(|(name, value)| name.len() + value.len()).sum();
    if total > limit {
        return Err(format!("more than {limit} bytes of extended attributes"));
    }
    let mut kept = BTreeMap::new();
    for (name, value) in raw {
        if name.contains(&0) || name.len() > 255 {
            return Err("the name of an extended attribute is too long or has a NUL byte".to_owned());
        }
        if name.starts_with(b"trusted.") || name.starts_with(b"user.overlay.") {
            return Err(format!("the extended attribute {} is not for layers to set", name.escape_ascii()));
        }
        if name == b"security.capability" || name.starts_with(b"user.") {
            kept.insert(name.clone(), value.clone());
        }
    }
    Ok(kept)
}

/// Sets owner, mode and attributes of a file or directory, in this order: a change of owner clears set-id bits, and
/// one of mode or owner clears capabilities.
pub fn set(fd: BorrowedFd<'_>, entry: &Entry, owners: Owners) -> Result<()> {
    if owners != Owners::Process {
        rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
            .map_err(Error::file("change owner of", &entry.path))?;
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
        .map_err(Error::file("change mode of", &entry.path))?;
    for (name, value) in &entry.xattrs {
        let outcome = rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty());
        match outcome {
            Ok(()) => {}
            // A file system without attributes, or a process that may not set capabilities.
            Err(Errno::OPNOTSUPP) => {}
            Err(Errno::PERM) if owners != Owners::Keep => {}
            Err(errno) => return Err(Error::file("set extended attribute of", &entry.path)(errno)),
        }
    }
    Ok(())
}

/// Sets the time of a file or directory.
pub fn set_time(fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    rustix::fs::futimens(fd, &times(entry)).map_err(Error::file("set time of", &entry.path))
}

/// Sets owner and time of a link.
pub fn set_link(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry, owners: Owners) -> Result<()> {
    if owners != Owners::Process {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::file("change owner of", &entry.path))?;
    }
    rustix::fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::file("set time of", &entry.path))
}

/// Makes a device or a named pipe.
pub fn make_node(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<()> {
    let (kind, device) = match entry.kind {
        Kind::Char { major, minor } => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
        Kind::Block { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
        _ => (FileType::Fifo, 0),
    };
    rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)
        .map_err(Error::file("make device or pipe", &entry.path))
}

/// Sets owner, mode and time of a device or pipe, which cannot be opened safely: through a descriptor that only names it.
pub fn set_node(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry, owners: Owners) -> Result<()> {
    set_link(parent, name, entry, owners)?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    let fd =
        rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::file("open", &entry.path))?;
    // fchmod refuses such a descriptor, and fchmodat2 is newer than the oldest kernel served.
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::chmod(link, Mode::from_raw_mode(entry.mode))
        .map_err(Error::file("change mode of", &entry.path))
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: i64::from(entry.mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}
