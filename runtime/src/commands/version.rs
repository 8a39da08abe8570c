//! `--version`, in the form that Docker and podman parse.

use crate::output::text;

/// The newest runtime specification whose members are known.
pub const SPEC_VERSION: &str = "1.3.0";

/// Prints name, version, commit and specification.
pub fn print(name: &str) {
    let commit = option_env!("HULL_COMMIT").map_or_else(String::new, |commit| format!("commit: {commit}\n"));
    text(format_args!("{name} version {}\n{commit}spec: {SPEC_VERSION}\n", env!("CARGO_PKG_VERSION")));
}
