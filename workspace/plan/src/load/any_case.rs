//! Member names of resources in the spelling of the specification, whatever their case was.
//!
//! Callers write what Go's decoder takes, and that one compares names without regard to case: a limit that is named in
//! another one would be silently none. The rest of a configuration is read letter by letter (docs/decisions/0020).

use super::child;
use super::tree::Node;
use crate::refusal::Refusal;
use alloc::borrow::Cow;
use alloc::format;

/// Members at any depth of the resources (config-linux.md, "Control groups"); no two differ by case alone.
#[rustfmt::skip]
const NAMES: [&str; 47] = [
    "access", "allow", "blockIO", "burst", "checkBeforeUpdate", "classID", "cpu", "cpus", "devices", "disableOOMKiller",
    "hcaHandles", "hcaObjects", "hugepageLimits", "idle", "kernel", "kernelTCP", "leafWeight", "limit", "major", "memory",
    "mems", "minor", "name", "network", "pageSize", "period", "pids", "priorities", "priority", "quota", "rate", "rdma",
    "realtimePeriod", "realtimeRuntime", "reservation", "shares", "swap", "swappiness", "throttleReadBpsDevice",
    "throttleReadIOPSDevice", "throttleWriteBpsDevice", "throttleWriteIOPSDevice", "type", "unified", "useHierarchy",
    "weight", "weightDevice",
];
/// Objects whose members are named by somebody else: files of a control group, devices.
const NAMED_OUTSIDE: [&str; 2] = ["unified", "rdma"];

/// Gives every member that the specification knows its name there; `pointer` is that of `node`.
///
/// # Errors
/// Two members of one object whose names differ by case alone: which one holds would be left open.
pub(super) fn respell(node: &mut Node, pointer: &str) -> Result<(), Refusal> {
    let mut met = [false; NAMES.len()];
    for (name, _) in node.members_mut().into_iter().flatten() {
        let Some(at) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)) else { continue };
        *name = Cow::Borrowed(NAMES[at]);
        if core::mem::replace(&mut met[at], true) {
            let reason = "member name occurs twice in this object, once in another case";
            return Err(Refusal::new(child(pointer, NAMES[at]), reason));
        }
    }
    descend(node, pointer)
}

fn descend(node: &mut Node, pointer: &str) -> Result<(), Refusal> {
    for (index, item) in node.list_mut().into_iter().flatten().enumerate() {
        respell(item, &format!("{pointer}/{index}"))?;
    }
    for (name, member) in node.members_mut().into_iter().flatten() {
        let pointer = child(pointer, name);
        if NAMED_OUTSIDE.contains(&&**name) {
            descend(member, &pointer)?;
        } else {
            respell(member, &pointer)?;
        }
    }
    Ok(())
}
