//! Unpacked layers: `layers/HEX/fs` by diff id, each usable as an overlay lower directory.
//!
//! A layer that is almost another one may be a difference: its directory has what is new or replaced, and lies on the
//! other's, which is whole, whenever it is mounted.
//!
//! In a user namespace files belong to the ids that it stands for, those that it has not are lost, and so are devices. A
//! tree is therefore used only where the same ids are: others, with more rights or fewer, have one of their own beside it,
//! `layers/HEX.VIEW`.
//!
//! Where no overlay puts trees together, `layers/whole-HEX` has by chain id what all layers of a chain make.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{Store, read_bounded, remove};
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// How old unpacked layers get before a command that ends syncs them.
pub const SETTLE_AFTER: Duration = Duration::from_secs(600);

/// `uid_map` and `gid_map` of the host (user_namespaces(7)), words parted by one space.
const ALL_IDS: &str = "0 0 4294967295";

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
        let chained = chain.map(|_| self.layer_path(diff_id, chain, &self.view));
        chained.filter(|path| path.exists()).unwrap_or_else(|| self.layer_path(diff_id, None, &self.view))
    }

    fn layer_path(&self, diff_id: &Digest, chain: Option<&Digest>, view: &str) -> PathBuf {
        let name =
            chain.map_or_else(|| diff_id.encoded().to_owned(), |chain| format!("chain-{}", chain.encoded()));
        self.path_for(name, view)
    }

    fn path_for(&self, name: String, view: &str) -> PathBuf {
        let name = if view.is_empty() { name } else { format!("{name}.{view}") };
        self.dir.join("layers").join(name)
    }

    fn whole_path(&self, chain: &Digest) -> PathBuf {
        self.path_for(format!("whole-{}", chain.encoded()), &self.view)
    }

    /// Of the beginnings of a chain that somebody put there as one tree, by [`Store::adopt_whole`], the longest: how many
    /// layers it has, and its directory.
    pub fn whole(&self, diff_ids: &[Digest]) -> Option<(usize, PathBuf)> {
        let mut chain: Option<Digest> = None;
        let mut found = None;
        for (index, id) in diff_ids.iter().enumerate() {
            let next = chain.map_or_else(|| id.clone(), |chain| link(&chain, id));
            let dir = self.whole_path(&next);
            if self.own_record(&dir).is_ok_and(|record| record.is_some()) {
                found = Some((index + 1, dir.join("fs")));
            }
            chain = Some(next);
        }
        found
    }

    /// Bytes of the files of layer `index` of a chain, if it is unpacked, for whomever.
    pub fn layer_size(&self, diff_ids: &[Digest], index: usize) -> Option<u64> {
        if let Some(record) = self.layer_record(&self.layer_dir(diff_ids, index)) {
            return Some(record.size);
        }
        let (id, chain) = (&diff_ids[index], chain_id(&diff_ids[..=index]));
        let is_it = |dir: &PathBuf| layer_name(dir).is_some_and(|name| name == *id || Some(name) == chain);
        let dirs = self.layer_dirs().ok()?;
        dirs.iter().filter(|dir| is_it(dir)).find_map(|dir| Some(self.layer_record(dir)?.size))
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
        let below = record.on.map(|on| self.layer_path(&on, None, view_of(dir)));
        Some(below.as_deref().into_iter().chain([dir]).map(|dir| dir.join("fs")).collect())
    }

    /// What is known of the layer unpacked at `dir`; `None` when it is not there, cannot be read, or a crash may have
    /// damaged it.
    pub fn layer_record(&self, dir: &Path) -> Option<LayerRecord> {
        self.read_record(dir).ok().flatten()
    }

    /// The same for who takes away what does not count: a record that could not be read this time is an error.
    pub(super) fn read_record(&self, dir: &Path) -> Result<Option<LayerRecord>> {
        let Some(record) = self.own_record(dir)? else { return Ok(None) };
        let is_whole = match &record.on {
            None => true,
            Some(on) => {
                let below = self.own_record(&self.layer_path(on, None, view_of(dir)))?;
                below.is_some_and(|below| below.on.is_none())
            }
        };
        Ok(is_whole.then_some(record))
    }

    /// The same without a look at what it lies on.
    fn own_record(&self, dir: &Path) -> Result<Option<LayerRecord>> {
        let path = dir.join("layer.json");
        let file = match fs::File::open(&path) {
            Err(error) if is_not_ours(error.kind()) => return Ok(None),
            file => file.map_err(Error::io("open", &path))?,
        };
        let bytes = match read_bounded(file, 64 << 10, "layer record") {
            Err(Error::Document { .. }) => return Ok(None),
            Err(Error::Stream(error)) => return Err(Error::io("read", &path)(error)),
            bytes => bytes?,
        };
        let record = serde_json::from_slice::<LayerRecord>(&bytes).ok();
        Ok(record.filter(|record| record.settled || record.boot == self.boot))
    }

    /// Every unpacked layer with its directory, whole or not.
    ///
    /// # Errors
    /// A record that is there cannot be read this time: what is known of the layer decides what may be removed.
    pub(super) fn layers(&self) -> Result<Vec<(PathBuf, Option<LayerRecord>)>> {
        let mut dirs = self.layer_dirs()?;
        dirs.sort();
        let with_record = |dir: PathBuf| {
            let record = self.read_record(&dir)?;
            Ok((dir, record))
        };
        dirs.into_iter().map(with_record).collect()
    }

    /// The same for who removes nothing: of a layer whose record cannot be read nothing is known.
    pub fn seen_layers(&self) -> Result<Vec<(PathBuf, Option<LayerRecord>)>> {
        let with_record = |dir: PathBuf| {
            let record = self.layer_record(&dir);
            (dir, record)
        };
        Ok(self.layer_dirs()?.into_iter().map(with_record).collect())
    }

    pub(super) fn layer_dirs(&self) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join("layers");
        let entries = fs::read_dir(&dir).map_err(Error::io("read", &dir))?;
        entries.map(|entry| Ok(entry.map_err(Error::io("read", &dir))?.path())).collect()
    }

    /// Makes a tree (a directory of this store's file system, usually below `tmp`) a layer, by one rename.
    ///
    /// `chain` is given when the content depends on the layers below. If the layer is there already, the tree is removed.
    /// Nothing is synced: see [`Store::settle`].
    pub fn adopt_layer(&self, tree: &Path, record: LayerRecord, chain: Option<&Digest>) -> Result<PathBuf> {
        let target = self.layer_path(&record.diff_id, chain, &self.view);
        self.adopt(tree, record, target)
    }

    /// The same for the tree of a whole chain, of which `record` tells the topmost layer; gives its directory.
    pub fn adopt_whole(&self, tree: &Path, record: LayerRecord, chain: &Digest) -> Result<PathBuf> {
        Ok(self.adopt(tree, record, self.whole_path(chain))?.join("fs"))
    }

    fn adopt(&self, tree: &Path, mut record: LayerRecord, target: PathBuf) -> Result<PathBuf> {
        record.boot = self.boot.clone();
        record.settled = false;
        let staging = self.temporary_path();
        fs::create_dir(&staging).map_err(Error::io("make", &staging))?;
        fs::rename(tree, staging.join("fs")).map_err(Error::io("move", tree))?;
        let file = staging.join("layer.json");
        fs::write(&file, crate::canonical(&record)).map_err(Error::io("write", &file))?;
        let _lock = self.lock("layers")?;
        if self.read_record(&target)?.is_some() {
            remove(&staging)?;
            return Ok(target);
        }
        // What lies there is from a boot that ended before it was settled; if it stays, the rename says so.
        drop(self.discard(&target));
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
        // Those of others may not be this process's to change.
        let own = self.seen_layers()?.into_iter().filter(|(dir, _)| view_of(dir) == self.view);
        let open: Vec<_> = own.filter_map(is_open).collect();
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

/// The diff id or chain id in the name of a layer's directory.
pub fn layer_name(dir: &Path) -> Option<Digest> {
    let name = dir.file_name()?.to_str()?;
    let name = name.split_once('.').map_or(name, |(name, _)| name);
    let bare = ["chain-", "whole-"].iter().find_map(|kind| name.strip_prefix(kind)).unwrap_or(name);
    format!("sha256:{bare}").parse().ok()
}

/// For whom a layer's directory is, by its name.
fn view_of(dir: &Path) -> &str {
    let name = dir.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.split_once('.').map_or("", |(_, view)| view)
}

/// For whom this process unpacks: nothing for root of the host, else a name of the ids that there are.
pub(super) fn own_view() -> Result<String> {
    view_in("/proc/self")
}

fn view_in(dir: &str) -> Result<String> {
    let words = |file: &str| {
        let text = match fs::read_to_string(file) {
            // A kernel without user namespaces (CONFIG_USER_NS): everybody has all ids.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ALL_IDS.to_owned()),
            text => text.map_err(Error::io("read", Path::new(file)))?,
        };
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let ids = [words(&format!("{dir}/uid_map"))?, words(&format!("{dir}/gid_map"))?];
    Ok(view(rustix::process::geteuid().as_raw(), &ids))
}

fn view(user: u32, ids: &[String; 2]) -> String {
    match user == 0 && ids.iter().all(|map| map == ALL_IDS) {
        true => String::new(),
        false => Digest::of(format!("{user} {}", ids.join(" and ")).as_bytes()).encoded()[..12].to_owned(),
    }
}

/// True when nothing is there that this process could use, now or later.
fn is_not_ours(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied)
}

/// The kernel's name of this boot.
pub(super) fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_other_ids_have_other_trees() {
        let maps = |users: &str, groups: &str| [users.to_owned(), groups.to_owned()];
        let all = "0 0 4294967295";
        assert_eq!(view(0, &maps(all, all)), "");
        let without = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        assert_eq!(view_in(without.path().to_str().unwrap()).unwrap(), view(user, &maps(all, all)));
        let rows = [
            view(1000, &maps(all, all)),
            view(0, &maps("0 1000 1", "0 1000 1")),
            view(0, &maps("0 1000 1 1 100000 65536", "0 1000 1 1 100000 65536")),
            view(0, &maps("0 1001 1 1 200000 65536", "0 1001 1 1 200000 65536")),
            view(0, &maps(all, "0 0 1")),
        ];
        for (index, view) in rows.iter().enumerate() {
            assert_eq!(view.len(), 12, "{view}");
            assert!(!rows[..index].contains(view), "{index}");
        }
        let digest = Digest::of(b"x");
        for name in
            ["", "chain-", "whole-"].map(|kind| format!("/s/layers/{kind}{}.{}", digest.encoded(), rows[0]))
        {
            assert_eq!(layer_name(Path::new(&name)), Some(digest.clone()));
            assert_eq!(view_of(Path::new(&name)), rows[0]);
        }
        assert_eq!(layer_name(Path::new("/s/layers/other")), None);
    }
}
