//! `rmi`: take names away, and with the last one the image.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use hull_image::{
    Descriptor, Digest, Document, Freed, Image, Platform, Reference, Store, Tagged, layer_name,
};

use super::{Outcome, containers};
use crate::cache::Cache;
use crate::error::{Error, chain};
use crate::host;

/// How deep indexes in indexes are followed: deeper than the store reads images.
const MAX_DEPTH: usize = 8;

/// Arguments of `rmi`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Names or ids
    #[arg(required = true)]
    images: Vec<String>,
    /// Remove even with several names, and say nothing of missing images
    #[arg(short, long)]
    force: bool,
    /// Keep the content: only names go
    #[arg(long)]
    no_prune: bool,
    /// Of an image for several platforms, remove only what is for this one; may be repeated
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,
}

/// Removes images; every one that can be, and fails if any could not.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut store = host::open_store()?;
    // What no image has now, as the layers of other stages, and what steps made is for later builds: prune takes it away.
    let spare = if arguments.no_prune { BTreeSet::new() } else { spare(&store)? };
    let mut code = ExitCode::SUCCESS;
    for name in &arguments.images {
        let removed = match arguments.platform.as_slice() {
            [] => remove(&store, name, arguments.force),
            platforms => remove_platforms(&mut store, name, platforms, arguments.force),
        };
        match removed {
            Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
            // By the error itself: a build may have made the image since.
            Err(Error::Store(hull_image::Error::NoImage(_))) if arguments.force => {}
            Err(error) => {
                eprintln!("hull-build: rmi {name}: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    if !arguments.no_prune {
        let freed = collect(&mut store, &spare)?;
        if !freed.failures.is_empty() {
            code = ExitCode::FAILURE;
        }
        // What others could not remove is no failure of this call's.
        let told: BTreeSet<_> =
            freed.failures.iter().chain(&freed.left).map(|failure| chain(failure)).collect();
        told.iter().for_each(|failure| eprintln!("hull-build: rmi: {failure}"));
    }
    Ok(code)
}

/// Everything in the store that no image needs, and what the cache knows, be it of images or not.
fn spare(store: &Store) -> Result<BTreeSet<Digest>, Error> {
    let (needed, cached) = (store.reachable()?, Cache::open(store)?.layers()?);
    let mut spare: BTreeSet<_> =
        store.blobs()?.into_iter().filter(|blob| !needed.contains(blob) || cached.contains(blob)).collect();
    for (dir, record) in store.seen_layers()? {
        let names: Vec<_> = layer_name(&dir).into_iter().chain(record.map(|record| record.diff_id)).collect();
        let is_cached = names.iter().any(|name| cached.contains(name));
        spare.extend(names.into_iter().filter(|name| is_cached || !needed.contains(name)));
    }
    Ok(spare)
}

/// Removes content that became unreachable; another process at work on the store only means that it happens later.
fn collect(store: &mut Store, spare: &BTreeSet<Digest>) -> hull_image::Result<Freed> {
    match store.collect_garbage(spare) {
        Ok(freed) => {
            let ids = freed.layers.iter().filter_map(|layer| layer_name(Path::new(layer)));
            ids.for_each(|id| println!("Deleted: {id}"));
            Ok(freed)
        }
        Err(hull_image::Error::Busy(_)) => Ok(Freed::default()),
        Err(error) => Err(error),
    }
}

/// Takes single platforms out of an image; it keeps its names as long as one is left.
fn remove_platforms(
    store: &mut Store,
    name: &str,
    platforms: &[Platform],
    force: bool,
) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for platform in platforms {
        let tagged = store.find(name)?;
        let image = store.image(&tagged.descriptor, Some(platform))?;
        // What only serves `platform`, as arm/v6 does arm/v7, is another platform's. Of an index its own word counts:
        // configurations often leave the variant out.
        let found = image.descriptor.platform.clone().unwrap_or_else(|| image.config.platform());
        if found.fit(platform) != Some(0) {
            return Err(Error::Fact(format!("the image is for {found}, not for {platform}")));
        }
        let others = others(store, &tagged, &image)?;
        if !others {
            lines.extend(remove(store, name, force)?);
            continue;
        }
        let users = containers::users_of(store, image.id().as_str()).map_err(Error::Fact)?;
        if let (false, Some(user)) = (force, users.first()) {
            return Err(Error::Fact(format!("{platform} of the image is used by container {user}")));
        }
        let digest = &image.descriptor.digest;
        let mut named = store.images()?;
        // All names of one index are of the same image.
        named.retain(|other| other.descriptor.digest != tagged.descriptor.digest);
        if let Some(other) = named.iter().find(|other| holds(store, &other.descriptor, digest, MAX_DEPTH)) {
            let whole = &other.descriptor.digest;
            let name = other.reference.as_ref().map_or_else(|| whole.to_string(), Reference::familiar);
            let how = if whole == digest { "is" } else { "is in" };
            return Err(Error::Fact(format!(
                "{platform} of the image {how} the image {name}, too: remove that first"
            )));
        }
        store.alone(|store| store.forget_manifest(digest))?;
        lines.push(format!("Deleted: {digest}"));
    }
    Ok(lines)
}

/// Whether an entry is this manifest, or an index that leads to it; what the store cannot read leads nowhere.
fn holds(store: &Store, entry: &Descriptor, digest: &Digest, depth: usize) -> bool {
    if entry.digest == *digest {
        return true;
    }
    match store.document(entry) {
        Ok(Document::Index(index)) if depth > 0 => {
            index.manifests.iter().any(|inner| holds(store, inner, digest, depth - 1))
        }
        _ => false,
    }
}

/// Whether the store has more of an image than one platform's.
fn others(store: &Store, tagged: &Tagged, image: &Image) -> hull_image::Result<bool> {
    let index = match store.document(&tagged.descriptor)? {
        Document::Index(index) => index,
        Document::Manifest(_) => return Ok(false),
    };
    let is_other = |entry: &&Descriptor| entry.digest != image.descriptor.digest;
    Ok(index.manifests.iter().filter(is_other).any(|entry| is_image(entry) && store.has_blob(entry)))
}

/// Attestations go with what they are about.
fn is_image(entry: &Descriptor) -> bool {
    !entry.platform.as_ref().is_some_and(Platform::is_unknown)
}

fn remove(store: &Store, name: &str, force: bool) -> Result<Vec<String>, Error> {
    let tagged = store.find(name)?;
    let id = store.image(&tagged.descriptor, None).map(|image| image.id().to_string());
    let id = id.unwrap_or_else(|_| tagged.descriptor.digest.to_string());
    let entries = entries(store, &tagged)?;
    let others: Vec<&Reference> = entries.iter().filter_map(|entry| entry.reference.as_ref()).collect();
    let by_name = name.parse::<Reference>().is_ok_and(|reference| {
        tagged.reference.as_ref().is_some_and(|found| found.name() == reference.name())
            && reference.digest.is_none()
    });
    let used = containers::users_of(store, &id).map_err(Error::Fact)?;
    let last = !by_name || others.len() == 1;
    if let (true, false, Some(user)) = (last, force, used.first()) {
        return Err(Error::Fact(format!("image is used by container {user}")));
    }
    if by_name {
        let reference =
            tagged.reference.as_ref().ok_or_else(|| Error::Fact("image has no name".to_owned()))?;
        let gone = store.untag(reference)?;
        let mut lines = vec![format!("Untagged: {}", reference.familiar())];
        lines.extend(gone.then(|| format!("Deleted: {id}")));
        return Ok(lines);
    }
    if others.len() > 1 && !force {
        return Err(Error::Fact(format!(
            "image has {} names: give one of them, or use --force",
            others.len()
        )));
    }
    store.remove_entries(&entries)?;
    let mut lines: Vec<String> = others.iter().map(|name| format!("Untagged: {}", name.familiar())).collect();
    lines.push(format!("Deleted: {id}"));
    Ok(lines)
}

/// The entries of an image, one for each name.
fn entries(store: &Store, tagged: &Tagged) -> hull_image::Result<Vec<Tagged>> {
    let mut all = store.images()?;
    all.retain(|other| other.descriptor.digest == tagged.descriptor.digest);
    Ok(all)
}
