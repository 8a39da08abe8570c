//! Environments given on a command line: in files, and one by one.

use std::fs;
use std::path::PathBuf;

/// `KEY=VALUE` of files and flags, in this order; a key alone takes this process's value, and is left out without one.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn read(files: &[PathBuf], flags: &[String]) -> Result<Vec<String>, String> {
    let mut env = Vec::new();
    for path in files {
        let text = fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))?;
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        env.extend(lines.map(str::to_owned));
    }
    env.extend(flags.iter().cloned());
    let full = |entry: String| match entry.contains('=') {
        true => Some(entry),
        false => std::env::var(&entry).ok().map(|value| format!("{entry}={value}")),
    };
    Ok(env.into_iter().filter_map(full).collect())
}
