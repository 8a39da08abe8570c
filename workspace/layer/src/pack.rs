//! From changes to an archive, and from there to a compressed blob in the store, in one pass over the data.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

use hull_image::{BlobWriter, Digest, Hasher, Made, Sealed};

use crate::blocks::{Known, Recorded};
use crate::compress::{Compressor, Encoding};
use crate::decompress::FREE;
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

/// Packs changes into a blob of the store.
///
/// The bytes depend on the changes, the times and the encoding alone, not on the machine or its number of processors.
pub fn pack_layer<'a>(
    blob: BlobWriter<'a>,
    changes: &[Change],
    root: BorrowedFd<'_>,
    times: TimeRule,
    encoding: Encoding,
) -> Result<Written<'a>> {
    let mut layer = LayerWriter::new(blob, times, encoding)?;
    let mut links = HashMap::new();
    for change in changes {
        layer.cut_before(&change.path, change.size())?;
        layer.packed.entries += 1;
        match &change.effect {
            Effect::Remove => layer.tar.whiteout(&change.path)?,
            Effect::Opaque => layer.tar.opaque(&change.path)?,
            Effect::Put(entry) if matches!(entry.kind, Kind::File { .. }) => {
                layer.packed.bytes += file(entry, root, &mut layer.tar, &mut links)?;
            }
            Effect::Put(entry) => layer.tar.append(entry, &mut io::empty())?,
        }
    }
    layer.finish()
}

/// Files at least this long have blocks of their own, in bytes.
const LARGE: u64 = 1 << 20;

/// Files at least this long are compressed for speed at usual levels, in bytes: level 1 takes half of the time of level
/// 4 and leaves a fourteenth more of text.
const HUGE: u64 = 32 << 20;

/// A layer being written into the store, entry by entry.
pub struct LayerWriter<'a> {
    tar: TarWriter<HashingWriter<Compressor<BlobWriter<'a>>>>,
    encoding: Encoding,
    packed: Packed,
    after_large: bool,
}

/// A layer that was written.
pub struct Written<'a> {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// The blob, to be published.
    pub blob: Sealed<'a>,
    /// What went in.
    pub packed: Packed,
    /// What a later layer can take over: see [`crate::blocks`].
    pub blocks: Vec<Recorded>,
}

impl<'a> LayerWriter<'a> {
    /// Begins a layer, whose archive is compressed into `blob`.
    pub fn new(blob: BlobWriter<'a>, times: TimeRule, encoding: Encoding) -> Result<Self> {
        let announced = blob.is_announced();
        let mut sink = Compressor::new(blob, encoding)?;
        if announced {
            sink.step_back();
        }
        let tar = TarWriter::new(HashingWriter { inner: sink, hasher: Hasher::new(), count: 0 }, times);
        Ok(Self { tar, encoding, packed: Packed::default(), after_large: false })
    }

    /// Takes blocks over that an earlier layer has too; before the first entry.
    pub fn reuse(&mut self, known: Known) {
        self.tar.sink_mut().inner.reuse(known);
    }

    /// Adds an entry with its data, in the order of [`crate::order`].
    pub fn put(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<()> {
        self.cut_before(&entry.path, entry.size())?;
        self.packed.entries += 1;
        self.packed.bytes += entry.size();
        self.tar.append(entry, data)
    }

    /// Ends the layer.
    pub fn finish(self) -> Result<Written<'a>> {
        let HashingWriter { inner, hasher, count } = self.tar.finish()?;
        let (blob, blocks) = inner.finish_blocks()?;
        let blob = blob.seal(self.encoding.media_type())?;
        let Packed { bytes, entries, .. } = self.packed;
        // Any beginning of the archive may shrink more than the whole; below this it is free to.
        if count > FREE {
            blob.note(Made { bytes, entries })?;
        }
        Ok(Written { diff_id: hasher.finish(), blob, packed: self.packed, blocks })
    }

    /// Ends a block where layers that are alike in part would: by names, and round large files.
    fn cut_before(&mut self, path: &[u8], size: u64) -> Result<()> {
        let large = size >= LARGE;
        let now = large || std::mem::replace(&mut self.after_large, large);
        if now || is_landmark(path) {
            let sink = &mut self.tar.sink_mut().inner;
            sink.may_cut(now).map_err(|e| Error::Stream("write archive", e))?;
        }
        if now {
            self.tar.sink_mut().inner.hurry(size >= HUGE);
        }
        Ok(())
    }
}

/// One name in sixteen, the same ones everywhere (FNV-1a, its bits mixed once more as names differ in their last ones).
fn is_landmark(path: &[u8]) -> bool {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash: u32 = path.iter().fold(0x811c_9dc5, mix);
    (hash ^ hash >> 15).wrapping_mul(0x9e37_79b1) >> 28 == 0
}

/// Hashes what passes to a writer.
struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    /// Bytes that passed.
    count: u64,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_may_shrink_beyond_measure_are_noted_whatever_they_consist_of() {
        let directory = tempfile::tempdir().unwrap();
        let store = hull_image::Store::open(directory.path()).unwrap();
        let noted = |entries: u64, attribute: usize| {
            let blob = store.blob_writer().unwrap();
            let mut writer = LayerWriter::new(blob, TimeRule::Keep, Encoding::Gzip(1)).unwrap();
            for number in 0..entries {
                let mut entry = Entry::directory(format!("d{number:06}").as_bytes());
                entry.xattrs.insert(b"user.text".to_vec(), vec![b'x'; attribute]);
                writer.put(&entry, &mut io::empty()).unwrap();
            }
            store.made(&writer.finish().unwrap().blob.descriptor().digest)
        };
        assert_eq!(noted(1100, 62_000), Some(Made { bytes: 0, entries: 1100 }));
        assert_eq!(noted(1000, 62_000), None);
    }

    #[test]
    fn one_name_in_sixteen_is_a_landmark_however_alike_they_are() {
        for pattern in ["f", "packages/p7/src/d1/file", "aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            let names = (0..4096).map(|number| format!("{pattern}{number}"));
            let count = names.filter(|name| is_landmark(name.as_bytes())).count();
            assert!((180..340).contains(&count), "{pattern}: {count} of 4096");
        }
    }
}
