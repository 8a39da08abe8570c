//! `prune`: remove images without a name (or without use), and everything nobody needs.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::Args;
use hull_image::{Store, Tagged};

use super::{Outcome, containers, host, images};

/// Arguments of `prune`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Remove every image that no container uses, not only nameless ones
    #[arg(short, long)]
    all: bool,
    /// until=TIME or label[!]=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Accepted: nothing is asked
    #[arg(short, long)]
    force: bool,
}

/// Removes images and content, and tells what became free.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    check(&arguments.filter)?;
    let mut store = host::open_store()?;
    for tagged in store.images()? {
        if goes(&store, &tagged, arguments)? {
            store.remove_image(&tagged.descriptor.digest)?;
            let name = tagged.reference.map(|name| format!("{} ", name.familiar())).unwrap_or_default();
            println!("Deleted: {name}{}", tagged.descriptor.digest);
        }
    }
    let freed = store.collect_garbage(&BTreeSet::new())?;
    println!("Total reclaimed space: {}", host::size(freed.bytes));
    Ok(ExitCode::SUCCESS)
}

/// Refuses what is no filter before anything goes.
fn check(filters: &[String]) -> Result<(), String> {
    for filter in filters {
        match filter.split_once('=') {
            Some(("until", value)) => drop(images::moment(value)?),
            Some(("label" | "label!", _)) => {}
            Some((key, _)) => return Err(format!("filter {key} is not known: until, label, label!")),
            None => return Err(format!("filter {filter:?} is not KEY=VALUE")),
        }
    }
    Ok(())
}

fn goes(store: &Store, tagged: &Tagged, arguments: &Arguments) -> Result<bool, String> {
    if tagged.reference.is_some() && !arguments.all {
        return Ok(false);
    }
    let Ok(image) = store.image(&tagged.descriptor, None) else { return Ok(tagged.reference.is_none()) };
    if !containers::users_of(store, image.id().as_str())?.is_empty() {
        return Ok(false);
    }
    for filter in &arguments.filter {
        let (key, value) =
            filter.split_once('=').ok_or_else(|| format!("filter {filter:?} is not KEY=VALUE"))?;
        let fits = match key {
            "until" => {
                let created = image.config.created.as_deref().and_then(host::parse_rfc3339).unwrap_or(0);
                created < images::moment(value)?
            }
            "label" => images::label_fits(&image, value),
            _ => images::label_fits(&image, value) == (key == "label"),
        };
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}
