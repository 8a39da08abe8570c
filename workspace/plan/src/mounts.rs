//! The mounts, in the listed order (config.md, mounts).

use crate::entry::ranges;
use crate::paths;
use crate::plan::{
    EntryScript, HostFacts, IdMaps, MountIdMap, MountPlan, MountSource, NamespaceKind, Warning,
};
use crate::refusal::Refusal;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use oci_spec::runtime::{LinuxIdMapping, Mount};

mod options;
mod overlay;

use options::Options;
pub use options::known as mount_options;

/// The only places below /proc where something may be mounted: files that lxcfs and the like replace. Anything else
/// there could hide or fake what labels and limits are written through (CVE-2015-3631, CVE-2019-16884).
const PROC_FILES: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// What a mount is planned against.
pub(crate) struct Surroundings<'a> {
    pub entry: &'a EntryScript,
    pub facts: &'a HostFacts,
    /// Absolute path of the root file system outside.
    pub root: &'a str,
    /// SELinux context of new file systems.
    pub label: Option<&'a str>,
}

/// Plans all mounts.
pub(crate) fn plan(
    mounts: &[Mount],
    around: &Surroundings,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<MountPlan>, Refusal> {
    mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| one(mount, format!("/mounts/{index}"), around, warnings))
        .collect()
}

/// True when the host's /dev, or a part of it, is bind mounted on /dev: nothing is made in there.
pub(crate) fn bring_host_dev(mounts: &[MountPlan]) -> bool {
    mounts.iter().any(|mount| mount.target == "/dev" && matches!(mount.source, MountSource::Bind { .. }))
}

fn one(
    mount: &Mount,
    field: String,
    around: &Surroundings,
    warnings: &mut Vec<Warning>,
) -> Result<MountPlan, Refusal> {
    let words = mount.options().as_deref().unwrap_or_default();
    let mut options = options::parse(words);
    let target = target(mount, &field, around, warnings)?;
    let source = source(mount, &options, &field, around)?;
    refuse_hiding_proc(&target, &source, &field)?;
    let id_map = id_map(mount, &options, &source, (&field, around))?;
    warn_of_lost_options(&source, &options, &field, warnings);
    if source == MountSource::Cgroup && around.facts.rootless && !around.entry.has_own(NamespaceKind::Cgroup)
    {
        // The tree is the caller's own: writable, it would let the container out of its limits (CVE-2023-25809).
        options.force_read_only();
    }
    let copy_up =
        options.copy_up && matches!(&source, MountSource::Filesystem { kind, .. } if kind == "tmpfs");
    Ok(MountPlan {
        field,
        target,
        source,
        attributes: options.attributes,
        recursive_attributes: options.recursive_attributes,
        propagation: options.propagation,
        copy_up,
        id_map,
        options: words.to_vec(),
    })
}

fn target(
    mount: &Mount,
    field: &str,
    around: &Surroundings,
    warnings: &mut Vec<Warning>,
) -> Result<String, Refusal> {
    let destination = mount.destination().to_str().unwrap_or_default();
    if destination.is_empty() {
        return Err(Refusal::new(format!("{field}/destination"), "the destination is empty"));
    }
    if !destination.starts_with('/') {
        let text = format!("relative destination {destination:?} is deprecated, it is taken from /");
        warnings.push(Warning { field: format!("{field}/destination"), text });
    }
    let clean = paths::clean(destination);
    // A path inside is asked for; some callers give that of the host, and runc understands them.
    if let Some(inside) = paths::below(&clean, around.root) {
        let text =
            format!("destination {destination:?} is below the root file system outside, {inside:?} is taken");
        warnings.push(Warning { field: format!("{field}/destination"), text });
        return Ok(inside);
    }
    Ok(clean)
}

fn source(
    mount: &Mount,
    options: &Options,
    field: &str,
    around: &Surroundings,
) -> Result<MountSource, Refusal> {
    let from = mount.source().as_ref().and_then(|source| source.to_str()).unwrap_or_default();
    let kind = mount.typ().as_deref().unwrap_or_default();
    // The options decide: `type` says nothing about a bind mount, but `bind` as a type is meant as one.
    let bind = options.bind.or_else(|| (kind == "bind").then_some(false));
    if options.remount {
        // A bind remount reaches the mount alone, never the superblock behind it.
        let superblock = if bind.is_some() { Vec::new() } else { options.for_superblock(kind) };
        return Ok(MountSource::Remount { options: superblock, bind: bind.is_some() });
    }
    match (bind, kind) {
        (Some(_), _) if from.is_empty() => Err(Refusal::new(field, "a bind mount needs a source")),
        (Some(recursive), _) => {
            Ok(MountSource::Bind { path: paths::absolute(&around.facts.bundle, from), recursive })
        }
        (None, "cgroup" | "cgroup2") => Ok(MountSource::Cgroup),
        (None, "" | "none") if matches!(from, "" | "none") && options.change_something() => {
            Ok(MountSource::ChangeOnly)
        }
        (None, "" | "none") => Err(Refusal::new(field, "neither a file system type nor a bind mount")
            .hint("give a type, or add bind or rbind to the options")),
        (None, kind) => Ok(MountSource::Filesystem {
            kind: kind.to_string(),
            source: (!from.is_empty()).then(|| from.to_string()),
            options: filesystem_options(kind, options, (field, around))?,
        }),
    }
}

