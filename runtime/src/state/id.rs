//! Container ids (R14): the peers' alphabet, so an id can never be a path.

use crate::error::{Code, Error, Result};
use std::fmt;

/// A checked container id: 1 to 200 of `[A-Za-z0-9_+.-]`, not starting with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// Longest id in bytes.
    pub const LONGEST: usize = 200;

    /// Checks `text`.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = |why: &str| {
            Err(Error::new(Code::IdInvalid, format!("invalid container ID format: {text:?}: {why}")).hint(
                "an id has 1 to 200 letters, digits, '_', '+', '.' or '-', and does not begin with a dot",
            ))
        };
        if text.is_empty() {
            return Err(Error::new(Code::IdInvalid, "container id cannot be empty"));
        }
        if text.len() > Self::LONGEST {
            return refused("longer than 200 bytes");
        }
        if text.starts_with('.') {
            return refused("begins with a dot");
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte)) {
            return refused("has a character that is not allowed");
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::ContainerId;

    #[test]
    fn ids_that_could_be_paths_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a b", "ä", ".hidden", "a\0", &"x".repeat(201)] {
            assert!(ContainerId::parse(bad).is_err(), "{bad:?} was taken");
        }
        for good in ["a", "_", "a.b-c+d_9", "-x", &"x".repeat(200)] {
            assert_eq!(ContainerId::parse(good).expect(good).as_str(), good);
        }
    }
}
