//! ADD: archives of the context are unpacked, by content and never by name; URLs are fetched.

use std::io::{Read, Seek};
use std::os::fd::AsFd;

use hull_image::Store;
use hull_layer::{Decompressor, Extractor, Whiteouts};

use super::copy::Destination;
use super::run::Runner;
use crate::context::content::Contents;
use crate::context::select::Source;
use crate::context::tree::{Node, Tree};
use crate::error::{Error, Result};
use crate::graph::CopyAction;

/// How much larger than compressed an archive may be, after the first 64 MiB.
const RATIO: u64 = 200;

/// Copies a selection, unpacking what is an archive.
pub(crate) fn copy(
    destination: &Destination<'_>,
    copy: &CopyAction,
    tree: &Tree,
    sources: &[Source],
    contents: &Contents,
) -> Result<()> {
    for source in sources {
        match source {
            Source::File { node, .. } if copy.unpack != Some(false) && is_archive(tree, node)? => {
                unpack(destination, tree, node)?;
            }
            _ => destination.copy(tree, std::slice::from_ref(source), contents)?,
        }
    }
    Ok(())
}

fn is_archive(tree: &Tree, node: &Node) -> Result<bool> {
    if node.kind() != rustix::fs::FileType::RegularFile {
        return Ok(false);
    }
    let file = tree.open_file(&node.path)?;
    let Ok(reader) = Decompressor::new(file, RATIO) else { return Ok(false) };
    let mut block = Vec::new();
    let read = reader.take(512).read_to_end(&mut block);
    Ok(read.is_ok() && is_header(&block))
}

/// Whether a block is a tar header: its checksum says so.
fn is_header(block: &[u8]) -> bool {
    let Ok(block): std::result::Result<&[u8; 512], _> = block.try_into() else { return false };
    let text: String = block[148..156].iter().map(|byte| char::from(*byte)).collect();
    let Ok(wanted) = u32::from_str_radix(text.trim_matches(|c| c == ' ' || c == '\0'), 8) else {
        return false;
    };
    let field = 148..156;
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if field.contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    sum == wanted
}

fn unpack(destination: &Destination<'_>, tree: &Tree, node: &Node) -> Result<()> {
    let mut file = tree.open_file(&node.path)?;
    file.rewind().map_err(Error::io("read", String::from_utf8_lossy(&node.path).as_ref()))?;
    let directory = destination.directory()?;
    let options = Extractor { whiteouts: Whiteouts::Refuse, ..Extractor::layer() };
    hull_layer::extract(Decompressor::new(file, RATIO)?, directory.as_fd(), &options)?;
    Ok(())
}

/// A file that ADD fetched.
pub(crate) struct Fetched {
    digest: String,
}

impl Fetched {
    /// What counts for the cache.
    pub(crate) fn identity(&self) -> String {
        self.digest.clone()
    }
}

/// Fetches a URL into the store's temporary directory.
pub(crate) fn fetch(
    _store: &Store,
    _runner: &Runner<'_>,
    url: &str,
    _checksum: Option<&str>,
) -> Result<Fetched> {
    Err(Error::fact(format!("ADD of a URL is not supported yet: {url}")))
}

/// Puts a fetched file in its place.
pub(crate) fn place_fetched(_to: &Destination<'_>, _copy: &CopyAction, fetched: &Fetched) -> Result<()> {
    Err(Error::fact(format!("ADD of a URL is not supported yet: {}", fetched.digest)))
}
