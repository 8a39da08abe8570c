//! Images by name: the index of the store, which is always written last.

use std::io::ErrorKind;

use super::{Store, read_bounded};
use crate::config::{self, ImageConfig};
use crate::descriptor::{Descriptor, annotation, media};
use crate::digest::Digest;
use crate::document::{self, Document, Index, Manifest};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::reference::Reference;

/// How deep indexes may be nested.
const MAX_DEPTH: usize = 4;
/// The largest index of a store, in bytes.
const MAX_STORE_INDEX: usize = 64 << 20;

/// An entry of the store's index: a name, if it has one, and what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// The complete name; none for an image that lost its last one.
    pub reference: Option<Reference>,
    /// A manifest or an index of several platforms.
    pub descriptor: Descriptor,
}

/// One image with its documents read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Describes the manifest.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: ImageConfig,
}

impl Image {
    /// The image's id: the digest of its configuration.
    pub fn id(&self) -> &Digest {
        &self.manifest.config.digest
    }
}

impl Store {
    /// All entries of the index, in its order.
    pub fn images(&self) -> Result<Vec<Tagged>> {
        let index = self.index()?;
        Ok(index
            .manifests
            .into_iter()
            .map(|descriptor| Tagged { reference: name_of(&descriptor), descriptor })
            .collect())
    }

    /// The index document.
    pub fn index(&self) -> Result<Index> {
        let file = match self.open_file("index.json") {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(Index::default());
            }
            other => other?,
        };
        let bytes = read_bounded(file, MAX_STORE_INDEX, "index of the store")?;
        serde_json::from_slice(&bytes).map_err(|e| Error::document("index of the store", e))
    }

    /// What `reference` names; a digest in it must agree.
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let images = self.images()?;
        let found = images.into_iter().find(|image| {
            image.reference.as_ref().is_some_and(|name| match &reference.digest {
                Some(digest) => name.name() == reference.name() && image.descriptor.digest == *digest,
                None => name.name() == reference.name() && name.tag == reference.tag,
            })
        });
        Ok(found.map(|image| image.descriptor))
    }

    /// Finds an image by name, or by the beginning of its id or manifest digest.
    ///
    /// # Errors
    /// No image or more than one has it.
    pub fn find(&self, text: &str) -> Result<Tagged> {
        if let Ok(reference) = text.parse::<Reference>()
            && let Some(descriptor) = self.resolve(&reference)?
        {
            return Ok(Tagged { reference: Some(reference), descriptor });
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::NoImage(text.to_owned()));
        }
        let mut found: Vec<Tagged> = self.images()?;
        found.retain(|image| self.has_id(&image.descriptor, prefix));
        let first = found.first().cloned().ok_or_else(|| Error::NoImage(text.to_owned()))?;
        match found.iter().all(|other| other.descriptor.digest == first.descriptor.digest) {
            true => Ok(first),
            false => Err(Error::Ambiguous(text.to_owned())),
        }
    }

    /// Reads one image: of an index the one that fits `platform` (the host's when not given) best.
    pub fn image(&self, descriptor: &Descriptor, platform: Option<&Platform>) -> Result<Image> {
        let host = Platform::host();
        let wanted = platform.unwrap_or(&host);
        let mut descriptor = descriptor.clone();
        for _ in 0..MAX_DEPTH {
            match self.document(&descriptor)? {
                Document::Index(index) => {
                    let missing =
                        || Error::NoPlatform { platform: wanted.clone(), index: descriptor.digest.clone() };
                    descriptor = index.select(wanted).ok_or_else(missing)?.clone();
                }
                Document::Manifest(manifest) => return self.read_image(descriptor, *manifest),
            }
        }
        Err(Error::document("index", format!("is nested more than {MAX_DEPTH} deep")))
    }

    /// Reads a manifest or an index and checks its digest.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Document> {
        let bytes = self.read_blob(descriptor, document::MAX_BYTES)?;
        Document::parse(&bytes, &descriptor.media_type)
    }

    /// Stores a configuration in canonical form.
    pub fn put_config(&self, config: &ImageConfig) -> Result<Descriptor> {
        self.put_bytes(media::OCI_CONFIG, &crate::canonical(config))
    }

    /// Stores a manifest in canonical form; its descriptor carries the platform.
    pub fn put_manifest(&self, manifest: &Manifest, platform: Option<Platform>) -> Result<Descriptor> {
        let media_type = manifest.media_type.as_deref().unwrap_or(media::OCI_MANIFEST);
        let mut descriptor = self.put_bytes(media_type, &crate::canonical(manifest))?;
        descriptor.platform = platform;
        Ok(descriptor)
    }

    /// Names an image; what had the name before keeps its place in the index without one.
    ///
    /// # Errors
    /// The manifest must already be in the store.
    pub fn put_image(&self, reference: &Reference, descriptor: &Descriptor) -> Result<()> {
        self.document(descriptor)?;
        self.change_index(|index| {
            drop_name(index, reference);
            let nameless = |entry: &Descriptor| entry.digest == descriptor.digest && name_of(entry).is_none();
            index.manifests.retain(|entry| !nameless(entry));
            index.manifests.push(named(descriptor, reference));
            Ok(())
        })
    }

    /// Puts an image without a name into the index, unless it is there already.
    pub fn put_nameless(&self, descriptor: &Descriptor) -> Result<()> {
        self.document(descriptor)?;
        self.change_index(|index| {
            if !index.manifests.iter().any(|entry| entry.digest == descriptor.digest) {
                index.manifests.push(without_name(descriptor));
            }
            Ok(())
        })
    }

    /// Takes a name away; true when the image lost its last one, and then it is in the index no more.
    pub fn untag(&self, reference: &Reference) -> Result<bool> {
        self.change_index(|index| {
            let has_name =
                |entry: &Descriptor| name_of(entry).is_some_and(|name| same_name(&name, reference));
            let position = index.manifests.iter().position(has_name);
            let position = position.ok_or_else(|| Error::NoImage(reference.familiar()))?;
            let gone = index.manifests.remove(position);
            Ok(!index.manifests.iter().any(|entry| entry.digest == gone.digest))
        })
    }

    /// Removes entries as [`Store::images`] gave them. What got a name since is another entry, and stays.
    pub fn remove_entries(&self, seen: &[Tagged]) -> Result<()> {
        self.change_index(|index| {
            index.manifests.retain(|entry| !seen.iter().any(|seen| seen.descriptor == *entry));
            Ok(())
        })
    }

    fn change_index<T>(&self, change: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        let _lock = self.lock("index")?;
        let mut index = self.index()?;
        let before = index.clone();
        let answer = change(&mut index)?;
        if index != before {
            self.replace_file("index.json", &crate::canonical(&index))?;
        }
        Ok(answer)
    }

    fn read_image(&self, descriptor: Descriptor, manifest: Manifest) -> Result<Image> {
        let bytes = self.read_blob(&manifest.config, config::MAX_BYTES)?;
        let config = ImageConfig::parse(&bytes)?;
        config.check_layers(manifest.layers.len())?;
        Ok(Image { descriptor, manifest, config })
    }

    fn has_id(&self, descriptor: &Descriptor, prefix: &str) -> bool {
        let id = || self.image(descriptor, None).is_ok_and(|image| image.id().encoded().starts_with(prefix));
        descriptor.digest.encoded().starts_with(prefix) || id()
    }
}

