//! The tree is changed where the types would read it wrongly; the table is at the head of [`super`].

use super::child;
use super::tree::{Members, Node};
use crate::capabilities;
use crate::cpu_list;
use crate::plan::Warning;
use crate::refusal::Refusal;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Scheduler flags: name in the specification, name in the types, bit for sched_setattr(2).
pub(crate) const SCHEDULER_FLAGS: [(&str, &str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", "SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", "SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];
/// Objects whose values are strings for somebody else: a null in them is a wrong type, not an absent member.
const STRING_MAPS: [&str; 3] = ["annotations", "sysctl", "unified"];
/// Modes of a memory policy.
pub(crate) const MEMORY_MODES: [&str; 7] = [
    "MPOL_BIND",
    "MPOL_DEFAULT",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];
/// Flags of a memory policy.
pub(crate) const MEMORY_FLAGS: [&str; 3] =
    ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"];

/// Mends a whole configuration.
pub(super) fn spec(document: &mut Node, warnings: &mut Vec<Warning>) -> Result<(), Refusal> {
    drop_nulls(document);
    if let Some(process_node) = document.get_mut("process") {
        process(process_node, "/process", warnings)?;
    }
    for (index, mount) in items(document, "mounts").iter().enumerate() {
        id_mappings(mount, &format!("/mounts/{index}"))?;
    }
    document.get_mut("linux").map_or(Ok(()), linux)
}

/// Mends a `process.json`.
pub(super) fn process_document(document: &mut Node, warnings: &mut Vec<Warning>) -> Result<(), Refusal> {
    drop_nulls(document);
    process(document, "", warnings)
}

fn items<'a, 't>(parent: &'a Node<'t>, name: &str) -> &'a [Node<'t>] {
    parent.get(name).and_then(Node::list).unwrap_or_default()
}

fn items_mut<'a, 't>(parent: &'a mut Node<'t>, name: &str) -> &'a mut [Node<'t>] {
    parent.get_mut(name).and_then(Node::list_mut).map_or(&mut [], Vec::as_mut_slice)
}

fn drop_nulls(node: &mut Node) {
    match node {
        Node::List(items) => items.iter_mut().for_each(drop_nulls),
        Node::Object(members) => {
            members.retain(|(_, member)| *member != Node::Null);
            let inner = members.iter_mut().filter(|(name, _)| !STRING_MAPS.contains(&&**name));
            inner.for_each(|(_, member)| drop_nulls(member));
        }
        _ => {}
    }
}

fn process(process: &mut Node, pointer: &str, warnings: &mut Vec<Warning>) -> Result<(), Refusal> {
    process.remove("commandLine");
    match process.get_mut("user") {
        Some(user) => user.remove("username"),
        None => drop(
            process.members_mut().map(|members| members.push(("user".into(), Node::Object(Members::new())))),
        ),
    }
    if let Some(sets) = process.get_mut("capabilities").and_then(Node::members_mut) {
        known_capabilities(sets, &format!("{pointer}/capabilities"), warnings)?;
    }
    if let Some(scheduler) = process.get_mut("scheduler") {
        scheduler_flags(scheduler, &format!("{pointer}/scheduler/flags"))?;
    }
    for (index, limit) in items(process, "rlimits").iter().enumerate() {
        require(limit, &["soft", "hard"], || format!("{pointer}/rlimits/{index}"))?;
    }
    if let Some(priority) = process.get("ioPriority") {
        require(priority, &["class"], || format!("{pointer}/ioPriority"))?;
    }
    let affinity = process.get_mut("execCPUAffinity");
    affinity.map_or(Ok(()), |affinity| plain_cpu_lists(affinity, &format!("{pointer}/execCPUAffinity")))
}

/// Refuses an object that lacks one of `names`; the types would read 0.
fn require(node: &Node, names: &[&str], pointer: impl FnOnce() -> String) -> Result<(), Refusal> {
    let lacks = |name: &&&str| node.members().is_some() && node.get(name).is_none();
    match names.iter().find(lacks) {
        Some(name) => Err(Refusal::new(pointer(), format!("missing field `{name}`"))),
        None => Ok(()),
    }
}

