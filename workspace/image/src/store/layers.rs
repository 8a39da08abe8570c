//! Unpacked layers: `layers/HEX/fs` by diff id, each usable as an overlay lower directory.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{Store, read_bounded, remove};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// What is known of an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// The layer as it is in the store's blobs, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Descriptor>,
    /// Bytes of all regular files.
    pub size: u64,
    /// Files, directories and all others.
    pub entries: u64,
    /// The boot that wrote it; a layer of another boot counts only when it was settled.
    #[serde(default)]
    pub boot: String,
    /// True once a sync has put all of it on the disk.
    #[serde(default)]
    pub settled: bool,
}

/// A chain of unpacked layers, base first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The `fs` directory of each layer, base first.
    pub layers: Vec<PathBuf>,
}

/// The chain id of a stack of layers (image specification, layer chain id); `None` for no layer.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(first.clone(), |chain, diff| Digest::of(format!("{chain} {diff}").as_bytes())))
}

impl Store {
    /// Where the layer `index` of a chain is unpacked, or would be.
    ///
    /// A layer whose unpacking needed to look at those below it lies under its chain id, any other under its diff id.
    pub fn layer_dir(&self, diff_ids: &[Digest], index: usize) -> PathBuf {
        let chained = chain_id(&diff_ids[..=index])
            .map(|chain| self.dir.join("layers").join(format!("chain-{}", chain.encoded())));
        match chained {
            Some(path) if index > 0 && path.exists() => path,
            _ => self.dir.join("layers").join(diff_ids[index].encoded()),
        }
    }

    /// The unpacked layers of a chain, if all are there and whole.
    pub fn snapshot(&self, diff_ids: &[Digest]) -> Option<Snapshot> {
        let layers = (0..diff_ids.len()).map(|index| {
            let dir = self.layer_dir(diff_ids, index);
            self.layer_record(&dir).is_some().then(|| dir.join("fs"))
        });
        Some(Snapshot { layers: layers.collect::<Option<_>>()? })
    }

    /// What is known of the layer unpacked at `dir`; `None` when it is not there or a crash may have damaged it.
    pub fn layer_record(&self, dir: &Path) -> Option<LayerRecord> {
        let file = fs::File::open(dir.join("layer.json")).ok()?;
        let bytes = read_bounded(file, 64 << 10, "layer record").ok()?;
        let record: LayerRecord = serde_json::from_slice(&bytes).ok()?;
        (record.settled || record.boot == boot_id()).then_some(record)
    }

    /// Every unpacked layer with its directory, whole or not.
    pub fn layers(&self) -> Result<Vec<(PathBuf, Option<LayerRecord>)>> {
        let dir = self.dir.join("layers");
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::io("read", &dir))? {
            let path = entry.map_err(Error::io("read", &dir))?.path();
            let record = self.layer_record(&path);
            found.push((path, record));
        }
        found.sort_by(|left, right| left.0.cmp(&right.0));
        Ok(found)
    }

    /// Makes a tree (a directory of this store's file system, usually below `tmp`) a layer, by one rename.
    ///
    /// `chain` is given when the content depends on the layers below. If the layer is there already, the tree is removed.
    /// Nothing is synced: see [`Store::settle`].
    pub fn adopt_layer(
        &self,
        tree: &Path,
        mut record: LayerRecord,
        chain: Option<&Digest>,
    ) -> Result<PathBuf> {
        let name = match chain {
            Some(chain) => format!("chain-{}", chain.encoded()),
            None => record.diff_id.encoded().to_owned(),
        };
        let target = self.dir.join("layers").join(name);
        record.boot = boot_id();
        record.settled = false;
        let staging = self.temporary_path();
        fs::create_dir(&staging).map_err(Error::io("make", &staging))?;
        fs::rename(tree, staging.join("fs")).map_err(Error::io("move", tree))?;
        let file = staging.join("layer.json");
        fs::write(&file, crate::canonical(&record)).map_err(Error::io("write", &file))?;
        let _lock = self.lock("layers")?;
        if self.layer_record(&target).is_some() {
            remove(&staging)?;
            return Ok(target);
        }
        // What lies there is from a boot that ended before it was settled.
        remove(&target)?;
        fs::rename(&staging, &target).map_err(Error::io("rename to", &target))?;
        Ok(target)
    }

    /// Syncs the store's file system once and marks the layers of this boot as settled.
    pub fn settle(&self) -> Result<()> {
        let open: Vec<_> = self
            .layers()?
            .into_iter()
            .filter_map(|(dir, record)| Some((dir, record.filter(|r| !r.settled)?)))
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(&self.dir, flags, Mode::empty()).map_err(Error::errno("open", &self.dir))?;
        rustix::fs::syncfs(&fd).map_err(Error::errno("sync", &self.dir))?;
        for (dir, mut record) in open {
            record.settled = true;
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            self.replace_file(&format!("layers/{name}/layer.json"), &crate::canonical(&record))?;
        }
        Ok(())
    }
}

/// The kernel's name of this boot; empty when it tells none, and then nothing survives unsettled.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
