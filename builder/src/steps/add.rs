//! ADD: archives of the context are unpacked, by content and never by name; URLs are fetched.

use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use hull_image::Store;
use hull_layer::{Decompressor, Extractor, LeftOut};

use super::copy::Destination;
use crate::context::content::{self, Contents};
use crate::context::select::{self, Source, Wanted};
use crate::context::tree::{Node, Tree};
use crate::directory::open_directory;
use crate::error::{Error, Result};
use crate::graph::CopyAction;
use crate::pattern::ignore::Ignore;
use crate::pattern::path::is_name;
use crate::registry;
use crate::snapshot;

/// How much larger than compressed an archive may be, after the first 64 MiB.
const RATIO: u64 = 200;
/// Largest file that ADD fetches, in bytes.
const MAX_FETCHED: u64 = 16 << 30;

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
    let Ok(reader) = Decompressor::archive(file, RATIO) else { return Ok(false) };
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
    extract(file, destination)
}

/// Unpacks an archive; what it has of others' goes to root where an ordinary user builds, which is told.
fn extract(file: std::fs::File, destination: &Destination<'_>) -> Result<()> {
    let archive = Decompressor::archive(file, RATIO)?;
    let (directory, owner) = destination.for_archive()?;
    let done = hull_layer::extract(archive, directory.as_fd(), &Extractor { owner, ..Extractor::archive() })?;
    snapshot::tell(LeftOut::of(&done));
    Ok(())
}

/// A file that ADD fetched: in the store's temporary directory, removed with this value.
pub(crate) struct Fetched {
    path: PathBuf,
    url: String,
    /// What it is called in a directory, if the URL says so.
    name: Option<String>,
    digest: String,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // What stays behind is collected with the store's temporary files.
        drop(std::fs::remove_file(&self.path));
    }
}

impl Fetched {
    /// What counts for the cache: the content, and the name it is written under.
    pub(crate) fn identity(&self) -> String {
        format!("{} {}", self.name.as_deref().unwrap_or_default(), self.digest)
    }
}

/// Fetches a URL; no credential is sent anywhere.
pub(crate) fn fetch(store: &Store, url: &str, checksum: Option<&str>) -> Result<Fetched> {
    let path = store.temporary_path();
    let mut file = std::fs::File::create_new(&path).map_err(Error::io("create", &path))?;
    let mut fetched =
        Fetched { path, url: registry::redacted(url), name: name_of(url), digest: String::new() };
    fetched.digest = download(url, &mut file)?.digest;
    match checksum {
        Some(wanted) if wanted != fetched.digest => {
            Err(Error::fact(format!("the checksum of the file is {}, not {wanted}", fetched.digest)))
        }
        _ => Ok(fetched),
    }
}

/// What came of a URL.
pub(crate) struct Downloaded {
    digest: String,
    /// `Last-Modified`, in seconds since 1970 (RFC 9110, 8.8.2).
    pub(crate) changed: Option<u64>,
}

/// Fetches a URL into a file.
pub(crate) fn download(url: &str, file: &mut std::fs::File) -> Result<Downloaded> {
    let wrong = |error: registry::Error| Error::fact(format!("fetch: {}", causes(&error)));
    let options = registry::Options::default();
    let origin = registry::Origin::of(url).map_err(wrong)?;
    let wire = registry::Wire::new(&origin, &options).map_err(wrong)?;
    let mut answer = wire.send_alone(&registry::Request::new("GET", url)).map_err(wrong)?;
    let changed = answer.header("last-modified").and_then(registry::moment);
    let changed = changed.and_then(|moment| moment.try_into().ok());
    let mut hasher = hull_image::Hasher::new();
    let shown = registry::redacted(url);
    let mut body = answer.reader().take(MAX_FETCHED);
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0u64;
    loop {
        let count = body.read(&mut buffer).map_err(Error::io("fetch", &shown))?;
        if count == 0 {
            break;
        }
        total += count as u64;
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(Error::io("write what was fetched from", &shown))?;
    }
    match total {
        MAX_FETCHED => Err(Error::fact(format!("what is fetched must be smaller than {MAX_FETCHED} bytes"))),
        _ => Ok(Downloaded { digest: hasher.finish().to_string(), changed }),
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The last part of a URL's path, its percent signs read; none where that is no name.
fn name_of(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = decoded(path.split_once('/')?.1.rsplit('/').next()?)?;
    is_name(&name).then_some(name)
}

/// A text whose percent signs are read; none where they mean no text.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

/// Puts a fetched file in its place: mode 0600, or unpacked where ADD says so.
pub(crate) fn place_fetched(to: &Destination<'_>, copy: &CopyAction, fetched: &Fetched) -> Result<()> {
    let mut file = std::fs::File::open(&fetched.path).map_err(Error::io("open", &fetched.path))?;
    if copy.unpack == Some(true) {
        return extract(file, to);
    }
    let (directory, name) = to.for_file(fetched.name.as_deref().unwrap_or_default().as_bytes())?;
    if name.is_empty() {
        return Err(Error::fact(format!("the URL {} names no file to put into the directory", fetched.url)));
    }
    to.write_new(directory.as_fd(), &name, &mut file, 0o600)
}

/// Puts what is in a directory of the host, which nobody else writes to, in its place.
pub(crate) fn place_directory(to: &Destination<'_>, copy: &CopyAction, directory: &Path) -> Result<()> {
    let tree = Tree::new(open_directory(directory)?, Ignore::default(), false);
    let everything = [".".to_owned()];
    let wanted = Wanted { sources: &everything, exclude: &copy.exclude, parents: false };
    let sources = select::select(&tree, &wanted)?;
    let contents = content::describe(&tree, &sources, None)?;
    to.copy(&tree, &sources, &contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_file() {
        let rows = [
            ("http://h/a/b.tar?x=/y#z", Some("b.tar")),
            ("https://h/f", Some("f")),
            ("http://h/", None),
            ("http://h", None),
            ("http://h/a/", None),
            ("http://h/lib%2B%2b%20%C3%A4", Some("lib++ ä")),
            ("http://h/a%2Fb", None),
            ("http://h/%2e%2E", None),
            ("http://h/100%", None),
            ("http://h/%ff", None),
        ];
        for (url, wanted) in rows {
            assert_eq!(name_of(url).as_deref(), wanted, "{url}");
        }
    }

    #[test]
    fn tar_headers_are_known_by_their_checksum() {
        let mut block = [0u8; 512];
        assert!(!is_header(&block), "nothing");
        block[..4].copy_from_slice(b"name");
        let sum: u32 = 8 * 32 + block.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(is_header(&block));
        block[0] = b'N';
        assert!(!is_header(&block), "changed after its checksum");
        assert!(!is_header(&block[..511]));
    }
}
