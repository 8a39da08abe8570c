//! Root file systems of steps: layers of the store below, an upper directory of the step's own on top; where no overlay
//! can put them together, a copy.

pub(crate) mod copies;
pub(crate) mod overlay;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use hull_image::{Descriptor, Digest, Image, ImageConfig, LayerRecord, Manifest, Store, chain_id};
use hull_layer::{Below, Change, LeftOut, View};

use crate::cache::Cache;
use crate::directory::open_directory;
use crate::error::{Error, Result};
use crate::{host, progress};

/// A stack of layers, base first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layers {
    /// Digests of the uncompressed archives.
    pub(crate) diff_ids: Vec<Digest>,
    /// The blobs, in the same order.
    pub(crate) blobs: Vec<Descriptor>,
}

impl Layers {
    /// Those of an image.
    pub(crate) fn of(image: &Image) -> Self {
        let (diff_ids, blobs) = (image.config.rootfs.diff_ids.clone(), image.manifest.layers.clone());
        Self { diff_ids, blobs }
    }

    /// The name of the whole stack.
    pub(crate) fn chain(&self) -> Option<Digest> {
        chain_id(&self.diff_ids)
    }

    /// The stack with one more layer.
    pub(crate) fn with(&self, diff_id: Digest, blob: Descriptor) -> Self {
        let mut more = self.clone();
        more.diff_ids.push(diff_id);
        more.blobs.push(blob);
        more
    }
}

/// A root file system that can be looked at; with an upper directory, written to.
pub(crate) struct Snapshot {
    /// The merged root: a detached mount, or the only directory there is.
    root: OwnedFd,
    lowers: Vec<PathBuf>,
    scratch: Option<Scratch>,
    /// Whether the upper directory has everything, copied.
    is_copy: bool,
}

/// The directory of an upper layer in the making; removed unless taken.
struct Scratch {
    directory: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is collected when the store is opened next.
        drop(hull_image::remove(&self.directory));
    }
}

impl Snapshot {
    /// Mounts a stack for reading.
    pub(crate) fn read_only(store: &Store, layers: &Layers) -> Result<Self> {
        let lowers = unpacked(store, layers)?;
        match lowers.as_slice() {
            [] => {
                let scratch = Scratch::make(store)?;
                let root = open_directory(&scratch.upper())?;
                Ok(Self { root, lowers, scratch: Some(scratch), is_copy: false })
            }
            [only] => Ok(Self { root: open_directory(only)?, lowers, scratch: None, is_copy: false }),
            _ => match overlay::mount(&lowers, None) {
                Ok(root) => Ok(Self { root, lowers, scratch: None, is_copy: false }),
                Err(_) if copies::are_needed(store)? => {
                    let whole = copies::whole(store, layers)?;
                    let root = open_directory(&whole)?;
                    Ok(Self { root, lowers: vec![whole], scratch: None, is_copy: false })
                }
                Err(error) => Err(error),
            },
        }
    }

    /// Mounts a stack with a fresh upper directory on top.
    pub(crate) fn writable(store: &Store, layers: &Layers) -> Result<Self> {
        let lowers = unpacked(store, layers)?;
        Self::upon(store, lowers)
    }

    /// Puts a fresh upper directory on trees, base first.
    fn upon(store: &Store, lowers: Vec<PathBuf>) -> Result<Self> {
        let scratch = Scratch::make(store)?;
        let upper = scratch.upper();
        if lowers.is_empty() {
            let root = open_directory(&upper)?;
            return Ok(Self { root, lowers, scratch: Some(scratch), is_copy: false });
        }
        let is_known = copies::are_known_to_be_needed();
        let mounted = (!is_known).then(|| overlay::mount(&lowers, Some((&upper, &scratch.work()))));
        let (root, is_copy) = match mounted {
            Some(Ok(root)) => (root, false),
            Some(Err(error)) if !copies::are_needed(store)? => return Err(error),
            _ => {
                copies::copy(&lowers, &upper)?;
                (open_directory(&upper)?, true)
            }
        };
        Ok(Self { root, lowers, scratch: Some(scratch), is_copy })
    }

    /// The merged root.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The upper directory.
    pub(crate) fn upper(&self) -> Result<PathBuf> {
        self.scratch.as_ref().map(Scratch::upper).ok_or_else(|| Error::fact("the snapshot is read-only"))
    }

    /// The layers below, topmost first.
    pub(crate) fn lowers(&self) -> Result<Vec<OwnedFd>> {
        self.lowers.iter().rev().map(|lower| open_directory(lower)).collect()
    }

    /// What was written to it, in the order of a layer.
    pub(crate) fn changes(&self, upper: BorrowedFd<'_>) -> Result<Vec<Change>> {
        Ok(match self.is_copy {
            true => hull_layer::diff_copy(upper, &self.lowers()?)?,
            false => hull_layer::diff_upper(upper, &self.lowers()?)?,
        })
    }

    /// Unmounts, and makes the upper directory the store's layer on top of `below`, or the tree of both.
    pub(crate) fn adopt(self, store: &Store, below: &Layers, packed: LayerRecord) -> Result<()> {
        let upper = self.upper()?;
        drop(self.root);
        let chain = below.with(packed.diff_id.clone(), Descriptor::of("", b"")).chain();
        if let (true, Some(chain)) = (self.is_copy, &chain) {
            store.adopt_whole(&upper, packed, chain)?;
            return Ok(());
        }
        // With nothing below, the content stands for itself.
        let chain = chain.filter(|_| !below.diff_ids.is_empty());
        store.adopt_layer(&upper, packed, chain.as_ref())?;
        Ok(())
    }
}

