//! `save`: images as one archive that is an image layout and Docker's own format at once.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use hull_image::{
    Descriptor, Digest, Document, Image, Index, Platform, Reference, Store, Tagged, annotation, canonical,
};
use hull_layer::{Entry, TarWriter, TimeRule};
use serde_json::{Value, json};

use super::Outcome;
use super::whole_file::write_whole;
use crate::host;

/// Arguments of `save`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Names or ids
    #[arg(required = true)]
    images: Vec<String>,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only this platform of an image that has several
    #[arg(long)]
    platform: Option<Platform>,
}

/// Writes the archive.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let images = arguments.images.iter().map(|text| asked(&store, text));
    let images = images.collect::<hull_image::Result<Vec<_>>>()?;
    let platform = arguments.platform.as_ref();
    match &arguments.output {
        Some(path) => write_whole(path, |file| save(&store, &images, platform, file))?,
        None if io::stdout().is_terminal() => {
            return Err("save: an archive is not for a terminal: use -o FILE or redirect".into());
        }
        None => save(&store, &images, platform, io::stdout().lock())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds an image; given by id or digest it is saved without a name, as another one may have the tag.
fn asked(store: &Store, text: &str) -> hull_image::Result<Tagged> {
    let Tagged { reference, descriptor } = store.find(text)?;
    let is_name = |name: &Reference| {
        name.digest.is_none() && text.parse::<Reference>().is_ok_and(|asked| asked == *name)
    };
    let reference = reference.filter(is_name);
    Ok(Tagged { reference, descriptor })
}

/// Writes images of the store as an archive to a file, whole or not at all, or with `-` to standard output.
pub(crate) fn archive(
    store: &Store,
    images: &[Tagged],
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    match path.as_os_str() == "-" {
        true => save(store, images, None, io::stdout().lock()),
        false => write_whole(path, |file| save(store, images, None, file)),
    }
}

/// What goes into an archive.
#[derive(Default)]
struct Content {
    index: Index,
    docker: Vec<Value>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
    blobs: BTreeMap<Digest, Descriptor>,
}

fn save(
    store: &Store,
    images: &[Tagged],
    platform: Option<&Platform>,
    sink: impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut content = Content::default();
    for tagged in images {
        add(store, tagged, platform, &mut content)?;
    }
    let mut writer = TarWriter::new(BufWriter::new(sink), TimeRule::Set(0));
    for dir in ["blobs", "blobs/sha256", "blobs/sha512"] {
        if dir != "blobs/sha512" || content.blobs.keys().any(|digest| digest.algorithm() == "sha512") {
            writer.append(&Entry::directory(dir.as_bytes()), &mut io::empty())?;
        }
    }
    for (digest, descriptor) in &content.blobs {
        let path = format!("blobs/{}/{}", digest.algorithm(), digest.encoded());
        let mut file = store.blob(descriptor)?;
        writer.append(&Entry::file(path.as_bytes(), descriptor.size, 0o644), &mut file)?;
    }
    let documents = [
        ("index.json", canonical(&content.index)),
        ("manifest.json", canonical(&content.docker)),
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("repositories", canonical(&content.repositories)),
    ];
    for (name, bytes) in documents {
        writer.append(&Entry::file(name.as_bytes(), bytes.len() as u64, 0o644), &mut &bytes[..])?;
    }
    writer.finish()?.flush()?;
    Ok(())
}

/// Adds an image, under its name if it has one.
fn add(
    store: &Store,
    tagged: &Tagged,
    platform: Option<&Platform>,
    content: &mut Content,
) -> hull_image::Result<()> {
    let image = store.image(&tagged.descriptor, platform)?;
    let name = tagged.reference.as_ref();
    let mut entry = match platform {
        Some(_) => image.descriptor.clone(),
        None => tagged.descriptor.clone(),
    };
    entry.annotations.remove(annotation::REF_NAME);
    entry.annotations.remove(annotation::CONTAINERD_NAME);
    if let Some(name) = name {
        entry.annotations.insert(annotation::CONTAINERD_NAME.to_owned(), name.to_string());
        entry.annotations.insert(annotation::REF_NAME.to_owned(), name.to_string());
        let tag = name.tag.clone().unwrap_or_else(|| "latest".to_owned());
        let last =
            image.manifest.layers.last().map_or_else(String::new, |layer| layer.digest.encoded().to_owned());
        content.repositories.entry(name.familiar_name()).or_default().insert(tag, last);
    }
    collect(store, &entry, content)?;
    if !content.index.manifests.contains(&entry) {
        content.index.manifests.push(entry);
    }
    add_docker(&image, name, content);
    Ok(())
}

/// Every blob that is there: other platforms of an index may never have been pulled.
fn collect(store: &Store, descriptor: &Descriptor, content: &mut Content) -> hull_image::Result<()> {
    content.blobs.insert(descriptor.digest.clone(), descriptor.clone());
    match store.document(descriptor)? {
        Document::Index(index) => index
            .manifests
            .iter()
            .filter(|entry| store.has_blob(entry))
            .try_for_each(|entry| collect(store, entry, content)),
        Document::Manifest(manifest) => {
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                store.blob(blob)?;
                content.blobs.insert(blob.digest.clone(), blob.clone());
            }
            Ok(())
        }
    }
}

fn add_docker(image: &Image, name: Option<&Reference>, content: &mut Content) {
    let path = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm(), digest.encoded());
    let config = path(image.id());
    let tag = name.map(Reference::familiar);
    let known = content.docker.iter_mut().find(|entry| entry["Config"] == config.as_str());
    match (known, tag) {
        (Some(entry), Some(tag)) => {
            if let Value::Array(tags) = &mut entry["RepoTags"]
                && !tags.contains(&Value::from(&*tag))
            {
                tags.push(Value::from(tag));
            }
        }
        (Some(_), None) => {}
        (None, tag) => content.docker.push(json!({
            "Config": config,
            "RepoTags": tag.into_iter().collect::<Vec<_>>(),
            "Layers": image.manifest.layers.iter().map(|layer| path(&layer.digest)).collect::<Vec<_>>(),
        })),
    }
}
