//! What a case can find.

use std::fmt::{Debug, Display};
use std::io;

/// Why a case ended before its last line.
#[derive(Debug)]
pub enum Stop {
    /// It cannot be shown on this machine: the reason.
    Skip(String),
    /// The runtime differs from the specification.
    Fail {
        /// What the specification asks for.
        expected: String,
        /// What the runtime did.
        seen: String,
    },
    /// The suite itself could not go on.
    Broken(String),
}

/// What a step of a case gives, or why the case is over.
pub type Finding<T = ()> = Result<T, Stop>;

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<rustix::io::Errno> for Stop {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<nix::errno::Errno> for Stop {
    fn from(error: nix::errno::Errno) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Ends the case unless `seen` is `expected`.
///
/// # Errors
/// A failure that shows both.
pub fn same<A: PartialEq<B> + Debug + ?Sized, B: Debug + ?Sized>(
    what: &str,
    expected: &A,
    seen: &B,
) -> Finding {
    holds(format!("{what}: {expected:?}"), expected == seen, format!("{seen:?}"))
}

/// Ends the case unless `fact` is true.
///
/// # Errors
/// A failure that names what was expected and what was seen.
pub fn holds(expected: impl Display, fact: bool, seen: impl Display) -> Finding {
    if fact { Ok(()) } else { fail(expected, seen) }
}

/// Ends the case as failed.
///
/// # Errors
/// Always.
pub fn fail<T>(expected: impl Display, seen: impl Display) -> Finding<T> {
    Err(Stop::Fail { expected: expected.to_string(), seen: seen.to_string() })
}

/// Ends the case as not to be shown here.
///
/// # Errors
/// Always.
pub fn skip<T>(why: impl Display) -> Finding<T> {
    Err(Stop::Skip(why.to_string()))
}

/// Ends the case as skipped unless `fact` is true.
///
/// # Errors
/// A skip with the reason.
pub fn needs(fact: bool, why: impl Display) -> Finding {
    if fact { Ok(()) } else { skip(why) }
}
