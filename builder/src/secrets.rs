//! Secrets and agents that the command line grants to steps.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

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
                let meta = fs::metadata(path).map_err(Error::io("look at the secret", path))?;
                if !meta.is_file() || meta.size() > MAX_SECRET {
                    let text =
                        format!("the secret \"{id}\" must be a regular file of at most {MAX_SECRET} bytes");
                    return Err(Error::fact(text));
                }
                fs::read(path).map_err(Error::io("read the secret", path))
            }
        }
    }
}
