//! Calls of 32-bit x86 that can be made through `socketcall(2)` and `ipc(2)` as well.

use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};

use crate::{
    arch::Arch,
    calls::CallId,
    rules::{CallRules, Condition, Operator, Rule, Rules},
};

/// All that the kernel sees of the first argument of `socketcall`.
const WHOLE: u64 = 0xffff_ffff;
/// The first argument of `ipc` has a version above these bits, which the kernel cuts off.
const WITHOUT_VERSION: u64 = 0xffff;

/// First arguments of `socketcall` (`linux/net.h`).
const SOCKETCALL: &[(&str, u64)] = &[
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// First arguments of `ipc` (`linux/ipc.h`).
const IPC: &[(&str, u64)] = &[
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// Adds to `calls`, the rules of `arch` by number, those that rules for single calls imply for the multiplexing ones.
pub(crate) fn add(
    arch: Arch,
    rules: &Rules,
    calls: &mut BTreeMap<u32, CallRules>,
    warnings: &mut Vec<String>,
) {
    for (through, mask, selectors) in [("socketcall", WHOLE, SOCKETCALL), ("ipc", WITHOUT_VERSION, IPC)] {
        let Some(number) = CallId::find(through).and_then(|call| call.number(arch)) else { continue };
        // Its own rules come first; one without conditions leaves nothing to add.
        let mut multiplexed = calls.get(&number).cloned().unwrap_or_default();
        if multiplexed.always.is_some() {
            continue;
        }
        // Who writes conditions for it knows it.
        let considered = !multiplexed.rules.is_empty();
        for (name, selector) in selectors {
            let Some(call) = CallId::find(name).and_then(|call| rules.calls.get(&call)) else { continue };
            if call.always.is_none() && !considered {
                warnings.push(format!(
                    "{name} has rules on arguments, which are out of sight in a 32-bit {through}: the strictest action holds there"
                ));
            }
            let action = call.strictest(rules.default);
            if action != rules.default {
                multiplexed.rules.push(Rule { conditions: vec![selected(mask, *selector)], action });
            }
        }
        if !multiplexed.rules.is_empty() {
            calls.insert(number, multiplexed);
        }
    }
}

fn selected(mask: u64, selector: u64) -> Condition {
    Condition { argument: 0, operator: Operator::MaskedEqual(mask), value: selector }
}
