//! Where things go in a snapshot: directories found inside the root, and made where they are missing.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Links are followed inside the root, as a process chrooted into it would.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// How often a lookup is repeated that the kernel broke off, as somebody renamed or mounted something anywhere while it
/// went through a `..` (`EAGAIN`, openat2(2)); each costs microseconds.
const TRIES: u32 = 4096;

/// Something that was made: by its directory and name, and what it was right then.
pub(crate) struct Made {
    pub(crate) directory: OwnedFd,
    pub(crate) name: Vec<u8>,
    pub(crate) path: Vec<u8>,
    pub(crate) stat: Stat,
}

/// Opens a path inside the root (the root itself when it is empty), following links.
pub(crate) fn open_in_root(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let mut outcome = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        outcome = rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT);
        if !matches!(outcome, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    outcome
}

/// Opens a path inside the root as a mere place, following links; `None` when nothing is there.
pub(crate) fn find(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<OwnedFd>> {
    match open_in_root(root, path, OFlags::PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::errno("resolve", path)(errno)),
    }
}

pub(crate) fn stat(fd: impl AsFd, path: &[u8]) -> Result<Stat> {
    rustix::fs::fstat(fd).map_err(Error::errno("look at", path))
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir()
}

/// What directories get that are made on the way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct New {
    pub(crate) owner: (u32, u32),
    pub(crate) mode: u32,
}

impl New {
    /// Mode 0755.
    pub(crate) const fn of(owner: (u32, u32)) -> Self {
        Self { owner, mode: 0o755 }
    }
}

/// Opens the directory at `path` (below the root, no leading slash), making what is missing.
pub(crate) fn directory(
    root: BorrowedFd<'_>,
    path: &[u8],
    new: New,
    made: &mut Vec<Made>,
) -> Result<OwnedFd> {
    walk(root, path, new, made, 0)
}

/// The path without links, as a process in the root would go it; nothing need be there.
pub(crate) fn settled(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>> {
    let parts = |path: &[u8]| path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut left: VecDeque<Vec<u8>> = parts(path).into();
    let (mut done, mut links): (Vec<Vec<u8>>, _) = (Vec::new(), 0);
    while let Some(name) = left.pop_front() {
        match &name[..] {
            b"" | b"." => continue,
            b".." => drop(done.pop()),
            _ => match link_at(root, &done.join(&b'/'), &name).map_err(Error::errno("resolve", path))? {
                Some(_) if links == 40 => return Err(Error::errno("resolve", path)(Errno::LOOP)),
                Some(target) => {
                    links += 1;
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    parts(&target).into_iter().rev().for_each(|part| left.push_front(part));
                }
                None => done.push(name),
            },
        }
    }
    Ok(done.join(&b'/'))
}

fn walk(root: BorrowedFd<'_>, path: &[u8], new: New, made: &mut Vec<Made>, depth: usize) -> Result<OwnedFd> {
    if depth > 40 {
        return Err(Error::errno("resolve", path)(Errno::LOOP));
    }
    let mut done: Vec<u8> = Vec::new();
    let mut here = open(root, b".")?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        if !done.is_empty() {
            done.push(b'/');
        }
        done.extend_from_slice(name);
        here = match open(root, &done) {
            Ok(fd) => fd,
            Err(Error::Io { source, .. }) if source.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                match link_text(here.as_fd(), name) {
                    // A link to nothing: what it means is made, inside the root.
                    Some(target) => {
                        let parent = done[..done.len() - name.len()].to_vec();
                        let meant = meaning(&parent, &target);
                        walk(root, &meant, new, made, depth + 1)?
                    }
                    None => make(&here, name, &done, new, made)?,
                }
            }
            Err(error) => return Err(error),
        };
    }
    Ok(here)
}

fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    open_in_root(root, path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(Error::errno("open directory", path))
}

/// Where a name in a directory leads; `None` if that is no link, or there is nothing. Any other failure must not pass for
/// that: a link would be replaced where what it leads to is meant.
fn link_at(root: BorrowedFd<'_>, directory: &[u8], name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    let directory = match open_in_root(root, directory, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        other => other?,
    };
    match rustix::fs::readlinkat(&directory, name, Vec::new()) {
        Err(Errno::INVAL | Errno::NOENT) => Ok(None),
        other => Ok(Some(other?.into_bytes())),
    }
}

fn link_text(directory: BorrowedFd<'_>, name: &[u8]) -> Option<Vec<u8>> {
    rustix::fs::readlinkat(directory, name, Vec::new()).ok().map(std::ffi::CString::into_bytes)
}

/// Where a link in the directory `parent` leads, as a path below the root.
pub(crate) fn meaning(parent: &[u8], target: &[u8]) -> Vec<u8> {
    let whole = match target.starts_with(b"/") {
        true => target.to_vec(),
        false => [parent, b"/", target].concat(),
    };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in whole.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn make(parent: &OwnedFd, name: &[u8], path: &[u8], new: New, made: &mut Vec<Made>) -> Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
        .map_err(Error::errno("make directory", path))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())
        .map_err(Error::errno("open directory", path))?;
    set_owner(fd.as_fd(), new.owner, path)?;
    if new.mode != 0o755 {
        let mode = Mode::from_raw_mode(new.mode);
        rustix::fs::fchmod(&fd, mode).map_err(Error::errno("change mode of", path))?;
    }
    let directory =
        parent.try_clone().map_err(Error::io("keep open", String::from_utf8_lossy(path).as_ref()))?;
    let stat = stat(&fd, path)?;
    made.push(Made { directory, name: name.to_vec(), path: path.to_vec(), stat });
    Ok(fd)
}

/// Refuses what is no name in a directory but leads out of it or deeper: calls with it would follow that.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    match matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        true => Err(Error::fact(format!("\"{}\" is no name of a file", name.escape_ascii()))),
        false => Ok(()),
    }
}

/// Changes the owner of something open.
pub(crate) fn set_owner(fd: BorrowedFd<'_>, (uid, gid): (u32, u32), path: &[u8]) -> Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
    rustix::fs::chownat(fd, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .map_err(Error::errno("change owner of", path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn somebody_who_renames_elsewhere_breaks_no_lookup() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("../".repeat(30) + "a/b", dir.path().join("a/link")).unwrap();
        fs::write(dir.path().join("elsewhere"), "").unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (one, other) = (dir.path().join("elsewhere"), dir.path().join("moved"));
                while !over.load(Ordering::Relaxed) {
                    fs::rename(&one, &other).unwrap();
                    fs::rename(&other, &one).unwrap();
                }
            });
            let failed =
                (0..20_000).filter(|_| !matches!(find(root.as_fd(), b"a/link"), Ok(Some(_)))).count();
            over.store(true, Ordering::Relaxed);
            assert_eq!(failed, 0);
        });
    }

    #[test]
    fn what_cannot_be_looked_at_does_not_pass_for_no_link() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("meant", dir.path().join("link")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        for (path, wanted) in [("link", "meant"), ("file", "file"), ("new/x", "new/x"), ("file/x", "file/x")]
        {
            assert_eq!(settled(root.as_fd(), path.as_bytes()).unwrap(), wanted.as_bytes(), "{path}");
        }
        let name = [b'n'; 300];
        assert_eq!(link_at(root.as_fd(), b"", &name), Err(Errno::NAMETOOLONG));
        assert_eq!(link_at(root.as_fd(), &name, b"link"), Err(Errno::NAMETOOLONG));
        assert!(settled(root.as_fd(), &name).is_err());
    }
}