fn filesystem_options(
    kind: &str,
    options: &Options,
    (field, around): (&str, &Surroundings),
) -> Result<Vec<(String, Option<String>)>, Refusal> {
    let mut list = options.for_superblock(kind);
    if kind == "overlay" {
        list = overlay::split_layers(list);
    }
    if around.facts.uid != 0 {
        refuse_unmapped_owner(&list, field, around.entry.id_maps.as_ref())?;
    }
    // The kernel labels proc and sysfs itself, and a message queue file system is labelled by its files.
    if let Some(label) = around.label.filter(|_| !matches!(kind, "proc" | "sysfs" | "mqueue"))
        && !list.iter().any(|(key, _)| key == "context")
    {
        list.push(("context".to_string(), Some(label.to_string())));
    }
    Ok(list)
}

/// `uid=` and `gid=` of a rootless container are ids inside; the kernel would only say EINVAL.
fn refuse_unmapped_owner(
    list: &[(String, Option<String>)],
    field: &str,
    maps: Option<&IdMaps>,
) -> Result<(), Refusal> {
    let Some(maps) = maps else { return Ok(()) };
    for (key, value) in list {
        let map = match key.as_str() {
            "uid" => &maps.uid,
            "gid" => &maps.gid,
            _ => continue,
        };
        let Some(id) = value.as_deref().and_then(|value| value.parse().ok()) else { continue };
        if !crate::entry::is_mapped(map, id) {
            let reason =
                format!("cannot specify {key}={id} mount option for rootless container: it is not mapped");
            return Err(Refusal::new(format!("{field}/options"), reason));
        }
    }
    Ok(())
}

fn refuse_hiding_proc(target: &str, source: &MountSource, field: &str) -> Result<(), Refusal> {
    let refuse = |why: &str| {
        let reason = format!("{target:?} cannot be mounted because it is {why}");
        Err(Refusal::new(format!("{field}/destination"), reason))
    };
    if !paths::is_within(target, "/proc")
        || matches!(source, MountSource::Remount { .. } | MountSource::ChangeOnly)
    {
        return Ok(());
    }
    match source {
        MountSource::Filesystem { kind, .. } if target == "/proc" && kind == "proc" => Ok(()),
        MountSource::Bind { path, .. } if target == "/proc" && path == "/proc" => Ok(()),
        _ if target == "/proc" => refuse("not of type proc"),
        _ if PROC_FILES.contains(&target) => Ok(()),
        _ => refuse("inside /proc"),
    }
}

fn id_map(
    mount: &Mount,
    options: &Options,
    source: &MountSource,
    (field, around): (&str, &Surroundings),
) -> Result<Option<MountIdMap>, Refusal> {
    let refuse = |reason: &str| Err(Refusal::new(field, reason));
    let maps = mount_maps(mount, field)?;
    let Some(recursive) = options.id_map.or_else(|| maps.is_some().then_some(false)) else { return Ok(None) };
    if !matches!(source, MountSource::Bind { .. }) {
        return refuse("id-mapped mounts are only supported for bind-mounts");
    }
    if around.facts.uid != 0 {
        return refuse("id-mapped mounts are not supported for rootless containers");
    }
    if maps.is_none() && !around.entry.has_own(NamespaceKind::User) {
        return refuse("id-mapped mounts must have both uid and gid mappings specified");
    }
    Ok(Some(MountIdMap { recursive, maps }))
}

fn mount_maps(mount: &Mount, field: &str) -> Result<Option<IdMaps>, Refusal> {
    let list = |mappings: &Option<Vec<LinuxIdMapping>>, name: &str| {
        ranges(mappings.as_deref().unwrap_or_default(), &format!("{field}/{name}"))
    };
    let maps = IdMaps {
        uid: list(mount.uid_mappings(), "uidMappings")?,
        gid: list(mount.gid_mappings(), "gidMappings")?,
    };
    match (maps.uid.is_empty(), maps.gid.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(maps)),
        _ => Err(Refusal::new(field, "id-mapped mounts must have both uid and gid mappings specified")),
    }
}

/// Options that mean nothing for this kind of mount are told, not refused: managers give them by habit.
fn warn_of_lost_options(source: &MountSource, options: &Options, field: &str, warnings: &mut Vec<Warning>) {
    let mut lost: Vec<&str> = Vec::new();
    if matches!(source, MountSource::Bind { .. } | MountSource::Cgroup | MountSource::ChangeOnly) {
        lost.extend(options.data.iter().map(|(key, _)| key.as_str()));
    }
    if options.copy_up && !matches!(source, MountSource::Filesystem { kind, .. } if kind == "tmpfs") {
        lost.push("tmpcopyup");
    }
    if !lost.is_empty() {
        let text = format!("options without effect on this mount: {}", lost.join(", "));
        warnings.push(Warning { field: format!("{field}/options"), text });
    }
}
