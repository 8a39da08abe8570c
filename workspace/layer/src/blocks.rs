//! What the blocks of a compressed archive are, so that a later archive that is alike in part takes their members over.
//!
//! A member is found by the digest of its block and held against its own checksum: a damaged archive is not copied on.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"hullbk04";
const RECORD: usize = 32 + 4 + 4;
/// Longest member that is believed in, in bytes: a block that did not shrink, and its frame.
const LONGEST: u32 = (1 << 20) + (64 << 10);

type Sum = [u8; 32];

/// One block of a written archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    content: Sum,
    member: u32,
    length: u32,
}

impl Recorded {
    /// What a block is found by.
    pub(crate) fn content_of(block: &[u8]) -> Sum {
        Sha256::digest(block).into()
    }

    /// What a block is found by that is compressed for speed, where a digest would cost a sixth of the compression:
    /// checksums of its parts, which prove nothing.
    ///
    /// They are digested, so that nobody can choose what comes of them: no other block is found by them.
    pub(crate) fn content_of_quick(block: &[u8]) -> Sum {
        let mut digest = Sha256::new_with_prefix(b"quick");
        for part in block.chunks(block.len().div_ceil(8).max(1)) {
            digest.update(libdeflater::crc32(part).to_le_bytes());
        }
        digest.finalize().into()
    }

    /// A block that nobody looks for: its member only counts for where the next ones are.
    pub(crate) fn unfound(member: &[u8]) -> Self {
        Self::new(Sum::default(), member)
    }

    pub(crate) fn new(content: Sum, member: &[u8]) -> Self {
        let length = u32::try_from(member.len()).unwrap_or(u32::MAX);
        Self { content, member: libdeflater::crc32(member), length }
    }
}

/// The records of one archive as bytes; `level` is that of its compression.
pub fn encode(level: i32, records: &[Recorded]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + records.len() * RECORD);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&level.to_le_bytes());
    for record in records {
        bytes.extend_from_slice(&record.content);
        bytes.extend_from_slice(&record.member.to_le_bytes());
        bytes.extend_from_slice(&record.length.to_le_bytes());
    }
    bytes
}

/// An earlier archive and where its blocks are in it.
#[derive(Debug)]
pub struct Known {
    archive: File,
    blocks: HashMap<Sum, (u64, u32, u32)>,
}

impl Known {
    /// Reads records for an archive; `None` when they are of another level, or are none.
    pub fn decode(bytes: &[u8], level: i32, archive: File) -> Option<Self> {
        let records = bytes.strip_prefix(MAGIC)?.strip_prefix(&level.to_le_bytes())?;
        if !records.len().is_multiple_of(RECORD) {
            return None;
        }
        let mut blocks = HashMap::with_capacity(records.len() / RECORD);
        let mut offset = 0u64;
        for record in records.chunks_exact(RECORD) {
            let content: Sum = record[..32].try_into().ok()?;
            let member = u32::from_le_bytes(record[32..36].try_into().ok()?);
            let length = u32::from_le_bytes(record[36..].try_into().ok()?);
            if length > LONGEST {
                return None;
            }
            blocks.insert(content, (offset, length, member));
            offset += u64::from(length);
        }
        Some(Self { archive, blocks })
    }

