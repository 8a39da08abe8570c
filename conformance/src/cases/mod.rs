//! The cases, by subject. A case is a function; its name says the fact that it shows.

use crate::lab::Lab;
use crate::verdict::Finding;

mod cgroups;
mod configuration;
mod devices;
mod features;
mod hooks;
mod lifecycle;
mod limits;
mod mount_options;
mod mounts;
mod namespaces;
mod netdevices;
mod process;
mod scheduling;
mod seccomp;
mod security;

/// Shows one requirement, or ends with what differs.
pub type Case = fn(&Lab) -> Finding;

/// Cases with the ids of their requirements.
type Table = &'static [(&'static str, Case)];

const ALL: &[Table] = &[
    configuration::CASES,
    lifecycle::CASES,
    hooks::CASES,
    mounts::CASES,
    mount_options::CASES,
    process::CASES,
    scheduling::CASES,
    namespaces::CASES,
    devices::CASES,
    netdevices::CASES,
    cgroups::CASES,
    limits::CASES,
    seccomp::CASES,
    security::CASES,
    features::CASES,
];

/// The case of a requirement.
#[must_use]
pub fn case(id: &str) -> Option<Case> {
    all().find(|(of, _)| *of == id).map(|(_, case)| case)
}

/// Every case.
pub fn all() -> impl Iterator<Item = (&'static str, Case)> {
    ALL.iter().flat_map(|table| table.iter().copied())
}
