//! The tree is changed where the types would read it wrongly; the table is at the head of [`super`].

use super::child;
use crate::capabilities;
use crate::cpu_list;
use crate::plan::Warning;
use crate::refusal::Refusal;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde_json::{Map, Value, json};

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
const OTHER_PLATFORMS: [&str; 7] =
    ["solaris", "windows", "vm", "zos", "freebsd", "uidMappings", "gidMappings"];
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
pub(super) fn spec(document: &mut Value, warnings: &mut Vec<Warning>) -> Result<(), Refusal> {
    drop_nulls(document);
    if let Some(members) = document.as_object_mut() {
        members.retain(|name, _| !OTHER_PLATFORMS.contains(&name.as_str()));
    }
    if let Some(process_value) = object_at(document, "process") {
        process(process_value, "/process", warnings)?;
    }
    for (index, mount) in array_at(document, "mounts").into_iter().flatten().enumerate() {
        id_mappings(mount.as_object(), &format!("/mounts/{index}"))?;
    }
    match object_at(document, "linux") {
        Some(linux_value) => linux(linux_value),
        None => Ok(()),
    }
}

/// Mends a `process.json`.
pub(super) fn process_document(document: &mut Value, warnings: &mut Vec<Warning>) -> Result<(), Refusal> {
    drop_nulls(document);
    document.as_object_mut().map_or(Ok(()), |members| process(members, "", warnings))
}

fn object_at<'a>(parent: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    parent.get_mut(name)?.as_object_mut()
}

fn array_at<'a>(parent: &'a mut Value, name: &str) -> Option<&'a mut Vec<Value>> {
    parent.get_mut(name)?.as_array_mut()
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Object(members) => {
            if members.values().any(Value::is_null) {
                members.retain(|_, member| !member.is_null());
            }
            for (name, member) in members.iter_mut() {
                if !STRING_MAPS.contains(&name.as_str()) {
                    drop_nulls(member);
                }
            }
        }
        _ => {}
    }
}

fn process(
    process: &mut Map<String, Value>,
    pointer: &str,
    warnings: &mut Vec<Warning>,
) -> Result<(), Refusal> {
    process.remove("commandLine");
    let user = process.entry("user").or_insert_with(|| json!({}));
    if let Some(user) = user.as_object_mut() {
        user.remove("username");
    }
    if let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) {
        known_capabilities(sets, &format!("{pointer}/capabilities"), warnings)?;
    }
    if let Some(scheduler) = process.get_mut("scheduler") {
        scheduler_flags(scheduler, &format!("{pointer}/scheduler/flags"))?;
    }
    for (index, limit) in process.get("rlimits").and_then(Value::as_array).into_iter().flatten().enumerate() {
        require(limit.as_object(), &["soft", "hard"], &format!("{pointer}/rlimits/{index}"))?;
    }
    let priority = process.get("ioPriority").and_then(Value::as_object);
    require(priority, &["class"], &format!("{pointer}/ioPriority"))?;
    process
        .get_mut("execCPUAffinity")
        .map_or(Ok(()), |affinity| plain_cpu_lists(affinity, &format!("{pointer}/execCPUAffinity")))
}

/// Refuses an object that lacks one of `names`; the types would read 0.
fn require(object: Option<&Map<String, Value>>, names: &[&str], pointer: &str) -> Result<(), Refusal> {
    let Some(object) = object else { return Ok(()) };
    names
        .iter()
        .find(|name| !object.contains_key(**name))
        .map_or(Ok(()), |name| Err(Refusal::new(pointer, format!("missing field `{name}`"))))
}

