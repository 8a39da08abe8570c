//! Giving the version 2 directory to the container's user (config-linux.md, "cgroup ownership").

use std::os::fd::{AsFd, BorrowedFd};

use hull_sys::fs::{OFlags, fchown};
use hull_sys::{CWD, SysError};

use crate::Layout;
use crate::cgroup::Cgroup;
use crate::error::{CgroupError, Result};
use crate::hierarchies::{open_below, read_whole};

/// What changes owner where the kernel does not list it.
const FALLBACK: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

impl Cgroup {
    /// Gives the container's directory, and those of its files that the kernel lists in
    /// /sys/kernel/cgroup/delegate, to `uid`. For a container with a cgroup namespace of its own and a `cgroup` mount
    /// that is not read-only; nothing happens in version 1 hierarchies, where it would let limits be lifted.
    ///
    /// # Errors
    /// An owner cannot be changed; a file that does not exist is no error.
    pub fn delegate(&self, uid: u32) -> Result<()> {
        let Some(node) = self.v2().filter(|_| self.layout == Layout::V2) else { return Ok(()) };
        let Some(dir) = node.dir()? else { return Ok(()) };
        let fail = |file: &str| {
            let path = node.path_of(file);
            move |source| CgroupError::File { action: "change the owner of", path, source }
        };
        give(dir, uid).map_err(fail(""))?;
        let list = read_whole(CWD, "/sys/kernel/cgroup/delegate").unwrap_or_else(|_| FALLBACK.to_owned());
        for file in list.lines().filter(|file| !file.is_empty() && !file.contains('/')) {
            match open_below(dir, file, OFlags::PATH) {
                Err(error) if error.is(libc::ENOENT) => {}
                Err(source) => return Err(fail(file)(source)),
                Ok(opened) => give(opened.as_fd(), uid).map_err(fail(file))?,
            }
        }
        Ok(())
    }
}

fn give(fd: BorrowedFd<'_>, uid: u32) -> std::result::Result<(), SysError> {
    fchown(fd, uid, KEEP_GROUP)
}

/// The group stays as it is (chown(2)).
const KEEP_GROUP: u32 = u32::MAX;
