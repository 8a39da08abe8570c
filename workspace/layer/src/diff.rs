//! What changed between two trees, or what an overlay's upper directory changed: the content of a layer.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::entry::{Entry, Kind, join, split};
use crate::error::Result;
use crate::merged::Merged;
use crate::tree;

/// One line of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Path below the root.
    pub path: Vec<u8>,
    /// What happens there.
    pub effect: Effect,
}

/// What a layer does at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Something is new or replaced.
    Put(Box<Entry>),
    /// Something of a lower layer is gone.
    Remove,
    /// All that lower layers have in this directory is gone.
    Opaque,
}

impl Change {
    /// The change that puts `entry` at its path.
    pub fn put(entry: Entry) -> Self {
        Self { path: entry.path.clone(), effect: Effect::Put(Box::new(entry)) }
    }

    /// Length in bytes of the data that goes with it.
    pub(crate) fn size(&self) -> u64 {
        match &self.effect {
            Effect::Put(entry) => entry.size(),
            Effect::Remove | Effect::Opaque => 0,
        }
    }

    /// The change that removes `path`.
    pub fn remove(path: &[u8]) -> Self {
        Self { path: path.to_vec(), effect: Effect::Remove }
    }
}

/// The order of a layer's lines: parents first, marks before their siblings, else by bytes of each part.
pub fn order(left: &Change, right: &Change) -> Ordering {
    // An opaque mark lies inside its directory; any other line at its own name.
    fn place(change: &Change) -> (Cow<'_, [u8]>, i32) {
        match change.effect {
            Effect::Opaque => (join(&change.path, b"").into(), 0),
            Effect::Remove => (Cow::from(&change.path[..]), 0),
            Effect::Put(_) => (Cow::from(&change.path[..]), 1),
        }
    }
    let ((left, left_rank), (right, right_rank)) = (place(left), place(right));
    let mut lefts = left.split(|b| *b == b'/').peekable();
    let mut rights = right.split(|b| *b == b'/').peekable();
    loop {
        let (a, b) = match (lefts.next(), rights.next()) {
            (Some(a), Some(b)) => (a, b),
            (None, None) => return left_rank.cmp(&right_rank),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
        };
        // A mark goes before everything else in its directory.
        let mark = |is_last: bool, rank: i32| if is_last { rank } else { 1 };
        let ranks = (mark(lefts.peek().is_none(), left_rank), mark(rights.peek().is_none(), right_rank));
        match ranks.0.cmp(&ranks.1).then_with(|| a.cmp(b)) {
            Ordering::Equal => {}
            other => return other,
        }
    }
}

