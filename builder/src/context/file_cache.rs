//! Digests of files that haven't changed since they were last read: kept by device, inode, change time and size.
//!
//! The change time is the kernel's: no program sets it, so a file rewritten with its old size and modification time is
//! read again. A file changed within the clock's last tick before it was read could change again unseen: it is not kept.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::Stat;

use crate::error::{Error, Result};

/// SHA-256 of a file's content.
pub(crate) type Content = [u8; 32];

const MAGIC: &[u8; 8] = b"hullfc02";
const RECORD: usize = 8 + 8 + 8 + 4 + 8 + 32 + 1;
/// Largest cache file read, in bytes: 4 million files.
const MAX_BYTES: u64 = 4_000_000 * RECORD as u64;
/// A file younger than this when it was read is not kept, in nanoseconds: several clock ticks.
const SETTLING: i128 = 50_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    changed: (i64, u32),
    size: u64,
    content: Content,
    plain: bool,
}

/// What is known of an unchanged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its digest; zeros for what has no content.
    pub(crate) content: Content,
    /// Whether it has no extended attribute that counts: setting one changes the change time.
    pub(crate) plain: bool,
}

/// The cache of one context directory.
pub(crate) struct FileCache {
    path: PathBuf,
    /// Records as they were read, sorted by device and inode: few of many builds' files are new.
    old: Vec<u8>,
    new: Mutex<HashMap<(u64, u64), Known>>,
}

impl FileCache {
    /// Reads the cache at `path`; a damaged or missing one is empty.
    pub(crate) fn open(path: &Path) -> Self {
        let old = fs::metadata(path)
            .ok()
            .filter(|meta| meta.len() <= MAX_BYTES)
            .and_then(|_| fs::read(path).ok())
            .and_then(checked)
            .unwrap_or_default();
        Self { path: path.to_owned(), old, new: Mutex::default() }
    }

    /// What is known of an unchanged file.
    pub(crate) fn get(&self, stat: &Stat) -> Option<Facts> {
        let key = (stat.st_dev, stat.st_ino);
        let new = self.new.lock().expect("no thread panics with it").get(&key).copied();
        let known = new.or_else(|| self.find_old(key))?;
        let same = known.changed == changed(stat) && known.size == stat.st_size as u64;
        same.then_some(Facts { content: known.content, plain: known.plain })
    }

    fn find_old(&self, key: (u64, u64)) -> Option<Known> {
        let records = self.old.as_chunks::<RECORD>().0;
        records.binary_search_by_key(&key, key_of).ok().map(|at| decode(&records[at]))
    }

    /// Keeps what was read of a file that was `stat` before and after.
    pub(crate) fn put(&self, stat: &Stat, facts: Facts) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let age =
            now.as_nanos() as i128 - (i128::from(stat.st_ctime) * 1_000_000_000 + stat.st_ctime_nsec as i128);
        if age < SETTLING {
            return;
        }
        let known = Known {
            changed: changed(stat),
            size: stat.st_size as u64,
            content: facts.content,
            plain: facts.plain,
        };
        self.new.lock().expect("no thread panics with it").insert((stat.st_dev, stat.st_ino), known);
    }

    /// Writes the cache if anything changed; files that this build didn't ask for are kept as well.
    pub(crate) fn save(&self) -> Result<()> {
        let new = self.new.lock().expect("no thread panics with it");
        if new.is_empty() {
            return Ok(());
        }
        let old = self.old.as_chunks::<RECORD>().0.iter();
        let mut records: Vec<[u8; RECORD]> =
            old.filter(|record| !new.contains_key(&key_of(record))).copied().collect();
        records.extend(new.iter().map(|(key, known)| encode(*key, known)));
        records.sort_unstable_by_key(key_of);
        let mut bytes = Vec::with_capacity(MAGIC.len() + records.len() * RECORD + 32);
        bytes.extend_from_slice(MAGIC);
        records.iter().for_each(|record| bytes.extend_from_slice(record));
        let check = checksum(&bytes);
        bytes.extend_from_slice(&check);
        let temporary = self.path.with_extension(format!("tmp{}", std::process::id()));
        let mut file = fs::File::create(&temporary).map_err(Error::io("create", &temporary))?;
        file.write_all(&bytes).map_err(Error::io("write", &temporary))?;
        // Not synced: a torn cache fails its checksum and is read as empty.
        fs::rename(&temporary, &self.path).map_err(Error::io("rename to", &self.path))
    }
}

