//! Mounts that land on the host because the container has no mount namespace of its own: noted before they are made, taken
//! away by `delete` and by a `create` that fails.

use crate::state::Record;
use hull_plan::{MountPlan, MountSource, NamespaceKind, Plan};
use hull_rooted::Root;
use hull_sys::fs::fchdir;
use hull_sys::mount::unmount_here;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Their places on the host, in the order in which they are made.
pub fn of(plan: &Plan) -> Vec<PathBuf> {
    if plan.entry.has_own(NamespaceKind::Mount) {
        return Vec::new();
    }
    let makes_one = |mount: &&MountPlan| {
        mount.target != "/" && !matches!(mount.source, MountSource::Remount { .. } | MountSource::ChangeOnly)
    };
    let mounts = plan.mounts.iter().filter(makes_one).map(|mount| &mount.target);
    let targets = mounts.chain(&plan.readonly_paths).chain(&plan.masked_paths);
    targets.map(|target| PathBuf::from(format!("{}{target}", plan.root.path))).collect()
}

/// Unmounts them. The container may have moved the targets about: they are looked up below its root only, and unmounted
/// by descriptor.
pub fn take_away(record: &Record) {
    if record.host_mounts.is_empty() {
        return;
    }
    let Ok(root) = Root::at(&record.rootfs) else { return };
    for path in record.host_mounts.iter().rev() {
        let Ok(target) = path.strip_prefix(&record.rootfs) else { continue };
        // Unmounted already, by a delete that was interrupted or by hand, is as good.
        let _gone = root
            .open(Path::new("/").join(target))
            .is_ok_and(|mount| fchdir(mount.as_fd()).and_then(|()| unmount_here()).is_ok());
    }
    // Not to stay on a file system that somebody wants to unmount.
    let _moved = hull_sys::fs::chdir(c"/");
}
