//! From a written snapshot to a layer in the store: what changed, packed deterministically, adopted for later steps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_image::{BlobWriter, LayerRecord, Sealed, Store};
use hull_layer::{Change, Effect, Encoding, TimeRule, Written};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};

use crate::cache::Record;
use crate::context::tree::split;
use crate::directory::open_directory;
use crate::error::{Error, Result};
use crate::snapshot::{Layers, Snapshot};

/// How layers are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packing {
    /// The time that everything in a new layer gets; `None` keeps the files' own.
    pub(crate) epoch: Option<u64>,
    /// How archives are compressed.
    pub(crate) encoding: Encoding,
}

impl Packing {
    pub(crate) fn times(&self) -> TimeRule {
        match self.epoch {
            Some(epoch) => TimeRule::Set(epoch.try_into().unwrap_or(i64::MAX)),
            None => TimeRule::Keep,
        }
    }
}

/// Packs what a step wrote on top of `below` into `blob`, which is yet to be published.
pub(crate) fn commit<'a>(
    store: &'a Store,
    blob: BlobWriter<'a>,
    snapshot: Snapshot,
    below: &Layers,
    packing: Packing,
) -> Result<(Record, Sealed<'a>)> {
    let upper = open_directory(&snapshot.upper()?)?;
    let changes = snapshot.changes(upper.as_fd())?;
    // Later steps see the times that the layer shows to everybody who pulls it.
    if let Some(epoch) = packing.epoch {
        set_times(upper.as_fd(), &changes, epoch)?;
    }
    let written = hull_layer::pack_layer(blob, &changes, upper.as_fd(), packing.times(), packing.encoding)?;
    snapshot.adopt(store, below, layer_record(&written))?;
    Ok(record(written))
}

/// What the store keeps of a written layer.
pub(crate) fn layer_record(written: &Written<'_>) -> LayerRecord {
    LayerRecord {
        diff_id: written.diff_id.clone(),
        blob: Some(written.blob.descriptor().clone()),
        size: written.packed.bytes,
        entries: written.packed.entries,
        boot: String::new(),
        settled: false,
        on: None,
    }
}

/// What the cache keeps of it.
pub(crate) fn record(written: Written<'_>) -> (Record, Sealed<'_>) {
    let (diff_id, blob) = (written.diff_id, written.blob.descriptor().clone());
    (Record { diff_id, blob, size: written.packed.bytes }, written.blob)
}

fn set_times(upper: BorrowedFd<'_>, changes: &[Change], epoch: u64) -> Result<()> {
    let time = Timespec { tv_sec: epoch.try_into().unwrap_or(i64::MAX), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let mut last: Option<(&[u8], OwnedFd)> = None;
    // Children before parents: nothing changes in a directory after its own time is set.
    for change in changes.iter().rev().filter(|change| matches!(change.effect, Effect::Put(_))) {
        let path = &change.path;
        let (parent, name) = match split(path) {
            (b"", name) => (&b"."[..], name),
            inner => inner,
        };
        // Most entries are in the directory of the one before.
        let opened = match last.take() {
            Some((path, opened)) if path == parent => opened,
            _ => open_parent(upper, parent)?,
        };
        rustix::fs::utimensat(&opened, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::errno("set times of", path))?;
        last = Some((parent, opened));
    }
    Ok(())
}

fn open_parent(upper: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(upper, path, flags, Mode::empty(), resolve)
        .map_err(Error::errno("open directory", path))
}
