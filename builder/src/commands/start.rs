//! `start`: an ended container runs again, with the files that it has, under a monitor.

use std::fs;

use clap::Args;

use super::Outcome;
use super::containers::{self, Place};
use super::ports;
use super::record::unmount;
use super::run::hold;
use crate::host;

/// Arguments of `start`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Starts each one; one that runs is no error.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    Ok(containers::each("start", &arguments.containers, |name| start(name).map(|()| true)))
}

fn start(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let store = host::open_store()?;
    let _lock = containers::find(&store, name)?.lock(&store)?;
    // Read under the lock: another may have started or removed it meanwhile.
    let mut place = containers::find(&store, name)?;
    if place.status()?.is_alive() {
        return Ok(());
    }
    if !place.container.ports.is_empty() {
        let own = ports::read(&place.container.ports)?;
        ports::claim(&own, &containers::published(&containers::all(&store)?)?)?;
    }
    make_ready(&store, &mut place)?;
    // A long-lived container must not keep garbage collection from the store: its image is pinned.
    drop(store);
    Ok(hold(&place)?)
}

/// Takes away what the last run left, and mounts the files again.
fn make_ready(store: &hull_image::Store, place: &mut Place) -> Result<(), Box<dyn std::error::Error>> {
    place.ask(&["delete", "--force", &place.container.id])?;
    unmount(&place.rootfs());
    place.container.run += 1;
    place.save()?;
    for name in ["pid", "monitor", "runtime.log"] {
        drop(fs::remove_file(place.dir.join(name)));
    }
    place.mount(store, &place.lowers(store)?)
}
