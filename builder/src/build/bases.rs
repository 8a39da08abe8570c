//! The images that a Dockerfile names.

use hull_image::{Platform, Reference, Store};

use crate::commands::build::Arguments;
use crate::error::{Error, Result};
use crate::graph;
use crate::inputs::Base;
use crate::snapshot::Layers;

/// Finds an image by the name that the Dockerfile uses.
pub(crate) fn find(
    _arguments: &Arguments,
    options: &graph::Options,
    store: &Store,
    name: &str,
) -> Result<Base> {
    let wanted = options.images.get(name).map_or(name, String::as_str);
    let reference: Reference = wanted.parse()?;
    let descriptor = store.resolve(&reference)?;
    let descriptor = descriptor
        .ok_or_else(|| Error::fact(format!("the image {} is not in the store", reference.familiar())))?;
    let platform: Platform = platform(&options.platform);
    let image = store.image(&descriptor, Some(&platform))?;
    let layers =
        Layers { diff_ids: image.config.rootfs.diff_ids.clone(), blobs: image.manifest.layers.clone() };
    Ok(Base { name: reference.to_string(), digest: image.descriptor.digest, config: image.config, layers })
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
