//! What garbage collection leaves of the cache: records of layers that are still there.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::time::Duration;

use hull_image::Digest;

use super::{Cache, Record};
use crate::error::{Error, Result};

/// How long what is known of a context's files is kept unused.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

impl Cache<'_> {
    /// Removes records whose layers are gone, and what can be found out again; gives the bytes that became free.
    pub(crate) fn sweep(&self) -> Result<u64> {
        let mut freed = 0;
        let (mut keys, mut blobs, mut layers) = (HashSet::new(), HashSet::new(), HashSet::new());
        for name in self.names("steps")? {
            match self.read::<Record>("steps", &name).filter(|record| self.store.has_blob(&record.blob)) {
                Some(record) => {
                    blobs.insert(record.blob.digest.encoded().to_owned());
                    layers.insert(record.diff_id.encoded().to_owned());
                    keys.insert(name);
                }
                None => freed += self.forget("steps", &name)?,
            }
        }
        for (kind, kept) in [("blocks", &blobs), ("lists", &layers)] {
            for name in self.names(kind)?.into_iter().filter(|name| !kept.contains(name)) {
                freed += self.forget(kind, &name)?;
            }
        }
        for name in self.names("last")? {
            if !self.last_in(&name).is_some_and(|key| keys.contains(&key.name())) {
                freed += self.forget("last", &name)?;
            }
        }
        for name in self.names("selections")? {
            freed += self.forget("selections", &name)?;
        }
        for name in self.names("files")? {
            let path = self.directory.join("files").join(&name);
            let time = fs::metadata(&path).and_then(|meta| meta.modified());
            if time.is_ok_and(|time| time.elapsed().is_ok_and(|passed| passed > UNUSED)) {
                freed += self.forget("files", &name)?;
            }
        }
        Ok(freed)
    }

    /// What steps made that need not be done again: the blobs and diff ids of all records.
    pub(crate) fn layers(&self) -> Result<BTreeSet<Digest>> {
        let records = self.names("steps")?.into_iter().filter_map(|name| self.read::<Record>("steps", &name));
        Ok(records.flat_map(|record| [record.blob.digest, record.diff_id]).collect())
    }

    pub(super) fn names(&self, kind: &str) -> Result<Vec<String>> {
        let path = self.directory.join(kind);
        let entries = fs::read_dir(&path).map_err(Error::io("read", &path))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    fn forget(&self, kind: &str, name: &str) -> Result<u64> {
        let path = self.directory.join(kind).join(name);
        let size = fs::metadata(&path).map_or(0, |meta| meta.len());
        match fs::remove_file(&path) {
            Ok(()) => Ok(size),
            // Another command was first.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(Error::io("remove", &path)(error)),
        }
    }
}
