//! Who is in the container's directories.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::fs::{FileType, OFlags, read_directory};

use crate::cgroup::{Cgroup, PROCS};
use crate::error::{CgroupError, Result};
use crate::hierarchies::{open_below, read_whole};
use crate::node::Node;

/// How deep below the container's directory its own groups are looked at.
const DEPTH_MAX: usize = 64;

impl Cgroup {
    /// Process ids in the container's group, ascending; with `recursive` also those in groups below it. Empty when
    /// the group is gone.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn processes(&self, recursive: bool) -> Result<Vec<i32>> {
        self.main().map_or(Ok(Vec::new()), |node| below(node, recursive))
    }

    /// True when one of the groups, or one below it, has a process, be it one outside of the caller's pid namespace.
    /// A hierarchy that is not mounted any more has nobody.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn is_occupied(&self) -> Result<bool> {
        for node in &self.nodes {
            match all_below(node, true) {
                Ok(found) if found.is_empty() => {}
                Ok(_) => return Ok(true),
                Err(CgroupError::NotCgroup { .. }) => {}
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// Lists the processes in one directory that the caller can name.
pub(crate) fn below(node: &Node, recursive: bool) -> Result<Vec<i32>> {
    Ok(all_below(node, recursive)?.into_iter().filter(|pid| *pid > 0).collect())
}

/// 0 stands for all processes outside of the caller's pid namespace.
fn all_below(node: &Node, recursive: bool) -> Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    let Some(dir) = node.dir()? else { return Ok(found) };
    collect(dir, recursive, 0, &mut found).map_err(|source| CgroupError::File {
        action: "read",
        path: node.path_of(PROCS),
        source,
    })?;
    Ok(found)
}

fn collect(
    dir: BorrowedFd<'_>,
    recursive: bool,
    depth: usize,
    found: &mut BTreeSet<i32>,
) -> std::result::Result<(), hull_sys::SysError> {
    match read_whole(dir, PROCS) {
        Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        // Removed meanwhile; or a threaded group, whose processes its domain lists.
        Err(error) if [libc::ENOENT, libc::ENODEV, libc::EOPNOTSUPP].contains(&error.errno) => {}
        Err(error) => return Err(error),
    }
    if !recursive || depth == DEPTH_MAX {
        return Ok(());
    }
    for name in groups(dir)? {
        if let Some(child) = open_group(dir, &name)? {
            collect(child.as_fd(), true, depth + 1, found)?;
        }
    }
    Ok(())
}

/// Names of the groups in a directory. A new fd each time: a directory is read once per offset.
pub(crate) fn groups(dir: BorrowedFd<'_>) -> std::result::Result<Vec<String>, hull_sys::SysError> {
    let Some(again) = open_group(dir, ".")? else { return Ok(Vec::new()) };
    let entries = match read_directory(again.as_fd()) {
        Err(error) if [libc::ENOENT, libc::ENODEV].contains(&error.errno) => Vec::new(),
        other => other?,
    };
    let dirs = entries.into_iter().filter(|entry| entry.kind == FileType::Directory);
    Ok(dirs.filter_map(|entry| entry.name.into_string().ok()).collect())
}

/// Opens a group below `dir`; `None` when it is gone.
pub(crate) fn open_group(
    dir: BorrowedFd<'_>,
    name: &str,
) -> std::result::Result<Option<OwnedFd>, hull_sys::SysError> {
    match open_below(dir, name, OFlags::DIRECTORY | OFlags::RDONLY) {
        Ok(child) => Ok(Some(child)),
        Err(error) if [libc::ENOENT, libc::ENODEV].contains(&error.errno) => Ok(None),
        Err(error) => Err(error),
    }
}
