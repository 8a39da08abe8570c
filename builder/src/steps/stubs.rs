//! Mount points that a step needs and the image has not: made before, removed after, so that no layer holds them.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::place::{self, Made, New};
use crate::context::tree::split;
use crate::error::{Error, Result};

/// What was made.
#[derive(Default)]
pub(crate) struct Stubs {
    made: Vec<Made>,
}

impl Stubs {
    /// Makes sure that something can be mounted at `path` (absolute): a directory or a file.
    pub(crate) fn ensure(&mut self, root: BorrowedFd<'_>, path: &str, is_directory: bool) -> Result<()> {
        let path = path.trim_matches('/').as_bytes();
        if is_directory {
            place::directory(root, path, New::of((0, 0)), &mut self.made)?;
            return Ok(());
        }
        self.file(root, path, 0)
    }

    fn file(&mut self, root: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<()> {
        if depth > 40 {
            return Err(Error::errno("resolve", path)(Errno::LOOP));
        }
        if place::find(root, path)?.is_some() {
            return Ok(());
        }
        let (parent, name) = split(path);
        let directory = place::directory(root, parent, New::of((0, 0)), &mut self.made)?;
        if let Ok(target) = rustix::fs::readlinkat(&directory, name, Vec::new()) {
            // A link to nothing: the runtime mounts where it leads, inside the root.
            return self.file(root, &place::meaning(parent, target.as_bytes()), depth + 1);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o644))
            .map_err(Error::errno("create", path))?;
        let stat = place::stat(fd.as_fd(), path)?;
        self.made.push(Made { directory, name: name.to_vec(), path: path.to_vec(), stat });
        Ok(())
    }

    /// Removes what is still as it was made: by its directory's descriptor, never by path (CVE-2024-23652).
    pub(crate) fn remove(self) -> Result<()> {
        for made in self.made.iter().rev() {
            let Ok(now) = rustix::fs::statat(&made.directory, &made.name[..], AtFlags::SYMLINK_NOFOLLOW)
            else {
                continue;
            };
            let is_directory = place::is_directory(&now);
            let unchanged = (now.st_dev, now.st_ino, now.st_mode)
                == (made.stat.st_dev, made.stat.st_ino, made.stat.st_mode)
                && (is_directory || now.st_size == 0);
            if !unchanged {
                continue;
            }
            let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match rustix::fs::unlinkat(&made.directory, &made.name[..], flags) {
                // The step put something into it: it belongs to the layer now.
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => {}
                Err(errno) => return Err(Error::errno("remove", &made.path)(errno)),
            }
        }
        Ok(())
    }
}
