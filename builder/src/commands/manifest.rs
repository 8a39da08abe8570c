//! `manifest`: indexes, each a name for one image of several platforms.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use hull_image::{Descriptor, Digest, Document, Index, Platform, Reference, Store, annotation, canonical};

use super::Outcome;
use super::registry_options::RegistryArguments;
use crate::host;
use crate::registry;

type Failure = Box<dyn std::error::Error>;

/// Arguments of `manifest`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Change what an index says of one of its images
    Annotate(Box<Annotate>),
    /// Make an index of images in the store or in registries
    Create(Create),
    /// Show a manifest or an index, of the store or else of its registry
    Inspect(Inspect),
    /// Send an index, and what of it is in the store, to a registry
    Push(Push),
}

#[derive(Args)]
struct Create {
    /// Add to an index that is there
    #[arg(short, long)]
    amend: bool,
    /// KEY=VALUE: a note on the index
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Name of the index
    name: Reference,
    /// Images that it leads to, by name or id; of one that is an index itself, all of its images
    #[arg(required = true)]
    images: Vec<String>,
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(Args)]
struct Annotate {
    /// Architecture
    #[arg(long)]
    arch: Option<String>,
    /// Operating system
    #[arg(long)]
    os: Option<String>,
    /// Variant of the architecture
    #[arg(long)]
    variant: Option<String>,
    /// Version of the operating system
    #[arg(long)]
    os_version: Option<String>,
    /// Features of the operating system that are needed
    #[arg(long, value_delimiter = ',')]
    os_features: Vec<String>,
    /// KEY=VALUE: a note on the image
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Name of the index
    name: Reference,
    /// The image in it: a digest, or a name
    image: String,
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(Args)]
struct Inspect {
    /// The very bytes
    #[arg(long)]
    raw: bool,
    /// Name of an index or image
    name: String,
    #[command(flatten)]
    registry: RegistryArguments,
}

#[derive(Args)]
struct Push {
    /// Remove the name from the store afterwards
    #[arg(short, long)]
    purge: bool,
    /// Name of the index
    name: Reference,
    /// Push under another name
    destination: Option<Reference>,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// Does what was asked for.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    match &arguments.action {
        Action::Annotate(annotate) => change(&store, annotate)?,
        Action::Create(create) => make(&store, create)?,
        Action::Inspect(inspect) => show(&store, inspect)?,
        Action::Push(push) => send(&store, push)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn make(store: &Store, create: &Create) -> Result<(), Failure> {
    let mut index = match store.resolve(&create.name)? {
        Some(_) if create.amend => read(store, &create.name)?,
        Some(_) => {
            return Err(format!("manifest create: {} is there: use --amend", create.name.familiar()).into());
        }
        None => Index::default(),
    };
    for name in &create.images {
        for entry in entries(store, name, &create.registry)? {
            index.manifests.retain(|other| other.digest != entry.digest);
            index.manifests.push(entry);
        }
    }
    index.annotations.extend(pairs(&create.annotation)?);
    keep(store, &create.name, &index)?;
    println!("Created manifest list {}", create.name);
    Ok(())
}

fn change(store: &Store, annotate: &Annotate) -> Result<(), Failure> {
    let mut index = read(store, &annotate.name)?;
    let digests: Vec<Digest> = match annotate.image.parse::<Digest>() {
        Ok(digest) => vec![digest],
        Err(_) => {
            let named = entries(store, &annotate.image, &annotate.registry)?;
            named.into_iter().map(|entry| entry.digest).collect()
        }
    };
    let entry = index.manifests.iter_mut().find(|entry| digests.contains(&entry.digest));
    let entry = entry.ok_or_else(|| format!("manifest annotate: {} is not in the index", annotate.image))?;
    let platform = entry.platform.get_or_insert_default();
    for (field, wish) in [(&mut platform.architecture, &annotate.arch), (&mut platform.os, &annotate.os)] {
        wish.iter().for_each(|wish| field.clone_from(wish));
    }
    platform.variant = annotate.variant.clone().or_else(|| platform.variant.take());
    platform.os_version = annotate.os_version.clone().or_else(|| platform.os_version.take());
    platform.os_features.extend(annotate.os_features.iter().cloned());
    entry.annotations.extend(pairs(&annotate.annotation)?);
    keep(store, &annotate.name, &index)
}

fn show(store: &Store, inspect: &Inspect) -> Result<(), Failure> {
    let bytes = match store.find(&inspect.name) {
        Ok(tagged) => store.read_blob(&tagged.descriptor, hull_image::MAX_DOCUMENT)?,
        Err(_) => registry::look(store, &inspect.name.parse()?, &inspect.registry.options()?)?.bytes,
    };
    if inspect.raw {
        return Ok(std::io::Write::write_all(&mut std::io::stdout(), &bytes)?);
    }
    let document: serde_json::Value = serde_json::from_slice(&bytes)?;
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}

fn send(store: &Store, push: &Push) -> Result<(), Failure> {
    read(store, &push.name)?;
    let descriptor = store.find(&push.name.to_string())?.descriptor;
    let target = push.destination.as_ref().unwrap_or(&push.name);
    registry::push(store, &descriptor, target, (&[], None), &push.registry.options()?)?;
    println!("{}", descriptor.digest);
    if push.purge {
        store.untag(&push.name)?;
    }
    Ok(())
}

/// The index with this name.
fn read(store: &Store, name: &Reference) -> Result<Index, Failure> {
    let found =
        store.resolve(name)?.ok_or_else(|| format!("there is no {} in the store", name.familiar()))?;
    match store.document(&found)? {
        Document::Index(index) => Ok(*index),
        Document::Manifest(_) => Err(format!("{} is an image, not an index", name.familiar()).into()),
    }
}

fn keep(store: &Store, name: &Reference, index: &Index) -> Result<(), Failure> {
    let media_type = index.media_type.as_deref().unwrap_or(hull_image::media::OCI_INDEX);
    let descriptor = store.put_bytes(media_type, &canonical(index))?;
    Ok(store.put_image(name, &descriptor)?)
}

/// What an index says of an image: looked up in the store, else in its registry, of which only documents are read.
fn entries(store: &Store, name: &str, registry: &RegistryArguments) -> Result<Vec<Descriptor>, Failure> {
    let (descriptor, document, platform) = match store.find(name) {
        Ok(tagged) => {
            let platform = store.image(&tagged.descriptor, None).map(|image| image.config.platform()).ok();
            (tagged.descriptor.clone(), store.document(&tagged.descriptor)?, platform)
        }
        Err(_) => {
            let reference: Reference = name.parse()?;
            let found = registry::look(store, &reference, &registry.options()?)?;
            (found.descriptor, found.document, found.platform)
        }
    };
    Ok(match document {
        Document::Index(index) => index.manifests,
        Document::Manifest(manifest) => vec![entry(&descriptor, manifest.artifact_type, platform)],
    })
}

/// The descriptor without the names that the store files it under.
fn entry(from: &Descriptor, artifact_type: Option<String>, platform: Option<Platform>) -> Descriptor {
    let mut entry = Descriptor::new(&from.media_type, from.digest.clone(), from.size);
    entry.annotations.clone_from(&from.annotations);
    entry.annotations.remove(annotation::CONTAINERD_NAME);
    entry.annotations.remove(annotation::REF_NAME);
    (entry.artifact_type, entry.platform) = (artifact_type, platform);
    entry
}

fn pairs(texts: &[String]) -> Result<BTreeMap<String, String>, String> {
    let pair = |text: &String| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    texts.iter().map(|text| pair(text).ok_or_else(|| format!("{text:?} is not KEY=VALUE"))).collect()
}
