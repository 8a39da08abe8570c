//! A container's files for one path: its merged root, or the volume that the path leads into.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hull_image::{Lock, Store};
use serde_json::Value;

use super::Failure;
use crate::commands::containers::{self, Place};
use crate::context::tree::Tree;
use crate::directory::open_directory;
use crate::pattern::ignore::Ignore;
use crate::pattern::path::relative;

/// An open root, and a path below it.
pub(super) struct Inside {
    pub(super) tree: Tree,
    /// Ends as the path that was asked for.
    pub(super) path: String,
    read_only: bool,
    /// Held while a container that has ended is mounted here.
    _lock: Option<Lock>,
}

impl Inside {
    /// Opens what `path` of a container lies in.
    pub(super) fn open(store: &Store, name: &str, path: &str) -> Result<Self, Failure> {
        let place = containers::find(store, name)?;
        let bytes = fs::read(place.dir.join("config.json"))
            .map_err(|error| format!("cp: read the configuration of {name}: {error}"))?;
        let config: Value = serde_json::from_slice(&bytes)?;
        if let Some(Volume { source, below, read_only }) = volume(&config, &relative(path)) {
            let (directory, below) = match Path::new(&source).is_dir() {
                true => (source, below),
                false => {
                    let (parent, own) = source.rsplit_once('/').unwrap_or((".", &source));
                    (parent.to_owned(), own.to_owned())
                }
            };
            let root = open_directory(Path::new(&directory))?;
            let tree = Tree::new(root, Ignore::default(), true);
            return Ok(Self { tree, path: with_ending(below, path), read_only, _lock: None });
        }
        let read_only = config["root"]["readonly"] == true;
        let (root, lock) = root(store, &place)?;
        let tree = Tree::new(root, Ignore::default(), true);
        Ok(Self { tree, path: with_ending(relative(path), path), read_only, _lock: lock })
    }

    /// # Errors
    /// Nothing may be written there.
    pub(super) fn refuse_read_only(&self) -> Result<(), Failure> {
        match self.read_only {
            true => Err("cp: the container may not write there, and nobody does for it".into()),
            false => Ok(()),
        }
    }
}

fn with_ending(path: String, asked: &str) -> String {
    let end = if asked.ends_with("/.") || asked == "." { "/." } else { "/" };
    if super::ending(asked) { path + end } else { path }
}

/// The merged root: where it is mounted, or mounted for this alone.
fn root(store: &Store, place: &Place) -> Result<(OwnedFd, Option<Lock>), Failure> {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    // Nobody may start or remove it meanwhile: an upper directory is not to be mounted twice.
    let lock = place.lock(store)?;
    if place.rootfs().exists() && device(&place.rootfs())? != device(&place.dir)? {
        return Ok((open_directory(&place.rootfs())?, None));
    }
    // Its processes write to an overlay that only another mount namespace has: a second one would take that apart.
    if !place.is_copy() && place.status()?.is_alive() {
        let name = &place.container.name;
        return Err(
            format!("cp: {name} runs on an overlay that is mounted in another mount namespace").into()
        );
    }
    Ok((place.merged(&place.lowers(store)?)?, Some(lock)))
}

#[derive(Debug, PartialEq, Eq)]
struct Volume {
    source: String,
    below: String,
    read_only: bool,
}

/// The bind mount that a path lies in: the longest destination, of equals the last.
fn volume(config: &Value, path: &str) -> Option<Volume> {
    let mounts = config["mounts"].as_array()?;
    let inside = mounts.iter().filter_map(|mount| {
        let destination = relative(mount["destination"].as_str()?);
        let rest = path.strip_prefix(&destination)?;
        let below = rest.strip_prefix('/').or(rest.is_empty().then_some(""))?;
        (mount["type"] == "bind").then(|| {
            let read_only = mount["options"].as_array().is_some_and(|all| all.contains(&"ro".into()));
            let source = mount["source"].as_str().unwrap_or_default().to_owned();
            (destination.len(), Volume { source, below: below.to_owned(), read_only })
        })
    });
    inside.max_by_key(|(length, _)| *length).map(|(_, volume)| volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_a_volume_is_the_volumes() {
        let config = serde_json::json!({"mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": "/s/data", "options": ["rbind", "rw"]},
            {"destination": "/data/in/", "type": "bind", "source": "/s/in", "options": ["rbind", "ro"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "/s/hosts", "options": ["ro"]},
        ]});
        let volume = |source: &str, below: &str, read_only: bool| {
            Some(Volume { source: source.into(), below: below.into(), read_only })
        };
        for (path, expected) in [
            ("data", volume("/s/data", "", false)),
            ("data/x/y", volume("/s/data", "x/y", false)),
            ("database", None),
            ("data/in/x", volume("/s/in", "x", true)),
            ("etc/hosts", volume("/s/hosts", "", true)),
            ("etc", None),
            ("proc/1", None),
            ("", None),
        ] {
            assert_eq!(super::volume(&config, path), expected, "{path}");
        }
    }

    #[test]
    fn a_path_keeps_its_ending() {
        for (asked, expected) in [("/a", "a"), ("/a/", "a/"), ("/a/.", "a/."), (".", "/."), ("/", "/")] {
            assert_eq!(with_ending(relative(asked), asked), expected, "{asked}");
        }
    }
}
