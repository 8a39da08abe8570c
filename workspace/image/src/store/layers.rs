//! Unpacked layers: `layers/HEX/fs` by diff id, each usable as an overlay lower directory.
//!
//! A layer that is almost another one may be a difference: its directory has what is new or replaced, and lies on the
//! other's, which is whole, whenever it is mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{Store, read_bounded, remove};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// How old unpacked layers get before a command that ends syncs them.
pub const SETTLE_AFTER: Duration = Duration::from_secs(600);

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
    /// The layer on whose tree this one's lies, which holds only what differs; `None` for a tree that is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Digest>,
}

/// A chain of unpacked layers, base first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The directories that make it up, base first: one for each layer, two where that is a difference.
    pub layers: Vec<PathBuf>,
}

/// The chain id of a stack of layers (image specification, layer chain id); `None` for no layer.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(first.clone(), |chain, diff| link(&chain, diff)))
}

fn link(chain: &Digest, diff: &Digest) -> Digest {
    Digest::of(format!("{chain} {diff}").as_bytes())
}

impl Store {
    /// Where the layer `index` of a chain is unpacked, or would be.
    ///
    /// A layer whose unpacking needed to look at those below it lies under its chain id, any other under its diff id.
    pub fn layer_dir(&self, diff_ids: &[Digest], index: usize) -> PathBuf {
        let chain = chain_id(&diff_ids[..=index]).expect("there is at least one layer");
        self.layer_dir_of(&diff_ids[index], (index > 0).then_some(&chain))
    }

    fn layer_dir_of(&self, diff_id: &Digest, chain: Option<&Digest>) -> PathBuf {
        let layers = self.dir.join("layers");
        let chained = chain.map(|chain| layers.join(format!("chain-{}", chain.encoded())));
        chained.filter(|path| path.exists()).unwrap_or_else(|| layers.join(diff_id.encoded()))
    }

    /// The unpacked layers of a chain, if all are there and undamaged.
    pub fn snapshot(&self, diff_ids: &[Digest]) -> Option<Snapshot> {
        let mut chain: Option<Digest> = None;
        let mut layers = Vec::with_capacity(diff_ids.len());
        for id in diff_ids {
            let next = chain.map(|chain| link(&chain, id));
            layers.extend(self.seen_trees(self.layer_dir_of(id, next.as_ref()))?);
            chain = Some(next.unwrap_or_else(|| id.clone()));
        }
        Some(Snapshot { layers })
    }

    /// Looks once: with the lease held nobody takes a layer away.
    fn seen_trees(&self, dir: PathBuf) -> Option<Vec<PathBuf>> {
        let seen = || self.whole.lock().expect("no thread panics with it");
        if self.lease.is_some()
            && let Some(trees) = seen().get(&dir)
        {
            return Some(trees.clone());
        }
        let trees = self.layer_trees(&dir)?;
        seen().insert(dir, trees.clone());
        Some(trees)
    }

    /// The directories of the layer unpacked at `dir`, the lower one first; `None` where [`Store::layer_record`] is.
    pub fn layer_trees(&self, dir: &Path) -> Option<Vec<PathBuf>> {
        let record = self.layer_record(dir)?;
        let below = record.on.map(|on| self.layer_dir_of(&on, None));
        Some(below.as_deref().into_iter().chain([dir]).map(|dir| dir.join("fs")).collect())
    }

    /// What is known of the layer unpacked at `dir`; `None` when it is not there or a crash may have damaged it.
    pub fn layer_record(&self, dir: &Path) -> Option<LayerRecord> {
        let record = own_record(dir)?;
        let is_whole =
            |on: &Digest| own_record(&self.layer_dir_of(on, None)).is_some_and(|on| on.on.is_none());
        record.on.as_ref().is_none_or(is_whole).then_some(record)
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
        record.boot = boot_id().to_owned();
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

    /// Syncs the store's file system once and marks the layers of this boot as settled, if one of them is old enough.
    ///
    /// Until then a reboot costs unpacking them again, and nothing else; a sync of the whole file system waits for
    /// everybody's data, which a build that has just ended should not.
    pub fn settle(&self, age: Duration) -> Result<()> {
        let is_open =
            |(dir, record): (PathBuf, Option<LayerRecord>)| Some((dir, record.filter(|r| !r.settled)?));
        let open: Vec<_> = self.layers()?.into_iter().filter_map(is_open).collect();
        let is_old = |dir: &Path| {
            let written = fs::metadata(dir.join("layer.json")).and_then(|meta| meta.modified());
            written.is_ok_and(|time| time.elapsed().is_ok_and(|passed| passed >= age))
        };
        if !open.iter().any(|(dir, _)| is_old(dir)) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(&self.dir, flags, Mode::empty()).map_err(Error::errno("open", &self.dir))?;
        rustix::fs::syncfs(&fd).map_err(Error::errno("sync", &self.dir))?;
        for (dir, mut record) in open {
            record.settled = true;
            let (temporary, file) = (self.temporary_path(), dir.join("layer.json"));
            // Not synced itself: a record that a crash tears or takes back means that the layer is unpacked again.
            fs::write(&temporary, crate::canonical(&record)).map_err(Error::io("write", &temporary))?;
            fs::rename(&temporary, &file).map_err(Error::io("replace", &file))?;
        }
        Ok(())
    }
}

/// The same without a look at what it lies on.
fn own_record(dir: &Path) -> Option<LayerRecord> {
    let file = fs::File::open(dir.join("layer.json")).ok()?;
    let bytes = read_bounded(file, 64 << 10, "layer record").ok()?;
    let record: LayerRecord = serde_json::from_slice(&bytes).ok()?;
    (record.settled || record.boot == boot_id()).then_some(record)
}

/// The kernel's name of this boot; empty when it tells none, and then nothing survives unsettled.
fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    })
}
