//! Which devices the container may use: the rules of the configuration in order, then the devices that every container
//! has (config-linux.md, "allowed device list", "default devices"). Without any rule everything else is denied.

mod apply;
mod policy;
mod program;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::Refusal;

pub(crate) use policy::Policy;
pub(crate) use program::assemble;

const FIELD: &str = "/linux/resources/devices";

/// Accesses to a device as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access(u8);

impl Access {
    /// Values of linux/bpf.h, `BPF_DEVCG_ACC_*`.
    const LETTERS: [(char, u8); 3] = [('m', 1), ('r', 2), ('w', 4)];
    pub const ALL: Self = Self(7);

    pub const fn bits(self) -> u8 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let bit = |letter| Self::LETTERS.iter().find(|(known, _)| *known == letter).map(|(_, bit)| *bit);
        text.chars().try_fold(0, |bits, letter| Some(bits | bit(letter)?)).map(Self)
    }

    fn letters(self) -> String {
        // The kernel's own order in devices.list.
        ['r', 'w', 'm']
            .into_iter()
            .filter(|letter| self.0 & Self::parse(&letter.to_string()).map_or(0, Self::bits) != 0)
            .collect()
    }
}

/// Block or character devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Block,
    Character,
}

/// One rule; `None` stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    pub allow: bool,
    pub kind: Option<Kind>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

impl Rule {
    /// True for the rule that decides everything, whatever came before.
    pub fn is_total(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == Access::ALL
    }
}

/// The rules of a container, in order: the last one that matches decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRules {
    rules: Vec<Rule>,
    /// Version 1's form of the same.
    policy: Policy,
}

impl DeviceRules {
    /// Reads the configuration's rules and adds the default devices.
    ///
    /// # Errors
    /// A type, number or access that does not exist; a rule that version 1 (`v1`) cannot express, which is a denied
    /// device inside of an allowed range (or the other way round).
    pub(crate) fn read(configured: &[LinuxDeviceCgroup], v1: bool) -> Result<Self, Refusal> {
        let mut rules = Vec::with_capacity(configured.len() + DEFAULTS.len());
        let mut policy = Policy::deny_all();
        for (index, rule) in configured.iter().enumerate() {
            let rule = read_rule(rule, index)?;
            if policy.apply(&rule).is_err() && v1 {
                let reason =
                    "cgroup version 1 cannot make an exception inside of a range of the earlier rules";
                return Err(Refusal::new(format!("{FIELD}/{index}"), reason));
            }
            rules.push(rule);
        }
        for rule in DEFAULTS {
            // Only a configuration that allows everything and denies a default device is in the way; it wins.
            if policy.apply(&rule).is_ok() {
                rules.push(rule);
            }
        }
        Ok(Self { rules, policy })
    }

    /// Version 1's form.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Version 2's form: instructions of a program that decides one access.
    pub(crate) fn program(&self) -> Vec<u64> {
        assemble(&self.rules)
    }
}

fn read_rule(rule: &LinuxDeviceCgroup, index: usize) -> Result<Rule, Refusal> {
    let refuse =
        |member: &str, reason: String| Err(Refusal::new(format!("{FIELD}/{index}/{member}"), reason));
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(Kind::Block),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(Kind::Character),
        LinuxDeviceType::P => return refuse("type", "a fifo is no device; a, b and c are".to_owned()),
    };
    let number = |member: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => refuse(member, format!("{value} is no device number")).map(|_: Rule| None),
        },
    };
    let text = rule.access().as_deref().unwrap_or_default();
    // In a denial an `a`, the type's word for all, denies all; to allow by a letter that does not exist is refused.
    let all = text.is_empty()
        || !rule.allow() && text.chars().all(|letter| "rwma".contains(letter)) && text.contains('a');
    let access = if all { Some(Access::ALL) } else { Access::parse(text) };
    let Some(access) = access else {
        return refuse("access", format!("{text:?} has other letters than r, w and m"));
    };
    Ok(Rule {
        allow: rule.allow(),
        kind,
        major: number("major", rule.major())?,
        minor: number("minor", rule.minor())?,
        access,
    })
}

/// Devices that every container may use, as in runc: making any node, null, zero, full, tty, random, urandom, the
/// pseudo terminals and tun.
const DEFAULTS: [Rule; 11] = [
    character(None, None, Access(1)),
    Rule { kind: Some(Kind::Block), ..character(None, None, Access(1)) },
    character(Some(1), Some(3), Access::ALL),
    character(Some(1), Some(8), Access::ALL),
    character(Some(1), Some(7), Access::ALL),
    character(Some(5), Some(0), Access::ALL),
    character(Some(1), Some(5), Access::ALL),
    character(Some(1), Some(9), Access::ALL),
    character(Some(136), None, Access::ALL),
    character(Some(5), Some(2), Access::ALL),
    character(Some(10), Some(200), Access::ALL),
];

const fn character(major: Option<u32>, minor: Option<u32>, access: Access) -> Rule {
    Rule { allow: true, kind: Some(Kind::Character), major, minor, access }
}

#[cfg(test)]
mod tests;
