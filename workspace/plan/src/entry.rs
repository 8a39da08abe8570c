//! Namespaces: what is joined, what is made, with which id mappings and clock offsets (config-linux.md).

use crate::plan::{
    EntryScript, HostFacts, IdMap, IdMaps, JoinNamespace, NamespaceKind, NamespaceSet, TimeOffset, Warning,
};
use crate::refusal::Refusal;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType};

/// The user namespace first, because it gives the rights over the others; the pid namespace last, because only
/// children enter it.
const JOIN_ORDER: [NamespaceKind; 8] = [
    NamespaceKind::User,
    NamespaceKind::Ipc,
    NamespaceKind::Uts,
    NamespaceKind::Network,
    NamespaceKind::Cgroup,
    NamespaceKind::Time,
    NamespaceKind::Mount,
    NamespaceKind::Pid,
];
/// Lines that the kernel takes in one map (user_namespaces(7)).
const MOST_MAPPINGS: usize = 340;

/// Plans the entry of the first process.
pub(crate) fn plan(
    linux: Option<&Linux>,
    facts: &HostFacts,
    warnings: &mut Vec<Warning>,
) -> Result<EntryScript, Refusal> {
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let (join, create) = namespaces(listed)?;
    let mut entry = EntryScript { join, create, ..EntryScript::default() };
    entry.id_maps = id_maps(linux, &entry, facts, warnings)?;
    entry.time_offsets = time_offsets(linux, &entry)?;
    Ok(entry)
}

fn namespaces(listed: &[LinuxNamespace]) -> Result<(Vec<JoinNamespace>, NamespaceSet), Refusal> {
    let mut seen = NamespaceSet::default();
    let mut create = NamespaceSet::default();
    let mut join = Vec::new();
    for (index, namespace) in listed.iter().enumerate() {
        let kind = kind(namespace.typ());
        let field = format!("/linux/namespaces/{index}");
        if seen.has(kind) {
            return Err(Refusal::new(field, format!("{} namespace is listed twice", kind.proc_name())));
        }
        seen = seen.with(kind);
        match namespace.path().as_ref().and_then(|path| path.to_str()).unwrap_or_default() {
            "" => create = create.with(kind),
            path if path.starts_with('/') => join.push(JoinNamespace { kind, path: path.into(), field }),
            path => {
                return Err(Refusal::new(format!("{field}/path"), format!("path {path:?} is not absolute")));
            }
        }
    }
    join.sort_by_key(|join| JOIN_ORDER.iter().position(|kind| *kind == join.kind));
    Ok((join, create))
}

fn kind(kind: LinuxNamespaceType) -> NamespaceKind {
    match kind {
        LinuxNamespaceType::Mount => NamespaceKind::Mount,
        LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
        LinuxNamespaceType::Uts => NamespaceKind::Uts,
        LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
        LinuxNamespaceType::User => NamespaceKind::User,
        LinuxNamespaceType::Pid => NamespaceKind::Pid,
        LinuxNamespaceType::Network => NamespaceKind::Network,
        LinuxNamespaceType::Time => NamespaceKind::Time,
    }
}

fn id_maps(
    linux: Option<&Linux>,
    entry: &EntryScript,
    facts: &HostFacts,
    warnings: &mut Vec<Warning>,
) -> Result<Option<IdMaps>, Refusal> {
    let uid = linux.and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default();
    let gid = linux.and_then(|linux| linux.gid_mappings().as_deref()).unwrap_or_default();
    let first_given = if uid.is_empty() { "/linux/gidMappings" } else { "/linux/uidMappings" };
    let given = !uid.is_empty() || !gid.is_empty();
    if entry.create.has(NamespaceKind::User) {
        return new_user_namespace(uid, gid).map(Some);
    }
    if entry.joins(NamespaceKind::User) {
        if given {
            let text = "ignored: the user namespace that is joined has its own mappings";
            warnings.push(Warning { field: first_given.into(), text: text.into() });
        }
        return Ok(None);
    }
    if given {
        let reason = "user namespace mappings specified, but user namespace isn't enabled in the config";
        return Err(Refusal::new(first_given, reason).hint("add {\"type\": \"user\"} to linux.namespaces"));
    }
    if facts.uid != 0 {
        let field =
            if linux.is_some_and(|linux| linux.namespaces().is_some()) { "/linux/namespaces" } else { "" };
        return Err(Refusal::new(field, "rootless container requires user namespaces")
            .hint("`spec --rootless` writes a configuration that has one"));
    }
    Ok(None)
}

