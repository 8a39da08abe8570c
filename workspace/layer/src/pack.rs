//! From changes to an archive, and from there to a compressed blob in the store, in one pass over the data.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

use hull_image::{Descriptor, Digest, Hasher, Store};

use crate::compress::{Compressor, Encoding};
use crate::diff::{Change, Effect};
use crate::entry::{Entry, Kind};
use crate::error::{Error, Result};
use crate::tar::{TarWriter, TimeRule};
use crate::tree;

/// What went into an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    /// Lines, marks included.
    pub entries: u64,
    /// Bytes of all regular files.
    pub bytes: u64,
}

/// Writes changes, which are in the order of [`crate::order`], with the data of the files below `root`.
///
/// Further names of a file with several become hard links to the first one.
pub fn pack(changes: &[Change], root: BorrowedFd<'_>, writer: &mut TarWriter<impl Write>) -> Result<Packed> {
    let mut links = HashMap::new();
    let mut done = Packed { entries: changes.len() as u64, bytes: 0 };
    for change in changes {
        match &change.effect {
            Effect::Remove => writer.whiteout(&change.path)?,
            Effect::Opaque => writer.opaque(&change.path)?,
            Effect::Put(entry) if matches!(entry.kind, Kind::File { .. }) => {
                done.bytes += file(entry, root, writer, &mut links)?;
            }
            Effect::Put(entry) => writer.append(entry, &mut io::empty())?,
        }
    }
    Ok(done)
}

fn file(
    entry: &Entry,
    root: BorrowedFd<'_>,
    writer: &mut TarWriter<impl Write>,
    links: &mut HashMap<(u64, u64), Vec<u8>>,
) -> Result<u64> {
    let mut file = tree::open_file(root, &entry.path)?;
    let meta = file.metadata().map_err(Error::file("look at", &entry.path))?;
    if meta.nlink() > 1 {
        let key = (meta.dev(), meta.ino());
        if let Some(first) = links.get(&key) {
            let link = Entry { kind: Kind::Hardlink(first.clone()), ..entry.clone() };
            writer.append(&link, &mut io::empty())?;
            return Ok(0);
        }
        links.insert(key, entry.path.clone());
    }
    writer.append(entry, &mut file)?;
    Ok(entry.size())
}

/// Packs changes into the store: the diff id, the blob, and what went in.
///
/// The bytes depend on the changes, the times and the encoding alone, not on the machine or its number of processors.
pub fn pack_layer(
    store: &Store,
    changes: &[Change],
    root: BorrowedFd<'_>,
    times: TimeRule,
    encoding: Encoding,
) -> Result<(Digest, Descriptor, Packed)> {
    let sink = Compressor::new(store.blob_writer()?, encoding)?;
    let mut writer = TarWriter::new(HashingWriter { inner: sink, hasher: Hasher::new() }, times);
    let packed = pack(changes, root, &mut writer)?;
    let HashingWriter { inner, hasher } = writer.finish()?;
    let blob = inner.finish()?.finish(encoding.media_type())?;
    Ok((hasher.finish(), blob, packed))
}

/// Hashes what passes to a writer.
struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
