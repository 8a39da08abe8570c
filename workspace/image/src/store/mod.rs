//! The store: an OCI image layout that many processes share and that a crash cannot damage.
//!
//! ```text
//! oci-layout index.json blobs/ALG/HEX    the image layout, as any other tool reads it
//! layers/HEX/{fs,layer.json}             unpacked layers by diff id, each an overlay lower directory, or what differs
//!                                        from that of another one
//! made/HEX                               extents of the larger layers written here, by blob
//! pins/NAME                              digests that garbage collection keeps, one a line
//! locks/ tmp/ quarantine/                flock files, unfinished work, damaged blobs
//! ```
//! Rules: content goes to a temporary file, is synced, renamed, and its directory synced; the index is written last;
//! every process holds the lease shared while it works, and only garbage collection takes it exclusively.

mod blobs;
mod fsck;
mod growing;
mod images;
mod layers;
mod lock;
mod made;
mod removal;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};

use crate::error::{Error, Result};

pub use blobs::{BlobWriter, Sealed, publish};
pub use fsck::Finding;
pub use growing::{Announce, Growing};
pub use images::{Image, Tagged};
pub use layers::{LayerRecord, SETTLE_AFTER, Snapshot, chain_id, layer_name};
pub use lock::Lock;
pub use made::Made;
pub use removal::remove;
pub use sweep::Freed;

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const DIRECTORIES: [&str; 9] =
    ["blobs", "blobs/sha256", "blobs/sha512", "layers", "made", "pins", "locks", "tmp", "quarantine"];

/// A directory of images, open for use by this process.
pub struct Store {
    dir: PathBuf,
    root: OwnedFd,
    lease: Option<Lock>,
    /// Whose trees this process uses.
    view: String,
    /// The kernel's name of this boot.
    boot: String,
    /// Layers that were found undamaged: the trees of each, by its directory.
    whole: Mutex<BTreeMap<PathBuf, Vec<PathBuf>>>,
}

/// Where the store is when nobody says: `/var/lib/hull` for root, else below `XDG_DATA_HOME` or the home directory.
pub fn default_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/hull");
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from(format!("/tmp/hull-{}", rustix::process::geteuid().as_raw())))
        .join("hull")
}

impl Store {
    /// Opens the store in `dir`, making it when there is none, and holds its lease shared.
    ///
    /// # Errors
    /// A directory with another layout version, or whose lease garbage collection holds for more than 60 s.
    pub fn open(dir: &Path) -> Result<Self> {
        make_directories(dir)?;
        let mut store = Self::new(dir)?;
        // Alone on the store: what is in tmp belongs to processes that are gone.
        if let Some(alone) = Lock::try_exclusive(&store.lock_path("lease"))? {
            // A command that a killed build left running may still write there: whoever opens the store next removes it.
            drop(store.clear_temporary()?);
            drop(alone);
        }
        store.lease = Some(Lock::shared(&store.lock_path("lease"))?);
        store.write_layout()?;
        Ok(store)
    }

    /// Holds the lease of the store in `dir`, which another process of this one's work has opened, and touches nothing.
    ///
    /// # Errors
    /// No such store, or one whose lease garbage collection holds for more than 60 s.
    pub fn lease(dir: &Path) -> Result<Lock> {
        Lock::shared(&dir.join("locks/lease"))
    }

    /// Opens somebody else's layout for reading: nothing is made, locked or written.
    ///
    /// # Errors
    /// A directory that is not an image layout of version 1.0.0.
    pub fn open_foreign(dir: &Path) -> Result<Self> {
        let store = Self::new(dir)?;
        store.check_layout()?;
        Ok(store)
    }

    fn new(dir: &Path) -> Result<Self> {
        let (view, boot) = (layers::own_view()?, layers::boot_id()?);
        Ok(Self {
            dir: dir.to_owned(),
            root: open_root(dir)?,
            lease: None,
            view,
            boot,
            whole: Mutex::default(),
        })
    }

