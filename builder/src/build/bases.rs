//! The images that a Dockerfile names.

use hull_image::{Descriptor, Image, ImageConfig, Platform, Reference, Store, annotation};

use super::options::{self, Pull};
use crate::commands::build::Arguments;
use crate::error::{Error, Result};
use crate::graph;
use crate::inputs::Base;
use crate::progress::Style;
use crate::registry;
use crate::snapshot::Layers;

/// Finds an image by the name that the Dockerfile uses.
pub(crate) fn find(
    arguments: &Arguments,
    options: &graph::Options,
    store: &Store,
    name: &str,
) -> Result<Base> {
    let wanted = options.named_image(name).unwrap_or(name);
    let platform: Platform = platform(&options.platform);
    if let Some(place) = wanted.strip_prefix("oci-layout://") {
        return from_layout(store, place, &platform);
    }
    let reference: Reference = wanted.parse()?;
    let policy = options::pull(arguments)?;
    let known = if policy == Pull::Always { None } else { store.resolve(&reference)? };
    let stored = known.map(|descriptor| store.image(&descriptor, Some(&platform)));
    let image = match stored {
        // An index of several platforms, of which this one was not fetched or is gone again.
        Some(Err(hull_image::Error::NoBlob(_))) if policy == Pull::Missing => {
            pull(arguments, store, &reference, &platform)?
        }
        Some(image) => image?,
        None if policy == Pull::Never => {
            let text = format!(
                "the image {} is not in the store, and --pull=never was asked for",
                reference.familiar()
            );
            return Err(Error::fact(text));
        }
        None => pull(arguments, store, &reference, &platform)?,
    };
    let layers = Layers::of(&image);
    Ok(Base { name: reference.to_string(), digest: image.descriptor.digest, config: image.config, layers })
}

/// The configuration of an image that the store has.
pub(crate) fn stored(options: &graph::Options, store: &Store, name: &str) -> Option<ImageConfig> {
    let wanted = options.named_image(name).unwrap_or(name);
    let descriptor = store.resolve(&wanted.parse().ok()?).ok()??;
    Some(store.image(&descriptor, Some(&platform(&options.platform))).ok()?.config)
}

/// An image of somebody else's layout: `DIRECTORY[:TAG][@DIGEST]`, the only one without either.
fn from_layout(store: &Store, place: &str, platform: &Platform) -> Result<Base> {
    let (rest, digest) = place.split_once('@').map_or((place, None), |(rest, digest)| (rest, Some(digest)));
    let (directory, tag) = match rest.rsplit_once(':') {
        Some((directory, tag)) if !tag.contains('/') => (directory, Some(tag)),
        _ => (rest, None),
    };
    let layout = Store::open_foreign(std::path::Path::new(directory))?;
    let has_tag = |entry: &Descriptor, tag: &str| {
        let name = entry.annotations.get(annotation::REF_NAME);
        name.is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, last)| last == tag))
    };
    let mut fits: Vec<Descriptor> = layout.index()?.manifests;
    fits.retain(|entry| {
        digest.is_none_or(|digest| entry.digest.as_str() == digest)
            && tag.is_none_or(|tag| has_tag(entry, tag))
    });
    let descriptor = match fits.as_slice() {
        [one] => one,
        [] => return Err(Error::fact(format!("the layout {directory} has no such image"))),
        _ => {
            let text =
                format!("the layout {directory} has {} such images: name a tag or a digest", fits.len());
            return Err(Error::fact(text));
        }
    };
    let image = layout.image(descriptor, Some(platform))?;
    let documents = [&image.descriptor, &image.manifest.config];
    for blob in image.manifest.layers.iter().chain(documents) {
        if !store.has_blob(blob) {
            store.put_expected_blob(blob, &mut layout.blob(blob)?)?;
        }
    }
    let layers = Layers::of(&image);
    let name = format!("oci-layout://{place}");
    Ok(Base { name, digest: image.descriptor.digest, config: image.config, layers })
}

/// An image that the store hasn't, or may have of old.
fn pull(arguments: &Arguments, store: &Store, reference: &Reference, platform: &Platform) -> Result<Image> {
    let options = options::registry_of(arguments, reference)?;
    // It may take long, and no step has begun that would show it; rawjson is for programs.
    if !arguments.quiet && !matches!(arguments.progress, Style::Quiet | Style::Rawjson) {
        eprintln!("hull-build: pulling {}", reference.familiar());
    }
    let pulled = registry::pull(store, reference, Some(platform), &options).map_err(|error| {
        let causes = super::with_causes(&error);
        let given = options.credential.is_some()
            || options.plain_http
            || !options.tls_verify
            || !options.certificates.is_empty();
        let hint = match options.party == registry::Party::Other && given {
            true => " (--creds, --cert-dir, --tls-verify and --plain-http are for the registry that the image goes to; pull this image first)",
            false => "",
        };
        Error::fact(format!(
            "the image {} is not in the store and can't be pulled: {causes}{hint}",
            reference.familiar()
        ))
    })?;
    Ok(pulled.image)
}

pub(crate) fn platform(text: &str) -> Platform {
    let mut parts = text.split('/').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (os, architecture, variant) = (next(), next(), next());
    let variant = Some(variant).filter(|variant| !variant.is_empty());
    Platform {
        os,
        architecture,
        variant,
        os_version: None,
        os_features: Vec::new(),
        extra: serde_json::Map::new(),
    }
}
