//! The host's hierarchies, probed: each mount point opened once and its file system verified.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use hull_sys::fs::{
    CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, Mode, OFlags, ResolveFlags, fs_type, openat, openat2,
};
use hull_sys::{CWD, SysError, io};

use crate::error::{CgroupError, Result};
use crate::{Facts, Version, systemd};

/// Largest file that is read from procfs or cgroupfs: a host with 20 000 mounts has a mountinfo of 3 MB.
const FILE_MAX: usize = 64 << 20;

/// The hierarchies of this host, and an open directory for each.
#[derive(Debug)]
pub struct Hierarchies {
    facts: Facts,
    roots: Vec<Rc<OwnedFd>>,
}

impl Hierarchies {
    /// Finds and opens the hierarchies of the calling process. A mount that is hidden by another one is left out.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn probe() -> Result<Self> {
        let read = |path: &str| {
            let text = read_whole(CWD, path);
            text.map_err(|source| CgroupError::Probe { what: path.to_owned(), source })
        };
        Ok(Self::open(Facts::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)))
    }

    /// Opens the mount points of `facts`, and reads which controllers the version 2 tree has.
    fn open(mut facts: Facts) -> Self {
        let mut roots = Vec::with_capacity(facts.hierarchies.len());
        facts.hierarchies.retain(|hierarchy| match open_root(&hierarchy.mount_point, hierarchy.version) {
            Ok(root) => {
                roots.push(Rc::new(root));
                true
            }
            Err(_) => false, // Hidden, unmounted since, or out of reach: as good as not mounted.
        });
        if let Some(tree) = facts.v2() {
            // A tree whose list cannot be read has no controllers to offer.
            facts.set_v2_controllers(
                &read_whole(roots[tree].as_fd(), "cgroup.controllers").unwrap_or_default(),
            );
        }
        Self { facts, roots }
    }

    /// What the plan needs to know.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Finds out where units of the caller's own systemd user manager are, which the plan of one of them needs.
    ///
    /// # Errors
    /// The user's bus cannot be reached, or says nothing of use.
    pub fn ask_user_manager(&mut self) -> Result<()> {
        self.facts.user_manager = Some(systemd::Manager::of(true).group()?);
        Ok(())
    }

    /// The mount point's directory of hierarchy `index`.
    pub(crate) fn root(&self, index: usize) -> &Rc<OwnedFd> {
        &self.roots[index]
    }
}

/// Opens a mount point and proves that it is a cgroup file system of that version.
pub(crate) fn open_root(mount_point: &str, version: Version) -> Result<OwnedFd> {
    let root = openat(CWD, mount_point, OFlags::DIRECTORY | OFlags::PATH, Mode::empty())
        .map_err(|source| CgroupError::File { action: "open", path: mount_point.to_owned(), source })?;
    let expected = match version {
        Version::V1 => CGROUP_SUPER_MAGIC,
        Version::V2 => CGROUP2_SUPER_MAGIC,
    };
    match fs_type(root.as_fd()) {
        Ok(found) if found == expected => Ok(root),
        Ok(_) => Err(CgroupError::NotCgroup { path: mount_point.to_owned() }),
        Err(source) => Err(CgroupError::File { action: "look at", path: mount_point.to_owned(), source }),
    }
}

/// How every path below a verified directory is resolved: never up, never across a mount, never through a link.
pub(crate) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens `path` below `directory`.
pub(crate) fn open_below(
    directory: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
) -> std::result::Result<OwnedFd, SysError> {
    openat2(directory, path, flags, Mode::empty(), BENEATH)
}

/// Reads a whole file; bytes that are not UTF-8 are replaced.
pub(crate) fn read_whole(directory: BorrowedFd<'_>, path: &str) -> std::result::Result<String, SysError> {
    let file = openat(directory, path, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())?;
    let bytes = io::read_to_limit(file.as_fd(), FILE_MAX)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
