//! The one error of this crate.

use std::path::PathBuf;

/// What went wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An archive breaks a rule.
    #[error("read archive entry {index} ({}): {rule}", .name.escape_ascii())]
    Archive {
        /// The number of the entry, from 0.
        index: u64,
        /// Its name as far as known.
        name: Vec<u8>,
        /// The rule it breaks.
        rule: String,
    },
    /// An archive has more of something than it may.
    #[error("read archive entry {index} ({}): {excess}", .name.escape_ascii())]
    TooLarge {
        /// The number of the entry, from 0.
        index: u64,
        /// Its name as far as known.
        name: Vec<u8>,
        /// What there is too much of.
        excess: String,
    },
    /// A tree holds something that no layer can.
    #[error("pack {}: {rule}", .path.escape_ascii())]
    Pack {
        /// The path below the root.
        path: Vec<u8>,
        /// The rule it breaks.
        rule: String,
    },
    /// A file system call failed.
    #[error("{action} {}", .path.escape_ascii())]
    File {
        /// What was being done.
        action: &'static str,
        /// The path below the root.
        path: Vec<u8>,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file or directory of the host cannot be used.
    #[error("{action} {}", path.display())]
    Host {
        /// What was being done.
        action: &'static str,
        /// The path on the host.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The stream an archive is read from or written to failed.
    #[error("{0}")]
    Stream(&'static str, #[source] std::io::Error),
    /// The store or a document failed.
    #[error(transparent)]
    Image(#[from] hull_image::Error),
}

/// Result of an operation on layers.
pub type Result<T> = std::result::Result<T, Error>;

/// A stream that grows beyond measure, as the cause of an error in reading it.
#[derive(Debug, thiserror::Error)]
#[error("the stream grows more than {ratio} times when decompressed")]
pub(crate) struct Grows {
    /// How often as large it may be.
    pub(crate) ratio: u64,
}

impl Error {
    /// Whether a limit on the extent of an archive ended it, which who reads it may set higher.
    pub fn is_limit(&self) -> bool {
        let grows = |error: &(dyn std::error::Error + 'static)| {
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            inner.is_some_and(|inner| inner.is::<Grows>())
        };
        matches!(self, Self::TooLarge { .. })
            || std::iter::successors(Some(self as &(dyn std::error::Error + 'static)), |error| error.source())
                .any(grows)
    }

    /// Names the action and the path below the root; for `map_err`.
    pub(crate) fn file<E: Into<std::io::Error>>(action: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self {
        move |source| Self::File { action, path: path.to_vec(), source: source.into() }
    }

    /// Names the action and a path of the host; for `map_err`.
    pub(crate) fn host<E: Into<std::io::Error>>(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { action, path: path.to_owned(), source: source.into() }
    }
}
