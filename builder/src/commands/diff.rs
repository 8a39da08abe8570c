//! `diff`: what a container changed in its image's files.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use clap::Args;
use hull_image::Store;
use hull_layer::{Change, Effect, Entry, Kind, read_entry};

use super::Outcome;
use super::containers::{self, Place};
use crate::directory::open_directory;
use crate::host;

/// What every container has something mounted on.
const FILES: [&str; 3] = ["etc/hosts", "etc/resolv.conf", "etc/hostname"];
const DIRECTORIES: [&str; 4] = ["dev", "etc", "proc", "sys"];

/// Arguments of `diff`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name or id of the container
    container: String,
}

/// Prints one line for each path: A added, C changed, D deleted.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let place = containers::find(&store, &arguments.container)?;
    let Changes { changes, lowers, .. } = changes(&store, &place)?;
    let mut out = std::io::stdout().lock();
    for change in changes {
        let below = lowers.iter().any(|layer| read_entry(layer.as_fd(), &change.path).is_ok());
        let letter = match change.effect {
            Effect::Put(_) if below => "C",
            Effect::Put(_) => "A",
            Effect::Remove | Effect::Opaque => "D",
        };
        write!(out, "{letter} /")?;
        out.write_all(&change.path)?;
        writeln!(out)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A container's own layer.
pub(crate) struct Changes {
    pub(crate) changes: Vec<Change>,
    /// The directory that has the files of it.
    pub(crate) files: OwnedFd,
    /// The layers below, topmost first.
    pub(crate) lowers: Vec<OwnedFd>,
}

/// What a container changed, but for what the runtime did.
pub(crate) fn changes(store: &Store, place: &Place) -> Result<Changes, Box<dyn std::error::Error>> {
    let lowers = place.lowers(store)?;
    let lowers = lowers.iter().rev().map(|path| open_directory(path)).collect::<Result<Vec<_>, _>>()?;
    let (mut changes, files) = place.changes(&lowers)?;
    forget_mount_points(&mut changes, &lowers);
    Ok(Changes { changes, files, lowers })
}

/// Takes away what the runtime made to mount on: it is not the container's doing.
fn forget_mount_points(changes: &mut Vec<Change>, lowers: &[OwnedFd]) {
    changes.retain(|change| match &change.effect {
        Effect::Put(entry) => entry.size() != 0 || !FILES.iter().any(|path| path.as_bytes() == change.path),
        _ => true,
    });
    for directory in DIRECTORIES {
        let inside = format!("{directory}/");
        let bare = !changes.iter().any(|change| change.path.starts_with(inside.as_bytes()));
        let at = changes.iter().position(|change| change.path == directory.as_bytes());
        if let Some(at) = at.filter(|at| bare && is_as_below(&changes[*at], lowers)) {
            changes.remove(at);
        }
    }
}

/// True for a directory that is new, or has the attributes it has in the image; its time does not count.
fn is_as_below(change: &Change, lowers: &[OwnedFd]) -> bool {
    let Effect::Put(entry) = &change.effect else { return false };
    let below = lowers.iter().find_map(|layer| read_entry(layer.as_fd(), &change.path).ok());
    let attributes = |entry: &Entry| (entry.kind.clone(), entry.mode, entry.uid, entry.gid);
    match below {
        Some(was) => attributes(&was) == attributes(entry),
        None => attributes(entry) == (Kind::Directory, 0o755, 0, 0),
    }
}
