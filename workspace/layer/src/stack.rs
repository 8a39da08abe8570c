//! The layers of an image as trees on the disk: each in the store for overlayfs, or all applied to one directory.

use std::fmt;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hull_image::{Descriptor, Digest, Hasher, Image, LayerRecord, Snapshot, Store, chain_id};

use crate::ahead::{drain, read_ahead};
use crate::error::{Error, Result};
use crate::extract::{Devices, Extracted, Extractor, Limits, Rights, Whiteouts, extract};

/// How much larger than compressed a layer may be, after the first 64 MiB.
const RATIO: u64 = 200;

/// How many bytes of a limit stand for one more file.
const BYTES_PER_ENTRY: u64 = 4096;

/// Unpacks the layers of images into a store.
pub struct Unpacker<'a> {
    store: &'a Store,
    limits: Limits,
    ratio: u64,
    rights: Rights,
    left_out: Mutex<LeftOut>,
}

/// What of an image's files could not be had as the image has it, by who unpacked it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Device nodes that are not there.
    pub devices: u64,
    /// Files that belong to root instead of to an id that the user namespace has not.
    pub owners: u64,
}

impl LeftOut {
    /// What one archive lost.
    pub fn of(done: &Extracted) -> Self {
        let mut lost = Self::default();
        lost.add(done);
        lost
    }

    fn add(&mut self, done: &Extracted) {
        self.devices += done.skipped.len() as u64;
        self.owners += done.foreign;
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let devices = format!("device nodes left out, which only root can make: {}", self.devices);
        let owners = format!("files of owners without an id here, which are root's now: {}", self.owners);
        let parts = [(self.devices, devices), (self.owners, owners)];
        let parts: Vec<String> = parts.into_iter().filter_map(|(n, text)| (n > 0).then_some(text)).collect();
        f.write_str(&parts.join("; "))
    }
}

impl<'a> Unpacker<'a> {
    /// With default limits; as root of the host layers keep owners, devices and capabilities, as root of a user namespace
    /// owners as far as it has them.
    pub fn new(store: &'a Store) -> Self {
        let (limits, ratio) = (Limits::default(), RATIO);
        Self { store, limits, ratio, rights: Rights::here(), left_out: Mutex::default() }
    }

    /// What was left out of all that was unpacked so far.
    pub fn left_out(&self) -> LeftOut {
        *self.left_out.lock().expect("no thread panics with it")
    }

    /// Takes layers whose files have this many bytes, however much they shrink.
    pub fn with_limit(mut self, bytes: u64) -> Self {
        self.limits.bytes = bytes;
        self.limits.entries = self.limits.entries.max(bytes / BYTES_PER_ENTRY);
        self.ratio = 0;
        self
    }

    /// Unpacks what is missing of an image, layers in parallel, and gives the directories, base first.
    ///
    /// # Errors
    /// A layer whose uncompressed digest is not the one its configuration names, or that breaks a rule.
    pub fn unpack(&self, image: &Image) -> Result<Snapshot> {
        let ids = &image.config.rootfs.diff_ids;
        image.config.check_layers(image.manifest.layers.len())?;
        if let Some(snapshot) = self.store.snapshot(ids) {
            return Ok(snapshot);
        }
        self.unpack_missing(&image.manifest.layers, ids)?;
        let missing = || hull_image::Error::NoImage(format!("{} unpacked", image.id()));
        Ok(self.store.snapshot(ids).ok_or_else(missing)?)
    }

    /// Unpacks one layer whose blob has just arrived, if it can be done alone; [`Self::unpack`] does the others.
    ///
    /// # Errors
    /// Those of [`Self::unpack`].
    pub fn unpack_one(&self, layers: &[Descriptor], ids: &[Digest], index: usize) -> Result<()> {
        match (layers.get(index), ids.get(index)) {
            (Some(layer), Some(_)) => self.unpack_alone(layer, ids, index),
            _ => Ok(()),
        }
    }

    /// Applies all layers of an image to the directory `root`, base first: a root file system without overlayfs.
    ///
    /// # Errors
    /// Those of [`Self::unpack`].
    pub fn apply(&self, image: &Image, root: BorrowedFd<'_>) -> Result<Vec<Extracted>> {
        image.config.check_layers(image.manifest.layers.len())?;
        self.apply_layers(&image.manifest.layers, &image.config.rootfs.diff_ids, root)
    }

    /// Applies these layers to what is in the directory `root` already, which is what those below them make.
    ///
    /// # Errors
    /// Those of [`Self::unpack`].
    pub fn apply_layers(
        &self,
        layers: &[Descriptor],
        ids: &[Digest],
        root: BorrowedFd<'_>,
    ) -> Result<Vec<Extracted>> {
        let Rights { devices, owners } = self.rights;
        let layers = layers.iter().zip(ids);
        let apply = |(layer, id): (&Descriptor, _)| {
            let (limits, ratio) = self.limits.of(self.ratio, self.store.made(&layer.digest));
            let options = Extractor { limits, devices, owners, ..Extractor::layer() };
            let done = verified(self.store.blob(layer)?, id, ratio, root, &options)?;
            self.left_out.lock().expect("no thread panics with it").add(&done);
            Ok(done)
        };
        layers.map(apply).collect()
    }

