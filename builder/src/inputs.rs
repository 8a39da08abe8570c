//! What a build reads from: its context, directories and images given by name, and what its steps leave.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use hull_image::{ImageConfig, Store};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::build::source::Unpacked;
use crate::context::file_cache::FileCache;
use crate::context::tree::Tree;
use crate::directory::open_directory;
use crate::error::{Error, Result};
use crate::pattern::ignore::Ignore;
use crate::snapshot::{Layers, Snapshot};
use crate::steps::place::open_in_root;

/// Largest ignore file read, in bytes.
const MAX_IGNORE: u64 = 4 << 20;

/// A directory that files come from.
pub(crate) struct Directory {
    pub(crate) tree: Tree,
    pub(crate) cache: FileCache,
}

/// An image that was found.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// Its name as the store or registry has it.
    pub(crate) name: String,
    /// Digest of its manifest.
    pub(crate) digest: hull_image::Digest,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Layers,
}

/// Everything that is there before the first step.
#[derive(Default)]
pub(crate) struct Inputs {
    pub(crate) context: Option<Directory>,
    pub(crate) directories: BTreeMap<String, Directory>,
    pub(crate) images: BTreeMap<String, Base>,
    /// Contexts by name that were fetched; removed at the end.
    pub(crate) unpacked: Vec<Unpacked>,
}

impl Directory {
    /// Opens a directory of the host; `ignore` are its rules.
    pub(crate) fn open(path: &Path, ignore: Ignore, cache: FileCache) -> Result<Self> {
        Ok(Self { tree: Tree::new(open_directory(path)?, ignore, false), cache })
    }
}

/// Where `path` is below `root`, whichever ways both are written; none if it is not.
///
/// Links on the way from the root on are left to who opens it.
fn below(path: &Path, root: &Path) -> Option<PathBuf> {
    let (whole, top) = (std::path::absolute(path).ok()?, std::path::absolute(root).ok()?);
    let plain = whole.strip_prefix(&top).ok();
    if let Some(below) = plain.filter(|below| below.components().all(|part| part != Component::ParentDir)) {
        return Some(below.to_owned());
    }
    let directory = fs::canonicalize(whole.parent()?).ok()?;
    let below = directory.strip_prefix(fs::canonicalize(top).ok()?).ok()?;
    Some(below.join(whole.file_name()?))
}

/// Reads the ignore rules beside a Dockerfile, or else those of the context.
///
/// Where `within` names a context, it could point a link at a file of the host: of a file below it all links lead inside,
/// and one that leads nowhere there is refused, as what it should hide would be sent; of a file beside it none is followed.
/// What a person named (`within` is none) is opened as it is.
pub(crate) fn ignore_rules(candidates: &[PathBuf], within: Option<&Path>) -> Result<Ignore> {
    for path in candidates {
        let refuse = |what: &str| Error::fact(format!("the ignore file {} {what}", path.display()));
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match within.map(|root| (root, below(path, root))) {
            Some((root, Some(below))) => {
                open_in_root(open_directory(root)?, below.as_os_str().as_bytes(), flags)
            }
            Some((_, None)) => rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()),
            None => rustix::fs::open(path, flags, Mode::empty()),
        };
        let file = match opened {
            Ok(fd) => fs::File::from(fd),
            // There is something, be it by a link on the way that leads elsewhere inside of the context.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if fs::symlink_metadata(path).is_ok() => {
                return Err(refuse("is not a regular file of the context"));
            }
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(Error::io("open", path)(errno.into())),
        };
        let meta = file.metadata().map_err(Error::io("look at", path))?;
        if !meta.is_file() {
            return Err(refuse("is not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_IGNORE + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
        if bytes.len() as u64 > MAX_IGNORE {
            return Err(refuse(&format!("is longer than {MAX_IGNORE} bytes")));
        }
        let text = String::from_utf8_lossy(&bytes);
        return Ignore::parse(&text).map_err(|e| Error::fact(format!("{}: {e}", path.display())));
    }
    Ok(Ignore::default())
}

/// A tree open for one step: a directory that is open anyway, or a snapshot opened for it.
pub(crate) enum Opened<'a> {
    Directory(&'a Directory),
    Snapshot(Tree, Snapshot),
}

impl Opened<'_> {
    /// Opens what layers make together.
    pub(crate) fn layers(store: &Store, layers: &Layers) -> Result<Self> {
        let snapshot = Snapshot::read_only(store, layers)?;
        let root = snapshot.root().try_clone_to_owned().map_err(Error::io("open", "/"))?;
        Ok(Self::Snapshot(Tree::new(root, Ignore::default(), true), snapshot))
    }

    pub(crate) fn tree(&self) -> &Tree {
        match self {
            Self::Directory(directory) => &directory.tree,
            Self::Snapshot(tree, _) => tree,
        }
    }

    pub(crate) fn cache(&self) -> Option<&FileCache> {
        match self {
            Self::Directory(directory) => Some(&directory.cache),
            Self::Snapshot(..) => None,
        }
    }
}
