//! `hull spec`.

use crate::cli::SpecOptions;
use crate::error::{Code, Context, Error, Result};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Writes config.json into the bundle; an existing one is never replaced.
pub fn run(options: &SpecOptions) -> Result<u8> {
    let caller =
        options.rootless.then(|| (hull_sys::identity::effective_uid(), hull_sys::identity::effective_gid()));
    let text = hull_plan::default_spec(caller, Path::new("/sys/fs/cgroup/cgroup.controllers").exists());
    let path = options.bundle.as_deref().unwrap_or(Path::new(".")).join("config.json");
    let made = File::options().write(true).create_new(true).open(&path);
    let mut file = match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::new(Code::Usage, "File config.json exists. Remove it first"));
        }
        other => other.context(|| format!("make {}", path.display()))?,
    };
    file.write_all(text.as_bytes()).context(|| format!("write {}", path.display()))?;
    Ok(0)
}
