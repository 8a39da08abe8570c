//! What is copied: found without being led astray, packed under another name.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use hull_layer::{Entry, Kind, TarWriter, TimeRule};

use super::landing::What;
use crate::context::tree::{Tree, join, split};
use crate::directory::open_directory;
use crate::error::{Error, Result};
use crate::pattern::ignore::Ignore;

/// Something of a tree.
pub(super) struct Picked {
    /// The directory itself, or the one that something else lies in.
    root: Tree,
    /// What something else is called in there; nothing for a directory.
    inner: Option<Vec<u8>>,
    /// What the source is called.
    pub(super) name: Vec<u8>,
    contents_only: bool,
}

/// Whether a path ends like a directory's.
pub(super) fn ending(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "."
}

impl Picked {
    /// Finds a path of a container: links on the way lead where they do inside it.
    pub(super) fn find(tree: &Tree, path: &str, follow: bool) -> Result<Self> {
        let node = match follow || ending(path) {
            true => tree.find(path.as_bytes())?,
            false => tree.find_unfollowed(path.as_bytes())?,
        };
        let node = node.ok_or_else(|| Error::fact(format!("cp: {path} is not in the container")))?;
        let own = crate::pattern::path::relative(path);
        let name = own.rsplit('/').next().unwrap_or_default().as_bytes().to_vec();
        let (root, inner) = match node.is_directory() {
            true => (tree.open_directory(&node.path)?, None),
            false => {
                let (parent, inner) = split(&node.path);
                (tree.open_directory(parent)?, Some(inner.to_vec()))
            }
        };
        let contents_only = path.ends_with("/.") || name.is_empty();
        Ok(Self { root: Tree::new(root, Ignore::default(), true), inner, name, contents_only })
    }

    /// Finds a path of the host, where links lead as for every other program.
    pub(super) fn of_host(path: &str, follow: bool) -> Result<Self> {
        let meta = match follow || ending(path) {
            true => fs::metadata(path),
            false => fs::symlink_metadata(path),
        };
        let meta = meta.map_err(Error::io("look at", path))?;
        let real = match meta.is_symlink() {
            true => {
                let own = Path::new(path);
                let parent = own.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = fs::canonicalize(parent.unwrap_or(Path::new(".")));
                parent.map_err(Error::io("look at", path))?.join(own.file_name().unwrap_or_default())
            }
            false => fs::canonicalize(path).map_err(Error::io("look at", path))?,
        };
        if ending(path) && !meta.is_dir() {
            return Err(Error::fact(format!("cp: {path} is no directory")));
        }
        let inner = real.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
        let directory = if meta.is_dir() { &*real } else { real.parent().unwrap_or(&real) };
        let root = open_directory(directory).map_err(|error| Error::fact(error.to_string()))?;
        let own = Path::new(path).file_name().map(|name| name.as_encoded_bytes().to_vec());
        Ok(Self {
            root: Tree::new(root, Ignore::default(), true),
            name: own.unwrap_or_else(|| inner.clone()),
            inner: (!meta.is_dir()).then_some(inner),
            contents_only: path.ends_with("/.") || path == "." || real == Path::new("/"),
        })
    }

    /// How it counts for where it lands.
    pub(super) fn what(&self) -> What {
        match (&self.inner, self.contents_only) {
            (Some(_), _) => What::File,
            (None, true) => What::Contents,
            (None, false) => What::Directory,
        }
    }

    /// Writes an archive in which it is called `prefix`; the contents of a directory when that is empty.
    ///
    /// Without `keep` nothing in it gives rights away: no owner, no set-id bit, no attribute.
    pub(super) fn pack(&self, prefix: &[u8], keep: bool, sink: impl Write) -> Result<u64> {
        let mut writer = TarWriter::new(sink, TimeRule::Keep);
        let mut bytes = 0;
        let mut add = |path: &[u8], mut entry: Entry| -> Result<()> {
            entry.path = match &self.inner {
                Some(_) => prefix.to_vec(),
                None => join(prefix, path),
            };
            if !keep {
                (entry.uid, entry.gid) = (0, 0);
                entry.mode &= 0o1777;
                entry.xattrs.clear();
            }
            bytes += entry.size();
            match entry.kind {
                Kind::File { .. } => writer.append(&entry, &mut self.root.open_file(path)?)?,
                _ => writer.append(&entry, &mut io::empty())?,
            }
            Ok(())
        };
        match &self.inner {
            Some(name) => {
                let entry = hull_layer::read_entry(self.root.fd(), name)?;
                add(name, entry)?;
            }
            None => {
                if !prefix.is_empty() {
                    add(b"", hull_layer::read_entry(self.root.fd(), b"")?)?;
                }
                for entry in hull_layer::list(self.root.fd())? {
                    add(&entry.path.clone(), entry)?;
                }
            }
        }
        writer.finish()?.flush().map_err(Error::io("write", "the archive"))?;
        Ok(bytes)
    }
}
