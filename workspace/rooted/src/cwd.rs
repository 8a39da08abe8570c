//! The proof that the current directory is the container's.

use crate::{Error, Proc, Result};
use hull_sys::fs;
use hull_sys::{CWD, mount};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Proves that the current directory lies below the process's root and on a mount of its namespace, and gives its
/// path; [`Error::CwdOutside`] otherwise.
///
/// A directory of the host that was entered through a leaked fd has neither (CVE-2024-21626): the kernel names it
/// `(unreachable)`, and its mount is not in the table of the process's own mounts.
pub fn prove_cwd_inside(proc: &Proc) -> Result<PathBuf> {
    let here = Path::new(".");
    let named = fs::getcwd().map_err(Error::call("name the current directory", here))?;
    let path = PathBuf::from(OsString::from_vec(named.into_bytes()));
    if !path.is_absolute() {
        return Err(Error::CwdOutside { path });
    }
    // Asked of the process itself: its user may not be able to open the directory.
    let id = mount::plain_mount_id(CWD).map_err(Error::call("look at", here))?;
    if proc.mounts()?.iter().any(|entry| entry.id == id) { Ok(path) } else { Err(Error::CwdOutside { path }) }
}
