//! What the command line of `run` says, checked: environment, limits, volumes.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use hull_image::{Image, Store};
use hull_layer::{Change, Extractor, TarWriter, TimeRule, extract, list, pack, read_entry};

use super::super::containers::Place;
use super::super::{environment, network};
use super::Arguments;
use crate::bundle::{Bind, Wishes};
use crate::directory::open_directory;
use crate::ids;
use crate::rootless::shared::is_entered;
use crate::steps::place::open_in_root;

type Failure = Box<dyn std::error::Error>;

/// Everything but the mounts.
pub(super) fn wishes(arguments: &Arguments, place: &Place) -> Result<Wishes, Failure> {
    let id = &place.container.id;
    let mut annotations = BTreeMap::new();
    for label in &arguments.label {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        annotations.insert(key.to_owned(), value.to_owned());
    }
    let milli = arguments.cpus.map(|cpus| (cpus * 1000.0) as u64);
    if milli == Some(0) {
        return Err("run: --cpus must be at least 0.001".into());
    }
    let (inside, limits) = (ids::in_user_namespace(), milli.is_some() || arguments.memory.is_some());
    if is_entered() && limits {
        return Err("run: only root can limit --memory and --cpus: they take a control group".into());
    }
    Ok(Wishes {
        entrypoint: arguments.entrypoint.clone(),
        command: arguments.command().to_vec(),
        env: environment::read(&arguments.env_file, &arguments.env)?,
        workdir: arguments.workdir.clone(),
        terminal: arguments.tty,
        read_only: arguments.read_only,
        memory: arguments.memory.as_deref().map(bytes).transpose()?,
        milli_cpus: milli,
        cap_add: arguments.cap_add.clone(),
        cap_drop: arguments.cap_drop.clone(),
        binds: Vec::new(),
        hostname: arguments.hostname.clone().unwrap_or_else(|| id[..12].to_owned()),
        host_network: place.container.network == "host",
        // In a namespace that was there before it is not sure that one can be made.
        cgroup: (!inside || limits).then(|| format!("/hull-build-{id}")),
        // The host's sysfs can't be mounted in any user namespace but the host's.
        rootless: inside,
        has_groups: ids::has_groups(),
        annotations,
    })
}

/// Bytes with Docker's units.
fn bytes(text: &str) -> Result<i64, String> {
    let lower = text.to_lowercase();
    let number = lower.trim_end_matches('b');
    let (digits, shift) = match number.chars().last() {
        Some('k') => (&number[..number.len() - 1], 10),
        Some('m') => (&number[..number.len() - 1], 20),
        Some('g') => (&number[..number.len() - 1], 30),
        _ => (number, 0),
    };
    let count: i64 = digits.parse().map_err(|_| format!("{text:?} is no size such as 512m"))?;
    count
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("{text:?} is out of range"))
}

/// Volumes of the image (filled from it), volumes of the command line, and the files that name the host's network.
pub(super) fn binds(
    store: &Store,
    arguments: &Arguments,
    image: &Image,
    place: &Place,
    rootfs: BorrowedFd<'_>,
) -> Result<Vec<Bind>, Failure> {
    let wished: Vec<Bind> =
        arguments.volume.iter().map(|text| volume(store, text, rootfs)).collect::<Result<_, Failure>>()?;
    let taken = |path: &str| wished.iter().any(|bind| bind.destination == path);
    let mut binds = Vec::new();
    for (count, destination) in image.config.config.volumes.keys().filter(|path| !taken(path)).enumerate() {
        let dir = place.dir.join("volumes").join(count.to_string());
        fs::create_dir_all(&dir)?;
        fill(rootfs, destination, &dir)?;
        binds.push(Bind {
            source: dir.display().to_string(),
            destination: destination.clone(),
            read_only: false,
        });
    }
    binds.extend(network::files(&place.container.network, &place.dir, &place.container.id)?);
    binds.extend(wished);
    Ok(binds)
}

/// Copies what the image has at a volume's place, owner and mode of the place included.
fn fill(rootfs: BorrowedFd<'_>, destination: &str, dir: &Path) -> Result<(), Failure> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let Ok(source) = open_in_root(rootfs, destination.as_bytes(), flags) else {
        return Ok(());
    };
    let mut changes = vec![Change::put(read_entry(source.as_fd(), b"")?)];
    changes.extend(list(source.as_fd())?.into_iter().map(Change::put));
    changes.sort_by(hull_layer::order);
    let target = open_directory(dir)?;
    let (reader, writer) = std::io::pipe()?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| {
            let mut archive = TarWriter::new(writer, TimeRule::Keep);
            pack(&changes, source.as_fd(), &mut archive).and_then(|_| archive.finish().map(drop))
        });
        let extracted = extract(reader, target.as_fd(), &Extractor::layer());
        packing.join().map_err(|_| "copying a volume ended early")??;
        Ok(extracted.map(drop)?)
    })
}

/// The directory of a volume with a name; a new one begins with what the image has at its place, complete or not at all.
fn named_volume(
    store: &Store,
    name: &str,
    (rootfs, destination): (BorrowedFd<'_>, &str),
) -> Result<PathBuf, Failure> {
    let dir = store.dir().join("volumes").join(name);
    let _lock = store.lock("volumes")?;
    if !dir.exists() {
        fs::create_dir_all(store.dir().join("volumes"))?;
        let staging = store.temporary_path();
        fs::create_dir(&staging)?;
        fill(rootfs, destination, &staging)?;
        fs::rename(&staging, &dir)?;
    }
    Ok(dir)
}

fn volume(store: &Store, text: &str, rootfs: BorrowedFd<'_>) -> Result<Bind, Failure> {
    let refuse = || format!("run: volume {text:?} is not SOURCE:DESTINATION[:ro|rw]");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts[..] {
        [source, destination] => (source, destination, "rw"),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(refuse().into()),
    };
    let valid_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let source = match source.starts_with('/') {
        true => PathBuf::from(source),
        false if source.starts_with('.') || !source.chars().all(valid_name) || source.is_empty() => {
            return Err(refuse().into());
        }
        false => named_volume(store, source, (rootfs, destination))?,
    };
    if !destination.starts_with('/') || !matches!(mode, "ro" | "rw") {
        return Err(refuse().into());
    }
    let source = source.display().to_string();
    Ok(Bind { source, destination: destination.to_owned(), read_only: mode == "ro" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_dockers_units() {
        for (text, count) in [("512m", 512 << 20), ("1g", 1 << 30), ("64kb", 64 << 10), ("7", 7), ("5B", 5)] {
            assert_eq!(bytes(text), Ok(count));
        }
        for bad in ["", "m", "-1", "0", "9999999999g", "1x"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
