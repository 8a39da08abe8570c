//! Standard output and error of the commands: a reader that has gone away is no reason to panic.

use crate::error::{Context, Result};
use std::io::Write;

/// Prints `text` and a line feed.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context(|| "write to standard output")
}

/// Prints `text` and a line feed on standard error; where nobody reads it the exit status has to do.
pub fn error_line(text: impl std::fmt::Display) {
    let _unread = writeln!(std::io::stderr(), "{text}");
}

/// Prints `text` as it is; a reader that has seen enough has it all.
pub fn text(text: impl std::fmt::Display) {
    let _unread = write!(std::io::stdout(), "{text}");
}
