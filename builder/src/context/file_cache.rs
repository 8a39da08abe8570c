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
    known: Mutex<State>,
}

/// Files by device and inode, and whether anything is new.
type State = (HashMap<(u64, u64), Known>, bool);

impl FileCache {
    /// Reads the cache at `path`; a damaged or missing one is empty.
    pub(crate) fn open(path: &Path) -> Self {
        let known = fs::metadata(path)
            .ok()
            .filter(|meta| meta.len() <= MAX_BYTES)
            .and_then(|_| fs::read(path).ok())
            .and_then(|bytes| decode(&bytes))
            .unwrap_or_default();
        Self { path: path.to_owned(), known: Mutex::new((known, false)) }
    }

    /// What is known of an unchanged file.
    pub(crate) fn get(&self, stat: &Stat) -> Option<Facts> {
        let guard = self.known.lock().expect("no thread panics with it");
        let known = guard.0.get(&(stat.st_dev, stat.st_ino))?;
        let same = known.changed == changed(stat) && known.size == stat.st_size as u64;
        same.then_some(Facts { content: known.content, plain: known.plain })
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
        let mut guard = self.known.lock().expect("no thread panics with it");
        guard.0.insert((stat.st_dev, stat.st_ino), known);
        guard.1 = true;
    }

    /// Writes the cache if anything changed; files that this build didn't ask for are kept as well.
    pub(crate) fn save(&self) -> Result<()> {
        let guard = self.known.lock().expect("no thread panics with it");
        if !guard.1 {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(MAGIC.len() + guard.0.len() * RECORD + 32);
        bytes.extend_from_slice(MAGIC);
        for ((device, inode), known) in &guard.0 {
            bytes.extend_from_slice(&device.to_le_bytes());
            bytes.extend_from_slice(&inode.to_le_bytes());
            bytes.extend_from_slice(&known.changed.0.to_le_bytes());
            bytes.extend_from_slice(&known.changed.1.to_le_bytes());
            bytes.extend_from_slice(&known.size.to_le_bytes());
            bytes.extend_from_slice(&known.content);
            bytes.push(known.plain.into());
        }
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

fn decode(bytes: &[u8]) -> Option<HashMap<(u64, u64), Known>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    let records = body.strip_prefix(MAGIC)?;
    if checksum(body) != check || !records.len().is_multiple_of(RECORD) {
        return None;
    }
    let mut known = HashMap::with_capacity(records.len() / RECORD);
    for record in records.chunks_exact(RECORD) {
        let word = |at: usize| -> [u8; 8] { record[at..at + 8].try_into().expect("eight bytes") };
        let seconds = i64::from_le_bytes(word(16));
        let nanos = u32::from_le_bytes(record[24..28].try_into().expect("four bytes"));
        let key = (u64::from_le_bytes(word(0)), u64::from_le_bytes(word(8)));
        let size = u64::from_le_bytes(word(28));
        let content = record[36..68].try_into().expect("32 bytes");
        let plain = record[68] == 1;
        known.insert(key, Known { changed: (seconds, nanos), size, content, plain });
    }
    Some(known)
}
