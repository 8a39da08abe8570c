//! Plain copies in place of overlays: for a store on a file system that overlayfs cannot write to (another overlay, one
//! without extended attributes, many network file systems), and for a kernel without overlayfs.
//!
//! Each RUN, WORKDIR and ADD then works on a copy of everything below it, and what it leaves is kept as one tree
//! ([`Store::adopt_whole`]). The layers are the same, byte by byte.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hull_image::{Digest, LayerRecord, Store};
use hull_layer::Extracted;
use rustix::io::Errno;

use super::{Layers, Scratch, overlay, tell};
use crate::directory::open_directory;
use crate::error::{Error, Result, chain};
use crate::{host, progress};

static NEEDED: OnceLock<bool> = OnceLock::new();

/// Whether this process has found out that overlays cannot be had.
pub(crate) fn are_known_to_be_needed() -> bool {
    NEEDED.get().is_some_and(|needed| *needed)
}

/// Finds out whether this store can have overlays, once; to be asked when one has failed. Says so on one line.
///
/// A trial that fails for want of space, memory or descriptors tells nothing: the next asks again.
pub(crate) fn are_needed(store: &Store) -> Result<bool> {
    if let Some(known) = NEEDED.get() {
        return Ok(*known);
    }
    let (scratch, lower) = (Scratch::make(store)?, Scratch::make(store)?);
    let tried = overlay::mount(&[lower.upper()], Some((&scratch.upper(), &scratch.work())));
    if tried.as_ref().is_err_and(|error| !is_lack_of_overlays(error)) {
        return Ok(false);
    }
    let needed = *NEEDED.get_or_init(|| tried.is_err());
    if let Err(error) = tried {
        let reason = chain(&error);
        progress::notice(&format!("files are copied for each step, there is no overlay here: {reason}"));
    }
    Ok(needed)
}

/// Whether this is how a kernel or a file system says that it has no overlays: without the driver (`ENODEV`) or its mount
/// calls (`ENOSYS`), on a file system that cannot be written through (`EINVAL`, `EOPNOTSUPP`), or forbidden to this user
/// (`EPERM`, `EACCES`).
fn is_lack_of_overlays(error: &Error) -> bool {
    let errno = match error {
        Error::System { source, .. } => Some(source.errno),
        Error::Io { source, .. } => source.raw_os_error(),
        _ => None,
    };
    let lacks = [Errno::NODEV, Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP, Errno::PERM, Errno::ACCESS];
    errno.is_some_and(|errno| lacks.iter().any(|lack| lack.raw_os_error() == errno))
}

/// Copies what trees (base first) show together into an empty directory.
pub(crate) fn copy(lowers: &[PathBuf], into: &Path) -> Result<()> {
    Ok(hull_layer::copy_merged(&opened(lowers)?, open_directory(into)?.as_fd())?)
}

/// The same for who goes on in the copy with what they changed in the last of the trees.
pub(crate) fn copy_with_own(lowers: &[PathBuf], into: &Path) -> Result<()> {
    Ok(hull_layer::copy_with_own(&opened(lowers)?, open_directory(into)?.as_fd())?)
}

/// Trees that are given base first, topmost first.
fn opened(lowers: &[PathBuf]) -> Result<Vec<OwnedFd>> {
    lowers.iter().rev().map(|tree| open_directory(tree)).collect()
}

/// The trees that make up a chain, base first: one for each layer, or below them one of several layers at once. `None`
/// where one is missing.
pub(crate) fn trees(store: &Store, diff_ids: &[Digest]) -> Option<Vec<PathBuf>> {
    if let Some(snapshot) = store.snapshot(diff_ids) {
        return Some(snapshot.layers);
    }
    let (first, whole) = store.whole(diff_ids)?;
    let (trees, missing) = above(store, diff_ids, first);
    (missing == diff_ids.len()).then(|| [vec![whole], trees].concat())
}

/// The trees of single layers from `first` on, and which is the first that is missing.
fn above(store: &Store, diff_ids: &[Digest], first: usize) -> (Vec<PathBuf>, usize) {
    let of_layer = |index| store.layer_trees(&store.layer_dir(diff_ids, index));
    let found: Vec<Vec<PathBuf>> = (first..diff_ids.len()).map_while(of_layer).collect();
    let missing = first + found.len();
    (found.into_iter().flatten().collect(), missing)
}

/// The tree of all layers of a stack, which is made if it is not there: of the trees that are, and of the archives.
pub(crate) fn whole(store: &Store, layers: &Layers) -> Result<PathBuf> {
    let ids = &layers.diff_ids;
    let (Some(top), Some(chain)) = (ids.last(), layers.chain()) else {
        return Err(Error::fact("a stack without layers has no tree"));
    };
    let _lock = store.lock(&format!("layer-{}", chain.encoded()))?;
    let (first, below) = store.whole(ids).unzip();
    if let (Some(tree), true) = (&below, first == Some(ids.len())) {
        return Ok(tree.clone());
    }
    let (trees, missing) = above(store, ids, first.unwrap_or(0));
    let scratch = Scratch::make(store)?;
    copy(&below.into_iter().chain(trees).collect::<Vec<_>>(), &scratch.upper())?;
    let done = apply(store, layers, missing, &scratch.upper())?;
    let record = LayerRecord {
        diff_id: top.clone(),
        blob: layers.blobs.last().cloned(),
        size: done.bytes,
        entries: done.entries,
        boot: String::new(),
        settled: false,
        on: None,
    };
    Ok(store.adopt_whole(&scratch.upper(), record, &chain)?)
}

/// Applies the archives from `first` on to a tree; tells of the last.
fn apply(store: &Store, layers: &Layers, first: usize, to: &Path) -> Result<Extracted> {
    let unpacker = host::unpacker(store);
    let root = open_directory(to)?;
    let done = unpacker
        .apply_layers(&layers.blobs[first..], &layers.diff_ids[first..], root.as_fd())
        .map_err(host::with_hint)?;
    tell(unpacker.left_out());
    Ok(done.into_iter().next_back().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_had_is_made_up_for_by_copies() {
        let mounts = |errno: Errno| {
            Error::system("mount overlay")(hull_sys::SysError::new("fsconfig", errno.raw_os_error()))
        };
        let marks = |errno: Errno| Error::io("set an overlay's attribute on", "work")(errno.into());
        for errno in [Errno::NODEV, Errno::NOSYS, Errno::INVAL, Errno::PERM, Errno::ACCESS] {
            assert!(is_lack_of_overlays(&mounts(errno)), "{errno}");
        }
        assert!(is_lack_of_overlays(&marks(Errno::OPNOTSUPP)) && is_lack_of_overlays(&marks(Errno::PERM)));
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::NOMEM, Errno::MFILE, Errno::IO, Errno::INTR] {
            assert!(!is_lack_of_overlays(&mounts(errno)) && !is_lack_of_overlays(&marks(errno)), "{errno}");
        }
    }
}
