//! What is mounted from outside, as detached trees that no later change of a path can swap: opened before the clone where
//! a user namespace may see less afterwards, else when its turn comes.

use super::{set_root_propagation, set_tree_propagation};
use crate::error::{Code, Context, Error, Result};
use crate::files::open_place_dir;
use crate::link::{Link, ToChild, ToParent};
use hull_plan::{EntryScript, HostFacts, IdMaps, MountIdMap, MountPlan, MountSource, NamespaceKind, Plan};
use hull_rooted::{Entry, Proc, Root, View};
use hull_sys::CWD;
use hull_sys::errno::ENOENT;
use hull_sys::fs::OFlags;
use hull_sys::mount::{MOUNT_ATTR_IDMAP, MountAttr, mount_setattr, open_tree, open_tree_fd};
use hull_sys::namespace::CloneFlags;
use hull_sys::process::{CloneRequest, exit_now, pidfd_send_signal, spawn, wait};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// The opened root and bind sources of a plan.
#[derive(Debug)]
pub struct Sources {
    /// The root file system.
    pub root: OwnedFd,
    /// In the order of the mounts. None for entries that are no bind mounts, and for those that are opened when their
    /// turn comes: the kernel lists mounts in the order in which they were cloned (R3).
    pub mounts: Vec<Option<OwnedFd>>,
}

