//! `commit`: a container's changes become a layer of a new image.

use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Args;
use hull_image::{Descriptor, History, Manifest, Reference};
use hull_layer::{Encoding, TimeRule, pack_layer};

use super::paused::Paused;
use super::{Outcome, change, containers, diff};
use crate::host;

/// Arguments of `commit`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name or id of the container
    container: String,
    /// Name of the image
    reference: Option<Reference>,
    /// Author
    #[arg(short, long)]
    author: Option<String>,
    /// Apply a Dockerfile instruction to the configuration
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Comment in the history
    #[arg(short, long)]
    message: Option<String>,
    /// Do not pause the container (=false)
    #[arg(short, long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pause: bool,
    /// Do not pause the container
    #[arg(long)]
    no_pause: bool,
}

/// Packs the changes and prints the new image's id.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let place = containers::find(&store, &arguments.container)?;
    let pauses = arguments.pause && !arguments.no_pause && place.status()?.is_alive();
    let paused = if pauses { Paused::new(&place)? } else { None };
    let (diff_id, layer) = pack(&store, &place)?;
    paused.map_or(Ok(()), |paused| paused.go_on()).map_err(|reason| format!("commit: {reason}"))?;
    let base = store.find(place.container.manifest.as_str()).map(|tagged| tagged.descriptor);
    let base = base.or_else(|_| manifest_of(&store, &place.container.manifest))?;
    let image = store.image(&base, None)?;
    let mut config = image.config.clone();
    let created = host::rfc3339(change::epoch()?);
    config.created = Some(created.clone());
    config.author = arguments.author.clone().or(config.author);
    config.complete_history();
    config.rootfs.diff_ids.push(diff_id);
    config.history.push(History {
        created: Some(created),
        created_by: Some(place.container.command.join(" ")),
        author: arguments.author.clone(),
        comment: arguments.message.clone(),
        ..History::default()
    });
    for instruction in &arguments.change {
        change::apply(&mut config.config, instruction)?;
    }
    let mut layers = image.manifest.layers.clone();
    layers.push(layer);
    let config_descriptor = store.put_config(&config)?;
    let image_id = config_descriptor.digest.clone();
    let manifest = store.put_manifest(&Manifest::new(config_descriptor, layers), Some(config.platform()))?;
    match &arguments.reference {
        Some(reference) => store.put_image(reference, &manifest)?,
        None => store.put_nameless(&manifest)?,
    }
    println!("{image_id}");
    Ok(ExitCode::SUCCESS)
}

fn pack(
    store: &hull_image::Store,
    place: &containers::Place,
) -> Result<(hull_image::Digest, Descriptor), Box<dyn std::error::Error>> {
    let diff::Changes { changes, files, .. } = diff::changes(store, place)?;
    let blob = store.blob_writer()?;
    let written = pack_layer(blob, &changes, files.as_fd(), TimeRule::Keep, Encoding::DEFAULT)?;
    let layer = written.blob.descriptor().clone();
    hull_image::publish(vec![written.blob])?;
    Ok((written.diff_id, layer))
}

/// A manifest that no name of the index leads to: its blob is pinned by the container.
fn manifest_of(store: &hull_image::Store, digest: &hull_image::Digest) -> hull_image::Result<Descriptor> {
    let size = store.verify_blob(digest)?;
    let bare = Descriptor::new("", digest.clone(), size);
    let media_type = match store.document(&bare)? {
        hull_image::Document::Manifest(manifest) => manifest.media_type,
        hull_image::Document::Index(index) => index.media_type,
    };
    Ok(Descriptor { media_type: media_type.unwrap_or_default(), ..bare })
}