fn known_capabilities(sets: &mut Members, pointer: &str, warnings: &mut Vec<Warning>) -> Result<(), Refusal> {
    for (set, names) in sets.iter_mut() {
        let Some(names) = names.list_mut() else { continue };
        if let Some(index) = names.iter().position(|name| name.text().is_none()) {
            let field = format!("{}/{index}", child(pointer, set));
            return Err(Refusal::new(field, "invalid type: expected the name of a capability"));
        }
        let mut index = 0;
        names.retain(|name| {
            let name = name.text().unwrap_or_default();
            let known = capabilities::number(name).is_some();
            if !known {
                let field = format!("{}/{index}", child(pointer, set));
                warnings.push(Warning { field, text: format!("ignoring unknown capability {name:?}") });
            }
            index += 1;
            known
        });
    }
    Ok(())
}

fn scheduler_flags(scheduler: &mut Node, pointer: &str) -> Result<(), Refusal> {
    for (index, flag) in items_mut(scheduler, "flags").iter_mut().enumerate() {
        let Some(name) = flag.text() else { continue };
        match SCHEDULER_FLAGS.iter().find(|(specified, ..)| *specified == name) {
            Some((_, typed, _)) => *flag = Node::Text((*typed).into()),
            None => {
                let reason = format!("unknown scheduler flag {name:?}");
                return Err(Refusal::new(format!("{pointer}/{index}"), reason));
            }
        }
    }
    Ok(())
}

fn plain_cpu_lists(affinity: &mut Node, pointer: &str) -> Result<(), Refusal> {
    for name in ["initial", "final"] {
        let Some(list) = affinity.get_mut(name) else { continue };
        let Some(text) = list.text() else { continue };
        let mask = cpu_list::parse(text)
            .map_err(|reason| Refusal::new(child(pointer, name), format!("invalid CPU list: {reason}")))?;
        *list = if mask.is_empty() { Node::Null } else { Node::Text(cpu_list::write(&mask).into()) };
    }
    Ok(())
}

fn linux(linux: &mut Node) -> Result<(), Refusal> {
    id_mappings(linux, "/linux")?;
    for (index, device) in items(linux, "devices").iter().enumerate() {
        let numbers: &[&str] = match device.get("type").and_then(Node::text) {
            Some("c" | "b" | "u") => &["path", "major", "minor"],
            _ => &["path"],
        };
        require(device, numbers, || format!("/linux/devices/{index}"))?;
    }
    if linux.get("seccomp").is_some_and(says_nothing) {
        linux.remove("seccomp");
    }
    if let Some(resources) = linux.get_mut("resources") {
        pids_and_hugepages(resources);
    }
    linux.get("memoryPolicy").map_or(Ok(()), memory_policy)
}

fn id_mappings(node: &Node, pointer: &str) -> Result<(), Refusal> {
    for list in ["uidMappings", "gidMappings"] {
        for (index, mapping) in items(node, list).iter().enumerate() {
            require(mapping, &["containerID", "hostID", "size"], || format!("{pointer}/{list}/{index}"))?;
        }
    }
    Ok(())
}

fn says_nothing(seccomp: &Node) -> bool {
    let action = seccomp.get("defaultAction").is_none_or(|action| action.text() == Some(""));
    let calls = seccomp.get("syscalls").is_none_or(|calls| calls.list().is_some_and(<[_]>::is_empty));
    seccomp.members().is_some() && action && calls
}

fn pids_and_hugepages(resources: &mut Node) {
    if resources.get("pids").is_some_and(|pids| pids.members().is_some() && pids.get("limit").is_none()) {
        resources.remove("pids");
    }
    for hugepage in items_mut(resources, "hugepageLimits") {
        if let Some(Node::Unsigned(limit)) = hugepage.get_mut("limit") {
            *limit = (*limit).min(i64::MAX.unsigned_abs());
        }
    }
}

fn memory_policy(policy: &Node) -> Result<(), Refusal> {
    let pointer = "/linux/memoryPolicy";
    match policy.get("mode") {
        None if policy.members().is_some() => {
            return Err(Refusal::new(pointer, "invalid memory policy mode: it is missing"));
        }
        Some(Node::Text(mode)) if !MEMORY_MODES.contains(&&**mode) => {
            return Err(Refusal::new(child(pointer, "mode"), format!("invalid memory policy mode {mode:?}")));
        }
        _ => {}
    }
    for (index, flag) in items(policy, "flags").iter().enumerate() {
        if let Some(name) = flag.text().filter(|name| !MEMORY_FLAGS.contains(name)) {
            let reason = format!("invalid memory policy flag {name:?}");
            return Err(Refusal::new(format!("{pointer}/flags/{index}"), reason));
        }
    }
    Ok(())
}