    /// Reads the member of the block with this digest into `room`, if the archive still has it unharmed and it fits;
    /// gives its size.
    pub(crate) fn find(&self, content: &Sum, room: &mut [u8]) -> Option<usize> {
        let (offset, length, wanted) = self.blocks.get(content)?;
        let member = room.get_mut(..*length as usize)?;
        self.archive.read_exact_at(member, *offset).ok()?;
        (libdeflater::crc32(member) == *wanted).then_some(member.len())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;
    use crate::{Compressor, Encoding};

    /// Compresses parts that may each begin a block; gives the archive, its records, and how many members were new.
    fn archive(parts: &[Vec<u8>], known: Option<Known>) -> (File, Vec<Recorded>) {
        let file = tempfile::tempfile().unwrap();
        let mut compressor = Compressor::with_threads(file, Encoding::Gzip(5), 2).unwrap();
        if let Some(known) = known {
            compressor.reuse(known);
        }
        for part in parts {
            compressor.may_cut(true).unwrap();
            compressor.write_all(part).unwrap();
        }
        compressor.finish_blocks().unwrap()
    }

    fn bytes(file: &mut File) -> Vec<u8> {
        file.rewind().unwrap();
        let mut all = Vec::new();
        std::io::Read::read_to_end(file, &mut all).unwrap();
        all
    }

    fn is_found(known: &Known, part: &[u8]) -> bool {
        known.find(&Recorded::content_of(part), &mut vec![0; LONGEST as usize]).is_some()
    }

    fn parts() -> Vec<Vec<u8>> {
        (0..4u8).map(|part| (0..300_000u32).map(|n| (n % (251 - u32::from(part))) as u8).collect()).collect()
    }

    #[test]
    fn blocks_of_an_earlier_archive_are_taken_over_and_change_no_byte() {
        let (first, records) = archive(&parts(), None);
        let mut changed = parts();
        changed[1].push(7);
        // A changed byte in the earlier archive's members would show if they were not taken from there.
        let (mut alone, alone_records) = archive(&changed, None);
        let known = Known::decode(&encode(5, &records), 5, first).unwrap();
        let found = changed.iter().filter(|part| is_found(&known, part)).count();
        assert_eq!(found, 3, "all but the changed one");
        let (mut with, with_records) = archive(&changed, Some(known));
        assert!(bytes(&mut with) == bytes(&mut alone) && with_records == alone_records);
    }

    #[test]
    fn blocks_that_cannot_shrink_are_not_looked_for_and_those_behind_them_are_found() {
        let mut state = 1u64;
        let noise = (0..300_000)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        let parts = vec![parts()[0].clone(), noise, parts()[1].clone()];
        let (first, records) = archive(&parts, None);
        let known = Known::decode(&encode(5, &records), 5, first).unwrap();
        let found = parts.iter().map(|part| is_found(&known, part));
        assert_eq!(found.collect::<Vec<_>>(), [true, false, true]);
        let mut room = vec![0; LONGEST as usize];
        assert!(known.find(&Sum::default(), &mut room).is_some(), "its place in the archive is counted");
    }

    #[test]
    fn a_damaged_archive_is_not_copied_on() {
        let (first, records) = archive(&parts(), None);
        first.write_all_at(&[1; 64], 40).unwrap();
        let known = Known::decode(&encode(5, &records), 5, first).unwrap();
        assert!(!is_found(&known, &parts()[0]));
        assert!(is_found(&known, &parts()[3]));
    }

    #[test]
    fn blocks_that_were_compressed_for_speed_are_taken_over_if_they_are_the_same() {
        let quickly = |parts: &[Vec<u8>], known: Option<Known>| {
            let mut compressor = Compressor::with_threads(Vec::new(), Encoding::Gzip(4), 2).unwrap();
            compressor.hurry(true);
            known.into_iter().for_each(|known| compressor.reuse(known));
            for part in parts {
                compressor.may_cut(true).unwrap();
                compressor.write_all(part).unwrap();
            }
            compressor.finish_blocks().unwrap()
        };
        let written = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        };
        let (first, records) = quickly(&parts(), None);
        // A member with one empty block before its end is another way to write the same: it shows where it is taken.
        let marked = |member: &[u8]| {
            let (head, rest) = member.split_at(10);
            [head, &[0, 0, 0, 0xff, 0xff], rest].concat()
        };
        let ends: Vec<usize> = records
            .iter()
            .scan(0, |end, record| {
                *end += record.length as usize;
                Some(*end)
            })
            .collect();
        let members: Vec<Vec<u8>> = ends
            .iter()
            .enumerate()
            .map(|(n, end)| first[n.checked_sub(1).map_or(0, |n| ends[n])..*end].to_vec())
            .collect();
        // The second record leads to another block's member, as if both had the same checksums.
        let earlier = [marked(&members[0]), members[2].clone(), members[2].clone(), marked(&members[3])];
        let of_earlier: Vec<Recorded> = earlier
            .iter()
            .zip(&records)
            .map(|(member, record)| Recorded::new(record.content, member))
            .collect();
        let known = Known::decode(&encode(4, &of_earlier), 4, written(&earlier.concat())).unwrap();
        let (again, _) = quickly(&parts(), Some(known));
        let expected = [&earlier[0], &members[1], &members[2], &earlier[3]].map(Vec::as_slice).concat();
        assert!(again == expected);
    }

    #[test]
    fn records_of_another_level_or_length_are_none() {
        let (_, records) = archive(&parts(), None);
        let whole = encode(5, &records);
        let file = || tempfile::tempfile().unwrap();
        assert!(Known::decode(&whole, 6, file()).is_none());
        assert!(Known::decode(&whole[..whole.len() - 1], 5, file()).is_none());
        assert!(Known::decode(b"", 5, file()).is_none());
    }
}
