//! `pull`: an image from a registry.

use std::process::ExitCode;

use clap::Args;
use hull_image::{Platform, Reference, Store};

use super::Outcome;
use super::registry_options::RegistryArguments;
use crate::host;
use crate::progress::Shown;
use crate::registry::{self, Pulled};
use crate::snapshot::{self, Layers};

/// Arguments of `pull`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name of the image
    image: Reference,
    /// All tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// The platform of an image that has several
    #[arg(long)]
    platform: Option<Platform>,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// Pulls, unpacks and names.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let shown = if arguments.quiet { Shown::Nothing } else { Shown::on_stderr() };
    let options = registry::Options { shown, ..arguments.registry.options()? };
    let names = match arguments.all_tags {
        true => {
            let client = registry::Client::connect(&arguments.image.registry, &options)?;
            let tags = registry::tags(&client, &arguments.image)?;
            tags.iter().map(|tag| arguments.image.with_tag(tag)).collect::<Result<Vec<_>, _>>()?
        }
        false => vec![arguments.image.clone()],
    };
    for name in &names {
        let pulled = registry::pull(&store, name, arguments.platform.as_ref(), &options)?;
        finish(&store, &pulled, name)?;
        report(&pulled, name, arguments.quiet);
    }
    Ok(ExitCode::SUCCESS)
}

/// Unpacks the layers and remembers where they came from, for later mounts.
pub(crate) fn finish(
    store: &Store,
    pulled: &Pulled,
    name: &Reference,
) -> Result<(), Box<dyn std::error::Error>> {
    if host::may_unpack() {
        snapshot::unpacked(store, &Layers::of(&pulled.image))?;
    }
    store.settle(hull_image::SETTLE_AFTER)?;
    remember(store, &pulled.image, name);
    Ok(())
}

fn report(pulled: &Pulled, name: &Reference, quiet: bool) {
    if quiet {
        println!("{name}");
        return;
    }
    let status = if pulled.fetched == 0 { "Image is up to date for" } else { "Downloaded newer image for" };
    println!("Digest: {}", pulled.descriptor.digest);
    println!("Status: {status} {}", name.familiar());
    println!("{name}");
}

/// Notes in which repository each layer is; losing a note costs an upload, so failing to write one is no error.
pub(crate) fn remember(store: &Store, image: &hull_image::Image, name: &Reference) {
    let dir = store.dir().join("sources");
    let _ = std::fs::create_dir_all(&dir);
    for layer in &image.manifest.layers {
        let path = dir.join(layer.digest.encoded());
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        let line = name.name();
        if !old.lines().any(|known| known == line) && old.len() < 4096 {
            let _ = std::fs::write(&path, format!("{old}{line}\n"));
        }
    }
}

/// Repositories of the same registry that hold layers of an image.
pub(crate) fn sources(store: &Store, image: &hull_image::Image, name: &Reference) -> Vec<String> {
    let prefix = format!("{}/", name.registry);
    let mut found: Vec<String> = Vec::new();
    for layer in &image.manifest.layers {
        let text = std::fs::read_to_string(store.dir().join("sources").join(layer.digest.encoded()));
        for line in text.unwrap_or_default().lines() {
            found.extend(line.strip_prefix(&prefix).map(str::to_owned));
        }
    }
    found.sort();
    found.dedup();
    found
}
