//! What is known of runtimes that differ from the specification, and why the specification is on the suite's side.

use crate::requirement::rows;

/// A known difference: one line of `peers.tsv`.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The requirement.
    pub id: &'static str,
    /// The beginning of the runtime's name and version, e.g. `runc 1.1`; `*` is any.
    pub runtime: &'static str,
    /// What the text says against it.
    pub why: &'static str,
}

/// Finds what is known of `runtime` (name and version) about a requirement; the longest match counts.
#[must_use]
pub fn known(id: &str, runtime: &str) -> Option<&'static str> {
    let fits = |known: &Known| known.id == id && (known.runtime == "*" || runtime.starts_with(known.runtime));
    all().filter(fits).max_by_key(|known| known.runtime.len()).map(|known| known.why)
}

/// Every known difference.
pub fn all() -> impl Iterator<Item = Known> {
    rows(include_str!("peers.tsv"))
        .filter_map(|row| Some(Known { id: row.first()?, runtime: row.get(1)?, why: row.get(2)? }))
}
