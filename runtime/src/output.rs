//! Standard output of the commands: a reader that has gone away is no reason to panic.

use crate::error::{Context, Result};
use std::io::Write;

/// Prints `text` and a line feed.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").context(|| "write to standard output")
}