    /// The directory of the store.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the lock `name` alone, waiting at most 10 minutes; released on drop and by the kernel on a crash.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        Lock::exclusive(&self.lock_path(name))
    }

    /// Takes the lock `name` alone if nobody holds it.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        Lock::try_exclusive(&self.lock_path(name))
    }

    /// A path below `tmp` that no other process uses; nothing is there yet.
    pub fn temporary_path(&self) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.dir.join(format!("tmp/{}-{:x}-{count}", std::process::id(), time.as_nanos()))
    }

    /// Writes a file of the store so that a crash leaves either the old or the new content.
    pub fn replace_file(&self, name: &str, content: &[u8]) -> Result<()> {
        let temporary = self.temporary_path();
        let path = self.dir.join(name);
        let mut file = File::create_new(&temporary).map_err(Error::io("create", &temporary))?;
        file.write_all(content).map_err(Error::io("write", &temporary))?;
        file.sync_all().map_err(Error::io("sync", &temporary))?;
        fs::rename(&temporary, &path).map_err(Error::io("replace", &path))?;
        sync_directory(path.parent().unwrap_or(&self.dir))
    }

    /// Opens a file below the store; no part of its path may be a link.
    fn open_file(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let fd = rustix::fs::openat2(&self.root, name, flags, Mode::empty(), resolve)
            .map_err(Error::errno("open", &self.dir.join(name)))?;
        Ok(File::from(fd))
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.dir.join("locks").join(name)
    }

    /// Removes what processes left that are gone; gives what could not be.
    fn clear_temporary(&self) -> Result<Vec<Error>> {
        let dir = self.dir.join("tmp");
        let mut failures = Vec::new();
        for entry in fs::read_dir(&dir).map_err(Error::io("read", &dir))? {
            let path = entry.map_err(Error::io("read", &dir))?.path();
            // A mount is a living process's, and what it shows may be anything of the user's.
            if !is_mount(&path, &dir) {
                failures.extend(remove(&path).err());
            }
        }
        Ok(failures)
    }

    fn write_layout(&self) -> Result<()> {
        if self.dir.join("oci-layout").exists() {
            return self.check_layout();
        }
        let _lock = self.lock("index")?;
        if !self.dir.join("index.json").exists() {
            self.replace_file("index.json", &crate::canonical(&crate::Index::default()))?;
        }
        self.replace_file("oci-layout", LAYOUT.as_bytes())
    }

    fn check_layout(&self) -> Result<()> {
        let refuse = |reason: String| Error::Layout { path: self.dir.clone(), reason };
        let text = read_bounded(self.open_file("oci-layout")?, 4096, "image layout marker")?;
        let marker: serde_json::Value = serde_json::from_slice(&text).map_err(|e| refuse(e.to_string()))?;
        match marker.get("imageLayoutVersion").and_then(serde_json::Value::as_str) {
            Some("1.0.0") => Ok(()),
            other => Err(refuse(format!("has image layout version {other:?}"))),
        }
    }
}

fn make_directories(dir: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    for name in DIRECTORIES {
        let path = dir.join(name);
        builder.create(&path).map_err(Error::io("make", &path))?;
    }
    Ok(())
}

fn open_root(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty()).map_err(Error::errno("open", dir))
}

fn sync_directory(dir: &Path) -> Result<()> {
    let file = File::open(dir).map_err(Error::io("open", dir))?;
    file.sync_all().map_err(Error::io("sync", dir))
}

/// Reads a whole file that must be regular and at most `limit` bytes long.
fn read_bounded(file: File, limit: usize, what: &'static str) -> Result<Vec<u8>> {
    use std::io::Read;
    let regular = file.metadata().map_err(Error::Stream)?.is_file();
    if !regular {
        return Err(Error::document(what, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(Error::Stream)?;
    match bytes.len() > limit {
        true => Err(Error::document(what, format!("is longer than {limit} bytes"))),
        false => Ok(bytes),
    }
}

/// True when `path` is not of the mount that `parent` is of.
fn is_mount(path: &Path, parent: &Path) -> bool {
    let mount = |path: &Path| {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::MNT_ID).map(|stat| stat.stx_mnt_id)
    };
    matches!((mount(path), mount(parent)), (Ok(one), Ok(other)) if one != other)
}
