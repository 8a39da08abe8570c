//! Image documents and the store that holds them.
//!
//! The documents (descriptor, manifest, index, configuration) keep every field they do not know, so that rewriting
//! somebody else's configuration loses nothing. The store is an OCI image layout that several processes share.
//! Nothing here speaks to a network or unpacks a layer.
#![forbid(unsafe_code)]

mod config;
mod descriptor;
mod digest;
mod document;
mod error;
mod json;
mod platform;
mod reference;
mod store;

pub use config::{Healthcheck, History, ImageConfig, RootFs, RunConfig};
pub use descriptor::{Compression, Descriptor, annotation, media};
pub use digest::{Digest, Hasher, HashingReader};
pub use document::{Document, Index, MAX_BYTES as MAX_DOCUMENT, Manifest};
pub use error::{Error, Result};
pub use json::canonical;
pub use platform::Platform;
pub use reference::Reference;
pub use store::{
    Announce, BlobWriter, Finding, Freed, Growing, Image, LayerRecord, Lock, Made, SETTLE_AFTER, Sealed,
    Snapshot, Store, Tagged, chain_id, default_dir, layer_name, publish, remove,
};
