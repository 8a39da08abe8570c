//! The daemon: takes the socket that `start` left open for it and serves.

use std::path::{Path, PathBuf};

use crate::engine::{Engine, Publisher, Setup};

use super::flags::Flags;
use super::log::Log;
use super::start::LISTENER;

/// Serves until nobody needs it any more.
pub fn serve(flags: &Flags) -> Result<(), String> {
    let listener = hull_sys::fd::adopt(LISTENER).map_err(|error| format!("take over the socket: {error}"))?;
    let events = std::env::var("TTRPC_ADDRESS").ok().filter(|address| !address.is_empty());
    let events = events.map(|address| PathBuf::from(address.strip_prefix("unix://").unwrap_or(&address)));
    let setup = Setup {
        listener,
        socket: Some(PathBuf::from(&flags.socket)).filter(|path| path.is_absolute()),
        namespace: flags.namespace.clone(),
        publisher: Publisher::new(events),
        log: Log::open(Path::new("log")),
    };
    let engine = Engine::new(setup).map_err(|error| format!("set the loop up: {error}"))?;
    engine.run().map_err(|error| format!("serve: {error}"))
}