fn known_capabilities(
    sets: &mut Map<String, Value>,
    pointer: &str,
    warnings: &mut Vec<Warning>,
) -> Result<(), Refusal> {
    for (set, names) in sets.iter_mut() {
        let Some(names) = names.as_array_mut() else { continue };
        if let Some(index) = names.iter().position(|name| !name.is_string()) {
            let field = format!("{}/{index}", child(pointer, set));
            return Err(Refusal::new(field, "invalid type: expected the name of a capability"));
        }
        let mut index = 0;
        names.retain(|name| {
            let name = name.as_str().unwrap_or_default();
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

fn scheduler_flags(scheduler: &mut Value, pointer: &str) -> Result<(), Refusal> {
    for (index, flag) in array_at(scheduler, "flags").into_iter().flatten().enumerate() {
        let Some(name) = flag.as_str() else { continue };
        match SCHEDULER_FLAGS.iter().find(|(specified, ..)| *specified == name) {
            Some((_, typed, _)) => *flag = (*typed).into(),
            None => {
                let reason = format!("unknown scheduler flag {name:?}");
                return Err(Refusal::new(format!("{pointer}/{index}"), reason));
            }
        }
    }
    Ok(())
}

fn plain_cpu_lists(affinity: &mut Value, pointer: &str) -> Result<(), Refusal> {
    for name in ["initial", "final"] {
        let Some(list) = affinity.get_mut(name) else { continue };
        let Some(text) = list.as_str() else { continue };
        let mask = cpu_list::parse(text)
            .map_err(|reason| Refusal::new(child(pointer, name), format!("invalid CPU list: {reason}")))?;
        *list = if mask.is_empty() { Value::Null } else { cpu_list::write(&mask).into() };
    }
    Ok(())
}

fn linux(linux: &mut Map<String, Value>) -> Result<(), Refusal> {
    id_mappings(Some(linux), "/linux")?;
    for (index, device) in linux.get("devices").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let numbers: &[&str] = match device.get("type").and_then(Value::as_str) {
            Some("c" | "b" | "u") => &["path", "major", "minor"],
            _ => &["path"],
        };
        require(device.as_object(), numbers, &format!("/linux/devices/{index}"))?;
    }
    if linux.get("seccomp").is_some_and(says_nothing) {
        linux.remove("seccomp");
    }
    if let Some(resources) = linux.get_mut("resources") {
        pids_and_hugepages(resources);
    }
    linux.get("memoryPolicy").map_or(Ok(()), memory_policy)
}

fn id_mappings(object: Option<&Map<String, Value>>, pointer: &str) -> Result<(), Refusal> {
    let Some(object) = object else { return Ok(()) };
    for list in ["uidMappings", "gidMappings"] {
        let mappings = object.get(list).and_then(Value::as_array);
        for (index, mapping) in mappings.into_iter().flatten().enumerate() {
            let pointer = format!("{pointer}/{list}/{index}");
            require(mapping.as_object(), &["containerID", "hostID", "size"], &pointer)?;
        }
    }
    Ok(())
}

fn says_nothing(seccomp: &Value) -> bool {
    let action = seccomp.get("defaultAction").is_none_or(|action| action == "");
    let calls = seccomp.get("syscalls").is_none_or(|calls| calls.as_array().is_some_and(Vec::is_empty));
    seccomp.is_object() && action && calls
}

fn pids_and_hugepages(resources: &mut Value) {
    let unlimited = |pids: &Value| pids.as_object().is_some_and(|pids| !pids.contains_key("limit"));
    if resources.get("pids").is_some_and(unlimited)
        && let Some(resources) = resources.as_object_mut()
    {
        resources.remove("pids");
    }
    for hugepage in array_at(resources, "hugepageLimits").into_iter().flatten() {
        if let Some(limit) = hugepage.get_mut("limit")
            && limit.as_u64().is_some_and(|limit| i64::try_from(limit).is_err())
        {
            *limit = i64::MAX.into();
        }
    }
}

fn memory_policy(policy: &Value) -> Result<(), Refusal> {
    let Some(policy) = policy.as_object() else { return Ok(()) };
    let pointer = "/linux/memoryPolicy";
    match policy.get("mode") {
        None => return Err(Refusal::new(pointer, "invalid memory policy mode: it is missing")),
        Some(Value::String(mode)) if !MEMORY_MODES.contains(&mode.as_str()) => {
            return Err(Refusal::new(child(pointer, "mode"), format!("invalid memory policy mode {mode:?}")));
        }
        Some(_) => {}
    }
    let flags = policy.get("flags").and_then(Value::as_array).into_iter().flatten().enumerate();
    for (index, flag) in flags {
        if flag.as_str().is_some_and(|flag| !MEMORY_FLAGS.contains(&flag)) {
            let reason = format!("invalid memory policy flag {flag}");
            return Err(Refusal::new(format!("{pointer}/flags/{index}"), reason));
        }
    }
    Ok(())
}
