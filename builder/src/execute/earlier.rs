//! What the same COPY left before, and a tree that takes from it: whole, or only what differs where that is little.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};

use hull_image::{Digest, LayerRecord, Store};
use hull_layer::{Kind, Known, Written};

use super::Execution;
use super::keys::Selected;
use crate::cache::{Key, Part};
use crate::error::Result;
use crate::pack;
use crate::snapshot::{self, Standing};
use crate::steps::grow::Growing;
use crate::steps::lines::{Content, Line};

/// A tree is only a difference while it has at most one in so many of a layer's lines.
const SHARE: usize = 8;

/// What the same step left when it was last done.
#[derive(Default)]
pub(super) struct Earlier {
    pub(super) blocks: Option<Known>,
    /// By number of a file's line in the key: whether it was the same then.
    pub(super) same: Vec<bool>,
    tree: Option<Standing>,
    /// Whether files that are new or have another content are all that differs.
    only_files: bool,
}

impl Execution<'_> {
    /// What this step left before, if nothing but the content of files is different now.
    pub(super) fn earlier(&self, place: &str, key: &Key, selected: &Selected<'_>) -> Earlier {
        if self.settings.no_cache {
            return Earlier::default();
        }
        let Some(last) = self.cache.last(place) else { return Earlier::default() };
        let Some(record) = self.cache.find(&last.name()) else { return Earlier::default() };
        let blocks = self.cache.blocks(&record.blob, self.settings.packing.encoding);
        let mut earlier = Earlier { blocks, ..Earlier::default() };
        let ((was, others), (now, same_others)) = (last.below_label("file"), key.below_label("file"));
        // With several sources a file's name in the layer doesn't tell which one it is from.
        if selected.sources.len() == 1 && others == same_others {
            // Where things keep their times, those of links and directories may have changed unseen.
            let has_one_time = self.settings.packing.epoch.is_some();
            (earlier.same, earlier.only_files) = compare(&was, &now);
            earlier.only_files &= has_one_time;
            earlier.tree = snapshot::tree_of(self.store, &record.diff_id);
        }
        earlier
    }
}

/// Which parts are the same; and whether all others are files, which nothing but a file was before.
fn compare(was: &[&Part], now: &[&Part]) -> (Vec<bool>, bool) {
    let was: HashMap<&str, &str> =
        was.iter().map(|(label, value)| (label.as_str(), value.as_str())).collect();
    let before: Vec<Option<&&str>> = now.iter().map(|(label, _)| was.get(label.as_str())).collect();
    let values = || before.iter().zip(now).map(|(before, (_, value))| (*before, value.as_str()));
    let same = values().map(|(before, value)| before == Some(&value)).collect();
    let is_file = |value: &str| value.starts_with("file ");
    let is_taken = |(before, value): (Option<&&str>, &str)| {
        before == Some(&value) || is_file(value) && before.is_none_or(|before| is_file(before))
    };
    let nothing_went = before.iter().flatten().count() == was.len();
    (same, nothing_went && values().all(is_taken))
}

/// The tree of a layer in the making.
pub(super) struct LayerTree {
    tree: snapshot::Tree,
    growing: Growing,
    /// Which lines it gets; all of them if it is whole.
    wanted: Option<Vec<bool>>,
    /// The layer on whose tree it lies.
    on: Option<Digest>,
}

impl LayerTree {
    /// Begins a tree of `lines`.
    pub(super) fn make(
        store: &Store,
        lines: &[Line<'_>],
        earlier: &mut Earlier,
        epoch: Option<u64>,
    ) -> Result<Self> {
        let tree = snapshot::Tree::make(store)?;
        let mut trees = Vec::new();
        let (mut wanted, mut on) = (None, None);
        if let Some(standing) = earlier.tree.take() {
            trees = standing.trees;
            if earlier.only_files {
                wanted = difference(lines, &earlier.same, &trees)?;
            }
            if wanted.is_some() {
                on = Some(standing.whole);
                // What the whole one has is there already.
                trees.pop();
            }
        }
        let growing = Growing::new(tree.root()?, trees, epoch);
        Ok(Self { tree, growing, wanted, on })
    }

    /// Where the line of this number goes, unless the tree below has it.
    pub(super) fn at(&mut self, number: usize) -> Option<&mut Growing> {
        let is_wanted = self.wanted.as_ref().is_none_or(|wanted| wanted[number]);
        is_wanted.then_some(&mut self.growing)
    }

    /// Makes it the store's.
    pub(super) fn adopt(self, store: &Store, written: &Written<'_>) -> Result<()> {
        self.growing.finish()?;
        let record = LayerRecord { on: self.on, ..pack::layer_record(written) };
        self.tree.adopt(store, record)
    }
}

/// Which lines a tree on the lowest of `trees` has: files that are new, those of the difference that stood there before,
/// and their directories. Nothing if they are many.
fn difference(lines: &[Line<'_>], same: &[bool], trees: &[OwnedFd]) -> Result<Option<Vec<bool>>> {
    let mut held = HashSet::new();
    for tree in &trees[..trees.len() - 1] {
        let entries = hull_layer::list(tree.as_fd())?.into_iter();
        held.extend(entries.filter(|entry| entry.kind != Kind::Directory).map(|entry| entry.path));
    }
    let mut wanted = vec![false; lines.len()];
    let mut next: &[u8] = b"";
    // From the end: the first line that is wanted after a directory's own lies in it, if any does.
    for (line, wanted) in lines.iter().zip(&mut wanted).rev() {
        let path = &line.entry.path[..];
        let is_above = || next.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
        *wanted = match line.content {
            Content::Node(_, number) => !same.get(number).copied().unwrap_or(false) || held.contains(path),
            Content::Nothing | Content::Text(_) => is_above(),
        };
        if *wanted {
            next = path;
        }
    }
    let count = wanted.iter().filter(|wanted| **wanted).count();
    Ok((count * SHARE <= lines.len()).then_some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_new_or_changed_make_a_difference() {
        let parts = |list: &[(&str, &str)]| -> Vec<Part> {
            list.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
        };
        let was = parts(&[("a", "file 0644 1"), ("d", "directory 0755"), ("l", "link x")]);
        for (now, same, only_files) in [
            (&[("a", "file 0644 1"), ("d", "directory 0755"), ("l", "link x")][..], &[true; 3][..], true),
            (&[("a", "file 0600 2"), ("d", "directory 0755"), ("l", "link x")], &[false, true, true], true),
            (
                &[("a", "file 0644 1"), ("b", "file 0644 3"), ("d", "directory 0755"), ("l", "link x")],
                &[true, false, true, true],
                true,
            ),
            (&[("a", "file 0644 1"), ("d", "directory 0755")], &[true; 2], false),
            (&[("a", "file 0644 1"), ("d", "directory 0700"), ("l", "link x")], &[true, false, true], false),
            (&[("a", "file 0644 1"), ("d", "directory 0755"), ("l", "link y")], &[true, true, false], false),
            (&[("a", "link d"), ("d", "directory 0755"), ("l", "link x")], &[false, true, true], false),
            (
                &[("a", "file 0644 1"), ("d", "directory 0755"), ("l", "file 0 x")],
                &[true, true, false],
                false,
            ),
        ] {
            let now = parts(now);
            let (was, now): (Vec<&Part>, Vec<&Part>) = (was.iter().collect(), now.iter().collect());
            assert_eq!(compare(&was, &now), (same.to_vec(), only_files), "{now:?}");
        }
    }
}
