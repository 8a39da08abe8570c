//! The check of a store: every blob against its name, every image against its blobs.

use std::fmt;
use std::fs;

use super::Store;
use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::document::Document;
use crate::error::{Error, Result};

/// Something wrong with the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A blob's content is not what its name says.
    Damaged(Digest),
    /// An image needs content that is not there, or cannot be read.
    Incomplete {
        /// The image's name or digest.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// An unpacked layer that a crash may have damaged; it is unpacked again when needed.
    Unsettled(String),
    /// An unpacked layer whose record cannot be read: it may be whole and in use, and stays.
    Unreadable {
        /// The name of its directory.
        layer: String,
        /// What is wrong.
        reason: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(digest) => write!(f, "blob {digest}: content differs from its name"),
            Self::Incomplete { image, reason } => write!(f, "image {image}: {reason}"),
            Self::Unsettled(layer) => write!(f, "layer {layer}: may be damaged by a crash"),
            Self::Unreadable { layer, reason } => write!(f, "layer {layer}: {reason}"),
        }
    }
}

fn chain(error: &Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

impl Store {
    /// Checks the whole store; with `repair` damaged blobs go to quarantine and doubtful layers are removed.
    pub fn check(&self, repair: bool) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for digest in self.blobs()? {
            if self.verify_blob(&digest).is_err() {
                if repair {
                    self.quarantine(&digest)?;
                }
                findings.push(Finding::Damaged(digest));
            }
        }
        for image in self.images()? {
            let name =
                image.reference.map_or_else(|| image.descriptor.digest.to_string(), |name| name.familiar());
            if let Err(error) = self.check_image(&image.descriptor, 0) {
                findings.push(Finding::Incomplete { image: name, reason: error.to_string() });
            }
        }
        let mut dirs = self.layer_dirs()?;
        dirs.sort();
        for dir in dirs {
            let layer = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match self.read_record(&dir) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    if repair {
                        self.discard(&dir)?;
                    }
                    findings.push(Finding::Unsettled(layer));
                }
                Err(error) => findings.push(Finding::Unreadable { layer, reason: chain(&error) }),
            }
        }
        Ok(findings)
    }

    /// Moves a damaged blob out of the way, so that it is fetched or built again.
    pub fn quarantine(&self, digest: &Digest) -> Result<()> {
        let from = self.blob_path(digest);
        let to = self.dir.join("quarantine").join(format!("{}-{}", digest.algorithm(), digest.encoded()));
        fs::rename(&from, &to).map_err(Error::io("move", &from))
    }

    /// An index must lead to one image for this host at least; a manifest needs its configuration and layers.
    fn check_image(&self, descriptor: &Descriptor, depth: usize) -> Result<()> {
        match self.document(descriptor)? {
            Document::Index(index) if depth < 4 => {
                let mut present = index.manifests.iter().filter(|entry| self.has_blob(entry));
                present.try_for_each(|entry| self.check_image(entry, depth + 1))
            }
            Document::Index(_) => Err(Error::document("index", "is nested too deep")),
            Document::Manifest(manifest) => {
                self.blob(&manifest.config)?;
                manifest.layers.iter().try_for_each(|layer| self.layer_present(layer))
            }
        }
    }

    fn layer_present(&self, layer: &Descriptor) -> Result<()> {
        self.blob(layer).map(drop)
    }
}