    fn unpack_missing(&self, layers: &[Descriptor], ids: &[Digest]) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(layers.len());
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(layer) = layers.get(index) else { return };
                        if let Err(error) = self.unpack_alone(layer, ids, index) {
                            failure.lock().expect("no thread panics with it").get_or_insert(error);
                            next.store(layers.len(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        if let Some(error) = failure.into_inner().expect("no thread panics with it") {
            return Err(error);
        }
        // What could not be unpacked alone needs those below it, in their order.
        for (index, layer) in layers.iter().enumerate() {
            self.unpack_chained(layer, ids, index)?;
        }
        Ok(())
    }

    /// Unpacks a layer by itself; one above the base that takes parents for granted is left for later.
    fn unpack_alone(&self, layer: &Descriptor, ids: &[Digest], index: usize) -> Result<()> {
        let _lock = self.store.lock(&format!("layer-{}", ids[index].encoded()))?;
        if self.has(ids, index) {
            return Ok(());
        }
        let tree = Staging::make(self.store)?;
        let done = self.extract(layer, &ids[index], tree.fd()?.as_fd(), &[])?;
        if index > 0 && done.implied > 0 {
            return Ok(());
        }
        self.adopt(tree, layer, &ids[index], &done, None)
    }

    fn unpack_chained(&self, layer: &Descriptor, ids: &[Digest], index: usize) -> Result<()> {
        if self.has(ids, index) {
            return Ok(());
        }
        let chain = chain_id(&ids[..=index]).expect("there is at least one layer");
        let _lock = self.store.lock(&format!("layer-{}", chain.encoded()))?;
        if self.has(ids, index) {
            return Ok(());
        }
        let missing = || hull_image::Error::NoImage(format!("{} below {}", ids[index - 1], ids[index]));
        let below = self.store.snapshot(&ids[..index]).ok_or_else(missing)?;
        let lowers: Vec<OwnedFd> =
            below.layers.iter().rev().map(|tree| open_directory(tree)).collect::<Result<_>>()?;
        let tree = Staging::make(self.store)?;
        let done = self.extract(layer, &ids[index], tree.fd()?.as_fd(), &lowers)?;
        self.adopt(tree, layer, &ids[index], &done, Some(&chain))
    }

    fn has(&self, ids: &[Digest], index: usize) -> bool {
        self.store.layer_record(&self.store.layer_dir(ids, index)).is_some()
    }

    fn extract(
        &self,
        layer: &Descriptor,
        diff_id: &Digest,
        root: BorrowedFd<'_>,
        lowers: &[OwnedFd],
    ) -> Result<Extracted> {
        let (limits, ratio) = self.limits.of(self.ratio, self.store.made(&layer.digest));
        let options = Extractor {
            limits,
            owner: None,
            whiteouts: Whiteouts::Overlay { user: self.rights.devices == Devices::Skip },
            devices: self.rights.devices,
            owners: self.rights.owners,
            keeps_kinds: false,
            lowers,
        };
        verified(self.store.blob(layer)?, diff_id, ratio, root, &options)
    }

    fn adopt(
        &self,
        tree: Staging,
        layer: &Descriptor,
        diff_id: &Digest,
        done: &Extracted,
        chain: Option<&Digest>,
    ) -> Result<()> {
        let record = LayerRecord {
            diff_id: diff_id.clone(),
            blob: Some(layer.clone()),
            size: done.bytes,
            entries: done.entries,
            boot: String::new(),
            settled: false,
            on: None,
        };
        self.left_out.lock().expect("no thread panics with it").add(done);
        self.store.adopt_layer(&tree.path, record, chain)?;
        Ok(())
    }
}

/// Extracts one layer and checks the digest of its uncompressed bytes, padding and all.
fn verified(
    blob: File,
    diff_id: &Digest,
    ratio: u64,
    root: BorrowedFd<'_>,
    options: &Extractor<'_>,
) -> Result<Extracted> {
    let unknown = || hull_image::Error::document("diff id", "its algorithm cannot be verified here");
    let hasher = Hasher::for_digest(diff_id).ok_or_else(unknown)?;
    let (done, found) = read_ahead(blob, ratio, hasher, |ahead| {
        let done = extract(&mut *ahead, root, options)?;
        drain(ahead, options.limits.bytes)?;
        Ok(done)
    })?;
    if found != *diff_id {
        let reason = format!("uncompressed content is {found}");
        return Err(hull_image::Error::Mismatch { digest: diff_id.clone(), reason }.into());
    }
    Ok(done)
}

/// A directory being filled; removed unless it was moved away.
struct Staging {
    path: std::path::PathBuf,
}

impl Staging {
    fn make(store: &Store) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = store.temporary_path();
        fs::create_dir(&path).map_err(Error::host("make", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(Error::host("change mode of", &path))?;
        Ok(Self { path })
    }

    fn fd(&self) -> Result<OwnedFd> {
        open_directory(&self.path)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.path.exists() {
            // A leftover is collected when the store is next opened by one process alone.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(Error::host("open", path))
}