fn new_user_namespace(uid: &[LinuxIdMapping], gid: &[LinuxIdMapping]) -> Result<IdMaps, Refusal> {
    if uid.is_empty() && gid.is_empty() {
        let reason = "user namespaces enabled, but no namespace path to join nor mappings to apply specified";
        return Err(Refusal::new("/linux/namespaces", reason));
    }
    for (list, name) in [(uid, "uid"), (gid, "gid")] {
        if list.is_empty() {
            return Err(Refusal::new("/linux", format!("a new user namespace needs {name}Mappings")));
        }
    }
    let maps = IdMaps { uid: ranges(uid, "/linux/uidMappings")?, gid: ranges(gid, "/linux/gidMappings")? };
    for (map, name) in [(&maps.uid, "uid"), (&maps.gid, "gid")] {
        if !is_mapped(map, 0) {
            return Err(Refusal::new(format!("/linux/{name}Mappings"), format!("{name} 0 is not mapped"))
                .hint("the container is set up as its root, before the program gets its own ids"));
        }
    }
    Ok(maps)
}

/// Checks the ranges of one map as the kernel does: none empty, none past the last id, none overlapping.
pub(crate) fn ranges(mappings: &[LinuxIdMapping], pointer: &str) -> Result<Vec<IdMap>, Refusal> {
    if mappings.len() > MOST_MAPPINGS {
        return Err(Refusal::new(pointer, format!("more than {MOST_MAPPINGS} mappings")));
    }
    let map: Vec<IdMap> = mappings
        .iter()
        .map(|mapping| IdMap {
            inside: mapping.container_id(),
            outside: mapping.host_id(),
            size: mapping.size(),
        })
        .collect();
    for (index, range) in map.iter().enumerate() {
        let refuse = |reason: String| Err(Refusal::new(format!("{pointer}/{index}"), reason));
        if range.size == 0 {
            return refuse("the mapping is empty".to_string());
        }
        if range.inside.checked_add(range.size).is_none() || range.outside.checked_add(range.size).is_none() {
            return refuse("the mapping goes past the last id".to_string());
        }
        let overlaps = |first: u32, size: u32, other: u32, other_size: u32| {
            first < other + other_size && other < first + size
        };
        let clashes = |other: &&IdMap| {
            overlaps(range.inside, range.size, other.inside, other.size)
                || overlaps(range.outside, range.size, other.outside, other.size)
        };
        if map[..index].iter().any(|other| clashes(&other)) {
            return refuse("the mapping overlaps an earlier one".to_string());
        }
    }
    Ok(map)
}

/// True when `id` inside has an id outside.
pub(crate) fn is_mapped(map: &[IdMap], id: u32) -> bool {
    map.iter().any(|range| id >= range.inside && id - range.inside < range.size)
}

fn time_offsets(linux: Option<&Linux>, entry: &EntryScript) -> Result<Vec<TimeOffset>, Refusal> {
    let Some(offsets) =
        linux.and_then(|linux| linux.time_offsets().as_ref()).filter(|offsets| !offsets.is_empty())
    else {
        return Ok(Vec::new());
    };
    let pointer = "/linux/timeOffsets";
    if entry.joins(NamespaceKind::Time) {
        return Err(Refusal::new(pointer, "the time namespace is joined by path: its offsets are fixed"));
    }
    if !entry.create.has(NamespaceKind::Time) {
        let reason = "time namespace offsets specified, but time namespace isn't enabled in the config";
        return Err(Refusal::new(pointer, reason).hint("add {\"type\": \"time\"} to linux.namespaces"));
    }
    let ordered: BTreeMap<_, _> = offsets.iter().collect();
    ordered
        .into_iter()
        .map(|(clock, offset)| {
            let field = crate::load::child(pointer, clock);
            if clock != "monotonic" && clock != "boottime" {
                return Err(Refusal::new(field, "the kernel has offsets of monotonic and boottime only"));
            }
            let nanoseconds = offset.nanosecs().unwrap_or(0);
            if nanoseconds >= 1_000_000_000 {
                return Err(Refusal::new(format!("{field}/nanosecs"), "a second has 1000000000 nanoseconds"));
            }
            Ok(TimeOffset { clock: clock.clone(), seconds: offset.secs().unwrap_or(0), nanoseconds })
        })
        .collect()
}
