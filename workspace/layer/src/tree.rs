//! Trees on the disk: what is in them, by descriptor and without following links.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::entry::{Entry, Kind, Time, join};
use crate::error::{Error, Result};

/// As deep as trees are walked.
const MAX_DEPTH: usize = 4096;

/// The names in a directory, sorted by bytes.
pub(crate) fn names(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    let entries = Dir::read_from(dir).map_err(Error::file("read directory", path))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("read directory", path))?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a file, link or whole directory by its name; what is not there is no error.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(Error::file("remove", path)(errno)),
    }
    empty(parent, name, path)?;
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(Error::file("remove directory", path))
}

/// Removes everything in a directory, with a stack of its own: trees may be deeper than ours.
fn empty(parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
    let open = |parent: BorrowedFd<'_>, name: &[u8]| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::file("open directory", path))
    };
    let first = open(parent, name)?;
    let mut stack = vec![(names(first.as_fd(), path)?, first, name.to_vec())];
    while let Some((left, fd, _)) = stack.last_mut() {
        let Some(child) = left.pop() else {
            let (_, _, done) = stack.pop().expect("the loop has just seen it");
            if let Some((_, above, _)) = stack.last() {
                rustix::fs::unlinkat(above, &done[..], AtFlags::REMOVEDIR)
                    .map_err(Error::file("remove directory", path))?;
            }
            continue;
        };
        match rustix::fs::unlinkat(&*fd, &child[..], AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if stack.len() < MAX_DEPTH => {
                let inner = open(stack[stack.len() - 1].1.as_fd(), &child)?;
                stack.push((names(inner.as_fd(), path)?, inner, child));
            }
            Err(errno) => return Err(Error::file("remove", path)(errno)),
        }
    }
    Ok(())
}

/// Opens what is at a path below `root` without following any link, for looking at it only.
pub(crate) fn look(root: BorrowedFd<'_>, path: &[u8]) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match path {
        b"" => rustix::fs::openat(root, ".", flags, Mode::empty()),
        _ => rustix::fs::openat2(
            root,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        ),
    }
}

/// Opens a regular file below `root` for reading, without following any link.
pub(crate) fn open_file(root: BorrowedFd<'_>, path: &[u8]) -> Result<std::fs::File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let fd =
        rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).map_err(Error::file("open", path))?;
    Ok(fd.into())
}

/// Everything below `root` in the order of a walk: a directory, then what is in it, names sorted. Without the root itself.
///
/// Hard links are entries of their own here; sockets are left out. The entries carry all attributes a layer may carry.
pub fn list(root: BorrowedFd<'_>) -> Result<Vec<Entry>> {
    list_with_sockets(root).map(|(entries, _)| entries)
}

/// The same, and the paths of the sockets.
pub(crate) fn list_with_sockets(root: BorrowedFd<'_>) -> Result<(Vec<Entry>, Vec<Vec<u8>>)> {
    let (mut found, mut sockets) = (Vec::new(), Vec::new());
    let mut stack: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = stack.pop() {
        if !path.is_empty() {
            let fd = look(root, &path).map_err(Error::file("look at", &path))?;
            let stat = rustix::fs::fstat(&fd).map_err(Error::file("look at", &path))?;
            if is_socket(&stat) {
                sockets.push(path);
                continue;
            }
            found.push(entry_from(fd.as_fd(), &path, &stat)?);
        }
        let is_root = path.is_empty();
        if is_root || found.last().is_some_and(|entry| entry.kind == Kind::Directory) {
            let dir = open_directory(root, &path)?;
            stack.extend(names(dir.as_fd(), &path)?.iter().rev().map(|name| join(&path, name)));
        }
    }
    Ok((found, sockets))
}

/// Whether it is a socket: what lives as long as its process, and cannot be in a layer.
pub(crate) fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

/// What is at a path below `root`, with the attributes that layers carry.
pub fn read_entry(root: BorrowedFd<'_>, path: &[u8]) -> Result<Entry> {
    let fd = look(root, path).map_err(Error::file("look at", path))?;
    entry_of(fd.as_fd(), path)
}

pub(crate) fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path_or_root = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path_or_root, flags, Mode::empty(), resolve)
        .map_err(Error::file("open directory", path))
}

/// Describes an opened file (a descriptor that only names it is enough).
pub(crate) fn entry_of(fd: BorrowedFd<'_>, path: &[u8]) -> Result<Entry> {
    let stat = rustix::fs::fstat(fd).map_err(Error::file("look at", path))?;
    entry_from(fd, path, &stat)
}

pub(crate) fn entry_from(fd: BorrowedFd<'_>, path: &[u8], stat: &Stat) -> Result<Entry> {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File { size: stat.st_size as u64 },
        FileType::Directory => Kind::Directory,
        FileType::Symlink => {
            let target =
                rustix::fs::readlinkat(fd, "", Vec::new()).map_err(Error::file("read link", path))?;
            Kind::Symlink(target.into_bytes())
        }
        FileType::CharacterDevice => Kind::Char { major, minor },
        FileType::BlockDevice => Kind::Block { major, minor },
        FileType::Fifo => Kind::Fifo,
        other => {
            let rule = format!("a {other:?} cannot be in a layer");
            return Err(Error::Pack { path: path.to_vec(), rule });
        }
    };
    let xattrs = match kind {
        Kind::File { .. } | Kind::Directory => read_xattrs(fd, path)?,
        _ => BTreeMap::new(),
    };
    Ok(Entry {
        path: path.to_vec(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        xattrs,
    })
}

/// The attributes that layers carry: capabilities, and the user's but overlayfs's own.
pub fn read_xattrs(fd: BorrowedFd<'_>, path: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    // The link leads to the opened file itself, whatever lies at its path now.
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut kept = BTreeMap::new();
    let mut buffer = vec![0u8; 1 << 10];
    let count = loop {
        match rustix::fs::listxattr(&link, &mut buffer) {
            Ok(count) => break count,
            Err(Errno::OPNOTSUPP) => return Ok(kept),
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
            Err(errno) => return Err(Error::file("list extended attributes of", path)(errno)),
        }
    };
    for name in buffer[..count].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        let text = name.to_bytes();
        let wanted = text == b"security.capability"
            || (text.starts_with(b"user.") && !text.starts_with(b"user.overlay."));
        if wanted {
            kept.insert(text.to_vec(), read_xattr(&link, name, path)?);
        }
    }
    Ok(kept)
}

fn read_xattr(link: &str, name: &CStr, path: &[u8]) -> Result<Vec<u8>> {
    let mut value = vec![0u8; 64 << 10];
    let count = rustix::fs::getxattr(link, name, &mut value)
        .map_err(Error::file("read extended attribute of", path))?;
    value.truncate(count);
    Ok(value)
}

/// True for a directory that hides all that lower layers have in it.
pub fn is_opaque(fd: BorrowedFd<'_>) -> bool {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0u8; 4];
        matches!(rustix::fs::getxattr(&link, *name, &mut value), Ok(1) if value[0] == b'y')
    })
}
