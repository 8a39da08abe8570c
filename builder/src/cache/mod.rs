//! Keys and records of steps: what a step depends on, as parts that can be told apart, and what it once made.
//!
//! A key names what a step begins with by its layers, not by how they came to be: a step that is done again and makes
//! the same bytes changes no key above it. Times never count; secrets and proxies count by declaration, not by value.

pub(crate) mod explain;
mod key_file;
mod list;
mod mounts;
mod sweep;

use std::fs;
use std::path::PathBuf;

use hull_image::{Descriptor, Digest, Store};
use hull_layer::{Encoding, Entry, Known, Written};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

pub(crate) use explain::reasons;
pub(crate) use mounts::CacheMount;

use crate::error::{Error, Result};

/// Raised when steps are carried out differently: older records no longer count.
const VERSION: &str = "3";
/// Largest record read, in bytes.
const MAX_RECORD: u64 = 256 << 20;

/// What a step depends on: labelled parts in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    parts: Vec<Part>,
}

/// A label and a value.
pub(crate) type Part = (String, String);

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Digest of the layer's uncompressed archive.
    pub(crate) diff_id: Digest,
    /// The layer in the store.
    pub(crate) blob: Descriptor,
    /// Bytes of its regular files.
    pub(crate) size: u64,
}

impl Key {
    /// Its parts below a label, and all others.
    pub(crate) fn below_label(&self, label: &str) -> (Vec<&Part>, Vec<&Part>) {
        let is_below =
            |part: &&(String, String)| part.0.strip_prefix(label).is_some_and(|rest| rest.starts_with(' '));
        self.parts.iter().partition(is_below)
    }

    /// A key of nothing but the version of its making.
    pub(crate) fn new() -> Self {
        Self { parts: vec![("builder".into(), VERSION.into())] }
    }

    /// Adds a part.
    pub(crate) fn part(&mut self, label: impl Into<String>, value: impl Into<String>) {
        self.parts.push((label.into(), value.into()));
    }

    /// Adds many parts below one label.
    pub(crate) fn take_parts(&mut self, label: &str, parts: Vec<Part>) {
        self.parts.extend(parts.into_iter().map(|(mut name, value)| {
            name.insert_str(0, label);
            name.insert(label.len(), ' ');
            (name, value)
        }));
    }

    /// The key's name: a digest over all parts, each with its length.
    pub(crate) fn name(&self) -> String {
        let mut hasher = sha2::Sha256::new();
        for (label, value) in &self.parts {
            hasher.update((label.len() as u64).to_le_bytes());
            hasher.update(label);
            hasher.update((value.len() as u64).to_le_bytes());
            hasher.update(value);
        }
        crate::context::content::hex(&hasher.finalize())
    }
}

/// The records of one store.
pub(crate) struct Cache<'a> {
    store: &'a Store,
    directory: PathBuf,
}

impl<'a> Cache<'a> {
    /// The cache of a store.
    pub(crate) fn open(store: &'a Store) -> Result<Self> {
        let directory = store.dir().join("cache");
        for name in ["", "steps", "last", "selections", "files", "blocks", "lists", "mounts"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).map_err(Error::io("make directory", &path))?;
        }
        Ok(Self { store, directory })
    }

    /// Where the file cache of a context directory is.
    pub(crate) fn file_cache(&self, context: &std::path::Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.directory.join("files").join(name_of(context.as_os_str().as_bytes()))
    }

    /// What the step with this key made, if its layer is still there.
    pub(crate) fn find(&self, key: &str) -> Option<Record> {
        let record: Record = self.read("steps", key)?;
        self.store.has_blob(&record.blob).then_some(record)
    }

    /// Keeps what a step made.
    pub(crate) fn keep(&self, key: &str, record: &Record) -> Result<()> {
        self.write("steps", key, record)
    }

    /// The digest of a selection of an unchangeable tree, if it was made before.
    pub(crate) fn selection(&self, what: &Key) -> Option<Vec<(String, String)>> {
        self.read("selections", &what.name())
    }

    /// Keeps the digest of such a selection.
    pub(crate) fn keep_selection(&self, what: &Key, parts: &Vec<(String, String)>) -> Result<()> {
        self.write("selections", &what.name(), parts)
    }

    /// The key that the step at `place` had when it was last done.
    pub(crate) fn last(&self, place: &str) -> Option<Key> {
        self.last_in(&name_of(place.as_bytes()))
    }

    fn last_in(&self, name: &str) -> Option<Key> {
        let path = self.directory.join("last").join(name);
        let small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_RECORD);
        small.then(|| fs::read(&path).ok()).flatten().and_then(|bytes| key_file::decode(&bytes))
    }

    /// Notes the key of the step at `place`.
    pub(crate) fn keep_last(&self, place: &str, key: &Key) -> Result<()> {
        self.write_bytes("last", &name_of(place.as_bytes()), &key_file::encode(key))
    }

    /// What is known of the blocks of a layer's archive.
    pub(crate) fn blocks(&self, blob: &Descriptor, encoding: Encoding) -> Option<Known> {
        let Encoding::Gzip(level) = encoding else { return None };
        let bytes = fs::read(self.directory.join("blocks").join(blob.digest.encoded())).ok()?;
        Known::decode(&bytes, level, self.store.blob(blob).ok()?)
    }

    /// Keeps what is known of the blocks of a layer's archive.
    pub(crate) fn keep_blocks(&self, written: &Written<'_>, encoding: Encoding) -> Result<()> {
        let Encoding::Gzip(level) = encoding else { return Ok(()) };
        let bytes = hull_layer::blocks::encode(level, &written.blocks);
        self.write_bytes("blocks", written.blob.descriptor().digest.encoded(), &bytes)
    }

    /// What is in a layer that no step has needed as a tree.
    pub(crate) fn list(&self, diff_id: &Digest) -> Option<Vec<Entry>> {
        list::decode(&fs::read(self.directory.join("lists").join(diff_id.encoded())).ok()?)
    }

    /// Keeps the list of a layer whose tree is not made.
    pub(crate) fn keep_list(&self, diff_id: &Digest, entries: Vec<Entry>) -> Result<()> {
        self.write_bytes("lists", diff_id.encoded(), &list::encode(entries))
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, kind: &str, name: &str) -> Option<T> {
        let path = self.directory.join(kind).join(name);
        let small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= MAX_RECORD);
        // A record that is damaged is a miss.
        small.then(|| fs::read(&path).ok()).flatten().and_then(|bytes| serde_json::from_slice(&bytes).ok())
    }

    fn write(&self, kind: &str, name: &str, value: &impl Serialize) -> Result<()> {
        self.write_bytes(kind, name, &hull_image::canonical(value))
    }

    fn write_bytes(&self, kind: &str, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = self.store.temporary_path();
        fs::write(&temporary, bytes).map_err(Error::io("write", &temporary))?;
        let path = self.directory.join(kind).join(name);
        // Not synced: a record that a crash tears can't be read, and is a miss.
        fs::rename(&temporary, &path).map_err(Error::io("rename to", &path))
    }
}

fn name_of(bytes: &[u8]) -> String {
    crate::context::content::hex(&sha2::Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        let key = |parts: &[(&str, &str)]| {
            let mut key = Key::new();
            parts.iter().for_each(|(label, value)| key.part(*label, *value));
            key.name()
        };
        assert_ne!(key(&[("ab", "c")]), key(&[("a", "bc")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("a", "bcd")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("c", "d"), ("a", "b")]));
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
    }
}
