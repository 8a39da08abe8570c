//! The one error of this crate.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::platform::Platform;

/// What went wrong with an image document or the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Text that should be a digest is not one.
    #[error("read digest {text:?}: {reason}")]
    Digest {
        /// The text as given.
        text: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Text that should name an image does not.
    #[error("read image name {text:?}: {reason}")]
    Reference {
        /// The text as given.
        text: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// A document is not what it says it is.
    #[error("read {what}: {reason}")]
    Document {
        /// The kind of document.
        what: &'static str,
        /// Which rule it breaks.
        reason: String,
    },
    /// Content has another length or digest than its descriptor says.
    #[error("verify {digest}: {reason}")]
    Mismatch {
        /// The digest that was asked for.
        digest: Digest,
        /// What was found instead.
        reason: String,
    },
    /// A file of the store cannot be used.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The stream a blob is read from failed.
    #[error("read the content of a blob")]
    Stream(#[source] std::io::Error),
    /// No image has this name or id.
    #[error("find image {0}: no such image in the store")]
    NoImage(String),
    /// Several images have an id that begins so.
    #[error("find image {0}: several begin so")]
    Ambiguous(String),
    /// An index has no image that serves a platform.
    #[error("find image for platform {platform} in {index}: no such image in the store")]
    NoPlatform {
        /// The one that was asked for.
        platform: Platform,
        /// The index.
        index: Digest,
    },
    /// The store lacks content that an image needs.
    #[error("find {0}: no such blob in the store")]
    NoBlob(Digest),
    /// Another process holds the store or a part of it.
    #[error("lock {0}: in use by another process")]
    Busy(String),
    /// The directory holds something else than a store this version can use.
    #[error("open store {}: {reason}", path.display())]
    Layout {
        /// The directory.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
}

/// Result of an operation on images.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Names the file and the action of a failed call; for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// The same for a failed call of `rustix`.
    pub fn errno(action: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io { action, path: path.to_owned(), source: errno.into() }
    }

    /// A document that breaks a rule.
    pub fn document(what: &'static str, reason: impl ToString) -> Self {
        Self::Document { what, reason: reason.to_string() }
    }
}
