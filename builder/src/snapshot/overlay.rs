//! Overlay mounts by file descriptor, with every feature off that would leave its traces in a layer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::mount;
use rustix::fs::XattrFlags;

use crate::error::{Error, Result};

/// Mounts `lowers` (base first) as one tree, with `upper` and `work` to write to; the mount is attached nowhere.
pub(crate) fn mount(lowers: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd> {
    let context = mount::fsopen("overlay").map_err(Error::system("open overlay"))?;
    let fd = context.as_fd();
    let said = |e| Error::system(format!("mount overlay ({})", mount::fs_log(fd)))(e);
    for lower in lowers.iter().rev() {
        mount::fsconfig_string(fd, "lowerdir+", lower.as_path()).map_err(said)?;
    }
    if let Some((upper, work)) = upper {
        takes_marks(work)?;
        mount::fsconfig_string(fd, "upperdir", upper).map_err(said)?;
        mount::fsconfig_string(fd, "workdir", work).map_err(said)?;
        // The upper directory is synced by the store, or thrown away.
        mount::fsconfig_flag(fd, "volatile").map_err(said)?;
    }
    let inside = crate::ids::in_user_namespace();
    if inside {
        // Marks are user.overlay.*: the kernel refuses trusted.* here, and with it any other redirect_dir.
        mount::fsconfig_flag(fd, "userxattr").map_err(said)?;
    }
    let redirect = if inside { "nofollow" } else { "off" };
    for (option, value) in
        [("redirect_dir", redirect), ("metacopy", "off"), ("index", "off"), ("xino", "off")]
    {
        set(fd, option, value)?;
    }
    mount::fsconfig_create(fd).map_err(said)?;
    mount::fsmount(fd, 0).map_err(Error::system("mount overlay"))
}

/// A file system without extended attributes can be mounted, and fails later where a removed directory is made again.
fn takes_marks(work: &Path) -> Result<()> {
    let name = if crate::ids::in_user_namespace() { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
    rustix::fs::setxattr(work, name, b"y", XattrFlags::empty())
        .map_err(|errno| Error::io("set an overlay's attribute on", work)(errno.into()))
}

fn set(fd: BorrowedFd<'_>, option: &str, value: &str) -> Result<()> {
    let said = |e| Error::system(format!("set {option} of overlay ({})", mount::fs_log(fd)))(e);
    mount::fsconfig_string(fd, option, value).map_err(said)
}