impl Scratch {
    fn make(store: &Store) -> Result<Self> {
        let directory = store.temporary_path();
        let scratch = Self { directory };
        for path in [&scratch.directory, &scratch.upper(), &scratch.work()] {
            std::fs::create_dir(path).map_err(Error::io("make directory", path))?;
        }
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(scratch.upper(), open).map_err(Error::io("open up", scratch.upper()))?;
        Ok(scratch)
    }

    fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    fn work(&self) -> PathBuf {
        self.directory.join("work")
    }
}

/// A directory with a layer on top that goes away with what this returns.
pub(crate) fn throw_away(store: &Store, below: &Path) -> Result<Snapshot> {
    Snapshot::upon(store, vec![below.to_owned()])
}

/// A stack to look at: unpacked layers, and the lists of those that no step has needed as trees.
pub(crate) fn below(store: &Store, cache: &Cache<'_>, layers: &Layers) -> Result<Below> {
    let open = |tree: &PathBuf| open_directory(tree).map(View::Tree);
    let views = |index: usize| {
        let directory = store.layer_dir(&layers.diff_ids, index);
        match store.layer_trees(&directory) {
            Some(trees) => Some(trees.iter().rev().map(open).collect()),
            None => cache.list(&layers.diff_ids[index]).map(|entries| vec![Ok(View::List(entries))]),
        }
    };
    let from = |first| (first..layers.diff_ids.len()).rev().map(views).collect::<Option<Vec<Vec<_>>>>();
    let seen = from(0).or_else(|| {
        let (first, whole) = store.whole(&layers.diff_ids)?;
        let mut views = from(first)?;
        views.push(vec![open(&whole)]);
        Some(views)
    });
    match seen {
        Some(views) => Ok(Below(views.into_iter().flatten().collect::<Result<_>>()?)),
        None => {
            let trees = unpacked(store, layers)?;
            Ok(Below(trees.iter().rev().map(open).collect::<Result<_>>()?))
        }
    }
}

/// The tree of one layer, which may lie on that of another.
pub(crate) struct Standing {
    /// Its directories, topmost first; the last one is whole.
    pub(crate) trees: Vec<OwnedFd>,
    /// The layer of that one.
    pub(crate) whole: Digest,
}

/// The tree of one layer, if there is one.
pub(crate) fn tree_of(store: &Store, diff_id: &Digest) -> Option<Standing> {
    let directory = store.layer_dir(std::slice::from_ref(diff_id), 0);
    let record = store.layer_record(&directory)?;
    let trees = store.layer_trees(&directory)?;
    let trees = trees.iter().rev().map(|tree| open_directory(tree).ok()).collect::<Option<_>>()?;
    Some(Standing { trees, whole: record.on.unwrap_or(record.diff_id) })
}

/// A directory of the store in which a tree can grow that becomes a layer.
pub(crate) struct Tree {
    scratch: Scratch,
}

impl Tree {
    pub(crate) fn make(store: &Store) -> Result<Self> {
        Ok(Self { scratch: Scratch::make(store)? })
    }

    /// The empty directory.
    pub(crate) fn root(&self) -> Result<OwnedFd> {
        open_directory(&self.scratch.upper())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.scratch.upper()
    }

    /// Makes it the store's tree of a layer that depends on no other, but the one that its record names.
    pub(crate) fn adopt(self, store: &Store, packed: LayerRecord) -> Result<()> {
        store.adopt_layer(&self.scratch.upper(), packed, None)?;
        Ok(())
    }
}

/// The directories of a stack's layers, base first, unpacking what is not there; one of all of them where it cannot be
/// unpacked layer by layer.
pub(crate) fn unpacked(store: &Store, layers: &Layers) -> Result<Vec<PathBuf>> {
    if let Some(trees) = copies::trees(store, &layers.diff_ids) {
        return Ok(trees);
    }
    if copies::are_known_to_be_needed() {
        return Ok(vec![copies::whole(store, layers)?]);
    }
    match unpack(store, layers) {
        // A file system that no overlay can write to may be one that takes no marks for what is removed.
        Err(_) if copies::are_needed(store)? => Ok(vec![copies::whole(store, layers)?]),
        outcome => outcome,
    }
}

fn unpack(store: &Store, layers: &Layers) -> Result<Vec<PathBuf>> {
    // The unpacker speaks of images: a stack is one with nothing but layers.
    let nothing = Descriptor::of("", b"");
    let manifest = Manifest::new(nothing.clone(), layers.blobs.clone());
    let mut config = ImageConfig::default();
    config.rootfs.diff_ids.clone_from(&layers.diff_ids);
    let image = Image { descriptor: nothing, manifest, config };
    let unpacker = host::unpacker(store);
    let unpacked = unpacker.unpack(&image).map_err(host::with_hint)?;
    tell(unpacker.left_out());
    Ok(unpacked.layers)
}

/// Tells once, on one line, what an ordinary user cannot have of an image.
pub(crate) fn tell(left_out: LeftOut) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if left_out != LeftOut::default() && !TOLD.swap(true, Ordering::Relaxed) {
        progress::notice(&left_out.to_string());
    }
}
