//! What can go wrong in a build.

use std::path::{Path, PathBuf};

use crate::dockerfile::diagnostic::Diagnostic;

/// An error of a build.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The Dockerfile is wrong.
    #[error("{0}")]
    Dockerfile(Box<Diagnostic>),
    /// A file operation failed.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A system call failed.
    #[error("{action}")]
    System {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: hull_sys::SysError,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] hull_image::Error),
    /// A layer could not be read or written.
    #[error(transparent)]
    Layer(#[from] hull_layer::Error),
    /// A layer is larger than it may be.
    #[error("a layer is too large (--layer-limit takes more)")]
    LargeLayer(#[source] hull_layer::Error),
    /// A path below a root could not be resolved.
    #[error(transparent)]
    Rooted(#[from] hull_rooted::Error),
    /// The command of a RUN ended with another code than 0.
    #[error("the command ended with exit code {code}")]
    Command {
        /// Its exit code.
        code: i32,
    },
    /// An ordinary user may make no user namespace here.
    #[error("make a user namespace, in which an ordinary user is root: forbidden here by {0}")]
    NoNamespace(String),
    /// Another step failed first.
    #[error("cancelled")]
    Cancelled,
    /// A fact in words.
    #[error("{0}")]
    Fact(String),
}

/// What most functions of the effectful half return.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps an I/O error.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// Wraps an error number with the path's bytes.
    pub(crate) fn errno(action: &'static str, path: &[u8]) -> impl FnOnce(rustix::io::Errno) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
        move |errno| Self::Io { action, path, source: errno.into() }
    }

    /// Wraps an error of a system call.
    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(hull_sys::SysError) -> Self {
        move |source| Self::System { action: action.into(), source }
    }

    /// A fact in words.
    pub(crate) fn fact(text: impl Into<String>) -> Self {
        Self::Fact(text.into())
    }
}

impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Dockerfile(Box::new(diagnostic))
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
