//! Reads a profile: refuses what cannot be meant, resolves names and actions.

use alloc::{format, string::String, vec, vec::Vec};

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use crate::{
    calls::CallId,
    refusal::Refusal,
    rules::{CallRules, Condition, Operator, Rule, Rules},
    words,
};

/// Calls that the container's process makes between the loading of the filter and the arrival of the listener at its
/// agent: nobody would answer a notification for one of them.
pub const NEEDED_AFTER_LOAD: &[&str] = &["write", "sendmsg"];

/// Resolves `profile`; a NOTIFY rule for a call in `needed` is refused. Notes for the user go to `warnings`.
pub(crate) fn read(
    profile: &LinuxSeccomp,
    needed: &[&str],
    warnings: &mut Vec<String>,
) -> Result<Rules, Refusal> {
    if profile.default_action() == Action::ScmpActNotify {
        return Err(Refusal::new(
            "/linux/seccomp/defaultAction",
            "SCMP_ACT_NOTIFY cannot be used as default action",
        ));
    }
    let default = word(profile.default_action(), profile.default_errno_ret())
        .map_err(|reason| Refusal::new("/linux/seccomp/defaultErrnoRet", reason))?;
    let calls = core::iter::repeat_with(|| None).take(CallId::COUNT).collect();
    let mut reader = Reader { default, needed, calls, named: Vec::new(), warnings };
    for (index, entry) in profile.syscalls().iter().flatten().enumerate() {
        reader.entry(index, entry)?;
    }
    Ok(Rules {
        default,
        calls: CallId::all()
            .zip(reader.calls)
            .filter_map(|(call, sourced)| Some((call, sourced?.rules)))
            .collect(),
        named: reader.named,
    })
}

struct Reader<'a> {
    default: u32,
    needed: &'a [&'a str],
    /// By [`CallId::place`].
    calls: Vec<Option<Sourced>>,
    named: Vec<CallId>,
    warnings: &'a mut Vec<String>,
}

/// The rules of a call, and where the one comes from that decides always.
struct Sourced {
    rules: CallRules,
    always_from: usize,
}

impl Reader<'_> {
    fn entry(&mut self, index: usize, entry: &LinuxSyscall) -> Result<(), Refusal> {
        // Written only for a refusal: a profile has hundreds of entries, and most of the time would go there.
        let refuse = |member: String, reason: String| {
            Refusal::new(format!("/linux/seccomp/syscalls/{index}/{member}"), reason)
        };
        if entry.names().is_empty() {
            return Err(refuse("names".into(), "needs at least one name".into()));
        }
        let action =
            word(entry.action(), entry.errno_ret()).map_err(|reason| refuse("errnoRet".into(), reason))?;
        let rules = rules(entry.args().as_deref().unwrap_or_default(), action).map_err(|argument| {
            refuse(format!("args/{argument}/index"), "a system call has the arguments 0 to 5".into())
        })?;
        for (name_index, name) in entry.names().iter().enumerate() {
            self.check_name(entry.action(), name)
                .map_err(|reason| refuse(format!("names/{name_index}"), reason))?;
            let Some(call) = CallId::find(name) else { continue };
            self.named.push(call);
            if action != self.default {
                self.add(index, call, &rules);
            }
        }
        Ok(())
    }

    /// Says why `name` cannot stand in a rule with this action.
    fn check_name(&self, action: Action, name: &str) -> Result<(), String> {
        if name.is_empty() {
            return Err("an empty string is not the name of a system call".into());
        }
        if action == Action::ScmpActNotify && self.needed.contains(&name) {
            return Err(format!("SCMP_ACT_NOTIFY cannot be used for the {name} syscall"));
        }
        Ok(())
    }

    /// Adds what entry `index` of the profile says about `call`; warns when it is without effect.
    fn add(&mut self, index: usize, call: CallId, rules: &[Rule]) {
        let fresh = CallRules::from_rules(rules);
        let place = &mut self.calls[call.place()];
        let Some(known) = place else {
            *place = Some(Sourced { rules: fresh, always_from: index });
            return;
        };
        let without_effect = match (known.rules.always, fresh.always) {
            (Some(stands), _) => (stands != rules[0].action).then_some((index, known.always_from)),
            (None, Some(stands)) => {
                let loser = known.rules.rules.iter().any(|rule| rule.action != stands);
                let first = core::mem::replace(known, Sourced { rules: fresh, always_from: index });
                loser.then_some((first.always_from, index))
            }
            (None, None) => {
                known.rules.rules.extend_from_slice(rules);
                None
            }
        };
        if let Some((loser, winner)) = without_effect {
            self.warnings.push(format!(
                "/linux/seccomp/syscalls/{loser}: no effect on {}, since /linux/seccomp/syscalls/{winner} holds \
                 whatever the arguments",
                call.name()
            ));
        }
    }
}

impl CallRules {
    fn from_rules(rules: &[Rule]) -> Self {
        match rules {
            [rule] if rule.conditions.is_empty() => Self { always: Some(rule.action), rules: Vec::new() },
            _ => Self { always: None, rules: rules.to_vec() },
        }
    }
}

/// Returns the action word, or why it cannot have this errno.
fn word(action: Action, errno: Option<u32>) -> Result<u32, String> {
    let base = match action {
        Action::ScmpActErrno => words::ERRNO,
        Action::ScmpActTrace => words::TRACE,
        _ if errno.is_some() => return Err(format!("the action {action} takes no errno")),
        Action::ScmpActKill | Action::ScmpActKillThread => return Ok(words::KILL_THREAD),
        Action::ScmpActKillProcess => return Ok(words::KILL_PROCESS),
        Action::ScmpActTrap => return Ok(words::TRAP),
        Action::ScmpActNotify => return Ok(words::NOTIFY),
        Action::ScmpActLog => return Ok(words::LOG),
        Action::ScmpActAllow => return Ok(words::ALLOW),
    };
    let errno = errno.unwrap_or(words::EPERM);
    if errno > 0xffff {
        return Err(format!("{errno} does not fit into 16 bits"));
    }
    Ok(base | errno)
}

/// Turns one entry's conditions into rules: one with all of them, or, when an argument is named twice, one for each.
/// The error is the place of the condition whose argument does not exist.
fn rules(args: &[LinuxSeccompArg], action: u32) -> Result<Vec<Rule>, usize> {
    let mut conditions = Vec::with_capacity(args.len());
    for (place, arg) in args.iter().enumerate() {
        let argument = u8::try_from(arg.index()).ok().filter(|argument| *argument < 6).ok_or(place)?;
        conditions.push(condition(argument, arg));
    }
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(n, one)| conditions[..n].iter().any(|c| c.argument == one.argument));
    if repeated {
        Ok(conditions.into_iter().map(|one| Rule { conditions: vec![one], action }).collect())
    } else {
        Ok(vec![Rule { conditions, action }])
    }
}

/// Reads one condition; of a masked comparison, `value` is the mask and `valueTwo` what is compared.
fn condition(argument: u8, arg: &LinuxSeccompArg) -> Condition {
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => (Operator::Equal, arg.value()),
        LinuxSeccompOperator::ScmpCmpNe => (Operator::NotEqual, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (Operator::Above, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (Operator::AtLeast, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (Operator::Below, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (Operator::AtMost, arg.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (Operator::MaskedEqual(arg.value()), arg.value_two().unwrap_or_default())
        }
    };
    Condition { argument, operator, value }
}
