//! The image's documents: configuration and manifest, from the plan and the layers that its steps left.

use hull_image::{Descriptor, History, Manifest, Reference, Store, annotation};

use super::{bases, options};
use crate::commands::build::Arguments;
use crate::commands::host;
use crate::error::{Error, Result};
use crate::graph::Plan;
use crate::inputs::Inputs;
use crate::snapshot::Layers;

/// What was built.
pub(crate) struct Built {
    pub(crate) manifest: Descriptor,
    pub(crate) config: Descriptor,
    pub(crate) names: Vec<Reference>,
}

/// Writes configuration and manifest, and names the image.
pub(crate) fn describe(
    arguments: &Arguments,
    store: &Store,
    plan: &Plan,
    inputs: &Inputs,
    layers: &Layers,
    epoch: u64,
) -> Result<Built> {
    let created = host::rfc3339(epoch.try_into().unwrap_or(i64::MAX));
    let mut config = plan.config.clone();
    config.created = Some(created.clone());
    config.rootfs.diff_ids.clone_from(&layers.diff_ids);
    let base = plan.base.as_ref().map(|name| &inputs.images[name]);
    if let Some(base) = base {
        complete_history(&mut config.history, base.layers.diff_ids.len());
    }
    for made in &plan.history {
        config.history.push(History {
            created: Some(created.clone()),
            created_by: Some(made.by.clone()),
            comment: Some("hull-build".into()),
            empty_layer: made.step.is_none(),
            ..History::default()
        });
    }
    config.check_layers(layers.blobs.len())?;
    let config_descriptor = store.put_config(&config)?;
    let mut manifest = Manifest::new(config_descriptor.clone(), layers.blobs.clone());
    manifest.annotations.insert(annotation::CREATED.into(), created);
    if let Some(base) = base {
        manifest.annotations.insert(annotation::BASE_NAME.into(), base.name.clone());
        manifest.annotations.insert(annotation::BASE_DIGEST.into(), base.digest.to_string());
    }
    for (key, value) in options::pairs("--annotation", &arguments.annotation)? {
        let key = key.strip_prefix("manifest:").unwrap_or(&key).to_owned();
        manifest.annotations.insert(key, value);
    }
    let platform = bases::platform(&format!("{}/{}", config.os, config.architecture));
    let manifest = store.put_manifest(&manifest, Some(platform))?;
    let names = name(arguments, store, &manifest)?;
    Ok(Built { manifest, config: config_descriptor, names })
}

/// A base without history still has layers: each gets an entry, so that ours stay in step.
fn complete_history(history: &mut Vec<History>, layers: usize) {
    let known = history.iter().filter(|entry| !entry.empty_layer).count();
    for _ in known..layers {
        history.push(History { comment: Some("from the base image".into()), ..History::default() });
    }
}

fn name(arguments: &Arguments, store: &Store, manifest: &Descriptor) -> Result<Vec<Reference>> {
    let mut names = Vec::new();
    for tag in &arguments.tag {
        let reference: Reference = tag.parse()?;
        if reference.digest.is_some() {
            return Err(Error::fact(format!("--tag {tag} can't have a digest")));
        }
        store.put_image(&reference, manifest)?;
        names.push(reference);
    }
    if names.is_empty() {
        store.put_nameless(manifest)?;
    }
    Ok(names)
}
