//! What a layer written here becomes when it is unpacked: what guards against archives of others gives way to that.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::sweep::names;
use super::{Sealed, Store, read_bounded, remove};
use crate::digest::Digest;
use crate::error::Result;

/// The extent of a layer that was written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Bytes of all regular files.
    pub bytes: u64,
    /// Files, directories and all others, marks for removed ones included.
    pub entries: u64,
}

impl Sealed<'_> {
    /// Notes the extent of a layer that is about to be published.
    pub fn note(&self, made: Made) -> Result<()> {
        let (store, digest) = (self.store(), &self.descriptor().digest);
        store.replace_file(&format!("made/{}", digest.encoded()), &crate::canonical(&made))
    }
}

impl Store {
    /// The extent of a layer that was written here, if it was noted.
    pub fn made(&self, digest: &Digest) -> Option<Made> {
        let file = fs::File::open(self.made_path(digest)).ok()?;
        serde_json::from_slice(&read_bounded(file, 4096, "extent of a layer").ok()?).ok()
    }

    /// Forgets those of blobs that are gone, or never came: the note is written first.
    pub(super) fn sweep_made(&self) -> Result<()> {
        for name in names(&self.dir().join("made"))? {
            if !self.dir().join("blobs/sha256").join(&name).exists() {
                remove(&self.dir().join("made").join(&name))?;
            }
        }
        Ok(())
    }

    fn made_path(&self, digest: &Digest) -> PathBuf {
        self.dir().join("made").join(digest.encoded())
    }
}
