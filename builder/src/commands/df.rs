//! `df`: what takes space in the store; one accounting, equal to what the file system counts.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use hull_image::Store;
use serde_json::{Value, json};

use super::{Outcome, table};
use crate::host;

/// Arguments of `df`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// A template for each kind, `table TEMPLATE`, or json
    #[arg(long)]
    format: Option<String>,
    /// Show bytes
    #[arg(short, long)]
    verbose: bool,
}

/// Prints the space that images, layers, containers and caches take.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let rows = rows(&store, arguments.verbose)?;
    match &arguments.format {
        Some(format) => print!("{}", table::formatted(format, &rows)?),
        None => {
            let keys = ["Type", "TotalCount", "Size", "Reclaimable"];
            let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let cells: Vec<Vec<String>> =
                rows.iter().map(|row| keys.map(|key| text(row, key)).to_vec()).collect();
            print!("{}", table::table(&["TYPE", "TOTAL", "SIZE", "RECLAIMABLE"], &cells));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(store: &Store, exact: bool) -> hull_image::Result<Vec<Value>> {
    let kept = store.reachable()?;
    let show = |bytes: u64| if exact { bytes.to_string() } else { host::size(bytes) };
    let row = |kind: &str, count: usize, bytes: u64, free: u64| json!({"Type": kind, "TotalCount": count.to_string(), "Size": show(bytes), "Reclaimable": show(free)});
    let mut seen = HashSet::new();
    let (mut count, mut bytes, mut free) = (0, 0, 0);
    for digest in store.blobs()? {
        let size = on_disk(&store.blob_path(&digest), &mut seen);
        count += 1;
        bytes += size;
        free += if kept.contains(&digest) { 0 } else { size };
    }
    let blobs = row("Blobs", count, bytes, free);
    let (mut count, mut bytes, mut free) = (0, 0, 0);
    for (dir, record) in store.seen_layers()? {
        let size = on_disk(&dir, &mut seen);
        count += 1;
        bytes += size;
        free += if record.is_some_and(|record| kept.contains(&record.diff_id)) { 0 } else { size };
    }
    let layers = row("Layers", count, bytes, free);
    let mut part = |kind: &str, name: &str, free: u64| {
        let dir = store.dir().join(name);
        row(kind, fs::read_dir(&dir).map_or(0, Iterator::count), on_disk(&dir, &mut seen), free)
    };
    let mounts = on_disk(&store.dir().join("cache/mounts"), &mut HashSet::new());
    Ok(vec![blobs, layers, part("Containers", "containers", 0), part("Build Cache", "cache", mounts)])
}

/// Files with several names that were counted, by device and inode: layers share what is the same.
pub(crate) type Seen = HashSet<(u64, u64)>;

/// Bytes of all blocks of a tree that were not counted before; what cannot be read counts as nothing. Mounts are not
/// entered.
pub(crate) fn on_disk(path: &Path, seen: &mut Seen) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        let counted = meta.nlink() > 1 && !seen.insert((meta.dev(), meta.ino()));
        return if counted { 0 } else { meta.blocks() * 512 };
    }
    let Ok(entries) = fs::read_dir(path) else { return meta.blocks() * 512 };
    let here =
        |path: &std::path::PathBuf| fs::symlink_metadata(path).is_ok_and(|inner| inner.dev() == meta.dev());
    let inside = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(here);
    meta.blocks() * 512 + inside.map(|path| on_disk(&path, seen)).sum::<u64>()
}