/// What makes `new` of `old`, in the order of a layer.
pub fn diff_trees(old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> Result<Vec<Change>> {
    let before: BTreeMap<Vec<u8>, Entry> =
        tree::list(old)?.into_iter().map(|e| (e.path.clone(), e)).collect();
    let after = tree::list(new)?;
    let mut changes = Vec::new();
    let mut present = BTreeSet::new();
    for entry in after {
        present.insert(entry.path.clone());
        let same = match before.get(&entry.path) {
            Some(was) => same_metadata(was, &entry) && same_content(old, new, &entry)?,
            None => false,
        };
        if !same {
            changes.push(Change::put(entry));
        }
    }
    for (path, _) in before.iter().filter(|(path, _)| !present.contains(*path)) {
        // Where a parent is gone or is no directory any more, its own line says all.
        let parent = split(path).0;
        let parent_is_kept = parent.is_empty() || present.contains(parent) && is_directory(new, parent);
        if parent_is_kept {
            changes.push(Change::remove(path));
        }
    }
    complete(changes, |path| tree::read_entry(new, path))
}

/// What an overlay's upper directory changed above `lowers` (topmost first), in the order of a layer.
///
/// Opaque directories become one mark for each name they hide. Copied-up entries that are as below are left out.
pub fn diff_upper(upper: BorrowedFd<'_>, lowers: &[OwnedFd]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    // A directory that lower layers don't have: nothing in it needs to be looked for there.
    let mut fresh: Option<Vec<u8>> = None;
    let (entries, sockets) = tree::list_with_sockets(upper)?;
    replaced(lowers, &sockets, &mut changes)?;
    for entry in entries {
        let is_fresh = |directory: &Vec<u8>| {
            entry.path.strip_prefix(&directory[..]).is_some_and(|rest| rest.starts_with(b"/"))
        };
        if fresh.as_ref().is_some_and(is_fresh) {
            // A mark of an overlay hides nothing here.
            if entry.kind != (Kind::Char { major: 0, minor: 0 }) {
                changes.push(Change::put(entry));
            }
            continue;
        }
        if entry.kind == (Kind::Char { major: 0, minor: 0 }) {
            if Merged(lowers).find(&entry.path)?.is_some() {
                changes.push(Change::remove(&entry.path));
            }
            continue;
        }
        let below = Merged(lowers).find(&entry.path)?;
        if entry.kind == Kind::Directory && below.is_none() {
            fresh = Some(entry.path.clone());
        }
        if entry.kind == Kind::Directory && below.as_ref().is_some_and(|(_, was)| was.kind == Kind::Directory)
        {
            let fd = tree::look(upper, &entry.path).map_err(crate::Error::file("look at", &entry.path))?;
            if tree::is_opaque(fd.as_fd()) {
                hide_below(upper, lowers, &entry.path, &mut changes)?;
            }
        }
        let same = match &below {
            Some((layer, was)) => same_metadata(was, &entry) && same_content(*layer, upper, &entry)?,
            None => false,
        };
        if !same {
            changes.push(Change::put(entry));
        }
    }
    complete(changes, |path| tree::read_entry(upper, path))
}

/// What was changed in a copy of what `lowers` (topmost first) show together, in the order of a layer: what [`diff_upper`]
/// finds after the same changes in an overlay.
///
/// The copy is one by [`crate::copy_merged`]: names of one file are those that were linked since. A character device 0:0 is
/// left out: an overlay lets nobody make one, and who unpacks the layer would take it for the mark of a removal.
pub fn diff_copy(copy: BorrowedFd<'_>, lowers: &[OwnedFd]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    gone(copy, lowers, b"", &mut changes)?;
    let (entries, mut barred) = tree::list_with_sockets(copy)?;
    let is_mark = |entry: &Entry| entry.kind == (Kind::Char { major: 0, minor: 0 });
    barred.extend(entries.iter().filter(|entry| is_mark(entry)).map(|entry| entry.path.clone()));
    replaced(lowers, &barred, &mut changes)?;
    for entry in entries.into_iter().filter(|entry| !is_mark(entry)) {
        let below = Merged(lowers).find(&entry.path)?;
        let is_directory = |was: &Entry| was.kind == Kind::Directory && entry.kind == Kind::Directory;
        if below.as_ref().is_some_and(|(_, was)| is_directory(was)) {
            gone(copy, lowers, &entry.path, &mut changes)?;
        }
        let same = match &below {
            Some((layer, was)) => same_metadata(was, &entry) && same_content(*layer, copy, &entry)?,
            None => false,
        };
        if !same {
            changes.push(Change::put(entry));
        }
    }
    complete(changes, |path| tree::read_entry(copy, path))
}

/// One mark for each of these paths that lower layers have: what is there now cannot be in a layer.
fn replaced(lowers: &[OwnedFd], paths: &[Vec<u8>], changes: &mut Vec<Change>) -> Result<()> {
    for path in paths {
        if Merged(lowers).find(path)?.is_some() {
            changes.push(Change::remove(path));
        }
    }
    Ok(())
}

/// One mark for each name that lower layers have in a directory and the copy has not.
fn gone(copy: BorrowedFd<'_>, lowers: &[OwnedFd], path: &[u8], changes: &mut Vec<Change>) -> Result<()> {
    let here: BTreeSet<Vec<u8>> =
        tree::names(tree::open_directory(copy, path)?.as_fd(), path)?.into_iter().collect();
    let missing = Merged(lowers).names(path)?.into_iter().filter(|name| !here.contains(name));
    changes.extend(missing.map(|name| Change::remove(&join(path, &name))));
    Ok(())
}

/// One mark for each name that lower layers have in an opaque directory and the upper has not.
fn hide_below(
    upper: BorrowedFd<'_>,
    lowers: &[OwnedFd],
    path: &[u8],
    changes: &mut Vec<Change>,
) -> Result<()> {
    let here: BTreeSet<Vec<u8>> =
        tree::names(tree::open_directory(upper, path)?.as_fd(), path)?.into_iter().collect();
    for name in Merged(lowers).names(path)? {
        let below = join(path, &name);
        let replaced_directory = here.contains(&name)
            && is_directory(upper, &below)
            && Merged(lowers).find(&below)?.is_some_and(|(_, was)| was.kind == Kind::Directory);
        if !here.contains(&name) {
            changes.push(Change::remove(&below));
        } else if replaced_directory {
            hide_below(upper, lowers, &below, changes)?;
        }
    }
    Ok(())
}

/// Sorts, and adds the parents of every change.
fn complete(mut changes: Vec<Change>, read: impl Fn(&[u8]) -> Result<Entry>) -> Result<Vec<Change>> {
    let mut have: BTreeSet<Vec<u8>> =
        changes.iter().filter(|c| matches!(c.effect, Effect::Put(_))).map(|c| c.path.clone()).collect();
    let paths: Vec<Vec<u8>> = changes.iter().map(|change| change.path.clone()).collect();
    for path in paths {
        let mut dir = split(&path).0;
        while !dir.is_empty() && have.insert(dir.to_vec()) {
            changes.push(Change::put(read(dir)?));
            dir = split(dir).0;
        }
    }
    changes.sort_by(order);
    changes.dedup();
    Ok(changes)
}

fn is_directory(root: BorrowedFd<'_>, path: &[u8]) -> bool {
    tree::read_entry(root, path).is_ok_and(|entry| entry.kind == Kind::Directory)
}

/// The times of directories change with their entries and say nothing of their own.
fn same_metadata(was: &Entry, is: &Entry) -> bool {
    let same_time = was.mtime == is.mtime || is.kind == Kind::Directory;
    (&was.kind, was.mode, was.uid, was.gid, &was.xattrs) == (&is.kind, is.mode, is.uid, is.gid, &is.xattrs)
        && same_time
}

/// Equal size and time are no proof: the bytes are compared.
fn same_content(old: BorrowedFd<'_>, new: BorrowedFd<'_>, entry: &Entry) -> Result<bool> {
    if !matches!(entry.kind, Kind::File { .. }) {
        return Ok(true);
    }
    let (mut left, mut right) = (tree::open_file(old, &entry.path)?, tree::open_file(new, &entry.path)?);
    let same_inode = |a: &std::fs::File, b: &std::fs::File| -> Option<bool> {
        use std::os::unix::fs::MetadataExt;
        let (a, b) = (a.metadata().ok()?, b.metadata().ok()?);
        Some((a.dev(), a.ino()) == (b.dev(), b.ino()))
    };
    if same_inode(&left, &right) == Some(true) {
        return Ok(true);
    }
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let count = left.read(&mut a).map_err(crate::Error::file("read", &entry.path))?;
        if count == 0 {
            return Ok(right.read(&mut b).map_err(crate::Error::file("read", &entry.path))? == 0);
        }
        if right.read_exact(&mut b[..count]).is_err() || a[..count] != b[..count] {
            return Ok(false);
        }
    }
}