fn changed(stat: &Stat) -> (i64, u32) {
    (stat.st_ctime, stat.st_ctime_nsec as u32)
}

fn checksum(bytes: &[u8]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).into()
}

/// The records of a cache file that is whole.
fn checked(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    let records = body.strip_prefix(MAGIC)?;
    let is_sorted = || records.as_chunks::<RECORD>().0.is_sorted_by_key(key_of);
    if checksum(body) != check || !records.len().is_multiple_of(RECORD) || !is_sorted() {
        return None;
    }
    bytes.truncate(bytes.len() - 32);
    bytes.drain(..MAGIC.len());
    Some(bytes)
}

fn word<const COUNT: usize>(record: &[u8; RECORD], at: usize) -> [u8; COUNT] {
    record[at..at + COUNT].try_into().expect("a field lies in its record")
}

fn key_of(record: &[u8; RECORD]) -> (u64, u64) {
    (u64::from_le_bytes(word(record, 0)), u64::from_le_bytes(word(record, 8)))
}

fn encode((device, inode): (u64, u64), known: &Known) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&device.to_le_bytes());
    record[8..16].copy_from_slice(&inode.to_le_bytes());
    record[16..24].copy_from_slice(&known.changed.0.to_le_bytes());
    record[24..28].copy_from_slice(&known.changed.1.to_le_bytes());
    record[28..36].copy_from_slice(&known.size.to_le_bytes());
    record[36..68].copy_from_slice(&known.content);
    record[68] = known.plain.into();
    record
}

fn decode(record: &[u8; RECORD]) -> Known {
    let changed = (i64::from_le_bytes(word(record, 16)), u32::from_le_bytes(word(record, 24)));
    let size = u64::from_le_bytes(word(record, 28));
    Known { changed, size, content: word(record, 36), plain: record[68] == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(inode: u64, seconds: i64) -> Stat {
        let mut stat = rustix::fs::stat("/").expect("there is a root");
        (stat.st_ino, stat.st_size, stat.st_ctime, stat.st_ctime_nsec) = (inode, 9, seconds as _, 5 as _);
        stat
    }

    #[test]
    fn what_is_saved_is_known_until_it_changes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cache");
        let facts = |content: u8| Facts { content: [content; 32], plain: content.is_multiple_of(2) };
        let cache = FileCache::open(&path);
        [5, 3, 900, 4].iter().for_each(|inode| cache.put(&stat(*inode, 7), facts(*inode as u8)));
        assert_eq!(cache.get(&stat(900, 7)), Some(facts(132)));
        cache.save().expect("saved");
        let again = FileCache::open(&path);
        assert_eq!(
            [3, 4, 5, 900].map(|inode| again.get(&stat(inode, 7))),
            [3, 4, 5, 132].map(|n| Some(facts(n)))
        );
        assert_eq!((again.get(&stat(4, 8)), again.get(&stat(6, 7))), (None, None), "changed, and unknown");
        again.put(&stat(4, 8), facts(40));
        again.put(&stat(1, 7), facts(1));
        assert_eq!((again.get(&stat(4, 8)), again.get(&stat(4, 7))), (Some(facts(40)), None));
        again.save().expect("saved");
        let third = FileCache::open(&path);
        assert_eq!([1, 3].map(|inode| third.get(&stat(inode, 7))), [1, 3].map(|n| Some(facts(n))));
        assert_eq!(third.get(&stat(4, 8)), Some(facts(40)));
        let mut bytes = fs::read(&path).expect("read");
        bytes[20] ^= 1;
        fs::write(&path, bytes).expect("written");
        assert_eq!(FileCache::open(&path).get(&stat(3, 7)), None, "damaged");
    }

    #[test]
    fn what_changed_just_now_is_not_kept() {
        let cache = FileCache::open(Path::new("/nowhere"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
        let young = stat(1, now.as_secs() as i64 + 1);
        cache.put(&young, Facts { content: [0; 32], plain: true });
        assert_eq!(cache.get(&young), None);
    }
}