/// Who maps the ids of a tree.
pub enum Mapper<'a> {
    /// This process.
    Own(&'a HostFacts),
    /// The parent, where this process has changed to another user namespace; with the index of the mount in the plan.
    Parent(&'a Link, usize),
}

/// Opens everything that `plan` mounts from outside.
pub fn open_all(plan: &Plan, facts: &HostFacts) -> Result<Sources> {
    let own_mounts = plan.entry.has_own(NamespaceKind::Mount);
    let root = open_root(plan, own_mounts)?;
    let early = plan.entry.has_own(NamespaceKind::User);
    let open = |mount: &MountPlan| {
        if early && inside(plan, mount).is_none() {
            match open_source(plan, mount, &Mapper::Own(facts)) {
                // Made by an earlier mount, perhaps: looked up again when its turn comes.
                Err(error) if error.errno == Some(ENOENT) => Ok(None),
                other => other.map_err(|error| super::mounts::named(mount, error)),
            }
        } else {
            Ok(None)
        }
    };
    let mounts = plan.mounts.iter().map(open).collect::<Result<_>>()?;
    Ok(Sources { root, mounts })
}

fn open_root(plan: &Plan, own_mounts: bool) -> Result<OwnedFd> {
    let path = &plan.root.path;
    let failed = |error: Error| error.field("/root/path").object(path.clone());
    let directory =
        open_place_dir(path.as_str()).context(|| format!("open rootfs {path}")).map_err(failed)?;
    if !own_mounts {
        return Ok(directory);
    }
    let tree = open_tree_fd(directory.as_fd(), true, true)
        .context(|| format!("clone rootfs {path}"))
        .map_err(failed)?;
    set_root_propagation(tree.as_fd(), plan.root.propagation)
        .context(|| "set the propagation of the rootfs")?;
    Ok(tree)
}

/// The path inside of a bind source that lies below the root file system.
fn inside(plan: &Plan, mount: &MountPlan) -> Option<String> {
    let MountSource::Bind { path, .. } = &mount.source else { return None };
    hull_plan::path_below(path, &plan.root.path)
}

/// Opens a source when its turn comes: one that lies below the root file system shows the mounts made there so far.
pub fn open_late(
    plan: &Plan,
    mount: &MountPlan,
    root: &Root,
    mapper: &Mapper<'_>,
) -> Result<Option<OwnedFd>> {
    let (MountSource::Bind { recursive, .. }, Some(path)) = (&mount.source, inside(plan, mount)) else {
        return open_source(plan, mount, mapper);
    };
    let named = |error: Error| error.field(format!("{}/source", mount.field)).object(path.clone());
    let place = root.open(&path).context(|| "open the source").map_err(named)?;
    let tree = open_tree_fd(place.as_fd(), true, *recursive).context(|| "clone the source").map_err(named)?;
    prepare(plan, mount, mapper, &tree)?;
    Ok(Some(tree))
}

/// Opens the source of a bind mount as a detached tree; none for other mounts.
pub fn open_source(plan: &Plan, mount: &MountPlan, mapper: &Mapper<'_>) -> Result<Option<OwnedFd>> {
    let MountSource::Bind { path, recursive } = &mount.source else { return Ok(None) };
    let tree = open_tree(CWD, path.as_str(), true, *recursive)
        .context(|| "open the source")
        .map_err(|error| error.field(format!("{}/source", mount.field)).object(path.clone()))?;
    prepare(plan, mount, mapper, &tree)?;
    Ok(Some(tree))
}

/// What a detached tree needs before it is attached.
fn prepare(plan: &Plan, mount: &MountPlan, mapper: &Mapper<'_>, tree: &OwnedFd) -> Result<()> {
    set_tree_propagation(tree.as_fd(), plan.root.propagation)
        .context(|| "set the propagation of the source")?;
    match (&mount.id_map, mapper) {
        (None, _) => Ok(()),
        (Some(_), Mapper::Own(facts)) => map_ids(plan, mount, facts, tree),
        (Some(_), Mapper::Parent(link, index)) => {
            let tree = tree.try_clone().context(|| "hand over the source")?;
            link.tell(&ToParent::MapIds(*index, tree))?;
            link.await_order(ToChild::IdsMapped)
        }
    }
}

/// Maps the ids of a mount's tree; nothing to do where the mount asks for no mapping.
pub fn map_ids(plan: &Plan, mount: &MountPlan, facts: &HostFacts, tree: &OwnedFd) -> Result<()> {
    let Some(map) = &mount.id_map else { return Ok(()) };
    apply_id_map(tree, map, &plan.entry, facts)
        .map_err(|error| error.within("map its ids").field(mount.field.clone()))
}

/// mount_setattr(2), MOUNT_ATTR_IDMAP: the mapping is that of a user namespace.
fn apply_id_map(tree: &OwnedFd, map: &MountIdMap, entry: &EntryScript, facts: &HostFacts) -> Result<()> {
    let namespace = match (&map.maps, &entry.id_maps) {
        (Some(maps), _) | (None, Some(maps)) => namespace_with(maps, facts)?,
        (None, None) => joined_user_namespace(entry)?,
    };
    let attr = MountAttr { set: MOUNT_ATTR_IDMAP, userns: Some(namespace.as_fd()), ..MountAttr::default() };
    mount_setattr(tree.as_fd(), map.recursive, &attr)
        .context(|| "mount_setattr")
        .map_err(|error| error.hint("the file system of the source has to support id-mapped mounts"))
}

fn joined_user_namespace(entry: &EntryScript) -> Result<OwnedFd> {
    let join = entry.join.iter().find(|join| join.kind == NamespaceKind::User).ok_or_else(|| {
        Error::new(Code::ConfigInvalid, "no id mapping is given and there is no user namespace")
    })?;
    Ok(File::open(&join.path).context(|| format!("open {}", join.path))?.into())
}

/// A user namespace with this mapping, held by nothing but the descriptor.
fn namespace_with(maps: &IdMaps, facts: &HostFacts) -> Result<OwnedFd> {
    const SIGKILL: i32 = 9;
    let request = CloneRequest { flags: CloneFlags::NEWUSER, ..CloneRequest::default() };
    let child = spawn(&request, || {
        // It must not outlive a runtime that is killed, nor hold what that one held.
        let alone = hull_sys::process::set_parent_death_signal(SIGKILL)
            .and_then(|()| hull_sys::fd::close_all_but(Vec::new()));
        if alone.is_err() {
            exit_now(1);
        }
        loop {
            // Only to be looked at, and killed when it has been.
            if hull_sys::poll::wait_for_signal().is_err() {
                exit_now(1);
            }
        }
    })
    .context(|| "make a user namespace")?;
    let result = crate::enter::write_id_maps(child.pid, maps, facts).and_then(|()| {
        Proc::open(View::Processes)
            .and_then(|proc| proc.open_link(Entry::Of(child.pid, "ns/user"), OFlags::RDONLY))
            .context(|| "open the new user namespace")
    });
    pidfd_send_signal(child.pidfd.as_fd(), SIGKILL).context(|| "end the helper process")?;
    wait(child.pidfd.as_fd()).context(|| "reap the helper process")?;
    result
}
