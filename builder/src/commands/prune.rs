//! `prune`: remove images without a name (or without use), and everything nobody needs: content, and caches of builds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use hull_image::{Digest, Store, Tagged, layer_name};

use super::{Outcome, containers, df, images};
use crate::cache::{Cache, CacheMount};
use crate::dockerfile::mount::size;
use crate::error::chain;
use crate::host;

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
    /// Keep the newest content that no image needs, up to this many bytes
    #[arg(long, value_name = "BYTES", alias = "reserved-space")]
    keep_storage: Option<String>,
    /// Keep content that no image needs as long as the store takes no more than this
    #[arg(long, value_name = "BYTES")]
    max_used_space: Option<String>,
    /// Keep content that no image needs as long as this much space is free
    #[arg(long, value_name = "BYTES")]
    min_free_space: Option<String>,
}

/// Removes images and content, and tells what became free, and what could not be removed.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    check(&arguments.filter)?;
    let limits = Limits::of(arguments)?;
    let mut store = host::open_store()?;
    for tagged in store.images()? {
        if goes(&store, &tagged, arguments)? {
            store.remove_entries(std::slice::from_ref(&tagged))?;
            let name = tagged.reference.map(|name| format!("{} ", name.familiar())).unwrap_or_default();
            println!("Deleted: {name}{}", tagged.descriptor.digest);
        }
    }
    let kept = limits.kept(&store)?;
    // No step that uses a cache mount may go on without it: first of all, as this is refused where others are at work.
    let mut removed = store.alone(|store| remove_mounts(store, &arguments.filter, &kept.mounts))?;
    let freed = store.collect_garbage(&kept.content)?;
    removed.bytes += freed.bytes + Cache::open(&store)?.sweep()?;
    removed.failures.extend(freed.failures.iter().chain(&freed.left).map(|failure| chain(failure)));
    println!("Total reclaimed space: {}", host::size(removed.bytes));
    removed.failures.iter().for_each(|failure| eprintln!("hull-build: prune: {failure}"));
    Ok(if removed.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Default)]
struct Removed {
    /// That became free.
    bytes: u64,
    /// What cannot be removed, each once: a file of a mount is met again among what is left of all.
    failures: BTreeSet<String>,
}

/// Removes the cache mounts that are not to stay.
fn remove_mounts(
    store: &Store,
    filters: &[String],
    kept: &BTreeSet<PathBuf>,
) -> Result<Removed, Box<dyn std::error::Error>> {
    let mut seen = HashSet::new();
    let mut removed = Removed::default();
    for mount in Cache::open(store)?.mounts()? {
        if !kept.contains(&mount.path) && mount_goes(&mount, filters)? {
            let size = df::on_disk(&mount.path, &mut seen);
            match mount.remove(store) {
                Ok(()) => removed.bytes += size,
                Err(error) => drop(removed.failures.insert(chain(&error))),
            }
        }
    }
    Ok(removed)
}

