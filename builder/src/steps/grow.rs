//! The tree of a layer that is written entry by entry: in a directory of its own, by descriptors, nothing mounted.
//!
//! A file that an earlier layer has just so becomes another name of it: layers never change, so they may share.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_layer::{Entry, Kind, Time};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::place;
use super::write;
use crate::context::tree::split;
use crate::error::{Error, Result};

/// A tree being written, parents first.
pub(crate) struct Growing {
    /// The directories that are not complete, outermost first.
    open: Vec<Open>,
    /// The time that everything gets; its own where there is none.
    epoch: Option<i64>,
    /// Who owns what this process makes.
    own: (u32, u32),
}

struct Open {
    path: Vec<u8>,
    fd: OwnedFd,
    /// The same directory in the trees of the earlier layer, topmost first.
    earlier: Vec<OwnedFd>,
    /// What it gets when it is complete; the root has its attributes.
    entry: Option<Entry>,
}

impl Growing {
    /// Begins in an empty directory; `earlier` are the trees of a layer that may be alike, topmost first.
    pub(crate) fn new(root: OwnedFd, earlier: Vec<OwnedFd>, epoch: Option<u64>) -> Self {
        let open = vec![Open { path: Vec::new(), fd: root, earlier, entry: None }];
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let epoch = epoch.map(|epoch| epoch.try_into().unwrap_or(i64::MAX));
        Self { open, epoch, own }
    }

    /// Makes a regular file: what is to be filled, or nothing when an earlier layer's was taken.
    ///
    /// `same` says that the earlier layer was made of the same content.
    pub(crate) fn file(&mut self, entry: &Entry, same: bool) -> Result<Option<File>> {
        let wanted = self.times(entry).last_modification;
        // With a time for everything, what made the content the same made all else the same, too.
        let is_set = self.epoch.is_some();
        let parent = self.parent(&entry.path)?;
        let name = split(&entry.path).1;
        let fits = (!is_set).then_some(|stat: &Stat| is_as_wanted(stat, entry, wanted));
        if same && share(parent, name, fits) {
            return Ok(None);
        }
        write::create(parent.fd.as_fd(), name).map(Some)
    }

    /// Gives a file that was filled its owner, mode, attributes and time.
    pub(crate) fn filled(&self, file: &File, entry: &Entry) -> Result<()> {
        self.dress(file.as_fd(), entry)
    }

    /// Makes anything but a regular file.
    pub(crate) fn other(&mut self, entry: &Entry) -> Result<()> {
        let parent = self.parent(&entry.path)?;
        let name = split(&entry.path).1;
        let (kind, device) = match &entry.kind {
            Kind::Directory => return self.directory(entry),
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(&target[..], &parent.fd, name)
                    .map_err(Error::errno("make link", name))?;
                return self.dress_unopened(entry);
            }
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::Char { major, minor } => (FileType::CharacterDevice, rustix::fs::makedev(*major, *minor)),
            Kind::Block { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(*major, *minor)),
            Kind::File { .. } | Kind::Hardlink(_) => {
                return Err(Error::fact("a file was given for something else"));
            }
        };
        let mode = Mode::from_raw_mode(entry.mode);
        rustix::fs::mknodat(&parent.fd, name, kind, mode, device).map_err(Error::errno("make node", name))?;
        // The mask of this process took bits away; the name is new, and no link.
        rustix::fs::chmodat(&parent.fd, name, mode, AtFlags::empty())
            .map_err(Error::errno("change mode of", name))?;
        self.dress_unopened(entry)
    }

    /// Completes all directories.
    pub(crate) fn finish(mut self) -> Result<()> {
        while self.open.len() > 1 {
            self.close_last()?;
        }
        Ok(())
    }

    fn directory(&mut self, entry: &Entry) -> Result<()> {
        let parent = self.parent(&entry.path)?;
        let name = split(&entry.path).1;
        // Nobody else looks in before it is complete; a set-group-id bit comes last, too.
        rustix::fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(0o700))
            .map_err(Error::errno("make directory", name))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent.fd, name, flags, Mode::empty())
            .map_err(Error::errno("open directory", name))?;
        let earlier = parent
            .earlier
            .iter()
            .filter_map(|earlier| rustix::fs::openat(earlier, name, flags, Mode::empty()).ok())
            .collect();
        self.open.push(Open { path: entry.path.clone(), fd, earlier, entry: Some(entry.clone()) });
        Ok(())
    }

    /// The directory that a path lies in; those that are complete are closed.
    fn parent(&mut self, path: &[u8]) -> Result<&Open> {
        let wanted = split(path).0;
        while self.open.len() > 1 && self.open.last().is_some_and(|open| open.path != wanted) {
            self.close_last()?;
        }
        self.open
            .last()
            .filter(|open| open.path == wanted)
            .ok_or_else(|| Error::fact("an entry of a layer comes before its directory"))
    }

    fn close_last(&mut self) -> Result<()> {
        let Some(Open { fd, entry: Some(entry), .. }) = self.open.pop() else { return Ok(()) };
        self.dress(fd.as_fd(), &entry)
    }

    fn dress(&self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        if (entry.uid, entry.gid) != self.own {
            place::set_owner(fd, (entry.uid, entry.gid), path)?;
        }
        // A new file has this mode; the owner was set before, as that clears set-id bits.
        if !(entry.mode == 0o600 && matches!(entry.kind, Kind::File { .. })) {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
                .map_err(Error::errno("change mode of", path))?;
        }
        for (name, value) in &entry.xattrs {
            rustix::fs::fsetxattr(fd, &name[..], value, rustix::fs::XattrFlags::empty())
                .map_err(Error::errno("set attribute of", path))?;
        }
        rustix::fs::futimens(fd, &self.times(entry)).map_err(Error::errno("set times of", path))
    }

    fn dress_unopened(&mut self, entry: &Entry) -> Result<()> {
        let times = self.times(entry);
        let own = self.own;
        let parent = self.parent(&entry.path)?;
        let name = split(&entry.path).1;
        if (entry.uid, entry.gid) != own {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            rustix::fs::chownat(&parent.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::errno("change owner of", name))?;
        }
        rustix::fs::utimensat(&parent.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::errno("set times of", name))
    }

    fn times(&self, entry: &Entry) -> Timestamps {
        let time = self.epoch.map_or(entry.mtime, Time::at);
        let time = Timespec { tv_sec: time.seconds, tv_nsec: i64::from(time.nanos) as _ };
        Timestamps { last_access: time, last_modification: time }
    }
}

