//! The commands of `hull-build`, one file each: arguments in, exit code out.

pub(crate) mod build;

/// What a command returns: its exit code, or the error that ended it.
pub(crate) type Outcome = Result<std::process::ExitCode, Box<dyn std::error::Error>>;
