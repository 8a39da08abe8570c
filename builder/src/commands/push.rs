//! `push`: an image to a registry.

use std::process::ExitCode;

use clap::Args;
use hull_image::{Platform, Reference, Store};

use super::Outcome;
use super::pull::{remember, sources};
use super::registry_options::RegistryArguments;
use crate::host;
use crate::progress::Shown;
use crate::registry;

/// Arguments of `push`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name of the image in the store
    image: Reference,
    /// Push under another name
    destination: Option<Reference>,
    /// All tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Only this platform of an image that has several
    #[arg(long)]
    platform: Option<Platform>,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// Pushes what the registry lacks.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let shown = if arguments.quiet { Shown::Nothing } else { Shown::on_stderr() };
    let options = registry::Options { shown, ..arguments.registry.options()? };
    for name in names(&store, arguments)? {
        let (tagged, image) = host::find_image(&store, &name.to_string(), arguments.platform.as_ref())?;
        let descriptor = if arguments.platform.is_some() { &image.descriptor } else { &tagged.descriptor };
        let target = arguments.destination.as_ref().unwrap_or(&name);
        let from = sources(&store, &image, target);
        let sent = registry::push(&store, descriptor, target, (&from, None), &options)?;
        remember(&store, &image, target);
        if arguments.quiet {
            println!("{target}");
            continue;
        }
        println!("The push refers to repository [{}]", target.name());
        println!("{sent} blobs pushed");
        let tag = target.tag.as_deref().unwrap_or("latest");
        println!("{tag}: digest: {} size: {}", descriptor.digest, descriptor.size);
    }
    Ok(ExitCode::SUCCESS)
}

fn names(store: &Store, arguments: &Arguments) -> Result<Vec<Reference>, Box<dyn std::error::Error>> {
    if !arguments.all_tags {
        return Ok(vec![arguments.image.clone()]);
    }
    if arguments.destination.is_some() {
        return Err("push: --all-tags pushes under the names in the store".into());
    }
    let all = store.images()?.into_iter().filter_map(|image| image.reference);
    let names: Vec<Reference> = all.filter(|name| name.name() == arguments.image.name()).collect();
    match names.is_empty() {
        true => Err(format!("push: no image of {} in the store", arguments.image.familiar_name()).into()),
        false => Ok(names),
    }
}
