//! What `--explain` says beside the steps: what the ignore file dropped and by which rule, and what each layer weighs.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};

use hull_image::Store;
use hull_layer::{Entry, Kind};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::audit::Audit;
use crate::cache::Cache;
use crate::cache::explain::cut;
use crate::context::tree::Tree;
use crate::directory::open_directory;
use crate::error::Result;
use crate::graph::Plan;
use crate::pattern::ignore::Inherited;
use crate::snapshot::Layers;

/// Dropped paths that are told one by one.
const MOST: usize = 20;

/// One line for each thing that the ignore file drops, what lies below it included.
pub(super) fn dropped(tree: &Tree) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if !tree.ignore.is_empty() {
        below(tree, b"", &tree.ignore.root(), &mut found)?;
    }
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    if more > 0 {
        found.push(format!("and {more} more"));
    }
    Ok(found)
}

fn below(tree: &Tree, directory: &[u8], inherited: &Inherited, found: &mut Vec<String>) -> Result<()> {
    for node in tree.entries(directory)? {
        let path = String::from_utf8_lossy(&node.path);
        let verdict = tree.ignore.judge(&path, inherited);
        if verdict.ignored
            && let Some(rule) = verdict.rule
        {
            found.push(format!("not in the context: {path} (line {}: {})", rule.line, rule.text));
        }
        if node.is_directory() && (!verdict.ignored || tree.ignore.must_enter(&path)) {
            below(tree, &node.path, &verdict.inherited, found)?;
        }
    }
    Ok(())
}

/// Looks for secrets in what is new: layers, the configuration and the history.
pub(super) fn audit(audit: &Audit, store: &Store, plan: &Plan, layers: &Layers) -> Result<()> {
    let made: Vec<&str> =
        plan.history.iter().filter(|made| made.step.is_some()).map(|made| made.by.as_str()).collect();
    let base = layers.blobs.len().saturating_sub(made.len());
    for (blob, by) in layers.blobs[base..].iter().zip(&made) {
        audit.layer(store, blob, &format!("the layer of {by}"))?;
    }
    audit.look(&hull_image::canonical(&plan.config), "the configuration");
    plan.history.iter().for_each(|made| audit.look(made.by.as_bytes(), "the history"));
    audit.verdict()
}

/// One line for each new layer: its compressed size, what made it, and how much of it nobody sees.
pub(super) fn layers(store: &Store, cache: &Cache<'_>, plan: &Plan, layers: &Layers) -> Result<Vec<String>> {
    let made: Vec<&str> =
        plan.history.iter().filter(|made| made.step.is_some()).map(|made| made.by.as_str()).collect();
    let base = layers.blobs.len().saturating_sub(made.len());
    let hidden = hidden(store, cache, layers)?;
    let line = |((blob, hidden), by): ((&hull_image::Descriptor, &u64), &&str)| {
        let line = format!("layer of {} bytes: {}", blob.size, cut(by));
        match hidden {
            0 => line,
            _ => format!("{line} ({hidden} bytes of its files are hidden by later layers)"),
        }
    };
    Ok(layers.blobs[base..].iter().zip(&hidden[base..]).zip(&made).map(line).collect())
}

/// What the layers above one put in the way of it.
#[derive(Default)]
struct Above {
    /// Files, links and marks: they hide what is at their path and below it.
    leaves: HashSet<Vec<u8>>,
    /// Directories hide what is none.
    directories: HashSet<Vec<u8>>,
    /// These hide everything in them.
    opaque: HashSet<Vec<u8>>,
}

impl Above {
    fn hides(&self, path: &[u8]) -> bool {
        let parents = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
        self.leaves.contains(path)
            || self.directories.contains(path)
            || parents.into_iter().any(|parent| self.leaves.contains(parent) || self.opaque.contains(parent))
    }
}

/// Bytes of files in each layer that layers above remove or replace; layers that are not unpacked are passed over.
fn hidden(store: &Store, cache: &Cache<'_>, layers: &Layers) -> Result<Vec<u64>> {
    let mut above = Above::default();
    let mut bytes = vec![0; layers.diff_ids.len()];
    for index in (0..layers.diff_ids.len()).rev() {
        let directory = store.layer_dir(&layers.diff_ids, index);
        let trees = store.layer_trees(&directory).unwrap_or_default();
        let trees: Vec<OwnedFd> =
            trees.iter().rev().map(|tree| open_directory(tree)).collect::<Result<_>>()?;
        let entries = match trees.is_empty() {
            true => cache.list(&layers.diff_ids[index]).unwrap_or_default(),
            false => listed(&trees)?,
        };
        bytes[index] =
            entries.iter().filter(|entry| above.hides(&entry.path)).map(|entry| entry.size()).sum();
        for entry in entries {
            if entry.kind != Kind::Directory {
                above.leaves.insert(entry.path);
                continue;
            }
            let is_opaque =
                |tree| open_below(tree, &entry.path).is_ok_and(|fd| hull_layer::is_opaque(fd.as_fd()));
            if trees.iter().any(is_opaque) {
                above.opaque.insert(entry.path.clone());
            }
            above.directories.insert(entry.path);
        }
    }
    Ok(bytes)
}

/// Everything in a layer: of each path what the topmost of its trees has.
fn listed(trees: &[OwnedFd]) -> Result<Vec<Entry>> {
    let mut entries = BTreeMap::new();
    for tree in trees {
        for entry in hull_layer::list(tree.as_fd())? {
            entries.entry(entry.path.clone()).or_insert(entry);
        }
    }
    Ok(entries.into_values().collect())
}

fn open_below(tree: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(tree, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}