/// A cache mount has a time but no labels.
fn mount_goes(mount: &CacheMount, filters: &[String]) -> Result<bool, String> {
    for filter in filters {
        let goes = match filter.split_once('=') {
            Some(("until", value)) => seconds(mount.used) < images::moment(value)?,
            Some(("label!", _)) => true,
            _ => false,
        };
        if !goes {
            return Ok(false);
        }
    }
    Ok(true)
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

/// Bytes of content that no image needs and that stays all the same.
#[derive(Default)]
struct Limits {
    keep: Option<u64>,
    used: Option<u64>,
    free: Option<u64>,
}

impl Limits {
    fn of(arguments: &Arguments) -> Result<Self, String> {
        let bytes = |flag: &str, text: &Option<String>| {
            let wrong = |text: &String| format!("{flag} {text:?} is no size like 10g");
            text.as_ref().map(|text| size(text).ok_or_else(|| wrong(text))).transpose()
        };
        Ok(Self {
            keep: bytes("--keep-storage", &arguments.keep_storage)?,
            used: bytes("--max-used-space", &arguments.max_used_space)?,
            free: bytes("--min-free-space", &arguments.min_free_space)?,
        })
    }

    /// How much of `spare` bytes stays when `needed` others must and `left` are free on the disk.
    fn room(&self, spare: u64, needed: u64, left: u64) -> u64 {
        let used = self.used.map(|most| most.saturating_sub(needed));
        let free = self.free.map(|wanted| spare.saturating_sub(wanted.saturating_sub(left)));
        let most = used.into_iter().chain(free).min();
        self.keep.unwrap_or(0).max(most.unwrap_or(0)).min(spare)
    }

    /// What stays beside what images need: the newest first.
    fn kept(&self, store: &Store) -> Result<Kept, Box<dyn std::error::Error>> {
        if (self.keep, self.used, self.free) == (None, None, None) {
            return Ok(Kept::default());
        }
        let needed = store.reachable()?;
        let all = pieces(store)?;
        let (must, mut may): (Vec<_>, Vec<_>) = all.into_iter().partition(|piece| piece.is_needed(&needed));
        may.sort_by_key(|piece| std::cmp::Reverse(piece.time));
        let sum = |list: &[Piece]| list.iter().map(|piece| piece.size).sum();
        let disk = rustix::fs::statvfs(store.dir()).map_err(std::io::Error::from)?;
        let mut room = self.room(sum(&may), sum(&must), disk.f_bavail * disk.f_frsize);
        let fits = |piece: Piece| {
            let left = room.checked_sub(piece.size)?;
            room = left;
            Some(piece.what)
        };
        let mut kept = Kept::default();
        may.into_iter().map_while(fits).for_each(|what| match what {
            What::Content(digests) => kept.content.extend(digests),
            What::Mount(path) => drop(kept.mounts.insert(path)),
        });
        Ok(kept)
    }
}

/// What stays although no image needs it.
#[derive(Default)]
struct Kept {
    content: BTreeSet<Digest>,
    mounts: BTreeSet<PathBuf>,
}

/// What goes or stays as one.
struct Piece {
    /// When the newest of it was made, or last used.
    time: SystemTime,
    /// Bytes on the disk.
    size: u64,
    what: What,
}

enum What {
    /// A blob, or an unpacked layer with all that lie on it.
    Content(Vec<Digest>),
    /// A cache mount.
    Mount(PathBuf),
}

impl Piece {
    fn is_needed(&self, needed: &BTreeSet<Digest>) -> bool {
        matches!(&self.what, What::Content(digests) if digests.iter().any(|digest| needed.contains(digest)))
    }
}

fn pieces(store: &Store) -> Result<Vec<Piece>, Box<dyn std::error::Error>> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for digest in store.blobs()? {
        let path = store.blob_path(&digest);
        let (time, size) = (fs::metadata(&path)?.modified()?, df::on_disk(&path, &mut seen));
        all.push(Piece { time, size, what: What::Content(vec![digest]) });
    }
    let mut layers: BTreeMap<Digest, (SystemTime, u64, Vec<Digest>)> = BTreeMap::new();
    for (directory, record) in store.seen_layers()? {
        let (Some(record), Some(digest)) = (record, layer_name(&directory)) else { continue };
        let time = fs::metadata(directory.join("layer.json"))?.modified()?;
        let below = record.on.unwrap_or_else(|| digest.clone());
        let (newest, size, digests) = layers.entry(below).or_insert((time, 0, Vec::new()));
        *newest = time.max(*newest);
        *size += df::on_disk(&directory, &mut seen);
        digests.push(digest);
    }
    let layers = layers.into_values();
    all.extend(layers.map(|(time, size, digests)| Piece { time, size, what: What::Content(digests) }));
    for CacheMount { path, used } in Cache::open(store)?.mounts()? {
        let size = df::on_disk(&path, &mut seen);
        all.push(Piece { time: used, size, what: What::Mount(path) });
    }
    Ok(all)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_leave_the_room_that_they_say() {
        let limits = |keep, used, free| Limits { keep, used, free };
        for (given, wanted) in [
            (limits(None, None, None), 0),
            (limits(Some(30), None, None), 30),
            (limits(Some(300), None, None), 100),
            // 40 bytes are needed by images.
            (limits(None, Some(90), None), 50),
            (limits(None, Some(10), None), 0),
            // 20 bytes are free.
            (limits(None, None, Some(20)), 100),
            (limits(None, None, Some(50)), 70),
            (limits(None, Some(90), Some(50)), 50),
            (limits(Some(60), Some(90), None), 60),
        ] {
            assert_eq!(given.room(100, 40, 20), wanted);
        }
    }
}