/// Gives a file of an earlier tree one more name, if it `fits`; the topmost tree that has something there decides.
fn share(to: &Open, name: &[u8], fits: Option<impl Fn(&Stat) -> bool>) -> bool {
    for earlier in &to.earlier {
        if let Some(fits) = &fits {
            match rustix::fs::statat(earlier, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                Ok(stat) if fits(&stat) => {}
                _ => return false,
            }
        }
        match rustix::fs::linkat(earlier, name, &to.fd, name, AtFlags::empty()) {
            Err(Errno::NOENT) => {}
            // A file may have so many names and no more: then it is copied.
            outcome => return outcome.is_ok(),
        }
    }
    false
}

fn is_as_wanted(stat: &Stat, entry: &Entry, time: Timespec) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_size as u64 == entry.size()
        && stat.st_mode & 0o7777 == entry.mode
        && (stat.st_uid, stat.st_gid) == (entry.uid, entry.gid)
        && (stat.st_mtime, stat.st_mtime_nsec as i64) == (time.tv_sec, time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    fn grow(root: &std::path::Path, earlier: Option<&std::path::Path>, same: bool) -> Vec<bool> {
        grow_at(root, earlier, same, Some(7))
    }

    /// Without a time for everything, that of the entries: 1970.
    fn grow_at(
        root: &std::path::Path,
        earlier: Option<&std::path::Path>,
        same: bool,
        epoch: Option<u64>,
    ) -> Vec<bool> {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mut growing = Growing::new(open(root), earlier.iter().copied().map(open).collect(), epoch);
        let mut linked = Vec::new();
        for mut entry in [
            Entry::directory(b"d"),
            Entry::file(b"d/a", 3, 0o4750),
            Entry::directory(b"d/in"),
            Entry::file(b"d/in/b", 3, 0o600),
            Entry::new(b"d/link", Kind::Symlink(b"in".to_vec()), 0o777),
            Entry::file(b"z", 3, 0o644),
        ] {
            (entry.uid, entry.gid) = own;
            if !matches!(entry.kind, Kind::File { .. }) {
                growing.other(&entry).unwrap();
                continue;
            }
            let file = growing.file(&entry, same).unwrap();
            linked.push(file.is_none());
            if let Some(mut file) = file {
                std::io::Write::write_all(&mut file, b"abc").unwrap();
                growing.filled(&file, &entry).unwrap();
            }
        }
        growing.finish().unwrap();
        linked
    }

    #[test]
    fn a_tree_gets_its_modes_and_times_and_shares_what_is_the_same() {
        let (first, second, third) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(grow(first.path(), None, true), [false; 3]);
        let look = |path: &str| std::fs::symlink_metadata(first.path().join(path)).unwrap();
        for (path, mode) in [("d", 0o755), ("d/a", 0o4750), ("d/in/b", 0o600), ("z", 0o644)] {
            assert_eq!((look(path).mode() & 0o7777, look(path).mtime()), (mode, 7), "{path}");
        }
        assert_eq!(look("d/link").mtime(), 7);
        assert_eq!(grow(second.path(), Some(first.path()), true), [true; 3]);
        assert_eq!(look("d/in/b").nlink(), 2);
        // Where files keep their times, another one is another file.
        assert_eq!(grow_at(third.path(), Some(first.path()), true, None), [false; 3]);
        let fourth = tempfile::tempdir().unwrap();
        assert_eq!(grow_at(fourth.path(), Some(third.path()), true, None), [true; 3]);
    }

    #[test]
    fn what_is_not_the_same_is_never_shared() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        grow(first.path(), None, true);
        assert_eq!(grow(second.path(), Some(first.path()), false), [false; 3]);
    }
}
