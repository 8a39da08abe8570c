//! One entry of a layer: what it is and everything that belongs to its identity.

use std::collections::BTreeMap;

/// A moment, as file systems and archives write it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after that second, below 1 000 000 000.
    pub nanos: u32,
}

impl Time {
    /// A whole second.
    pub const fn at(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with its size in bytes.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link with its target, verbatim.
    Symlink(Vec<u8>),
    /// Another name of an earlier entry of the same layer, by its path below the root.
    Hardlink(Vec<u8>),
    /// A character device.
    Char {
        /// Device major number.
        major: u32,
        /// Device minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Device major number.
        major: u32,
        /// Device minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the root: no leading, trailing or doubled slash, no `.` or `..`; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content last changed.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Entry {
    /// A directory with mode 0755 that belongs to root.
    pub fn directory(path: &[u8]) -> Self {
        Self::new(path, Kind::Directory, 0o755)
    }

    /// A regular file of `size` bytes that belongs to root.
    pub fn file(path: &[u8], size: u64, mode: u32) -> Self {
        Self::new(path, Kind::File { size }, mode)
    }

    /// An entry that belongs to root, without extended attributes, at time 0.
    pub fn new(path: &[u8], kind: Kind, mode: u32) -> Self {
        Self {
            path: path.to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: BTreeMap::new(),
        }
    }

    /// Length in bytes of the data that follows in an archive.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size } => size,
            _ => 0,
        }
    }
}

/// The directory part and the last part of a path below a root.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Appends a name to a directory's path below a root.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        b"" => name.to_vec(),
        _ => [dir, b"/", name].concat(),
    }
}
