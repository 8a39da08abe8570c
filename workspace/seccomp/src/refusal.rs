//! Why a profile is not taken.

use alloc::string::String;
use core::fmt;

/// A profile that is refused, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// JSON pointer (RFC 6901) into the configuration, such as `/linux/seccomp/syscalls/3/args/0`.
    pub field: String,
    /// What is wrong: a lowercase fragment without a full stop.
    pub reason: String,
}

impl Refusal {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.field, self.reason)
    }
}

impl core::error::Error for Refusal {}
