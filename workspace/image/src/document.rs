//! Manifests and indexes, and the rule that a document is only one of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::descriptor::{Descriptor, media};
use crate::error::{Error, Result};
use crate::json::null_is_default;
use crate::platform::Platform;

/// The largest manifest or index that is read, in bytes (distribution specification: at least 4 MiB).
pub const MAX_BYTES: usize = 4 << 20;

/// One image: its configuration and its layers, base first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What this document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The kind of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, base first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Manifest {
    /// An OCI manifest.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: Map::new(),
        }
    }
}

/// A list of manifests in order of preference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What this document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The kind of an artifact that is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests: Vec::new(),
            subject: None,
            annotations: BTreeMap::new(),
            extra: Map::new(),
        }
    }
}

impl Index {
    /// The entry that serves `wanted` best; of equals the first.
    ///
    /// Attestations, artifacts and entries whose media type is unknown are passed over. An entry that names no platform
    /// serves only when no other does.
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let candidates = || self.manifests.iter().filter(|entry| is_image(entry));
        let fitting = candidates()
            .filter_map(|entry| Some((entry.platform.as_ref()?.fit(wanted)?, entry)))
            .min_by_key(|(fit, _)| *fit)
            .map(|(_, entry)| entry);
        fitting.or_else(|| candidates().find(|entry| entry.platform.is_none()))
    }
}

fn is_image(entry: &Descriptor) -> bool {
    let known = media::is_manifest(&entry.media_type) || media::is_index(&entry.media_type);
    known && !entry.platform.as_ref().is_some_and(Platform::is_unknown) && entry.artifact_type.is_none()
}

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Box<Manifest>),
    /// Several.
    Index(Box<Index>),
}

impl Document {
    /// Reads `bytes`, which were announced as `media_type` (empty for unannounced).
    ///
    /// # Errors
    /// A document that is both kinds, or another kind than it or its announcement says, is refused (CVE-2021-41190).
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self> {
        let refuse = |reason: String| Error::document("manifest", reason);
        if bytes.len() > MAX_BYTES {
            return Err(refuse(format!("is {} bytes, more than {MAX_BYTES}", bytes.len())));
        }
        let tree: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| refuse(e.to_string()))?;
        let announced = media_type.split(';').next().unwrap_or_default().trim();
        let inside = tree.get("mediaType").and_then(Value::as_str).unwrap_or_default();
        if !inside.is_empty() && is_specific(announced) && inside != announced {
            return Err(refuse(format!(
                "is a {inside} by its own word but a {announced} by its announcement"
            )));
        }
        let index = tree.contains_key("manifests");
        if index && (tree.contains_key("layers") || tree.contains_key("config")) {
            return Err(refuse("has the fields of both a manifest and an index".to_owned()));
        }
        for said in [announced, inside] {
            if (media::is_index(said) && !index) || (media::is_manifest(said) && index) {
                return Err(refuse(format!("has not the fields of a {said}")));
            }
        }
        if tree.get("schemaVersion") != Some(&Value::from(2)) {
            return Err(refuse("has another schema version than 2".to_owned()));
        }
        let tree = Value::Object(tree);
        let read = if index {
            serde_json::from_value(tree).map(|index| Self::Index(Box::new(index)))
        } else {
            serde_json::from_value(tree).map(|manifest| Self::Manifest(Box::new(manifest)))
        };
        read.map_err(|e| refuse(e.to_string()))
    }
}

/// Registries announce some documents as plain JSON: that says nothing.
fn is_specific(media_type: &str) -> bool {
    !matches!(media_type, "" | "application/json" | "application/octet-stream" | "text/plain")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn entry(platform: Option<&str>, content: &str) -> Descriptor {
        let mut entry = Descriptor::of(media::OCI_MANIFEST, content.as_bytes());
        entry.platform = platform.map(|text| text.parse().unwrap());
        entry
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        let digest = Digest::of(b"");
        let config = format!(r#""config":{{"mediaType":"c","digest":"{digest}","size":0}}"#);
        let manifest = format!(r#"{{"schemaVersion":2,{config},"layers":[]}}"#);
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(Document::parse(manifest.as_bytes(), ""), Ok(Document::Manifest(_))));
        assert!(matches!(Document::parse(index.as_bytes(), media::OCI_INDEX), Ok(Document::Index(_))));
        assert!(matches!(
            Document::parse(index.as_bytes(), "application/json; charset=utf-8"),
            Ok(Document::Index(_))
        ));
        for (text, announced) in [
            (format!(r#"{{"schemaVersion":2,{config},"layers":[],"manifests":[]}}"#), ""),
            (index.to_owned(), media::OCI_MANIFEST),
            (manifest.clone(), media::DOCKER_LIST),
            (
                manifest.replace("\"layers\"", &format!("\"mediaType\":\"{}\",\"layers\"", media::OCI_INDEX)),
                "",
            ),
            (
                manifest
                    .replace("\"layers\"", &format!("\"mediaType\":\"{}\",\"layers\"", media::OCI_MANIFEST)),
                media::DOCKER_MANIFEST,
            ),
            (r#"{"schemaVersion":1,"manifests":[]}"#.to_owned(), ""),
            ("[]".to_owned(), ""),
            (format!("{}{index}", " ".repeat(MAX_BYTES)), ""),
        ] {
            assert!(
                Document::parse(text.as_bytes(), announced).is_err(),
                "{:.200} as {announced}",
                text.trim()
            );
        }
    }

    #[test]
    fn the_best_platform_wins_and_attestations_never() {
        let mut attestation = entry(Some("unknown/unknown"), "att");
        attestation.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
        let index = Index {
            manifests: vec![
                attestation,
                entry(Some("linux/arm/v6"), "v6"),
                entry(Some("linux/arm/v7"), "v7"),
                entry(Some("linux/amd64"), "amd"),
                entry(None, "any"),
            ],
            ..Index::default()
        };
        for (wanted, content) in
            [("linux/arm/v7", "v7"), ("linux/arm/v6", "v6"), ("linux/amd64", "amd"), ("linux/s390x", "any")]
        {
            let chosen = index.select(&wanted.parse().unwrap()).unwrap();
            assert_eq!(chosen.digest, Digest::of(content.as_bytes()), "{wanted}");
        }
    }
}
