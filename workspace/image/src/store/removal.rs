//! Removal of trees, of any depth, that one entry may hold up.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Store;
use crate::error::{Error, Result};

/// How many levels of a tree are open at once; a process may have 1024 descriptors where nobody gave it more.
const LEVELS: usize = 64;

impl Store {
    /// Removes a tree of the store that is used when it is there: by one rename it is out of its place, so that whoever is
    /// killed over the rest leaves nothing half removed to be used.
    ///
    /// # Errors
    /// Something in it cannot be removed. What could be is, the rest lies in `tmp`, and the next who is alone on the store
    /// tries again.
    pub fn discard(&self, tree: &Path) -> Result<()> {
        let aside = self.temporary_path();
        match fs::rename(tree, &aside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            // A directory of an overlay's lower layer is moved only with `redirect_dir`. What says that a layer is whole
            // goes first.
            Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
                remove(&tree.join("layer.json"))?;
                remove(tree)
            }
            moved => {
                moved.map_err(Error::io("move aside", tree))?;
                remove(&aside)
            }
        }
    }
}

/// Removes a file or a whole tree, never following links; nothing there is no error. What is mounted in it stays.
///
/// # Errors
/// The first thing that cannot be removed; everything else is.
pub fn remove(path: &Path) -> Result<()> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // POSIX has EPERM, Linux EISDIR for a directory.
        Err(Errno::ISDIR | Errno::PERM) if is_directory(path) => remove_tree(path),
        Err(errno) => Err(Error::errno("remove", path)(errno)),
    }
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

fn remove_tree(path: &Path) -> Result<()> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        outcome => return outcome.map_err(Error::errno("remove", path)),
    }
    let top = open(CWD, path, path)?;
    let mut removal = Removal { top, names: 0, moved: 0, failed: Ok(()) };
    loop {
        let before = removal.moved;
        removal.empty(removal.top.try_clone().map_err(Error::io("open", path))?, path, 0);
        // What lay deeper than there are levels now begins at the top.
        if removal.moved == before {
            break;
        }
    }
    removal.failed?;
    rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR).map_err(Error::errno("remove", path))
}

/// The removal of what is in a directory.
struct Removal {
    top: OwnedFd,
    /// How many names at the top were tried.
    names: usize,
    /// How many directories were moved up.
    moved: usize,
    /// What went wrong first.
    failed: Result<()>,
}

impl Removal {
    fn empty(&mut self, dir: OwnedFd, path: &Path, level: usize) {
        let entries = match Dir::read_from(&dir) {
            Ok(entries) => entries,
            Err(errno) => return self.fail("read", path, errno),
        };
        for entry in entries {
            match entry {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => {
                    let path = join(path, entry.file_name());
                    self.remove(dir.as_fd(), entry.file_name(), entry.file_type(), &path, level);
                }
                Err(errno) => return self.fail("read", path, errno),
            }
        }
    }

    fn remove(&mut self, dir: BorrowedFd<'_>, name: &CStr, kind: FileType, path: &Path, level: usize) {
        if kind != FileType::Directory {
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return,
                // A file system that does not tell kinds in a listing.
                Err(Errno::ISDIR) => {}
                Err(errno) => return self.fail("remove", path, errno),
            }
        }
        // Before a look inside: the place of a mount is busy, and what is mounted is not for removal.
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if level == LEVELS => self.move_up(dir, name, path),
            Err(Errno::NOTEMPTY | Errno::EXIST) => self.remove_filled(dir, name, path, level),
            Err(errno) => self.fail("remove", path, errno),
        }
    }

    fn remove_filled(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &Path, level: usize) {
        match open(dir, name, path) {
            Ok(inner) => self.empty(inner, path, level + 1),
            Err(error) => return self.keep(error),
        }
        if let Err(errno) = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            self.fail("remove", path, errno);
        }
    }

    /// Moves a directory to the top under a name that nothing has there.
    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &Path) {
        loop {
            self.names += 1;
            match rustix::fs::renameat(dir, name, &self.top, format!(".deep-{}", self.names)) {
                Ok(()) => return self.moved += 1,
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                Err(errno) => return self.fail("move", path, errno),
            }
        }
    }

    fn fail(&mut self, action: &'static str, path: &Path, errno: Errno) {
        self.keep(Error::errno(action, path)(errno));
    }

    fn keep(&mut self, error: Error) {
        if self.failed.is_ok() {
            self.failed = Err(error);
        }
    }
}

fn open(dir: BorrowedFd<'_>, name: impl rustix::path::Arg, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(Error::errno("open", path))
}

fn join(path: &Path, name: &CStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    path.join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::thread::CapabilitySet;

    use super::*;

    /// Directories in one another, made from within: their path is longer than one may be.
    fn nest(at: &Path, levels: usize) {
        let mut dir = open(CWD, at, at).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).unwrap();
            let flags = OFlags::WRONLY | OFlags::CREATE;
            drop(rustix::fs::openat(&dir, "f", flags, Mode::from_raw_mode(0o644)).unwrap());
            dir = open(dir.as_fd(), "d", at).unwrap();
        }
    }

    #[test]
    fn a_tree_of_any_depth_goes_with_few_descriptors() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        for levels in [0, LEVELS - 1, LEVELS, LEVELS + 1, 5000] {
            fs::create_dir_all(tree.join("a/b")).unwrap();
            // Names that the removal would have taken.
            fs::create_dir_all(tree.join(".deep-1/x")).unwrap();
            fs::write(tree.join(".deep-2"), "").unwrap();
            nest(&tree.join("a/b"), levels);
            remove(&tree).unwrap();
            assert!(!tree.exists(), "{levels}");
        }
    }

    /// What a user may not write to, with something in it, is neither removed nor moved.
    #[test]
    fn a_directory_that_cannot_be_moved_up_ends_the_removal() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("tree");
        let deep = tree.join(vec!["d"; LEVELS].join("/"));
        let fixed = deep.join("fixed");
        fs::create_dir_all(fixed.join("inside")).unwrap();
        fs::create_dir(deep.join("other")).unwrap();
        let mode = |mode| fs::set_permissions(&fixed, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o555);
        let without_rights = || {
            rustix::thread::set_capabilities(
                None,
                rustix::thread::CapabilitySets {
                    effective: CapabilitySet::empty(),
                    permitted: CapabilitySet::empty(),
                    inheritable: CapabilitySet::empty(),
                },
            )
            .unwrap();
            remove(&tree).unwrap_err().to_string()
        };
        let said = std::thread::scope(|scope| scope.spawn(without_rights).join().unwrap());
        assert!(said.ends_with("/fixed") && said.starts_with("move "), "{said}");
        assert_eq!((fixed.exists(), deep.join("other").exists()), (true, false));
        mode(0o755);
        remove(&tree).unwrap();
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let (tree, kept) = (scratch.path().join("tree"), scratch.path().join("kept"));
        fs::create_dir_all(kept.join("inside")).unwrap();
        fs::create_dir(&tree).unwrap();
        for at in [tree.join("link"), scratch.path().join("link")] {
            std::os::unix::fs::symlink(&kept, &at).unwrap();
        }
        remove(&tree).unwrap();
        remove(&scratch.path().join("link")).unwrap();
        remove(&scratch.path().join("missing")).unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
        assert!(kept.join("inside").exists());
    }
}
