//! Which files a COPY means: sources and patterns against a tree, ignore rules and `--exclude` applied.

use rustix::fs::FileType;

use super::tree::{Node, Tree, join, split};
use crate::error::{Error, Result};
use crate::pattern::glob::{self, Glob};
use crate::pattern::ignore::{Ignore, Inherited};
use crate::pattern::path;

/// What one source came to.
#[derive(Debug)]
pub(crate) enum Source {
    /// A directory: its own node and everything in it, with paths below it.
    Directory { root: Node, items: Vec<Item> },
    /// Anything else, with the name it was called by.
    File { node: Node, name: Vec<u8> },
}

/// Something to copy.
#[derive(Debug)]
pub(crate) struct Item {
    /// Where it is.
    pub(crate) node: Node,
    /// Where it goes, below the destination.
    pub(crate) to: Vec<u8>,
}

/// What a COPY asks for.
pub(crate) struct Wanted<'a> {
    /// Paths or patterns.
    pub(crate) sources: &'a [String],
    /// `--exclude`.
    pub(crate) exclude: &'a [String],
    /// `--parents`.
    pub(crate) parents: bool,
}

/// Selects; a path that means nothing is an error, a pattern may fit nothing: `COPY manifest lock* ./`.
pub(crate) fn select(tree: &Tree, wanted: &Wanted<'_>) -> Result<Vec<Source>> {
    let exclude = Ignore::from_patterns(wanted.exclude.iter().map(String::as_str));
    let exclude = exclude.map_err(|e| Error::fact(e.to_string()))?;
    let mut found = Vec::new();
    for source in wanted.sources {
        let before = found.len();
        if wanted.parents {
            with_parents(tree, source, &exclude, &mut found)?;
        } else {
            plain(tree, source, &exclude, &mut found)?;
        }
        if found.len() == before && !glob::is_pattern(source) && !is_excluded(&exclude, source) {
            return Err(not_found(tree, source));
        }
    }
    Ok(found)
}

fn is_excluded(exclude: &Ignore, source: &str) -> bool {
    !exclude.is_empty() && exclude.judge_path(&path::relative(source)).ignored
}

fn not_found(tree: &Tree, source: &str) -> Error {
    let relative = path::relative(source);
    let verdict = tree.ignore.judge_path(&relative);
    match verdict.rule.filter(|_| verdict.ignored) {
        Some(rule) => {
            let (text, line) = (&rule.text, rule.line);
            Error::fact(format!(
                "\"{source}\" not found: the ignore file leaves it out (line {line}: {text})"
            ))
        }
        None => Error::fact(format!("\"{source}\" not found")),
    }
}

fn plain(tree: &Tree, source: &str, exclude: &Ignore, found: &mut Vec<Source>) -> Result<()> {
    let relative = path::relative(source);
    if !glob::is_pattern(source) {
        if let Some(node) = tree.find(relative.as_bytes())? {
            let name = relative.rsplit('/').next().unwrap_or_default().as_bytes().to_vec();
            found.extend(source_of(tree, node, name, exclude)?);
        }
        return Ok(());
    }
    for node in matches(tree, &relative)? {
        let name = split(&node.path).1.to_vec();
        // A link that a pattern found is followed like one named outright.
        let node = match node.kind() {
            FileType::Symlink => tree.find(&node.path)?,
            _ => Some(node),
        };
        if let Some(node) = node {
            found.extend(source_of(tree, node, name, exclude)?);
        }
    }
    Ok(())
}

fn source_of(tree: &Tree, root: Node, name: Vec<u8>, exclude: &Ignore) -> Result<Option<Source>> {
    if root.is_directory() {
        let mut walk = Walk { tree, exclude, items: Vec::new() };
        walk.below(&root.path)?;
        return Ok(Some(Source::Directory { root, items: walk.items }));
    }
    let text = String::from_utf8_lossy(&root.path);
    let left_out =
        tree.ignore.judge_path(&text).ignored || exclude.judge_path(&String::from_utf8_lossy(&name)).ignored;
    Ok((!left_out).then_some(Source::File { node: root, name }))
}

/// Everything a pattern fits, segment by segment; links between segments are followed inside the root.
fn matches(tree: &Tree, pattern: &str) -> Result<Vec<Node>> {
    let mut here: Vec<Vec<u8>> = vec![Vec::new()];
    let mut found = Vec::new();
    let segments: Vec<&str> = pattern.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let glob = Glob::new(segment, false).map_err(|e| Error::fact(e.to_string()))?;
        let is_last = index + 1 == segments.len();
        let mut next = Vec::new();
        for directory in &here {
            for node in tree.entries(directory)? {
                let name = split(&node.path).1;
                let hidden = tree.ignore.judge_path(&String::from_utf8_lossy(&node.path)).ignored
                    && !tree.ignore.must_enter(&String::from_utf8_lossy(&node.path));
                if hidden || !glob.matches(&String::from_utf8_lossy(name)) {
                    continue;
                }
                match is_last {
                    true => found.push(node),
                    false => next.extend(directory_of(tree, &node)?),
                }
            }
        }
        here = next;
    }
    Ok(found)
}

