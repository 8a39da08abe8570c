//! The images that a Dockerfile names.

use hull_image::{Image, Platform, Reference, Store};

use super::options;
use crate::commands::build::Arguments;
use crate::error::{Error, Result};
use crate::graph;
use crate::inputs::Base;
use crate::registry;
use crate::snapshot::Layers;

/// Finds an image by the name that the Dockerfile uses.
pub(crate) fn find(
    arguments: &Arguments,
    options: &graph::Options,
    store: &Store,
    name: &str,
) -> Result<Base> {
    let wanted = options.images.get(name).map_or(name, String::as_str);
    let reference: Reference = wanted.parse()?;
    let platform: Platform = platform(&options.platform);
    let known = if arguments.accepted.pull { None } else { store.resolve(&reference)? };
    let image = match known {
        Some(descriptor) => store.image(&descriptor, Some(&platform))?,
        None => pull(arguments, store, &reference, &platform)?,
    };
    let layers =
        Layers { diff_ids: image.config.rootfs.diff_ids.clone(), blobs: image.manifest.layers.clone() };
    Ok(Base { name: reference.to_string(), digest: image.descriptor.digest, config: image.config, layers })
}

/// An image that the store hasn't, or may have of old.
fn pull(arguments: &Arguments, store: &Store, reference: &Reference, platform: &Platform) -> Result<Image> {
    let options = options::registry(arguments);
    let pulled = registry::pull(store, reference, Some(platform), &options).map_err(|error| {
        let causes = super::with_causes(&error);
        Error::fact(format!(
            "the image {} is not in the store and can't be pulled: {causes}",
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
