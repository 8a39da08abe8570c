//! What the specification asks for: one line of `requirements.tsv` each.

use std::fmt;

/// How strongly the specification asks (RFC 2119).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Required.
    Must,
    /// Recommended.
    Should,
    /// Optional, or not in the text but expected by callers.
    May,
}

impl Level {
    /// Reads a level's name in any case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "MUST" => Some(Self::Must),
            "SHOULD" => Some(Self::Should),
            "MAY" => Some(Self::May),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str(match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
        })
    }
}

/// One requirement.
#[derive(Clone, Copy, Debug)]
pub struct Requirement {
    /// Its name here: a letter for the subject and a number.
    pub id: &'static str,
    /// How strongly it is asked.
    pub level: Level,
    /// Where it comes from: file and heading of the runtime specification, or `(practice)` and `(safety)`.
    pub section: &'static str,
    /// The requirement in words of our own.
    pub text: &'static str,
}

/// Every requirement, in the order of the table.
#[must_use]
pub fn all() -> Vec<Requirement> {
    rows(include_str!("requirements.tsv")).filter_map(|row| requirement(&row)).collect()
}

/// Why a requirement has no case: id and reason.
#[must_use]
pub fn reasons() -> Vec<(&'static str, &'static str)> {
    rows(include_str!("reasons.tsv")).filter_map(|row| Some((*row.first()?, *row.get(1)?))).collect()
}

/// The lines of a table, split at tabs.
pub(crate) fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().filter(|line| !line.is_empty()).map(|line| line.split('\t').collect())
}

fn requirement(row: &[&'static str]) -> Option<Requirement> {
    let [id, level, section, text] = row else { return None };
    Some(Requirement { id, level: Level::parse(level)?, section, text })
}
