//! `--pid-file` and `--pidfd-socket`.

use crate::error::{Code, Context, Error, Result};
use crate::peer;
use hull_sys::process::Pid;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes the pid by a temporary file and a rename, so that a reader never sees half of it and a link at the path is
/// replaced, not followed.
pub fn write(path: &Path, pid: Pid) -> Result<()> {
    let name = path.file_name().ok_or_else(|| {
        Error::new(Code::Usage, format!("pid file {} is no file name", path.display()))
            .object(path.display().to_string())
    })?;
    let temporary = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), pid.as_raw()));
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create_new(true).mode(0o644).open(&temporary)?;
        write!(file, "{}", pid.as_raw())?;
        fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|error| {
            // A file that was there is somebody else's.
            if error.kind() != std::io::ErrorKind::AlreadyExists {
                // The write's own error is the one to report.
                let _never_made = fs::remove_file(&temporary);
            }
        })
        .context(|| format!("write pid file {}", path.display()))
}

/// Sends the pidfd of the container's process to the socket at `path`.
pub fn send_pidfd(path: &Path, pidfd: BorrowedFd<'_>) -> Result<()> {
    let socket = peer::connect(path, &format!("connect to pidfd socket {}", path.display()))?;
    peer::send(socket.as_fd(), b"pidfd", &[pidfd], "send the pidfd")
}
