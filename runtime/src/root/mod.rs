//! The container's root file system: attached, filled with mounts and devices, masked, switched to.
//!
//! Everything below the root is reached through [`hull_rooted::Root`], never by a joined path (R1), and every mount is
//! attached by descriptors (R2).

pub mod cgroups;
mod copy_up;
pub mod devices;
pub mod masks;
pub mod mounts;
pub mod pivot;
pub mod prepare;
pub mod sources;

use crate::error::{Context, Result};
use crate::files::open_place;
use hull_plan::{Propagation, PropagationPlan, RootPlan};
use hull_rooted::Root;
use hull_sys::mount::{MountAttr, mount_setattr, move_mount, set_propagation_path};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the peers use where `linux.rootfsPropagation` is absent: mounts of the host arrive, none go back.
const DEFAULT: PropagationPlan = PropagationPlan { kind: Propagation::Slave, recursive: true };

/// Attaches the root file system in the process's own mount namespace and returns the handle to it.
///
/// It is mounted on its own directory, where hooks that enter the namespace look for it; or over `/` itself where that
/// directory is out of a user namespace's reach, where its mount is to stay shared (which pivot_root(2) does not take), and
/// where the root is only to be changed: that is the root of the namespace then.
pub fn attach(plan: &RootPlan, tree: OwnedFd, no_pivot: bool) -> Result<Root> {
    let propagation = plan.propagation.unwrap_or(DEFAULT);
    // What is mounted from here on must not reach the host, however little of the tree the configured word covers; it
    // is for the new root. Only what shares mounts keeps the old ones as they are.
    let outer = if propagation.kind == Propagation::Shared { propagation } else { DEFAULT };
    set_propagation_path(c"/", outer.recursive, outer.kind.flag())
        .context(|| "set the propagation of the mounts")?;
    let over_slash = no_pivot || propagation.kind == Propagation::Shared;
    let own = if over_slash { None } else { open_place(plan.path.as_str()).ok() };
    let target = match own {
        Some(own) => own,
        None => {
            set_propagation_path(c"/", false, Propagation::Private.flag())
                .context(|| "make the old root private")?;
            open_place(c"/").context(|| "open /")?
        }
    };
    move_mount(tree.as_fd(), target.as_fd()).context(|| format!("attach the root {}", plan.path))?;
    handle(tree)
}

/// The handle to a root directory: where the container has no mount namespace of its own, the host's.
pub fn handle(directory: OwnedFd) -> Result<Root> {
    Root::from_fd(directory).context(|| "open the root")
}

/// Sets the propagation of a tree that is attached nowhere yet.
pub fn set_tree_propagation(tree: BorrowedFd<'_>, plan: Option<PropagationPlan>) -> hull_sys::Result<()> {
    let propagation = plan.unwrap_or(DEFAULT);
    let attr = MountAttr { propagation: propagation.kind.flag(), ..MountAttr::default() };
    mount_setattr(tree, propagation.recursive, &attr)
}

/// The same for the root: pivot_root(2) refuses a shared one, which it becomes after the switch.
pub fn set_root_propagation(tree: BorrowedFd<'_>, plan: Option<PropagationPlan>) -> hull_sys::Result<()> {
    set_tree_propagation(tree, plan)?;
    match plan {
        Some(PropagationPlan { kind: Propagation::Shared, .. }) => {
            let attr = MountAttr { propagation: Propagation::Slave.flag(), ..MountAttr::default() };
            mount_setattr(tree, false, &attr)
        }
        _ => Ok(()),
    }
}
