//! Lists of what is in a layer, as bytes: lengths before everything, a checksum at the end.

use std::collections::BTreeMap;

use hull_layer::{Entry, Kind, Time};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"hullls01";

/// The entries sorted by the bytes of their paths, as they are searched.
pub(super) fn encode(mut entries: Vec<Entry>) -> Vec<u8> {
    entries.sort_by(|left, right| left.path.cmp(&right.path));
    let mut bytes = MAGIC.to_vec();
    for entry in &entries {
        put(&mut bytes, &entry.path);
        let (kind, numbers, text): (u8, [u64; 2], &[u8]) = match &entry.kind {
            Kind::File { size } => (0, [*size, 0], b""),
            Kind::Directory => (1, [0, 0], b""),
            Kind::Symlink(target) => (2, [0, 0], target),
            Kind::Hardlink(target) => (3, [0, 0], target),
            Kind::Char { major, minor } => (4, [u64::from(*major), u64::from(*minor)], b""),
            Kind::Block { major, minor } => (5, [u64::from(*major), u64::from(*minor)], b""),
            Kind::Fifo => (6, [0, 0], b""),
        };
        bytes.push(kind);
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        put(&mut bytes, text);
        for number in [entry.mode, entry.uid, entry.gid, entry.mtime.nanos, entry.xattrs.len() as u32] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&entry.mtime.seconds.to_le_bytes());
        for (name, value) in &entry.xattrs {
            put(&mut bytes, name);
            put(&mut bytes, value);
        }
    }
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// `None` for anything that is not whole.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Sha256::digest(body)[..] != *sum {
        return None;
    }
    let mut left = Bytes(body.strip_prefix(MAGIC)?);
    let mut entries = Vec::new();
    while !left.0.is_empty() {
        entries.push(left.entry()?);
    }
    Some(entries)
}

fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text);
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn entry(&mut self) -> Option<Entry> {
        let path = self.text()?;
        let [kind] = self.take::<1>()?;
        let numbers = [self.long()?, self.long()?];
        let text = self.text()?;
        let (major, minor) = (u32::try_from(numbers[0]), u32::try_from(numbers[1]));
        let kind = match kind {
            0 => Kind::File { size: numbers[0] },
            1 => Kind::Directory,
            2 => Kind::Symlink(text),
            3 => Kind::Hardlink(text),
            4 => Kind::Char { major: major.ok()?, minor: minor.ok()? },
            5 => Kind::Block { major: major.ok()?, minor: minor.ok()? },
            6 => Kind::Fifo,
            _ => return None,
        };
        let (mode, uid, gid) = (self.number()?, self.number()?, self.number()?);
        let (nanos, count) = (self.number()?, self.number()?);
        let mtime = Time { seconds: self.long()? as i64, nanos };
        let mut xattrs = BTreeMap::new();
        for _ in 0..count {
            xattrs.insert(self.text()?, self.text()?);
        }
        Some(Entry { path, kind, mode, uid, gid, mtime, xattrs })
    }

    fn take<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        let (taken, left) = self.0.split_first_chunk::<COUNT>()?;
        self.0 = left;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let length = self.number()? as usize;
        let (text, left) = self.0.split_at_checked(length)?;
        self.0 = left;
        Some(text.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_sorted_and_a_damaged_one_not_at_all() {
        let mut entries = vec![
            Entry::file(b"z", 1 << 40, 0o4755),
            Entry::directory(b"d"),
            Entry::new(b"d/l", Kind::Symlink(vec![0xff, b'/']), 0o777),
            Entry::new(b"c", Kind::Char { major: 1, minor: 3 }, 0o666),
            Entry::new(b"f", Kind::Fifo, 0o600),
        ];
        entries[0].mtime = Time { seconds: -5, nanos: 7 };
        entries[1].xattrs.insert(b"user.a".to_vec(), vec![0, 1]);
        (entries[2].uid, entries[2].gid) = (u32::MAX - 1, 3);
        let bytes = encode(entries.clone());
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        assert_eq!(decode(&bytes), Some(entries));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}
