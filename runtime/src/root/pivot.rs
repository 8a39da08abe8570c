//! The switch of the root.

use crate::error::{Code, Context, Error, Result};
use crate::files::open_place;
use hull_plan::{Propagation, RootPlan};
use hull_rooted::Root;
use hull_sys::fs::{chdir, chroot, fchdir};
use hull_sys::mount::{
    MOUNT_ATTR_RDONLY, MountAttr, mount_setattr, pivot_root_here, set_propagation_path, unmount_detach,
    unmount_here,
};
use std::os::fd::AsFd;

/// Makes `root` the root of the process and of its mount namespace; nothing of the old tree stays reachable.
pub fn pivot(root: &Root) -> Result<()> {
    let old = open_place(c"/").context(|| "open the old root")?;
    fchdir(root.as_fd()).context(|| "enter the new root")?;
    pivot_root_here().context(|| "pivot_root")?;
    fchdir(old.as_fd()).context(|| "enter the old root")?;
    // Or the unmount below would reach the host where the mounts are shared.
    set_propagation_path(c".", true, Propagation::Slave.flag())
        .context(|| "detach the old root from the host")?;
    unmount_here().context(|| "unmount the old root")?;
    chdir(c"/").context(|| "enter /")
}

/// `--no-pivot`: the old tree stays below, and its procfs and sysfs would let a user namespace inside mount its own
/// without the masks (the kernel wants one that is fully visible): they go.
pub fn hide_host_proc() -> Result<()> {
    let table = std::fs::read("/proc/self/mountinfo").context(|| "read the mounts")?;
    let mounts = hull_rooted::mountinfo::parse(&table)
        .map_err(|error| Error::new(Code::Unsupported, format!("read the mounts: {error}")))?;
    for mount in mounts.iter().rev().filter(|mount| matches!(mount.fs_type.as_str(), "proc" | "sysfs")) {
        // The container's own have the same names in this table, but lie out of reach of a path here: a second try at
        // a name finds nothing left.
        let _gone = unmount_detach(mount.mount_point.as_path());
    }
    Ok(())
}

/// `--no-pivot`, or no mount namespace: the old tree stays below.
pub fn change_root(root: &Root) -> Result<()> {
    fchdir(root.as_fd()).context(|| "enter the new root")?;
    chroot(c".").context(|| "chroot")?;
    chdir(c"/").context(|| "enter /")
}

/// Propagation as configured, and read-only when asked.
pub fn seal(plan: &RootPlan, own_mounts: bool) -> Result<()> {
    if !own_mounts {
        return Ok(());
    }
    if let Some(propagation) = plan.propagation {
        set_propagation_path(c"/", propagation.recursive, propagation.kind.flag())
            .context(|| "set the propagation of the root")
            .map_err(|error| error.field("/linux/rootfsPropagation"))?;
    }
    if plan.readonly {
        let root = open_place(c"/").context(|| "open the root")?;
        let attr = MountAttr { set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        mount_setattr(root.as_fd(), false, &attr)
            .context(|| "make the root read-only")
            .map_err(|error| error.field("/root/readonly"))?;
    }
    Ok(())
}
