//! PURE but for looking: what a COPY puts into its layer, worked out from the selection and from what is below.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use hull_layer::{Below, Entry, Found, Kind, Time};
use rustix::fs::FileType;

use super::copy::Target;
use crate::context::content::Contents;
use crate::context::select::{Item, Source};
use crate::context::tree::{Node, Tree, join, split};
use crate::error::{Error, Result};

/// One entry of the layer to be.
pub(crate) struct Line<'a> {
    pub(crate) entry: Entry,
    pub(crate) content: Content<'a>,
    /// A directory that layers below have just so: it is here only for what lies in it.
    is_kept: bool,
    /// Whether nothing is below here.
    is_new: bool,
}

/// Where a file's bytes are.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    Nothing,
    /// In the tree that is copied from; with the number of its line in the step's key.
    Node(&'a Node, usize),
    Text(&'a [u8]),
}

/// Where a directory is in the layer, and whether nothing is below it.
type Directory = (Vec<u8>, bool);

/// The entries of a layer, while they are worked out.
pub(crate) struct Lines<'a> {
    to: &'a Target,
    below: &'a Below,
    /// By path with its slashes as NUL bytes: this is the order of a layer.
    all: BTreeMap<Vec<u8>, Line<'a>>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(to: &'a Target, below: &'a Below) -> Self {
        Self { to, below, all: BTreeMap::new() }
    }

    /// Adds everything selected.
    pub(crate) fn add(&mut self, tree: &Tree, sources: &'a [Source], contents: &Contents) -> Result<()> {
        let mut number = 0;
        for source in sources {
            match source {
                Source::File { node, name } => {
                    let (directory, is_new, name) = self.for_file(name)?;
                    let path = join(&directory, &name);
                    self.leaf(tree, (node, number), path, is_new, contents)?;
                    number += 1;
                }
                Source::Directory { items, .. } => {
                    self.directory(tree, number, items, contents)?;
                    number += 1 + items.len();
                }
            }
        }
        Ok(())
    }

    /// Adds a file whose content the Dockerfile gives.
    pub(crate) fn add_text(&mut self, name: &str, content: &'a [u8]) -> Result<()> {
        let (directory, is_new, name) = self.for_file(name.as_bytes())?;
        let mode = self.to.dress.mode.as_ref().map_or(0o644, |rule| rule.apply(0o644, false));
        let mut entry = Entry::file(&join(&directory, &name), content.len() as u64, mode);
        (entry.uid, entry.gid) = self.to.dress.owner.unwrap_or((0, 0));
        entry.mtime = now();
        self.put(entry, Content::Text(content), is_new)
    }

    /// The entries in the order of a layer, parents of each included.
    pub(crate) fn finish(mut self) -> Result<Vec<Line<'a>>> {
        let mut missing = Vec::new();
        let mut last: &[u8] = b"";
        for line in self.all.values() {
            let mut parent = split(&line.entry.path).0;
            // Most entries are in the directory of the one before.
            if std::mem::replace(&mut last, parent) == parent {
                continue;
            }
            while !parent.is_empty() && !self.all.contains_key(&key(parent)) {
                missing.push(parent.to_vec());
                parent = split(parent).0;
            }
        }
        for path in missing {
            let Some(entry) = self.below.find(&path)? else { continue };
            let line = Line { entry, content: Content::Nothing, is_kept: true, is_new: false };
            self.all.entry(key(&path)).or_insert(line);
        }
        let mut kept: Vec<Line<'a>> = Vec::with_capacity(self.all.len());
        // From the end: what lies in a directory has been seen before the directory.
        for line in self.all.into_values().rev() {
            let is_parent = |inner: &Line<'_>| {
                inner.entry.path.strip_prefix(&line.entry.path[..]).is_some_and(|rest| rest.starts_with(b"/"))
            };
            if !line.is_kept || kept.last().is_some_and(is_parent) {
                kept.push(line);
            }
        }
        kept.reverse();
        Ok(kept)
    }

    /// Follows a path through what is below and what this COPY has put there so far.
    fn resolve(&self, path: &[u8]) -> Result<(Found, bool)> {
        let mut found = self.below.resolve(path)?;
        let mut is_new = false;
        while let Some(name) = found.missing.first() {
            let next = join(&found.path, name);
            let Some(line) = self.all.get(&key(&next)) else { break };
            (found.path, found.entry, is_new) = (next, Some(line.entry.clone()), line.is_new);
            found.missing.remove(0);
        }
        Ok((found, is_new))
    }

    /// The destination's directory, made if it is missing, and whether nothing is below it.
    fn made(&mut self, path: &[u8]) -> Result<Directory> {
        let (found, mut is_new) = self.resolve(path)?;
        if found.entry.as_ref().is_some_and(|entry| entry.kind != Kind::Directory) {
            return Err(Error::errno("open directory", path)(rustix::io::Errno::NOTDIR));
        }
        let mut here = found.path;
        for name in found.missing {
            here = join(&here, &name);
            let mut entry = Entry::directory(&here);
            (entry.uid, entry.gid) = self.to.new.owner;
            entry.mode = self.to.new.mode;
            entry.mtime = now();
            let line = Line { entry, content: Content::Nothing, is_kept: false, is_new: true };
            self.all.insert(key(&here), line);
            is_new = true;
        }
        Ok((here, is_new))
    }

    /// The directory and the name that a single file goes to.
    fn for_file(&mut self, name: &[u8]) -> Result<(Vec<u8>, bool, Vec<u8>)> {
        let (found, _) = self.resolve(&self.to.path)?;
        let is_there = found.missing.is_empty();
        let into = match is_there {
            true => found.entry.is_none_or(|entry| entry.kind == Kind::Directory),
            false => self.to.is_directory,
        };
        if into {
            let (directory, is_new) = self.made(&self.to.path)?;
            return Ok((directory, is_new, name.to_vec()));
        }
        if self.to.is_directory {
            let text =
                format!("the destination /{}/ is no directory", String::from_utf8_lossy(&self.to.path));
            return Err(Error::fact(text));
        }
        // A link is followed to the file that it leads to, or that is made where it leads.
        let path = found.missing.iter().fold(found.path, |path, name| join(&path, name));
        let (parent, name) = split(&path);
        let (directory, is_new) = self.made(parent)?;
        Ok((directory, is_new, name.to_vec()))
    }

    fn directory(
        &mut self,
        tree: &Tree,
        number: usize,
        items: &'a [Item],
        contents: &Contents,
    ) -> Result<()> {
        // It is what is in the source that is copied: a new directory looks like any that is made on the way.
        let top = self.made(&self.to.path)?;
        let mut open: Vec<(&[u8], Directory)> = vec![(b"", top)];
        for (index, item) in items.iter().enumerate() {
            let (parent, name) = split(&item.to);
            // Items come parents first: what is no ancestor any more is done with.
            while open.len() > 1 && open.last().is_some_and(|(path, _)| *path != parent) {
                open.pop();
            }
            let (_, (directory, is_new)) =
                open.last().ok_or_else(|| Error::fact("a copied directory has no parent"))?;
            let (path, is_new) = (join(directory, name), *is_new);
            if item.node.is_directory() {
                let is_new = self.copied_directory(tree, &item.node, path.clone(), is_new)?;
                open.push((&item.to, (path, is_new)));
            } else {
                self.leaf(tree, (&item.node, number + 1 + index), path, is_new, contents)?;
            }
        }
        Ok(())
    }

    /// A directory with the source's mode, owner and attributes; tells whether nothing is below it.
    fn copied_directory(
        &mut self,
        tree: &Tree,
        node: &Node,
        path: Vec<u8>,
        parent_is_new: bool,
    ) -> Result<bool> {
        let planned = self.all.get(&key(&path)).map(|line| (line.entry.clone(), line.is_new));
        let there = match &planned {
            Some((entry, _)) => Some(entry.clone()),
            None if parent_is_new => None,
            None => self.below.find(&path)?,
        };
        if there.as_ref().is_some_and(|entry| entry.kind != Kind::Directory) {
            let name = String::from_utf8_lossy(split(&path).1).into_owned();
            return Err(Error::fact(format!("cannot copy a directory over {name}, which is none")));
        }
        let mut entry = self.dressed(node, path, Kind::Directory);
        entry.xattrs = there.as_ref().map(|entry| entry.xattrs.clone()).unwrap_or_default();
        entry.xattrs.extend(hull_layer::read_xattrs(tree.open_place(&node.path)?.as_fd(), &node.path)?);
        let same = |was: &Entry| {
            (was.mode, was.uid, was.gid, &was.xattrs) == (entry.mode, entry.uid, entry.gid, &entry.xattrs)
        };
        let is_kept = planned.is_none() && there.as_ref().is_some_and(same);
        let is_new = planned.map_or(there.is_none(), |(_, is_new)| is_new);
        self.all.insert(key(&entry.path), Line { entry, content: Content::Nothing, is_kept, is_new });
        Ok(is_new)
    }

    fn leaf(
        &mut self,
        tree: &Tree,
        (node, number): (&'a Node, usize),
        path: Vec<u8>,
        is_new: bool,
        contents: &Contents,
    ) -> Result<()> {
        let (major, minor) = (rustix::fs::major(node.stat.st_rdev), rustix::fs::minor(node.stat.st_rdev));
        let mut content = Content::Nothing;
        let kind = match node.kind() {
            FileType::RegularFile => {
                content = Content::Node(node, number);
                Kind::File { size: node.stat.st_size as u64 }
            }
            FileType::Symlink => Kind::Symlink(tree.read_link(&node.path)?),
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::Char { major, minor },
            FileType::BlockDevice => Kind::Block { major, minor },
            kind => {
                let name = String::from_utf8_lossy(&node.path);
                return Err(Error::fact(format!("a {kind:?} cannot be copied: {name}")));
            }
        };
        let mut entry = self.dressed(node, path, kind);
        if node.kind() == FileType::Symlink {
            // Nobody can change the mode of a link.
            entry.mode = 0o777;
        }
        if contents.files.get(&node.path).is_some_and(|facts| !facts.plain) {
            entry.xattrs = hull_layer::read_xattrs(tree.open_place(&node.path)?.as_fd(), &node.path)?;
        }
        self.put(entry, content, is_new)
    }

    /// Adds something that is no directory in the place of anything but a directory.
    fn put(&mut self, entry: Entry, content: Content<'a>, is_new: bool) -> Result<()> {
        let there = match self.all.get(&key(&entry.path)) {
            Some(line) => Some(line.entry.kind == Kind::Directory),
            None if is_new => None,
            None => self.below.find(&entry.path)?.map(|entry| entry.kind == Kind::Directory),
        };
        if there == Some(true) {
            let name = String::from_utf8_lossy(split(&entry.path).1).into_owned();
            return Err(Error::fact(format!("cannot replace the directory {name} with a file")));
        }
        self.all.insert(key(&entry.path), Line { entry, content, is_kept: false, is_new });
        Ok(())
    }

    fn dressed(&self, node: &Node, path: Vec<u8>, kind: Kind) -> Entry {
        let (uid, gid) = self.to.dress.owner(node);
        let mtime = Time { seconds: node.stat.st_mtime, nanos: node.stat.st_mtime_nsec as u32 };
        Entry { path, kind, mode: self.to.dress.mode(node), uid, gid, mtime, xattrs: BTreeMap::new() }
    }
}

fn key(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
}

/// Only seen with `--keep-times`: otherwise the build's time takes its place.
fn now() -> Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time { seconds: now.as_secs().try_into().unwrap_or(i64::MAX), nanos: now.subsec_nanos() }
}
