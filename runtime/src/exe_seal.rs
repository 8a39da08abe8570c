//! Sealing of the runtime's own binary (R6, CVE-2019-5736).
//!
//! A container's process is this program until it executes the container's, so the container can reach this binary
//! through `/proc/PID/exe`. Commands that enter a container therefore run from an image that nobody can write: a
//! read-only overlay mount that no mount namespace holds (no upper layer, so it can never become writable), or, where
//! overlay mounts are not to be had, a sealed memory file. The program re-executes itself at most once.

use crate::error::{Context, Error, Result};
use crate::files::open_regular;
use hull_sys::errno::EINVAL;
use hull_sys::process::{CStrings, execveat};
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// In front of argv[0] when this process already runs from the sealed image.
const MARK: &[u8] = b"sealed:";

/// openat(2): the path is empty, the descriptor is meant.
const AT_EMPTY_PATH: i32 = 0x1000;

/// A directory that every host has, of a file system that overlay takes, with nothing of ours in it.
const SECOND_LAYER: &str = "/etc";

/// Bytes that one call copies at most.
const COPY_AT_ONCE: usize = 16 << 20;

/// Executes this program again from a sealed image, with the same arguments; returns only when that fails.
pub fn seal(arguments: &[OsString]) -> Result<()> {
    let image = sealed_image().map_err(|error| error.within("seal the runtime's binary"))?;
    let error = execute(image.as_fd(), arguments)?;
    Err(Error::sys("execute the sealed binary", error))
}

/// The arguments without the mark.
pub fn unmark(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if is_sealed(&arguments) {
        arguments[0] = OsString::from_vec(arguments[0].as_bytes()[MARK.len()..].to_vec());
    }
    arguments
}

/// True in the process that runs from the sealed image.
pub fn is_sealed(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|first| first.as_bytes().starts_with(MARK))
}

fn sealed_image() -> Result<OwnedFd> {
    let path = std::env::current_exe().context(|| "find the runtime's binary")?;
    match overlay_image(&path) {
        Ok(image) => Ok(image),
        // No permission, no overlay in this kernel, or a path that overlay cannot take: the copy always works.
        Err(_) => memory_image(),
    }
}

/// The binary in an overlay of its directory, without an upper layer, mounted nowhere.
fn overlay_image(path: &Path) -> hull_sys::Result<OwnedFd> {
    use hull_sys::mount::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
    use hull_sys::mount::{fsconfig_create, fsconfig_string, fsmount, fsopen};
    let refused = hull_sys::SysError::new("fsconfig", EINVAL);
    let (directory, name) = path.parent().zip(path.file_name()).ok_or(refused)?;
    let directory = directory.to_str().filter(|text| !text.contains([':', ',', '\\'])).ok_or(refused)?;
    let context = fsopen("overlay")?;
    // Two layers are needed where there is no upper one; the second is only there for that. It may not contain the
    // first, or the kernel refuses.
    fsconfig_string(context.as_fd(), "lowerdir", format!("{directory}:{SECOND_LAYER}").as_str())
        .and_then(|()| fsconfig_create(context.as_fd()))?;
    let mount = fsmount(context.as_fd(), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)?;
    open_regular(mount.as_fd(), name, false)
}

/// A sealed copy of the binary in memory.
fn memory_image() -> Result<OwnedFd> {
    let source = open_regular(hull_sys::CWD, "/proc/self/exe", true).context(|| "open the binary")?;
    let copy = hull_sys::memfd::sealed_memfd("hull", true).context(|| "make a memory file")?;
    while hull_sys::io::sendfile(source.as_fd(), copy.as_fd(), COPY_AT_ONCE).context(|| "copy the binary")?
        > 0
    {}
    hull_sys::memfd::seal_all(copy.as_fd()).context(|| "seal the copy")?;
    Ok(copy)
}

fn execute(image: BorrowedFd<'_>, arguments: &[OsString]) -> Result<hull_sys::SysError> {
    let nul = |_| Error::new(crate::error::Code::Usage, "an argument holds a NUL byte");
    let mut argv = Vec::with_capacity(arguments.len());
    for (index, argument) in arguments.iter().enumerate() {
        let mark: &[u8] = if index == 0 { MARK } else { b"" };
        argv.push(CString::new([mark, argument.as_bytes()].concat()).map_err(nul)?);
    }
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        environment.push(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).map_err(nul)?);
    }
    Ok(execveat(image, c"", &CStrings::new(argv), &CStrings::new(environment), AT_EMPTY_PATH))
}
