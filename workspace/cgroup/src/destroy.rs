//! Removing the container's directories: children first, never by moving a process out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use hull_sys::SysError;
use hull_sys::fs::rmdirat;

use crate::cgroup::Cgroup;
use crate::error::{CgroupError, Result};
use crate::node::Node;
use crate::processes::{groups, open_group};
use crate::systemd;
use crate::wait::wait_until;

/// How many directories are held open on the way down. A container may nest groups far deeper than the caller may
/// open files.
const HELD: usize = 64;

impl Cgroup {
    /// Removes every directory of the container and those that it made below. A directory that is gone is no error.
    ///
    /// # Errors
    /// A directory is still busy at `deadline`: processes are in there.
    pub fn destroy(&mut self, deadline: Instant) -> Result<()> {
        // A bus that is gone keeps nobody from removing the directories, and systemd drops a unit without one.
        let stopped = self.unit.as_ref().map_or(Ok(()), |unit| systemd::Manager::of(unit.user).stop(unit));
        let mut first = Ok(());
        // The first one last: it has the lock of whoever makes and removes them.
        for node in self.nodes.iter().rev() {
            // The others are removed all the same.
            let removed = remove_one(node, node.below_root(), deadline);
            first = first.and(removed);
        }
        first.map_err(|error| stopped.err().unwrap_or(error))
    }
}

/// Removes one directory of the hierarchy of `node`, with everything below.
pub(crate) fn remove_one(node: &Node, path: &str, deadline: Instant) -> Result<()> {
    let root = match node.root() {
        Ok(root) => root,
        // No such hierarchy any more: the directory is gone with it.
        Err(CgroupError::NotCgroup { .. }) => return Ok(()),
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let host_path = || format!("{}/{path}", node.place.mount_point);
    let fail = |source| CgroupError::File { action: "remove", path: host_path(), source };
    let removed = wait_until(deadline, || remove_tree(root, path).map_err(fail))?;
    if removed {
        return Ok(());
    }
    Err(CgroupError::Late {
        what: "remove",
        path: host_path(),
        detail: " (device or resource busy)".to_owned(),
    })
}

/// Removes a directory of the hierarchy of `node` if nothing is in it.
pub(crate) fn remove_empty(node: &Node, path: &str) -> Result<()> {
    let fail = |source| CgroupError::File {
        action: "remove",
        path: format!("{}/{path}", node.place.mount_point),
        source,
    };
    rmdirat(node.root()?, path).map_err(fail)
}

/// Removes a directory and what is below it; false when something is busy.
fn remove_tree(root: BorrowedFd<'_>, path: &str) -> std::result::Result<bool, SysError> {
    if removed(root, path)? {
        return Ok(true);
    }
    let Some(top) = open_group(root, path)? else { return Ok(true) };
    // Directories on the way down that had to be let go: once more from the top, as long as fewer are below each time.
    while let Pass { complete: false, progress: true } = empty_out(&top)? {}
    removed(root, path)
}

/// What one walk over the tree got done.
struct Pass {
    /// Every group was looked at.
    complete: bool,
    /// At least one was removed.
    progress: bool,
}

/// Removes the groups below `top`, as far down as fits into [`HELD`] open directories at a time. Busy ones are left.
fn empty_out(top: &OwnedFd) -> std::result::Result<Pass, SysError> {
    let mut pass = Pass { complete: true, progress: false };
    let mut levels = vec![Level { dir: None, name: String::new(), children: groups(top.as_fd())? }];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.children.pop() else {
            let done = levels.pop().expect("the loop's condition");
            if let Some(parent) = levels.last() {
                pass.progress |= removed(parent.fd(top), &done.name)?;
            }
            continue;
        };
        let dir = level.fd(top);
        if removed(dir, &name)? {
            pass.progress = true;
            continue;
        }
        if let Some(child) = open_group(dir, &name)? {
            let children = groups(child.as_fd())?;
            levels.push(Level { dir: Some(child), name, children });
        }
        if levels.len() > HELD {
            levels.drain(..HELD / 2);
            pass.complete = false;
        }
    }
    Ok(pass)
}

/// A directory on the way down (`None`: the top), and the groups in it that are still to be looked at.
struct Level {
    dir: Option<OwnedFd>,
    name: String,
    children: Vec<String>,
}

impl Level {
    fn fd<'a>(&'a self, top: &'a OwnedFd) -> BorrowedFd<'a> {
        self.dir.as_ref().map_or(top.as_fd(), |dir| dir.as_fd())
    }
}

/// Removes an empty directory; false when it is busy.
fn removed(dir: BorrowedFd<'_>, name: &str) -> std::result::Result<bool, SysError> {
    match rmdirat(dir, name) {
        Ok(()) => Ok(true),
        Err(error) if [libc::ENOENT, libc::ENODEV].contains(&error.errno) => Ok(true),
        Err(error) if [libc::EBUSY, libc::ENOTEMPTY].contains(&error.errno) => Ok(false),
        Err(error) => Err(error),
    }
}
