//! Secrets and agents that the command line grants to steps.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

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
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let opened = rustix::fs::open(path, flags, Mode::empty());
                let file =
                    opened.map_err(|e| Error::io("open the secret", path)(e.into())).map(File::from)?;
                let refuse = || {
                    Error::fact(format!(
                        "the secret \"{id}\" must be a regular file of at most {MAX_SECRET} bytes"
                    ))
                };
                // Looked at when it is open: its name may come to mean something else.
                if !file.metadata().is_ok_and(|meta| meta.is_file()) {
                    return Err(refuse());
                }
                let mut value = Vec::new();
                let read = file.take(MAX_SECRET + 1).read_to_end(&mut value);
                read.map_err(Error::io("read the secret", path))?;
                if value.len() as u64 > MAX_SECRET { Err(refuse()) } else { Ok(value) }
            }
        }
    }
}
