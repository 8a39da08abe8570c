//! What steps made is synced and published beside the next steps, and only then remembered.
//!
//! The next step needs a layer's tree and digests, which are there at once. A build that dies before the end leaves
//! nothing that looks done.

use std::sync::mpsc::Receiver;

use hull_image::{Lock, Sealed};

use crate::cache::{Cache, Key, Record};
use crate::error::{Error, Result};
use crate::graph::StepId;

/// Most blobs published at once.
const MOST: usize = 32;

/// A step that was done.
pub(super) struct Finished<'a> {
    pub(super) step: StepId,
    pub(super) blob: Sealed<'a>,
    pub(super) record: Record,
    /// The name of its key.
    pub(super) name: String,
    /// Where its last key is kept.
    pub(super) place: String,
    pub(super) key: Key,
    /// Builds that want the same wait for this.
    pub(super) lock: Lock,
}

/// Publishes and remembers all that comes, several at once when they come faster than the disk is.
pub(super) fn keep(
    cache: &Cache<'_>,
    finished: Receiver<Finished<'_>>,
) -> std::result::Result<(), (StepId, Error)> {
    let mut outcome = Ok(());
    while let Ok(first) = finished.recv() {
        let step = first.step;
        let some: Vec<_> = std::iter::once(first).chain(finished.try_iter().take(MOST - 1)).collect();
        let kept = keep_some(cache, some).map_err(|error| (step, error));
        outcome = outcome.and(kept);
    }
    outcome
}

fn keep_some(cache: &Cache<'_>, finished: Vec<Finished<'_>>) -> Result<()> {
    let (blobs, steps): (Vec<_>, Vec<_>) = finished
        .into_iter()
        .map(|Finished { blob, record, name, place, key, lock, .. }| (blob, (record, name, place, key, lock)))
        .unzip();
    hull_image::publish(blobs)?;
    for (record, name, place, key, lock) in steps {
        cache.keep(&name, &record)?;
        cache.keep_last(&place, &key)?;
        drop(lock);
    }
    Ok(())
}
