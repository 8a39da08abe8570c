//! `load`: images from an archive or directory, an image layout or Docker's own format, of either generation.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use hull_image::{
    Descriptor, Digest, Document, Image, ImageConfig, Index, Manifest, Reference, Store, annotation, media,
};
use hull_layer::{Decompressor, Kind, TarReader};
use serde::Deserialize;

use super::Outcome;
use crate::host;

/// How many bytes of an archive are kept in memory: documents outside `blobs`.
const MEMORY: u64 = 16 << 20;
/// The largest configuration of an image.
const MAX_CONFIG: usize = 4 << 20;
/// How many files an archive may have.
const MAX_FILES: usize = 100_000;

/// Arguments of `load`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Read a file or a directory instead of standard input
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// Accepted: all platforms of the archive are loaded
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

type Failure = Box<dyn std::error::Error>;

/// Loads the images and tells their names.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let loaded = match &arguments.input {
        Some(path) if path.is_dir() => from_layout(&store, path)?,
        Some(path) => {
            from_archive(&store, File::open(path).map_err(|e| format!("open {}: {e}", path.display()))?)?
        }
        None => from_archive(&store, io::stdin().lock())?,
    };
    if loaded.is_empty() {
        return Err("load: the archive holds no image".into());
    }
    for line in loaded.iter().filter(|_| !arguments.quiet) {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

fn from_layout(store: &Store, dir: &Path) -> Result<Vec<String>, Failure> {
    let layout = Store::open_foreign(dir)?;
    let index = layout.index()?;
    for entry in &index.manifests {
        copy(&layout, store, entry, 0)?;
    }
    name_all(store, &index)
}

/// Copies a document and all it leads to, as far as it is there; digests are checked on the way.
fn copy(from: &Store, to: &Store, descriptor: &Descriptor, depth: usize) -> Result<(), Failure> {
    let children = match from.document(descriptor)? {
        Document::Index(index) if depth < 4 => {
            for entry in index.manifests.iter().filter(|entry| from.has_blob(entry)) {
                copy(from, to, entry, depth + 1)?;
            }
            Vec::new()
        }
        Document::Index(_) => return Err("load: indexes are nested too deep".into()),
        Document::Manifest(manifest) => manifest.layers.into_iter().chain([manifest.config]).collect(),
    };
    for blob in children.iter().chain([descriptor]).filter(|blob| !to.has_blob(blob)) {
        to.put_expected_blob(blob, &mut from.blob(blob)?)?;
    }
    Ok(())
}

/// What an archive held: documents by name, blobs and layers already in the store, links.
#[derive(Default)]
struct Found {
    documents: BTreeMap<String, Vec<u8>>,
    stored: BTreeMap<String, Descriptor>,
    links: BTreeMap<String, String>,
    /// Bytes of all documents.
    held: u64,
}

fn from_archive(store: &Store, source: impl Read) -> Result<Vec<String>, Failure> {
    let mut reader = TarReader::new(Decompressor::archive(source, 0)?, 1 << 20);
    let mut found = Found::default();
    while let Some(entry) = reader.next_entry()? {
        let Some(path) = normal(&entry.name) else { continue };
        if found.documents.len() + found.stored.len() + found.links.len() > MAX_FILES {
            return Err(format!("load: the archive has more than {MAX_FILES} files").into());
        }
        match entry.kind {
            Kind::Symlink(target) | Kind::Hardlink(target) => {
                let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                let target = String::from_utf8_lossy(&target).into_owned();
                found.links.extend(resolve(dir, &target).map(|target| (path, target)));
            }
            Kind::File { size } => keep(store, &mut found, path, size, &mut reader)?,
            _ => {}
        }
    }
    match found.documents.get("index.json") {
        Some(bytes) if found.documents.contains_key("oci-layout") => {
            let index: Index =
                serde_json::from_slice(bytes).map_err(|e| format!("load: read index.json: {e}"))?;
            name_all(store, &index)
        }
        _ => from_docker(store, &found),
    }
}

/// Blobs go into the store under the digest their name promises, layers under the one they have.
fn keep(
    store: &Store,
    found: &mut Found,
    path: String,
    size: u64,
    data: &mut impl Read,
) -> Result<(), Failure> {
    if let Some(digest) = blob_digest(&path) {
        let descriptor = Descriptor::new(media::OCI_LAYER, digest, size);
        if store.has_blob(&descriptor) {
            io::copy(data, &mut io::sink())?;
        } else {
            store.put_expected_blob(&descriptor, data)?;
        }
        found.stored.insert(path, descriptor);
        return Ok(());
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.ends_with("json") || matches!(name, "oci-layout" | "repositories" | "VERSION") {
        found.held = found.held.saturating_add(size);
        if found.held > MEMORY {
            return Err(format!("load: the archive's documents have more than {MEMORY} bytes").into());
        }
        let mut bytes = Vec::with_capacity(size as usize);
        data.read_to_end(&mut bytes)?;
        found.documents.insert(path, bytes);
        return Ok(());
    }
    found.stored.insert(path, store.put_blob(media::OCI_LAYER, data)?);
    Ok(())
}

fn blob_digest(path: &str) -> Option<Digest> {
    let (algorithm, encoded) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{encoded}").parse().ok()
}

/// Names what an index names. A bare tag names nothing: such images are loaded without a name.
fn name_all(store: &Store, index: &Index) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for entry in &index.manifests {
        let image = store.image(entry, None);
        if let Ok(image) = &image {
            check(store, image)?;
        }
        let mut plain = entry.clone();
        plain.annotations.remove(annotation::REF_NAME);
        plain.annotations.remove(annotation::CONTAINERD_NAME);
        match full_name(entry) {
            Some(name) => {
                store.put_image(&name, &plain)?;
                lines.push(format!("Loaded image: {}", name.familiar()));
            }
            None => {
                store.put_nameless(&plain)?;
                let id = image.map_or_else(|_| entry.digest.clone(), |image| image.id().clone());
                lines.push(format!("Loaded image ID: {id}"));
            }
        }
    }
    Ok(lines)
}

fn full_name(entry: &Descriptor) -> Option<Reference> {
    let annotations = &entry.annotations;
    if let Some(name) = annotations.get(annotation::CONTAINERD_NAME) {
        return name.parse().ok();
    }
    let name = annotations.get(annotation::REF_NAME)?;
    name.contains([':', '/']).then(|| name.parse().ok())?
}

fn check(store: &Store, image: &Image) -> hull_image::Result<()> {
    image.manifest.layers.iter().try_for_each(|layer| store.blob(layer).map(drop))
}

/// An entry of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

fn from_docker(store: &Store, found: &Found) -> Result<Vec<String>, Failure> {
    let bytes = found
        .documents
        .get("manifest.json")
        .ok_or("load: neither an image layout nor an archive of Docker's")?;
    let entries: Vec<DockerEntry> =
        serde_json::from_slice(bytes).map_err(|e| format!("load: read manifest.json: {e}"))?;
    let mut lines = Vec::new();
    for entry in entries {
        let config_bytes = document(store, found, &entry.config)?;
        let config = ImageConfig::parse(&config_bytes)?;
        let layers = entry.layers.unwrap_or_default();
        config.check_layers(layers.len())?;
        let config_descriptor = store.put_bytes(media::OCI_CONFIG, &config_bytes)?;
        let layers = layers.iter().zip(&config.rootfs.diff_ids);
        let layers: Result<Vec<_>, Failure> =
            layers.map(|(path, id)| layer(store, found, path, id)).collect();
        let manifest = Manifest::new(config_descriptor, layers?);
        let descriptor = store.put_manifest(&manifest, Some(config.platform()))?;
        let names = entry.repo_tags.unwrap_or_default();
        for name in &names {
            let name: Reference = name.parse()?;
            store.put_image(&name, &descriptor)?;
            lines.push(format!("Loaded image: {}", name.familiar()));
        }
        if names.is_empty() {
            store.put_nameless(&descriptor)?;
            lines.push(format!("Loaded image ID: {}", manifest.config.digest));
        }
    }
    Ok(lines)
}

fn document(store: &Store, found: &Found, path: &str) -> Result<Vec<u8>, Failure> {
    match (found.documents.get(path), found.stored.get(path)) {
        (Some(bytes), _) => Ok(bytes.clone()),
        (None, Some(blob)) => Ok(store.read_blob(blob, MAX_CONFIG)?),
        (None, None) => Err(format!("load: the archive has no file {path}").into()),
    }
}

/// The layer at a path, described by what its first bytes are; an uncompressed one must have its diff id.
fn layer(store: &Store, found: &Found, path: &str, diff_id: &Digest) -> Result<Descriptor, Failure> {
    let mut path =
        normal(path.as_bytes()).ok_or_else(|| format!("load: layer path {path:?} leads nowhere"))?;
    for _ in 0..8 {
        match found.links.get(&path) {
            Some(target) => path = target.clone(),
            None => break,
        }
    }
    let missing = || format!("load: the archive has no file {path}");
    let mut descriptor = found.stored.get(&path).ok_or_else(missing)?.clone();
    let mut start = [0; 4];
    let count = store.blob(&descriptor)?.read(&mut start)?;
    descriptor.media_type = match start[..count] {
        [0x1f, 0x8b, ..] => media::OCI_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media::OCI_LAYER_ZSTD,
        _ if descriptor.digest != *diff_id => {
            return Err(format!("load: layer {path} is not {diff_id} but {}", descriptor.digest).into());
        }
        _ => media::OCI_LAYER,
    }
    .to_owned();
    Ok(descriptor)
}

/// A name in the archive without `./`; `None` for one that leads out of it.
fn normal(name: &[u8]) -> Option<String> {
    resolve("", std::str::from_utf8(name).ok()?)
}

fn resolve(dir: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.starts_with('/') {
        true => return None,
        false => dir.split('/').filter(|part| !part.is_empty()).collect(),
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            other => parts.push(other),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_an_archive_are_no_names() {
        assert_eq!(normal(b"./a/../b"), Some("b".to_owned()));
        assert_eq!(resolve("x", "../y/layer.tar"), Some("y/layer.tar".to_owned()));
        for bad in ["../a", "a/../../b", "/a", "", ".", "a/.."] {
            assert_eq!(normal(bad.as_bytes()), None, "{bad}");
        }
    }
}
