//! What can go wrong with a registry; no text of an error holds a credential or a query.

/// An error of the registry client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The registry answered that it will not.
    #[error("{method} {url}: {status}{detail} (after {attempts} attempts)")]
    Refused {
        /// The request's method.
        method: &'static str,
        /// Where to, without query and user.
        url: String,
        /// What the status means.
        status: String,
        /// The registry's own words.
        detail: String,
        /// The status code.
        code: u16,
        /// How often it was tried.
        attempts: u32,
    },
    /// No answer came.
    #[error("{method} {url}: no answer (after {attempts} attempts)")]
    Unreachable {
        /// The request's method.
        method: &'static str,
        /// Where to, without query and user.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// The last reason.
        #[source]
        source: Box<ureq::Error>,
    },
    /// A body ended early or was unreadable, however often it was asked for.
    #[error("read {url}: the body failed {attempts} times")]
    Body {
        /// From where, without query and user.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// The last reason.
        #[source]
        source: std::io::Error,
    },
    /// An answer or a configuration breaks a rule.
    #[error("{0}")]
    Rule(String),
    /// A credential helper failed.
    #[error("credential helper {helper}: {reason}")]
    Helper {
        /// The helper's program.
        helper: String,
        /// What it said, or why it could not be asked.
        reason: String,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] hull_image::Error),
}

/// Result of speaking to a registry.
pub(crate) type Result<T> = std::result::Result<T, Error>;
