//! The bundle: a directory with config.json.

use crate::error::{Code, Error, Result};
use crate::files::{open_dir, open_regular};
use hull_sys::errno::{EFBIG, ENOENT};
use hull_sys::io::read_to_limit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Longest config.json that is read, in bytes (R19, R-30).
pub const LONGEST_CONFIG: usize = 16 << 20;

/// An opened bundle and its configuration.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute path.
    pub path: PathBuf,
    /// The bytes of config.json, read once.
    pub config: Vec<u8>,
}

impl Bundle {
    /// Opens the bundle at `path` (the working directory when it is empty) and reads its configuration.
    pub fn open(path: &Path) -> Result<Self> {
        let missing =
            |error| Error::sys(format!("open bundle {}", path.display()), error).code(Code::ConfigMissing);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let directory = open_dir(path).map_err(missing)?;
        let config = read_config(&directory)?;
        let path = std::path::absolute(path).and_then(|path| path.canonicalize()).map_err(|error| {
            Error::new(Code::ConfigMissing, format!("find bundle {}: {error}", path.display()))
        })?;
        Ok(Self { path, config })
    }
}

fn read_config(directory: &OwnedFd) -> Result<Vec<u8>> {
    let file = open_regular(directory.as_fd(), "config.json", true).map_err(|error| {
        if error.is(ENOENT) {
            Error::new(Code::ConfigMissing, "JSON specification file config.json not found")
                .hint("'hull spec' writes one; --bundle names the directory")
        } else {
            Error::sys("open config.json", error).code(Code::ConfigMissing)
        }
    })?;
    read_to_limit(file.as_fd(), LONGEST_CONFIG).map_err(|error| {
        if error.is(EFBIG) {
            Error::new(Code::ConfigInvalid, "config.json is longer than 16 MiB")
        } else {
            Error::sys("read config.json", error).code(Code::ConfigMissing)
        }
    })
}
