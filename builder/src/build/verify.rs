//! `--verify-reproducible`: every step done twice, and the first difference named.

use std::os::fd::AsFd;

use hull_image::Store;

use crate::error::{Error, Result};
use crate::graph::Plan;
use crate::snapshot::{Layers, Snapshot};

/// Compares two builds of one plan; the error names the step and the first file that differ.
pub(crate) fn compare(store: &Store, plan: &Plan, first: &[Layers], second: &[Layers]) -> Result<()> {
    let different = first.iter().zip(second).position(|(first, second)| first.diff_ids != second.diff_ids);
    let Some(step) = different else { return Ok(()) };
    let (one, other) =
        (Snapshot::read_only(store, &first[step])?, Snapshot::read_only(store, &second[step])?);
    let changes = hull_layer::diff_trees(one.root(), other.root().as_fd())?;
    let what = match changes.first() {
        Some(change) => format!("/{}", String::from_utf8_lossy(&change.path)),
        None => "the order or attributes of its layer".into(),
    };
    let (text, line) = (&plan.steps[step].text, plan.steps[step].span.first);
    Err(Error::fact(format!(
        "not reproducible: line {line} ({text}) gives different results, first at {what}"
    )))
}
