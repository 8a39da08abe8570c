//! Member names of resources in the spelling of the specification, whatever their case was.
//!
//! Callers write what Go's decoder takes, and that one compares names without regard to case: a limit that is named in
//! another one would be silently none. The rest of a configuration is read letter by letter (docs/decisions/0020).

use super::child;
use super::tree::{Members, Node};
use crate::refusal::Refusal;
use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

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

/// Gives every member that the specification knows its name there; `pointer` is that of `node`. Two objects of one name, each
/// in its own case, are one, as for that decoder.
///
/// # Errors
/// Anything else is there under names that differ by case alone: which one holds would be left open.
pub(super) fn respell<'t>(node: &mut Node<'t>, pointer: &str) -> Result<(), Refusal> {
    if let Some(members) = node.members_mut() {
        let mut places = [None; NAMES.len()];
        let mut respelled: Members<'t> = Vec::with_capacity(members.len());
        for (name, value) in mem::take(members) {
            let Some(known) = NAMES.iter().position(|known| known.eq_ignore_ascii_case(&name)) else {
                respelled.push((name, value));
                continue;
            };
            match places[known] {
                None => {
                    places[known] = Some(Place::Once(respelled.len()));
                    respelled.push((Cow::Borrowed(NAMES[known]), value));
                }
                Some(Place::Once(first)) => {
                    merge(&mut respelled[first].1, value, &child(pointer, NAMES[known]))?;
                    places[known] = Some(Place::Merged);
                }
                Some(Place::Merged) => return Err(again(child(pointer, NAMES[known]))),
            }
        }
        *members = respelled;
    }
    descend(node, pointer)
}

/// Where a name was met. It is taken in two spellings, not in hundreds.
#[derive(Clone, Copy)]
enum Place {
    Once(usize),
    Merged,
}

/// Adds the members of `further` to those of `first`, which has none of these names.
fn merge<'t>(first: &mut Node<'t>, further: Node<'t>, pointer: &str) -> Result<(), Refusal> {
    let (Some(members), Node::Object(further)) = (first.members_mut(), further) else {
        return Err(again(pointer.into()));
    };
    let there: BTreeSet<_> = members.iter().map(|(name, _)| name.clone()).collect();
    if let Some((name, _)) = further.iter().find(|(name, _)| there.contains(name)) {
        return Err(again(child(pointer, name)));
    }
    members.extend(further);
    Ok(())
}

fn again(pointer: String) -> Refusal {
    Refusal::new(pointer, "member name occurs twice in this object, once in another case")
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
