//! The check of a store: every blob against its name, every image against its blobs.

use std::fmt;
use std::fs;
use std::path::Path;

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
    /// A blob, or the record of an unpacked layer, that cannot be read: it may be whole and in use, and stays.
    Unreadable {
        /// What it is, with its name.
        what: String,
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
            Self::Unreadable { what, reason } => write!(f, "{what}: {reason}"),
        }
    }
}

fn chain(error: &Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

impl Store {
    /// Checks the whole store, and changes nothing. What others take away meanwhile is no finding.
    ///
    /// # Errors
    /// A directory of the store cannot be read, or its index.
    pub fn check(&self) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for digest in self.blobs()? {
            findings.extend(self.check_blob(&digest));
        }
        for image in self.images()? {
            let Err(error) = self.check_image(&image.descriptor, 0) else { continue };
            if self.images()?.contains(&image) {
                let digest = image.descriptor.digest.to_string();
                let image = image.reference.map_or(digest, |name| name.familiar());
                findings.push(Finding::Incomplete { image, reason: error.to_string() });
            }
        }
        let mut dirs = self.layer_dirs()?;
        dirs.sort();
        findings.extend(dirs.iter().filter_map(|dir| self.check_layer(dir)));
        Ok(findings)
    }

    fn check_blob(&self, digest: &Digest) -> Option<Finding> {
        match self.verify_blob(digest) {
            Ok(_) | Err(Error::NoBlob(_)) => None,
            Err(Error::Mismatch { .. }) => Some(Finding::Damaged(digest.clone())),
            Err(error) => Some(Finding::Unreadable { what: format!("blob {digest}"), reason: chain(&error) }),
        }
    }

    fn check_layer(&self, dir: &Path) -> Option<Finding> {
        let layer = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match self.read_record(dir) {
            Ok(None) if dir.exists() => Some(Finding::Unsettled(layer)),
            Ok(_) => None,
            Err(error) => Some(Finding::Unreadable { what: format!("layer {layer}"), reason: chain(&error) }),
        }
    }

    /// Mends what [`Store::check`] has found, where it still is so: damaged blobs go to quarantine and doubtful layers are
    /// removed. Within [`Store::alone`]: a build may be about to use either.
    ///
    /// # Errors
    /// Something cannot be moved or removed.
    pub fn repair(&self, findings: &[Finding]) -> Result<()> {
        for finding in findings {
            match finding {
                Finding::Damaged(digest) if self.check_blob(digest).as_ref() == Some(finding) => {
                    self.quarantine(digest)?;
                }
                Finding::Unsettled(layer) => {
                    let dir = self.dir.join("layers").join(layer);
                    if self.check_layer(&dir).as_ref() == Some(finding) {
                        self.discard(&dir)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
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