fn directory_of(tree: &Tree, node: &Node) -> Result<Option<Vec<u8>>> {
    let node = match node.kind() {
        FileType::Symlink => tree.find(&node.path)?,
        _ => Some(node.clone()),
    };
    Ok(node.filter(Node::is_directory).map(|node| node.path))
}

/// `--parents`: the source's own path below the pivot `./` is kept, and `**` crosses directories.
fn with_parents(tree: &Tree, source: &str, exclude: &Ignore, found: &mut Vec<Source>) -> Result<()> {
    let (pivot, kept) = match source.split_once("/./") {
        Some((pivot, kept)) => (path::relative(pivot), kept),
        None => (String::new(), source),
    };
    let pattern = path::relative(kept);
    let Some(root) = tree.find(pivot.as_bytes())?.filter(Node::is_directory) else { return Ok(()) };
    let glob = Glob::new(&pattern, true).map_err(|e| Error::fact(e.to_string()))?;
    let mut walk = Walk { tree, exclude, items: Vec::new() };
    walk.below(&root.path)?;
    let fits = |to: &str| {
        let ends = to.match_indices('/').map(|(at, _)| at).chain([to.len()]);
        pattern.is_empty() || ends.into_iter().any(|end| glob.matches(&to[..end]))
    };
    let keep = |item: &Item| fits(&String::from_utf8_lossy(&item.to));
    let wanted: Vec<bool> = walk.items.iter().map(keep).collect();
    if !wanted.contains(&true) {
        return Ok(());
    }
    // Directories on the way to something wanted come along.
    let mut parents = std::collections::BTreeSet::new();
    for (item, _) in walk.items.iter().zip(&wanted).filter(|(_, wanted)| **wanted) {
        for (at, _) in item.to.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            parents.insert(item.to[..at].to_vec());
        }
    }
    let is_kept = |item: &Item, wanted: bool| wanted || parents.contains(&item.to);
    let items = walk.items.into_iter().zip(wanted).filter(|(item, wanted)| is_kept(item, *wanted));
    let items = items.map(|(item, _)| item).collect();
    found.push(Source::Directory { root, items });
    Ok(())
}

struct Walk<'a> {
    tree: &'a Tree,
    exclude: &'a Ignore,
    items: Vec<Item>,
}

impl Walk<'_> {
    /// Everything below a directory: parents first, names sorted, what is left out not entered.
    fn below(&mut self, root: &[u8]) -> Result<()> {
        let at_root = String::from_utf8_lossy(root).into_owned();
        let ignored = match at_root.is_empty() {
            true => self.tree.ignore.root(),
            false => self.tree.ignore.judge_path(&at_root).inherited,
        };
        let excluded = self.exclude.root();
        self.directory(root, b"", &ignored, &excluded, 0)
    }

    fn directory(
        &mut self,
        directory: &[u8],
        to: &[u8],
        ignored: &Inherited,
        excluded: &Inherited,
        depth: usize,
    ) -> Result<()> {
        if depth > 255 {
            return Err(Error::fact("directories nest deeper than 255"));
        }
        for node in self.tree.entries(directory)? {
            let name = split(&node.path).1;
            let to = join(to, name);
            if node.is_directory() {
                self.subdirectory(node, to, ignored, excluded, depth)?;
                continue;
            }
            let (text, to_text) = (String::from_utf8_lossy(&node.path), String::from_utf8_lossy(&to));
            let left_out = self.tree.ignore.drops(&text, ignored) || self.exclude.drops(&to_text, excluded);
            if !left_out && !matches!(node.kind(), FileType::Socket) {
                self.items.push(Item { node, to });
            }
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        node: Node,
        to: Vec<u8>,
        ignored: &Inherited,
        excluded: &Inherited,
        depth: usize,
    ) -> Result<()> {
        let path = node.path.clone();
        let (text, to_text) = (String::from_utf8_lossy(&path), String::from_utf8_lossy(&to));
        let verdict = self.tree.ignore.judge(&text, ignored);
        let exclusion = self.exclude.judge(&to_text, excluded);
        let left_out = verdict.ignored || exclusion.ignored;
        let enter = (!verdict.ignored || self.tree.ignore.must_enter(&text))
            && (!exclusion.ignored || self.exclude.must_enter(&to_text));
        let at = self.items.len();
        self.items.push(Item { node, to: to.clone() });
        if enter {
            self.directory(&path, &to, &verdict.inherited, &exclusion.inherited, depth + 1)?;
        }
        // A left-out directory stays only for what was brought back in it.
        if left_out && self.items.len() == at + 1 {
            self.items.truncate(at);
        }
        Ok(())
    }
}
