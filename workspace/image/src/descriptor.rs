//! Descriptors and the media types they name (image specification, descriptor and media types).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::json::null_is_default;
use crate::platform::Platform;

/// Media types read and written here.
#[allow(missing_docs, reason = "each name is the short form of its value")]
pub mod media {
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    /// True for a manifest of one image.
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
    }

    /// True for a list of manifests.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, OCI_INDEX | DOCKER_LIST)
    }
}

/// Annotation keys used here.
#[allow(missing_docs, reason = "each name is the short form of its value")]
pub mod annotation {
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
    pub const CREATED: &str = "org.opencontainers.image.created";
    pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
    pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
}

/// How a layer's tar archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, possibly several members.
    Gzip,
    /// RFC 8878, possibly several frames.
    Zstd,
}

/// Points at content: what it is, its digest, and its size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// Its identity.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Places it may be had from; kept, never trusted.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub urls: Vec<String>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself in base64, when embedded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The platform of a manifest in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The kind of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Descriptor {
    /// A descriptor with the three required fields.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
            extra: Map::new(),
        }
    }

    /// Describes `bytes`.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// How the layer is compressed; `None` when the media type is not a layer's.
    pub fn layer_compression(&self) -> Option<Compression> {
        let plain = self.media_type.split(';').next().unwrap_or_default();
        let kind = plain
            .strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar")
            .or_else(|| plain.strip_prefix("application/vnd.oci.image.layer.v1.tar"))
            .or_else(|| plain.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar"))
            .or_else(|| plain.strip_prefix("application/vnd.docker.image.rootfs.diff.tar"))?;
        match kind {
            "" => Some(Compression::None),
            "+gzip" | ".gzip" => Some(Compression::Gzip),
            "+zstd" | ".zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_media_types_tell_their_compression() {
        for (media_type, expected) in [
            (media::OCI_LAYER, Some(Compression::None)),
            (media::OCI_LAYER_GZIP, Some(Compression::Gzip)),
            (media::OCI_LAYER_ZSTD, Some(Compression::Zstd)),
            (media::DOCKER_LAYER, Some(Compression::None)),
            (media::DOCKER_LAYER_GZIP, Some(Compression::Gzip)),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", Some(Compression::Zstd)),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", None),
            (media::OCI_CONFIG, None),
        ] {
            assert_eq!(Descriptor::of(media_type, b"").layer_compression(), expected, "{media_type}");
        }
    }

    #[test]
    fn unknown_fields_survive_a_round_trip() {
        let text =
            format!(r#"{{"digest":"{}","extra":{{"a":[1]}},"mediaType":"m","size":3}}"#, Digest::of(b"abc"));
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        assert_eq!(String::from_utf8(crate::canonical(&descriptor)).unwrap(), text);
    }

    #[test]
    fn null_means_absent() {
        let text = format!(
            r#"{{"digest":"{}","size":3,"mediaType":"m","urls":null,"annotations":null}}"#,
            Digest::of(b"")
        );
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        assert!(descriptor.urls.is_empty() && descriptor.annotations.is_empty());
    }
}
