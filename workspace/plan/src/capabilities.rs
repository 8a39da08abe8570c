//! Capability names and the five sets of a process (capabilities(7)).

use crate::load::child;
use crate::plan::{CapabilityPlan, Warning};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use oci_spec::runtime::{Capabilities, LinuxCapabilities};

/// Names by number (linux/capability.h).
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Number of a capability; `name` has to be one of [`CAPABILITIES`], letter by letter.
pub(crate) fn number(name: &str) -> Option<u8> {
    (0..).zip(CAPABILITIES).find(|(_, known)| *known == name).map(|(number, _)| number)
}

/// Names of the capabilities in a set.
pub(crate) fn names(set: u64) -> impl Iterator<Item = &'static str> {
    CAPABILITIES
        .into_iter()
        .enumerate()
        .filter(move |(number, _)| set >> number & 1 == 1)
        .map(|(_, name)| name)
}

/// The sets as configured; a set that is not given is empty, and so are all when nothing is given: deny by default.
pub(crate) fn configured(sets: Option<&LinuxCapabilities>) -> CapabilityPlan {
    let Some(sets) = sets else { return CapabilityPlan::default() };
    CapabilityPlan {
        bounding: bits(sets.bounding().as_ref()),
        effective: bits(sets.effective().as_ref()),
        permitted: bits(sets.permitted().as_ref()),
        inheritable: bits(sets.inheritable().as_ref()),
        ambient: bits(sets.ambient().as_ref()),
    }
}

fn bits(set: Option<&Capabilities>) -> u64 {
    let bit = |name: String| number(&format!("CAP_{name}")).map_or(0, |number| 1 << number);
    set.into_iter().flatten().fold(0, |bits, capability| bits | bit(capability.to_string()))
}

/// The configured sets without what cannot be had; each loss is a warning (config.md, process.capabilities).
///
/// The rules are those of capset(2) and prctl(2), which would fail as a whole:
/// nothing beyond `grantable`; effective within permitted; inheritable within bounding; ambient within permitted and
/// inheritable.
pub(crate) fn attainable(
    configured: CapabilityPlan,
    grantable: u64,
    pointer: &str,
    warnings: &mut Vec<Warning>,
) -> CapabilityPlan {
    let CapabilityPlan { bounding, effective, permitted, inheritable, ambient } = configured;
    let mut warn = |name: Option<&str>, text: String| {
        let field = name.map_or_else(|| pointer.to_string(), |name| child(pointer, name));
        warnings.push(Warning { field, text });
    };
    let beyond = (bounding | effective | permitted | inheritable | ambient) & !grantable;
    if beyond != 0 {
        warn(None, format!("ignoring capabilities that cannot be granted here: {}", listed(beyond)));
    }
    let [bounding, effective, permitted, inheritable, ambient] =
        [bounding, effective, permitted, inheritable, ambient].map(|set| set & grantable);
    if effective & !permitted != 0 {
        let text = format!(
            "ignoring effective capabilities that are not permitted: {}",
            listed(effective & !permitted)
        );
        warn(Some("effective"), text);
    }
    if inheritable & !bounding != 0 {
        let text = format!(
            "ignoring inheritable capabilities outside the bounding set: {}",
            listed(inheritable & !bounding)
        );
        warn(Some("inheritable"), text);
    }
    let inheritable = inheritable & bounding;
    for name in names(ambient & !(permitted & inheritable)) {
        let text = format!("can't raise ambient capability {name}: it is not both permitted and inheritable");
        warn(Some("ambient"), text);
    }
    CapabilityPlan {
        bounding,
        effective: effective & permitted,
        permitted,
        inheritable,
        ambient: ambient & permitted & inheritable,
    }
}

fn listed(set: u64) -> String {
    names(set).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_letter_by_letter() {
        assert_eq!(number("CAP_CHOWN"), Some(0));
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(40));
        for name in ["CHOWN", "cap_chown", "CAP_CAP_CHOWN", "CAP_chown", "CAP_CHOWN ", ""] {
            assert_eq!(number(name), None, "{name}");
        }
    }

    #[test]
    fn every_type_of_the_crate_has_its_number() {
        for name in CAPABILITIES {
            let sets: LinuxCapabilities =
                serde_json::from_value(serde_json::json!({"bounding": [name]})).unwrap();
            assert_eq!(
                Some(configured(Some(&sets)).bounding),
                number(name).map(|number| 1 << number),
                "{name}"
            );
        }
    }

    #[test]
    fn no_sets_mean_no_capabilities() {
        assert_eq!(configured(None), CapabilityPlan::default());
    }

    #[test]
    fn what_cannot_be_had_is_dropped_with_a_warning() {
        let all = |set| CapabilityPlan {
            bounding: set,
            effective: set,
            permitted: set,
            inheritable: set,
            ambient: set,
        };
        let (chown, kill) = (1, 1 << 5);
        let table: [(CapabilityPlan, u64, CapabilityPlan, &[&str]); 6] = [
            (all(chown | kill), u64::MAX, all(chown | kill), &[]),
            (
                all(chown | kill),
                kill,
                all(kill),
                &["ignoring capabilities that cannot be granted here: CAP_CHOWN"],
            ),
            (
                CapabilityPlan { permitted: 0, ambient: 0, ..all(kill) },
                u64::MAX,
                CapabilityPlan { permitted: 0, effective: 0, ambient: 0, ..all(kill) },
                &["ignoring effective capabilities that are not permitted: CAP_KILL"],
            ),
            (
                CapabilityPlan { bounding: 0, ambient: 0, ..all(kill) },
                u64::MAX,
                CapabilityPlan { bounding: 0, inheritable: 0, ambient: 0, ..all(kill) },
                &["ignoring inheritable capabilities outside the bounding set: CAP_KILL"],
            ),
            (
                CapabilityPlan { inheritable: kill, ..all(chown | kill) },
                u64::MAX,
                CapabilityPlan { inheritable: kill, ambient: kill, ..all(chown | kill) },
                &["can't raise ambient capability CAP_CHOWN: it is not both permitted and inheritable"],
            ),
            (
                CapabilityPlan { permitted: kill, effective: kill, ..all(chown | kill) },
                u64::MAX,
                CapabilityPlan { permitted: kill, effective: kill, ambient: kill, ..all(chown | kill) },
                &["can't raise ambient capability CAP_CHOWN: it is not both permitted and inheritable"],
            ),
        ];
        for (asked, grantable, expected, texts) in table {
            let mut warnings = Vec::new();
            assert_eq!(attainable(asked, grantable, "/process/capabilities", &mut warnings), expected);
            assert_eq!(warnings.iter().map(|warning| warning.text.as_str()).collect::<Vec<_>>(), texts);
        }
    }
}
