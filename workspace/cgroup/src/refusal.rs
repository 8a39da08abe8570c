//! Why a configuration cannot be carried out: which field, and what is wrong with it.

use std::fmt;

/// A configuration that is refused before anything was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// JSON pointer (RFC 6901) of the field in `config.json`, such as `/linux/resources/pids/limit`.
    pub field: String,
    /// What is wrong and, where known, what would help; a lowercase fragment.
    pub reason: String,
}

impl Refusal {
    /// Refuses `field` for `reason`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for Refusal {}

/// Escapes a member name for a JSON pointer (RFC 6901, section 3).
pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
