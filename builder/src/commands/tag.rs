//! `tag`: one more name for an image.

use std::process::ExitCode;

use clap::Args;
use hull_image::Reference;

use super::Outcome;
use crate::host;

/// Arguments of `tag`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name or id of the image
    source: String,
    /// The new name
    target: Reference,
}

/// Names an image; what had the name before loses it.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    if arguments.target.digest.is_some() {
        return Err("tag: a new name cannot have a digest".into());
    }
    let store = host::open_store()?;
    let tagged = store.find(&arguments.source)?;
    store.put_image(&arguments.target, &tagged.descriptor)?;
    Ok(ExitCode::SUCCESS)
}
