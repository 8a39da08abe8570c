//! The one error of this crate.

use hull_sys::SysError;
use hull_sys::fs::FileType;
use std::path::{Path, PathBuf};

/// Result of this crate's functions.
pub type Result<T> = core::result::Result<T, Error>;

/// Why a file could not be reached, made or believed. Paths are those the caller gave, inside the root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{action} {path:?}")]
    Call {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The call and its errno.
        #[source]
        source: SysError,
    },
    /// Something of another kind is there.
    #[error("{path:?} is {found}, not {wanted}")]
    Kind {
        /// Which file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it had to be.
        wanted: &'static str,
    },
    /// Somebody renames directories all the time.
    #[error("{path:?} kept changing while it was resolved")]
    Unsettled {
        /// Which path.
        path: PathBuf,
    },
    /// The path does not end in a name: it is the root or ends in `..`.
    #[error("{path:?} has no final name")]
    NoName {
        /// Which path.
        path: PathBuf,
    },
    /// The path cannot be allowed whatever is there.
    #[error("{path:?} {reason}")]
    Path {
        /// Which path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// What should be procfs is not, or not the whole of it.
    #[error("procfs {reason}")]
    NotProc {
        /// How that shows.
        reason: &'static str,
    },
    /// A value was written but another is there.
    #[error("{path:?} reads {found:?} after {wanted:?} was written")]
    NotKept {
        /// Which file.
        path: PathBuf,
        /// What was written.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A file has more than its reader allows.
    #[error("{path:?} has more than {limit} {unit}")]
    TooMuch {
        /// Which file.
        path: PathBuf,
        /// How much is allowed.
        limit: usize,
        /// Of what.
        unit: &'static str,
    },
    /// The current directory is not below the root.
    #[error("the current directory {path:?} is outside the container")]
    CwdOutside {
        /// What the kernel calls it.
        path: PathBuf,
    },
    /// The table of mounts cannot be understood.
    #[error("read the table of mounts")]
    MountInfo(#[from] crate::mountinfo::Malformed),
}

impl Error {
    /// Says what was done to `path` when a system call failed.
    pub(crate) fn call(action: &'static str, path: &Path) -> impl FnOnce(SysError) -> Self {
        move |source| Self::Call { action, path: path.to_owned(), source }
    }

    /// The errno, when a system call failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { source, .. } => Some(source.errno),
            _ => None,
        }
    }

    /// True when a system call failed with this errno.
    pub fn is(&self, errno: i32) -> bool {
        self.errno() == Some(errno)
    }
}

/// A word for a kind of file.
pub(crate) fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Unknown => "of an unknown kind",
    }
}
