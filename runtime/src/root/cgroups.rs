//! The `cgroup` mount: the container sees its own control groups (C23), or on version 2 what its caller sees.

use super::mounts::new_filesystem;
use crate::error::{Context, Result};
use hull_cgroup::{Layout, Place, SavedPaths, Version};
use hull_plan::{Attributes, MountPlan, MountSource, NamespaceKind, Plan};
use hull_rooted::Root;
use hull_sys::fs::{self, Mode};
use hull_sys::mount::{MOUNT_ATTR_RDONLY, MountAttr, mount_setattr, move_mount, move_mount_at, open_tree};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One hierarchy as the container sees it.
#[derive(Debug)]
pub struct MountEntry {
    /// Directory below the mount: `cpu,cpuacct`, `systemd`.
    name: String,
    /// Links to it: `cpu`, `cpuacct`.
    aliases: Vec<String>,
    /// What is shown, on the host.
    host_path: String,
    /// It is mounted anew, in a cgroup namespace of the container's; else what is shown is bound.
    anew: bool,
    /// Options of a fresh mount of the hierarchy.
    options: Vec<String>,
    version: Version,
    /// The whole of a pure version 2 layout: mounted at the target itself.
    whole: bool,
}

impl MountEntry {
    /// What is shown, on the host.
    pub fn host_path(&self) -> &str {
        &self.host_path
    }

    /// Where a mount at `target` shows it.
    pub fn target_below(&self, target: &str) -> String {
        if self.whole { target.to_owned() } else { format!("{target}/{}", self.name) }
    }
}

/// What a `cgroup` mount shows: the container's directories. On a pure version 2 layout without a cgroup namespace of its own
/// it is the caller's whole tree: who leaves the namespace out wants the host's view, where the paths of /proc/PID/cgroup are.
pub fn entries(paths: &SavedPaths, own_namespace: bool) -> Vec<MountEntry> {
    let whole = paths.layout == Layout::V2;
    let shown = paths.places.iter().filter(|place| whole || place.version == Version::V1);
    shown.map(|place| entry(place, whole, own_namespace)).collect()
}

fn entry(place: &Place, whole: bool, own_namespace: bool) -> MountEntry {
    let (name, options) = match place.hierarchy.strip_prefix("name=") {
        Some(name) => (name.to_owned(), vec!["none".to_owned(), place.hierarchy.clone()]),
        None => (place.hierarchy.clone(), place.hierarchy.split(',').map(str::to_owned).collect()),
    };
    let aliases = if name.contains(',') { name.split(',').map(str::to_owned).collect() } else { Vec::new() };
    let host_path = if whole && !own_namespace { place.mount_point.clone() } else { place.host_path() };
    MountEntry { name, aliases, host_path, anew: own_namespace, options, version: place.version, whole }
}

/// Who owns the container's own part of the version 2 tree: its user, if it has a cgroup namespace and a `cgroup` mount
/// that can be written (config-linux.md, "cgroup ownership"). The id is the host's.
pub fn owner(plan: &Plan) -> Option<u32> {
    let writable = |mount: &MountPlan| {
        mount.source == MountSource::Cgroup && mount.attributes.set & MOUNT_ATTR_RDONLY == 0
    };
    if !plan.entry.create.has(NamespaceKind::Cgroup) || !plan.mounts.iter().any(writable) {
        return None;
    }
    let inside = plan.process.as_ref()?.uid;
    match &plan.entry.id_maps {
        Some(maps) => maps.uid.iter().find_map(|map| {
            let offset = inside.checked_sub(map.inside).filter(|offset| *offset < map.size)?;
            map.outside.checked_add(offset)
        }),
        // Whose ids a joined user namespace maps is not known here.
        None => (!plan.entry.joins(NamespaceKind::User)).then_some(inside),
    }
}

const NO_OPTIONS: &[(String, Option<String>)] = &[];

/// Mounts a tmpfs with a directory for each v1 hierarchy, or the one v2 tree.
pub fn mount(root: &Root, mount: &MountPlan, plan: &Plan, entries: &[MountEntry]) -> Result<()> {
    let target = root.open_or_create_dir(&mount.target, 0o755).context(|| "make the target directory")?;
    super::mounts::refuse_hidden_proc(target.as_fd(), &mount.target)?;
    if let [only] = entries
        && only.whole
    {
        let tree = hierarchy(only, mount.attributes)?;
        restrict(tree.as_fd(), mount.attributes)?;
        return move_mount(tree.as_fd(), target.as_fd()).context(|| "attach");
    }
    let writable = Attributes { set: mount.attributes.set & !MOUNT_ATTR_RDONLY, ..mount.attributes };
    let mode = [("mode".to_owned(), Some("755".to_owned()))];
    let base = new_filesystem("tmpfs", Some("tmpfs"), &mode, plan.mount_label.as_deref(), writable)?;
    move_mount(base.as_fd(), target.as_fd()).context(|| "attach")?;
    // Names below the tmpfs are safe: it is our own, and nobody has entered it yet.
    for entry in entries {
        let name = entry.name.as_str();
        let tree = hierarchy(entry, mount.attributes)?;
        fs::mkdirat(base.as_fd(), name, Mode::from_raw_mode(0o755)).context(|| format!("make {name}"))?;
        move_mount_at(tree.as_fd(), base.as_fd(), name).context(|| format!("attach {name}"))?;
        for alias in &entry.aliases {
            fs::symlinkat(name, base.as_fd(), alias.as_str()).context(|| format!("link {alias}"))?;
        }
    }
    restrict(base.as_fd(), mount.attributes)
}

/// With a cgroup namespace a fresh mount shows the container's part; without one what is shown is bound, with the options
/// that it has on the host: those of version 2 are one for all, and a fresh mount would take them away from the host's.
fn hierarchy(entry: &MountEntry, attributes: Attributes) -> Result<OwnedFd> {
    if entry.anew {
        let options: Vec<_> = entry.options.iter().map(|option| option_pair(option)).collect();
        let options = if entry.version == Version::V2 { NO_OPTIONS } else { &options };
        let kind = if entry.version == Version::V2 { "cgroup2" } else { "cgroup" };
        return new_filesystem(kind, Some("cgroup"), options, None, attributes);
    }
    open_tree(hull_sys::CWD, entry.host_path.as_str(), true, false)
        .context(|| format!("open {}", entry.host_path))
}

/// Gives a mount, and all below it, the options of the configuration.
fn restrict(tree: BorrowedFd<'_>, attributes: Attributes) -> Result<()> {
    let attr = MountAttr { set: attributes.set, clear: attributes.clear, ..MountAttr::default() };
    mount_setattr(tree, true, &attr).context(|| "set the attributes of the control groups")
}

fn option_pair(option: &str) -> (String, Option<String>) {
    match option.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (option.to_owned(), None),
    }
}