/// The name an index entry carries: containerd's annotation holds it in full, the standard one often only a tag.
pub(super) fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    let annotations = &descriptor.annotations;
    let text =
        annotations.get(annotation::CONTAINERD_NAME).or_else(|| annotations.get(annotation::REF_NAME))?;
    text.parse().ok()
}

fn same_name(left: &Reference, right: &Reference) -> bool {
    left.name() == right.name()
        && left.tag == right.tag
        && (left.tag.is_some() || left.digest == right.digest)
}

fn drop_name(index: &mut Index, reference: &Reference) {
    let has_name = |entry: &Descriptor| name_of(entry).is_some_and(|name| same_name(&name, reference));
    let Some(position) = index.manifests.iter().position(has_name) else { return };
    let old = index.manifests.remove(position);
    if !index.manifests.iter().any(|entry| entry.digest == old.digest) {
        index.manifests.push(without_name(&old));
    }
}

fn named(descriptor: &Descriptor, reference: &Reference) -> Descriptor {
    // A tag and a digest: the tag is the name, the digest is the descriptor's.
    let name = match &reference.tag {
        Some(_) => Reference { digest: None, ..reference.clone() },
        None => reference.clone(),
    };
    let mut entry = descriptor.clone();
    entry.annotations.insert(annotation::CONTAINERD_NAME.to_owned(), name.to_string());
    entry.annotations.insert(annotation::REF_NAME.to_owned(), name.to_string());
    entry
}

fn without_name(descriptor: &Descriptor) -> Descriptor {
    let mut entry = descriptor.clone();
    entry.annotations.remove(annotation::CONTAINERD_NAME);
    entry.annotations.remove(annotation::REF_NAME);
    entry
}
