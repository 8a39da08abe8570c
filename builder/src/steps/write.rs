//! Writing one thing into a snapshot: by its directory's descriptor and its name, never through a link.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::mode::ModeRule;
use super::place;
use crate::context::content::{Contents, hex};
use crate::context::tree::{Node, Tree};
use crate::error::{Error, Result};

/// Extended attributes by name.
type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// What the copied things get.
pub(crate) struct Dress {
    /// `--chown`, else 0:0 for a context, else what it was.
    pub(crate) owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub(crate) mode: Option<ModeRule>,
    /// Whether modification times are kept.
    pub(crate) keep_times: bool,
}

impl Dress {
    pub(super) fn owner(&self, node: &Node) -> (u32, u32) {
        self.owner.unwrap_or((node.stat.st_uid, node.stat.st_gid))
    }

    pub(super) fn mode(&self, node: &Node) -> u32 {
        let mode = node.stat.st_mode & 0o7777;
        self.mode.as_ref().map_or(mode, |rule| rule.apply(mode, node.is_directory()))
    }

    /// Sets mode, attributes and time of something open; the owner was set before, as that clears set-id bits.
    fn finish(&self, fd: BorrowedFd<'_>, node: &Node, attributes: &Attributes) -> Result<()> {
        let path = &node.path;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(self.mode(node)))
            .map_err(Error::errno("change mode of", path))?;
        for (name, value) in attributes {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(fd, &name[..], value, flags)
                .map_err(Error::errno("set attribute of", path))?;
        }
        if self.keep_times {
            rustix::fs::futimens(fd, &times(node)).map_err(Error::errno("set times of", path))?;
        }
        Ok(())
    }
}

fn times(node: &Node) -> Timestamps {
    let time = Timespec { tv_sec: node.stat.st_mtime, tv_nsec: node.stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Copies a file, link or node into a directory under a name, replacing anything but a directory.
pub(crate) fn leaf(
    tree: &Tree,
    node: &Node,
    contents: &Contents,
    to: (BorrowedFd<'_>, &[u8]),
    dress: &Dress,
) -> Result<()> {
    let (directory, name) = to;
    place::check_name(name)?;
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(Errno::ISDIR) => {
            let text = format!("cannot replace the directory {} with a file", String::from_utf8_lossy(name));
            return Err(Error::fact(text));
        }
        Err(errno) => return Err(Error::errno("remove", name)(errno)),
    }
    match node.kind() {
        FileType::RegularFile => file(tree, node, contents, to, dress),
        FileType::Symlink => {
            let target = tree.read_link(&node.path)?;
            rustix::fs::symlinkat(&target[..], directory, name).map_err(Error::errno("make link", name))?;
            own_unopened(directory, name, node, dress)
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
            let mode = Mode::from_raw_mode(dress.mode(node));
            rustix::fs::mknodat(directory, name, kind, mode, node.stat.st_rdev)
                .map_err(Error::errno("make node", name))?;
            // The mask of this process took bits away; the name is new, and no link.
            rustix::fs::chmodat(directory, name, mode, AtFlags::empty())
                .map_err(Error::errno("change mode of", name))?;
            own_unopened(directory, name, node, dress)
        }
        kind => {
            Err(Error::fact(format!("a {kind:?} cannot be copied: {}", String::from_utf8_lossy(&node.path))))
        }
    }
}

fn own_unopened(directory: BorrowedFd<'_>, name: &[u8], node: &Node, dress: &Dress) -> Result<()> {
    let (uid, gid) = dress.owner(node);
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::errno("change owner of", name))?;
    if dress.keep_times {
        rustix::fs::utimensat(directory, name, &times(node), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::errno("set times of", name))?;
    }
    Ok(())
}

/// Copies a file's bytes; they must be those that the cache key was made of.
fn file(
    tree: &Tree,
    node: &Node,
    contents: &Contents,
    (directory, name): (BorrowedFd<'_>, &[u8]),
    dress: &Dress,
) -> Result<()> {
    let mut from = tree.open_file(&node.path)?;
    let mut to = create(directory, name)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; (node.stat.st_size.clamp(1, 256 << 10)) as usize];
    let named = String::from_utf8_lossy(&node.path).into_owned();
    loop {
        let count = from.read(&mut buffer).map_err(Error::io("read", &named))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count]).map_err(Error::io("write", &named))?;
    }
    let found: [u8; 32] = hasher.finalize().into();
    let attributes = match contents.files.get(&node.path) {
        Some(wanted) if wanted.content == found && wanted.plain => Attributes::new(),
        Some(wanted) if wanted.content == found => hull_layer::read_xattrs(from.as_fd(), &node.path)?,
        Some(wanted) => {
            let text = format!(
                "{named} changed while it was read ({} became {})",
                hex(&wanted.content),
                hex(&found)
            );
            return Err(Error::fact(text));
        }
        None => return Err(Error::fact(format!("{named} was not read before"))),
    };
    place::set_owner(to.as_fd(), dress.owner(node), &node.path)?;
    dress.finish(to.as_fd(), node, &attributes)
}

/// Creates a file that must not be there.
pub(crate) fn create(directory: BorrowedFd<'_>, name: &[u8]) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))
        .map_err(Error::errno("create", name))?;
    Ok(File::from(fd))
}

/// Opens the directory `name` for what a source directory holds, making it if it is missing.
///
/// A directory that was there takes the source's mode and owner.
pub(crate) fn directory(
    tree: &Tree,
    node: &Node,
    (parent, name): (BorrowedFd<'_>, &[u8]),
    dress: &Dress,
) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::errno("make directory", name)(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let text =
                format!("cannot copy a directory over {}, which is none", String::from_utf8_lossy(name));
            return Err(Error::fact(text));
        }
        Err(errno) => return Err(Error::errno("open directory", name)(errno)),
    };
    place::set_owner(fd.as_fd(), dress.owner(node), name)?;
    let attributes = hull_layer::read_xattrs(tree.open_place(&node.path)?.as_fd(), &node.path)?;
    dress.finish(fd.as_fd(), node, &attributes)?;
    Ok(fd)
}
