//! Kernel parameters: only those that belong to a namespace of the container (config-linux.md, sysctl).

use crate::load::child;
use crate::plan::{EntryScript, NamespaceKind, Sysctl};
use crate::refusal::Refusal;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use oci_spec::runtime::Linux;

/// Parameters of the ipc namespace beside those below `fs/mqueue` (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// Plans the parameters in the order of their keys.
pub(crate) fn plan(linux: Option<&Linux>, entry: &EntryScript) -> Result<Vec<Sysctl>, Refusal> {
    let listed = linux.and_then(|linux| linux.sysctl().as_ref()).into_iter().flatten();
    let ordered: BTreeMap<_, _> = listed.collect();
    ordered
        .into_iter()
        .map(|(key, value)| {
            let field = child("/linux/sysctl", key);
            let path =
                path(key).ok_or_else(|| Refusal::new(field.clone(), "not the name of a kernel parameter"))?;
            allowed(&path, entry).map_err(|reason| Refusal::new(field.clone(), reason))?;
            Ok(Sysctl { field, path, value: value.clone() })
        })
        .collect()
}

/// The path below /proc/sys. Whichever of `.` and `/` comes first separates; the other one is part of a name, with
/// both exchanged: `net.ipv4.conf.eth0/1.forwarding` (sysctl(8)).
fn path(key: &str) -> Option<String> {
    let separator = key.chars().find(|letter| matches!(letter, '.' | '/'))?;
    let exchange = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if separator == '.' { key.chars().map(exchange).collect() } else { key.to_string() };
    let fits = path.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'));
    fits.then_some(path)
}

/// Refuses parameters of the namespace of `kind`, which is the host's.
pub(crate) fn refuse_in_hosts(planned: &[Sysctl], kind: NamespaceKind) -> Result<(), Refusal> {
    for Sysctl { field, path, .. } in planned {
        if let Some((_, words)) = namespace_of(path).filter(|(its, _)| *its == kind) {
            return Err(Refusal::new(field.clone(), of_hosts(path, words)));
        }
    }
    Ok(())
}

fn of_hosts(path: &str, words: &str) -> String {
    format!("sysctl {path:?} {words}")
}

fn allowed(path: &str, entry: &EntryScript) -> Result<(), String> {
    match namespace_of(path) {
        Some((kind, _)) if entry.has_own(kind) => Ok(()),
        Some((_, words)) => Err(of_hosts(path, words)),
        None if path == "kernel/hostname" => {
            Err(format!("sysctl {path:?} is not allowed as it conflicts with the field hostname"))
        }
        None => Err(format!("sysctl {path:?} is not in a separate kernel namespace")),
    }
}

/// The namespace that a parameter belongs to, and why it is refused where that is the host's.
fn namespace_of(path: &str) -> Option<(NamespaceKind, &'static str)> {
    let below = |directory: &str| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    match path {
        _ if IPC.contains(&path) || below("fs/mqueue") => {
            Some((NamespaceKind::Ipc, "is not allowed in the hosts ipc namespace"))
        }
        _ if below("net") => Some((NamespaceKind::Network, "not allowed in host network namespace")),
        _ if below("user") => Some((NamespaceKind::User, "is not allowed without a user namespace")),
        "kernel/domainname" => Some((NamespaceKind::Uts, "is not allowed in the hosts uts namespace")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_name_the_same_file() {
        for (key, expected) in [
            ("net.ipv4.ip_forward", Some("net/ipv4/ip_forward")),
            ("net/ipv4/ip_forward", Some("net/ipv4/ip_forward")),
            ("net.ipv4.conf.eth0/1.forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("net/ipv4/conf/eth0.1/forwarding", Some("net/ipv4/conf/eth0.1/forwarding")),
            ("net..ipv4", None),
            ("net/../kernel/core_pattern", None),
            ("net.//.kernel", None),
            ("net/./x", None),
            ("/net/x", None),
            (".net", None),
            ("net/", None),
            ("kernel", None),
            ("", None),
        ] {
            assert_eq!(path(key).as_deref(), expected, "{key}");
        }
    }
}
