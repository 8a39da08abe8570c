//! The registry client: OCI distribution over a blocking HTTP client, a few threads at most.
//!
//! Redirects, authorisation and retries are decided here and nowhere else: a credential belongs to one origin and goes
//! to no other (security rule R21); every body is checked against its digest by the store.

mod ahead;
mod auth;
mod challenge;
mod client;
mod credentials;
mod endpoint;
mod error;
mod later;
mod pull;
mod push;
mod trust;
mod upload;
mod wire;

pub(crate) use ahead::Ahead;
pub(crate) use client::Client;
pub(crate) use credentials::{AuthFile, Credential, Secret, docker_file};
pub(crate) use endpoint::{Origin, redacted};
pub(crate) use error::{Error, Result};
pub(crate) use later::moment;
pub(crate) use pull::{Pulled, look, next_page, pull, tags};
pub(crate) use push::push;
pub(crate) use wire::{Body, Request, Wire, resolve};

use std::time::Duration;

use crate::progress::Shown;

/// Whom the options are used with: what of them counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// The registry that the command line means: all of it.
    Named,
    /// A mirror, which the command line names as well: it is trusted by what is said of trust, told and shown nothing.
    Mirror,
    /// A registry that a Dockerfile names: neither `credential`, `plain_http`, `certificates` nor a `tls_verify` of false.
    Other,
}

/// How to speak to registries; from the command line.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Check certificates.
    pub(crate) tls_verify: bool,
    /// Directories with certificates, beside those of the host in `certs.d`.
    pub(crate) certificates: Vec<std::path::PathBuf>,
    /// Speak plain HTTP, credentials included.
    pub(crate) plain_http: bool,
    /// How often a request is tried again.
    pub(crate) retries: u32,
    /// The first pause before trying again; doubled each time.
    pub(crate) pause: Duration,
    /// User and password given on the command line.
    pub(crate) credential: Option<Credential>,
    /// Who is spoken to.
    pub(crate) party: Party,
    /// File with credentials, instead of the usual ones.
    pub(crate) auth_file: Option<std::path::PathBuf>,
    /// How the blobs that come and go are shown.
    pub(crate) shown: Shown,
    /// `[REGISTRY=]URL` of places that are asked before a registry when pulling; without a name, before docker.io.
    pub(crate) mirrors: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls_verify: true,
            certificates: Vec::new(),
            plain_http: false,
            retries: 4,
            pause: Duration::from_millis(300),
            credential: None,
            party: Party::Named,
            auth_file: None,
            shown: Shown::Nothing,
            mirrors: Vec::new(),
        }
    }
}
