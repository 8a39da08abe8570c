//! Secrets and agents that the command line grants to steps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};

/// Largest secret, in bytes.
const MAX_SECRET: u64 = 1 << 20;

/// Where a secret's value is.
#[derive(Debug, Clone)]
pub(crate) enum SecretSource {
    /// A regular file.
    File(PathBuf),
    /// A variable of the builder's own environment.
    Variable(String),
}

/// What the command line grants to steps that ask for it by id.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    pub(crate) secrets: BTreeMap<String, SecretSource>,
    /// Sockets of agents.
    pub(crate) agents: BTreeMap<String, PathBuf>,
}

impl SecretSource {
    /// The value: of a regular file of at most 1 MiB, or a variable.
    pub(crate) fn read(&self, id: &str) -> Result<Vec<u8>> {
        match self {
            Self::Variable(name) => {
                use std::os::unix::ffi::OsStringExt;
                let value = std::env::var_os(name).map(OsStringExt::into_vec);
                value.ok_or_else(|| {
                    Error::fact(format!("the variable {name} of the secret \"{id}\" is not set"))
                })
            }
            Self::File(path) => {
                let mut value = Vec::new();
                let read = open(path, id)?.take(MAX_SECRET + 1).read_to_end(&mut value);
                read.map_err(Error::io("read the secret", path))?;
                if value.len() as u64 > MAX_SECRET { Err(unfit(id)) } else { Ok(value) }
            }
        }
    }

    /// Whether a file can be read, without doing so.
    pub(crate) fn check(&self, id: &str) -> Result<()> {
        match self {
            Self::Variable(_) => Ok(()),
            Self::File(path) => match open(path, id)?.metadata() {
                Ok(meta) if meta.len() > MAX_SECRET => Err(unfit(id)),
                meta => meta.map(drop).map_err(Error::io("look at the secret", path)),
            },
        }
    }
}

fn open(path: &Path, id: &str) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    let file = opened.map_err(|e| Error::io("open the secret", path)(e.into())).map(File::from)?;
    // Looked at when it is open: its name may come to mean something else.
    match file.metadata().is_ok_and(|meta| meta.is_file()) {
        true => Ok(file),
        false => Err(unfit(id)),
    }
}

fn unfit(id: &str) -> Error {
    Error::fact(format!("the secret \"{id}\" must be a regular file of at most {MAX_SECRET} bytes"))
}
