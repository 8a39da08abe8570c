//! Garbage collection: what no image, pin or caller names is removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Store, remove};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::document::Document;
use crate::error::{Error, Result};
use crate::store::Lock;
use crate::store::layers::{LayerRecord, chain_id, layer_name};

/// What garbage collection removed, or would remove.
#[derive(Debug, Default)]
pub struct Freed {
    /// The blobs.
    pub blobs: Vec<Digest>,
    /// The names of unpacked layers.
    pub layers: Vec<String>,
    /// Bytes on the disk.
    pub bytes: u64,
    /// What could not be removed: another user's, say, or a file that must not change. The rest was, all the same.
    pub failures: Vec<Error>,
    /// What still cannot be removed of what earlier ones left, and, once more, of what this one did; and the record of a
    /// layer that cannot be read, for which all unpacked layers stay.
    pub left: Vec<Error>,
}

impl Freed {
    /// Notes what a removal came to; true where it is done.
    fn notes(&mut self, outcome: Result<()>) -> bool {
        let is_done = outcome.is_ok();
        self.failures.extend(outcome.err());
        is_done
    }
}

impl Store {
    /// Keeps blobs, and layers by diff id, until [`Store::unpin`].
    pub fn pin(&self, name: &str, digests: &[Digest]) -> Result<()> {
        let text: String = digests.iter().map(|digest| format!("{digest}\n")).collect();
        self.replace_file(&format!("pins/{name}"), text.as_bytes())
    }

    /// Ends a pin; nothing happens when there is none.
    pub fn unpin(&self, name: &str) -> Result<()> {
        remove(&self.dir.join("pins").join(name))
    }

    /// Removes blobs and unpacked layers that neither an image, a pin nor `extra` names.
    ///
    /// # Errors
    /// Another process uses the store. What cannot be removed is told in what this gives.
    pub fn collect_garbage(&mut self, extra: &BTreeSet<Digest>) -> Result<Freed> {
        self.alone(|store| store.sweep(extra))
    }

    /// Does something while no other process uses the store.
    ///
    /// # Errors
    /// Another process uses it, and what `act` says.
    pub fn alone<T, E: From<Error>>(
        &mut self,
        act: impl FnOnce(&Self) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        self.lease = None;
        self.whole.lock().expect("no thread panics with it").clear();
        let alone = Lock::try_exclusive(&self.lock_path("lease"))?;
        let outcome = match &alone {
            Some(_) => act(self),
            None => Err(Error::Busy(self.dir.display().to_string()).into()),
        };
        drop(alone);
        self.lease = Some(Lock::shared(&self.lock_path("lease"))?);
        outcome
    }

    /// Removes a manifest, of one platform say, that indexes name: they stay, as if it had never been fetched, and what
    /// nobody else needs of it is garbage then. Within [`Store::alone`].
    pub fn forget_manifest(&self, digest: &Digest) -> Result<()> {
        remove(&self.blob_path(digest))
    }

    /// Every digest that an image or a pin names: documents, layers, diff ids and chain ids; and of layers that those
    /// lie on, the diff id.
    pub fn reachable(&self) -> Result<BTreeSet<Digest>> {
        let mut kept = self.pinned()?;
        for entry in self.index()?.manifests {
            self.mark(&entry, &mut kept, 0);
        }
        mark_below(&mut kept, &self.seen_layers()?);
        Ok(kept)
    }

    fn pinned(&self) -> Result<BTreeSet<Digest>> {
        let dir = self.dir.join("pins");
        let mut kept = BTreeSet::new();
        for entry in fs::read_dir(&dir).map_err(Error::io("read", &dir))? {
            let path = entry.map_err(Error::io("read", &dir))?.path();
            let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            kept.extend(text.lines().filter_map(|line| line.parse::<Digest>().ok()));
        }
        Ok(kept)
    }

    /// A document that cannot be read keeps itself, and only itself.
    fn mark(&self, descriptor: &Descriptor, kept: &mut BTreeSet<Digest>, depth: usize) {
        if depth > 8 || !kept.insert(descriptor.digest.clone()) {
            return;
        }
        match self.document(descriptor) {
            Ok(Document::Index(index)) => {
                index.manifests.iter().for_each(|entry| self.mark(entry, kept, depth + 1));
            }
            Ok(Document::Manifest(manifest)) => {
                kept.insert(manifest.config.digest.clone());
                kept.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
                if let Ok(image) = self.image(descriptor, None) {
                    let ids = &image.config.rootfs.diff_ids;
                    kept.extend((1..=ids.len()).filter_map(|count| chain_id(&ids[..count])));
                    kept.extend(ids.iter().cloned());
                }
            }
            Err(_) => {}
        }
    }

    fn sweep(&self, extra: &BTreeSet<Digest>) -> Result<Freed> {
        let mut freed = Freed::default();
        // First of all: what a layer lies on is known of every one. Else all of them stay.
        let layers = self.layers().unwrap_or_else(|error| {
            freed.left.push(error);
            Vec::new()
        });
        let mut kept = self.reachable()?;
        kept.extend(extra.iter().cloned());
        // Of the records that were read, and not once more: one that can't be read this time would keep nothing.
        mark_below(&mut kept, &layers);
        for digest in self.blobs()?.into_iter().filter(|digest| !kept.contains(digest)) {
            let path = self.blob_path(&digest);
            let size = fs::symlink_metadata(&path).map_or(0, |meta| meta.len());
            if freed.notes(remove(&path)) {
                freed.bytes += size;
                freed.blobs.push(digest);
            }
        }
        for (dir, record) in layers {
            if record.is_some() && layer_name(&dir).is_some_and(|id| kept.contains(&id)) {
                continue;
            }
            if freed.notes(self.discard(&dir)) {
                freed.bytes += record.map_or(0, |record| record.size);
                freed.layers.push(dir.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
        self.sweep_made()?;
        freed.left.extend(self.clear_temporary()?);
        Ok(freed)
    }

    /// Every blob's digest, sorted; files with other names are passed over.
    pub fn blobs(&self) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        for algorithm in names(&self.dir.join("blobs"))? {
            for encoded in names(&self.dir.join("blobs").join(&algorithm))? {
                found.extend(format!("{algorithm}:{encoded}").parse::<Digest>());
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Adds the layers on whose trees kept ones lie.
fn mark_below(kept: &mut BTreeSet<Digest>, layers: &[(PathBuf, Option<LayerRecord>)]) {
    let records = layers.iter().filter_map(|(_, record)| record.as_ref());
    let below =
        records.filter(|record| kept.contains(&record.diff_id)).filter_map(|record| record.on.clone());
    let below: Vec<_> = below.collect();
    kept.extend(below);
}

pub(super) fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).map_err(Error::io("read", dir))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}
