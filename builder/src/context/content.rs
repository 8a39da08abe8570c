//! What a selection is made of: one digest over names, kinds, modes, owners, attributes, links and contents. No times.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{FileType, Stat};
use sha2::{Digest, Sha256};

use super::file_cache::{Content, Facts, FileCache};
use super::select::Source;
use super::tree::{Node, Opener, Tree};
use crate::error::{Error, Result};

/// Bytes that are worth more than one thread, in however few files.
const LARGE: u64 = 16 << 20;

/// The digests of a selection's parts: what a copy writes is held against them.
#[derive(Default)]
pub(crate) struct Contents {
    /// By path below the tree's root: the digest of a regular file.
    pub(crate) files: HashMap<Vec<u8>, Facts>,
    /// One line for each thing selected: its place and everything that counts.
    pub(crate) lines: Vec<(String, String)>,
}

/// Reads what has changed of a selection, and describes all of it.
pub(crate) fn describe(tree: &Tree, sources: &[Source], cache: Option<&FileCache>) -> Result<Contents> {
    let mut all = Contents::default();
    let nodes = read_files(tree, sources, cache)?;
    all.lines.reserve(nodes.len());
    for (index, source) in sources.iter().enumerate() {
        match source {
            Source::File { node, name } => {
                let place = format!("{index}:{}", String::from_utf8_lossy(name));
                all.add(tree, node, place, &nodes, cache)?;
            }
            Source::Directory { root, items } => {
                all.add(tree, root, format!("{index}:./"), &nodes, cache)?;
                for item in items {
                    let mut place = String::with_capacity(item.to.len() + 8);
                    write!(place, "{index}:./{}", escape(&item.to)).expect("a string takes it");
                    all.add(tree, &item.node, place, &nodes, cache)?;
                }
            }
        }
    }
    all.files = nodes;
    Ok(all)
}

/// Names that are no text stay apart: bytes that are none are written in hex.
fn escape(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(text) if !text.contains('\u{1}') => text.into(),
        _ => format!("\u{1}{}", hex(name)).into(),
    }
}

/// The digests of all regular files, those that are not known read by several threads.
fn read_files(tree: &Tree, sources: &[Source], cache: Option<&FileCache>) -> Result<HashMap<Vec<u8>, Facts>> {
    let nodes: Vec<&Node> = sources
        .iter()
        .flat_map(|source| match source {
            Source::File { node, .. } => vec![node],
            Source::Directory { items, .. } => items.iter().map(|item| &item.node).collect(),
        })
        .collect();
    let mut known = HashMap::with_capacity(nodes.len());
    let mut unknown: Vec<&Node> = Vec::new();
    for node in nodes.into_iter().filter(|node| node.kind() == FileType::RegularFile) {
        match cache.and_then(|cache| cache.get(&node.stat)) {
            Some(facts) => drop(known.insert(node.path.clone(), facts)),
            None => unknown.push(node),
        }
    }
    let bytes: u64 = unknown.iter().map(|node| node.stat.st_size as u64).sum();
    let all = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let threads = if unknown.len() < 16 && bytes < LARGE { 1 } else { all.min(unknown.len()) };
    let next = AtomicUsize::new(0);
    // Files differ in size: each thread takes the next one that nobody has.
    let work = || {
        let mut opener = Opener::new(tree);
        let take = || unknown.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(take).map(|node| read_file(&mut opener, node, cache)).collect()
    };
    let parts: Vec<Result<Vec<Read>>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().map(|thread| thread.join().expect("reading doesn't panic"));
        std::iter::once(own).chain(others).collect()
    });
    for part in parts {
        known.extend(part?);
    }
    Ok(known)
}

/// A path and what is there.
type Read = (Vec<u8>, Facts);

fn read_file(opener: &mut Opener<'_>, node: &Node, cache: Option<&FileCache>) -> Result<Read> {
    let mut file = opener.open_file(&node.path)?;
    let before = stat(&file, &node.path)?;
    let content = hash(&mut file, &node.path)?;
    let plain = hull_layer::read_xattrs(file.as_fd(), &node.path)?.is_empty();
    let facts = Facts { content, plain };
    let after = stat(&file, &node.path)?;
    let identity = |stat: &Stat| (stat.st_ino, stat.st_size, stat.st_ctime, stat.st_ctime_nsec);
    if identity(&before) == identity(&after)
        && let Some(cache) = cache
    {
        cache.put(&after, facts);
    }
    Ok((node.path.clone(), facts))
}

fn stat(file: &File, path: &[u8]) -> Result<Stat> {
    rustix::fs::fstat(file).map_err(Error::errno("look at", path))
}

fn hash(file: &mut File, path: &[u8]) -> Result<Content> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) => {
                use std::os::unix::ffi::OsStrExt;
                return Err(Error::io("read", std::ffi::OsStr::from_bytes(path))(error));
            }
        }
    }
}

impl Contents {
    fn add(
        &mut self,
        tree: &Tree,
        node: &Node,
        place: String,
        files: &HashMap<Vec<u8>, Facts>,
        cache: Option<&FileCache>,
    ) -> Result<()> {
        let stat = &node.stat;
        let mode = stat.st_mode & 0o7777;
        let owner =
            if tree.keeps_owners { format!(" {}:{}", stat.st_uid, stat.st_gid) } else { String::new() };
        let what = match node.kind() {
            FileType::RegularFile => {
                let facts = files.get(&node.path).ok_or_else(|| Error::fact("a file was not read"))?;
                let attributes = if facts.plain { String::new() } else { attributes(tree, node)? };
                let mut text =
                    String::with_capacity("file 0000 ".len() + owner.len() + 2 * facts.content.len());
                write!(text, "file {mode:04o}{owner} ").expect("a string takes it");
                push_hex(&mut text, &facts.content);
                text + &attributes
            }
            FileType::Directory => {
                format!("directory {mode:04o}{owner}{}", directory_attributes(tree, node, cache)?)
            }
            FileType::Symlink => format!("link{owner} {}", escape(&tree.read_link(&node.path)?)),
            FileType::Fifo => format!("fifo {mode:04o}{owner}"),
            kind => format!("{kind:?} {mode:04o}{owner} {:x}", stat.st_rdev),
        };
        self.lines.push((place, what));
        Ok(())
    }
}

/// Extended attributes that layers carry, as text; empty for none.
fn attributes(tree: &Tree, node: &Node) -> Result<String> {
    let fd = tree.open_place(&node.path)?;
    let found = hull_layer::read_xattrs(fd.as_fd(), &node.path)?;
    Ok(found.iter().map(|(name, value)| format!(" {}={}", escape(name), hex(value))).collect())
}

/// The same of a directory, which is only looked at when it changed.
fn directory_attributes(tree: &Tree, node: &Node, cache: Option<&FileCache>) -> Result<String> {
    if cache.and_then(|cache| cache.get(&node.stat)).is_some_and(|facts| facts.plain) {
        return Ok(String::new());
    }
    let text = attributes(tree, node)?;
    if let Some(cache) = cache {
        cache.put(&node.stat, Facts { content: Content::default(), plain: text.is_empty() });
    }
    Ok(text)
}

/// Bytes in lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
}
