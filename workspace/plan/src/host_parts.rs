//! Parts of the host that a container is given: network interfaces, resource director classes, names, annotations.

use crate::load::child;
use crate::plan::{EntryScript, HostFacts, NamespaceKind, NetDevice};
use crate::refusal::Refusal;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use oci_spec::runtime::{Linux, LinuxIntelRdt, LinuxPersonalityDomain, Spec};

const NET_DEVICES: &str = "/linux/netDevices";
/// Longest name of an interface (linux/if.h, without the final NUL).
const LONGEST_INTERFACE: usize = 15;
/// Longest host or domain name (sethostname(2)).
const LONGEST_NAME: usize = 64;

/// Plans the interfaces that move into the container, in the order of their names.
pub(crate) fn net_devices(
    linux: Option<&Linux>,
    entry: &EntryScript,
    facts: &HostFacts,
) -> Result<Vec<NetDevice>, Refusal> {
    let Some(listed) =
        linux.and_then(|linux| linux.net_devices().as_ref()).filter(|listed| !listed.is_empty())
    else {
        return Ok(Vec::new());
    };
    if !entry.has_own(NamespaceKind::Network) {
        return Err(without_own_network());
    }
    if facts.rootless {
        return Err(Refusal::new(NET_DEVICES, "network devices are not supported for rootless containers"));
    }
    let ordered: BTreeMap<_, _> = listed.iter().collect();
    let mut devices: Vec<NetDevice> = Vec::new();
    for (host, device) in ordered {
        let field = child(NET_DEVICES, host);
        let name = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
        for (name, field) in [(host.as_str(), &field), (name, &format!("{field}/name"))] {
            if !is_interface_name(name) {
                return Err(Refusal::new(field, format!("invalid network device name {name:?}")));
            }
        }
        if devices.iter().any(|other| other.name == name && !name.contains('%')) {
            return Err(Refusal::new(field, format!("two network devices would be called {name:?}")));
        }
        devices.push(NetDevice { field, host: host.clone(), name: name.to_string() });
    }
    Ok(devices)
}

/// Refuses interfaces for a network namespace that is the host's.
pub(crate) fn without_own_network() -> Refusal {
    Refusal::new(NET_DEVICES, "unable to move network devices without a NET namespace")
}

/// As the kernel's dev_valid_name().
fn is_interface_name(name: &str) -> bool {
    (1..=LONGEST_INTERFACE).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.chars().any(|letter| matches!(letter, '/' | ':') || letter.is_whitespace())
}

/// Checks the resource director class.
pub(crate) fn intel_rdt(linux: Option<&Linux>, facts: &HostFacts) -> Result<Option<LinuxIntelRdt>, Refusal> {
    let Some(rdt) = linux.and_then(|linux| linux.intel_rdt().as_ref()) else { return Ok(None) };
    let pointer = "/linux/intelRdt";
    if !facts.resctrl {
        let reason = "intelRdt is specified in config, but Intel RDT is not enabled";
        return Err(Refusal::new(pointer, reason).hint("mount -t resctrl resctrl /sys/fs/resctrl"));
    }
    let class = rdt.clos_id().as_deref().unwrap_or_default();
    let reserved = matches!(class, "." | ".." | "info" | "mon_groups" | "mon_data");
    if reserved || (class != "/" && class.contains('/')) {
        return Err(Refusal::new(format!("{pointer}/closID"), format!("invalid intelRdt.closID {class:?}")));
    }
    let schemata = rdt.schemata().iter().flatten().enumerate();
    let lines = schemata
        .map(|(index, line)| (format!("schemata/{index}"), Some(line)))
        .chain([("l3CacheSchema".to_string(), rdt.l3_cache_schema().as_ref())])
        .chain([("memBwSchema".to_string(), rdt.mem_bw_schema().as_ref())]);
    for (name, line) in lines {
        if line.is_some_and(|line| line.contains('\n')) {
            return Err(Refusal::new(format!("{pointer}/{name}"), "a schema is one line"));
        }
    }
    Ok(Some(rdt.clone()))
}

/// Argument of personality(2) (linux/personality.h).
pub(crate) fn personality(linux: Option<&Linux>) -> Result<Option<u64>, Refusal> {
    let Some(personality) = linux.and_then(|linux| linux.personality().as_ref()) else { return Ok(None) };
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Refusal::new("/linux/personality/flags", "no personality flag is supported"));
    }
    Ok(Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

/// The host name or the domain name; both belong to the UTS namespace.
pub(crate) fn uts_name(
    name: Option<&str>,
    kind: &str,
    entry: &EntryScript,
) -> Result<Option<String>, Refusal> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    if !entry.has_own(NamespaceKind::Uts) {
        return Err(without_own_uts(kind));
    }
    if name.len() > LONGEST_NAME {
        return Err(Refusal::new(format!("/{kind}"), format!("longer than {LONGEST_NAME} bytes")));
    }
    Ok(Some(name.to_string()))
}

/// Refuses a name for a UTS namespace that is the host's.
pub(crate) fn without_own_uts(kind: &str) -> Refusal {
    Refusal::new(format!("/{kind}"), format!("unable to set {kind} without a private UTS namespace"))
}

/// Annotations in the order of their keys.
pub(crate) fn annotations(spec: &Spec) -> Result<BTreeMap<String, String>, Refusal> {
    let annotations: BTreeMap<_, _> =
        spec.annotations().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    if annotations.contains_key("") {
        return Err(Refusal::new("/annotations", "a key is empty"));
    }
    Ok(annotations)
}
