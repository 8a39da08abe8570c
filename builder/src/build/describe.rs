//! The image's documents: configuration and manifest, from the plan and the layers that its steps left.

use std::collections::BTreeMap;

use hull_image::{Descriptor, History, Manifest, Platform, Reference, Store, annotation};

use super::{bases, output};
use crate::commands::build::Arguments;
use crate::error::{Error, Result};
use crate::graph::Plan;
use crate::host;
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
    let base = plan.base.as_ref().map(|name| &inputs.images[name]);
    // Only then the layers of this build: the plan's configuration has those of the base.
    config.complete_history();
    config.rootfs.diff_ids.clone_from(&layers.diff_ids);
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
    let platform = bases::platform(&format!("{}/{}", config.os, config.architecture));
    let mut of_descriptor = BTreeMap::new();
    for (level, key, value) in annotations(&arguments.annotation, &platform)? {
        match level {
            Level::Manifest => drop(manifest.annotations.insert(key, value)),
            Level::Descriptor => drop(of_descriptor.insert(key, value)),
        }
    }
    let mut manifest = store.put_manifest(&manifest, Some(platform))?;
    manifest.annotations.extend(of_descriptor);
    let names = name(arguments, store, &manifest)?;
    Ok(Built { manifest, config: config_descriptor, names })
}

/// Refuses annotations that cannot be made, before a build that would be for nothing.
pub(super) fn check(arguments: &Arguments) -> Result<()> {
    annotations(&arguments.annotation, &Platform::host()).map(drop)
}

/// The annotations that are for this platform: what each is put on, its key and its value.
fn annotations(given: &[String], platform: &Platform) -> Result<Vec<(Level, String, String)>> {
    let read = |text: &String| {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Error::fact(format!("--annotation \"{text}\" must be KEY=VALUE")))?;
        let found = level(key, platform).map_err(Error::fact)?;
        match found.as_ref().is_some_and(|(_, key)| key.is_empty()) {
            true => Err(Error::fact(format!("--annotation \"{text}\" has no key"))),
            false => Ok(found.map(|(level, key)| (level, key.to_owned(), value.to_owned()))),
        }
    };
    given.iter().filter_map(|text| read(text).transpose()).collect()
}

/// What an annotation is put on.
#[derive(Debug, PartialEq, Eq)]
enum Level {
    Manifest,
    /// What the index of a store or layout says of the manifest.
    Descriptor,
}

/// Reads `[LEVEL[\[PLATFORM\]]:]KEY`; nothing when it is for another platform.
fn level<'a>(text: &'a str, platform: &Platform) -> std::result::Result<Option<(Level, &'a str)>, String> {
    let Some((prefix, key)) = text.split_once(':') else { return Ok(Some((Level::Manifest, text))) };
    let (name, wanted) = match prefix.strip_suffix(']').and_then(|prefix| prefix.split_once('[')) {
        Some((name, wanted)) => (name, Some(wanted)),
        None => (prefix, None),
    };
    let level = match name {
        "manifest" => Level::Manifest,
        "manifest-descriptor" => Level::Descriptor,
        "index" | "index-descriptor" => {
            return Err(format!("--annotation {text}: a build for one platform makes no index"));
        }
        // Part of the key.
        _ => return Ok(Some((Level::Manifest, text))),
    };
    let wanted = wanted.map(str::parse::<Platform>).transpose().map_err(|e| e.to_string())?;
    let fits = wanted.is_none_or(|wanted| platform.fit(&wanted).is_some());
    Ok(fits.then_some((level, key)))
}

fn name(arguments: &Arguments, store: &Store, manifest: &Descriptor) -> Result<Vec<Reference>> {
    let names = output::own_names(arguments)?;
    for reference in &names {
        store.put_image(reference, manifest)?;
    }
    if names.is_empty() {
        store.put_nameless(manifest)?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_go_where_their_prefix_says() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        for (text, expected) in [
            ("k", Some((Level::Manifest, "k"))),
            ("manifest:k", Some((Level::Manifest, "k"))),
            ("manifest-descriptor:a:b", Some((Level::Descriptor, "a:b"))),
            ("manifest[linux/amd64]:k", Some((Level::Manifest, "k"))),
            ("manifest[linux/arm64]:k", None),
            ("org.example:k", Some((Level::Manifest, "org.example:k"))),
        ] {
            assert_eq!(level(text, &platform), Ok(expected), "{text}");
        }
        for text in ["index:k", "index-descriptor[linux/amd64]:k"] {
            assert!(level(text, &platform).unwrap_err().contains("makes no index"), "{text}");
        }
        let read = |text: &str| annotations(&[text.to_owned()], &platform);
        let of_manifest = |key: &str, value: &str| vec![(Level::Manifest, key.to_owned(), value.to_owned())];
        assert_eq!(read("k=").unwrap(), of_manifest("k", ""));
        assert_eq!(read("manifest:k=a=b").unwrap(), of_manifest("k", "a=b"));
        assert_eq!(read("manifest[linux/arm64]:k=v").unwrap(), []);
        for (text, why) in [("k", "KEY=VALUE"), ("=v", "no key"), ("manifest:=v", "no key")] {
            assert!(read(text).unwrap_err().to_string().contains(why), "{text}");
        }
    }
}
