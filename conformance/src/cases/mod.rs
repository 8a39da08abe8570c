//! The cases, by subject. A case is a function; its name says the fact that it shows.

use crate::lab::Lab;
use crate::verdict::Finding;

mod configuration;
mod devices;
mod hooks;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;

/// Shows one requirement, or ends with what differs.
pub type Case = fn(&Lab) -> Finding;

/// Cases with the ids of their requirements.
type Table = &'static [(&'static str, Case)];

const ALL: &[Table] = &[
    configuration::CASES,
    lifecycle::CASES,
    hooks::CASES,
    mounts::CASES,
    process::CASES,
    namespaces::CASES,
    devices::CASES,
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
