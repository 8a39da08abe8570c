//! Why a configuration is refused, and which field of it.

use alloc::string::String;
use core::fmt;

/// A configuration that cannot be carried out; nothing has been done yet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// JSON pointer (RFC 6901) of the field, such as `/linux/namespaces/2/path`; empty for the whole document.
    pub field: String,
    /// What is wrong: a lowercase fragment without a full stop.
    pub reason: String,
    /// What the user may do about it, one line.
    pub hint: Option<String>,
}

impl Refusal {
    /// Refuses `field` for `reason`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), hint: None }
    }

    /// Adds a hint of one line.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.field, self.reason)
        }
    }
}

impl core::error::Error for Refusal {}
