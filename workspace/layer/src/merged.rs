//! Unpacked layers as overlayfs would show them, read without mounting.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::entry::{Entry, Kind, join};
use crate::error::{Error, Result};
use crate::tree;

/// Unpacked layers seen as one tree, topmost first.
#[derive(Clone, Copy)]
pub(crate) struct Merged<'a>(pub &'a [OwnedFd]);

impl<'a> Merged<'a> {
    /// What is at a path, and in which layer.
    pub fn find(&self, path: &[u8]) -> Result<Option<(BorrowedFd<'a>, Entry)>> {
        for layer in self.0 {
            match look(layer.as_fd(), path)? {
                Visible::Entry(entry) => return Ok(Some((layer.as_fd(), *entry))),
                Visible::Hidden => return Ok(None),
                Visible::Deeper => {}
            }
        }
        Ok(None)
    }

    /// The names in a directory, of all layers down to the first that hides the rest.
    pub fn names(&self, path: &[u8]) -> Result<BTreeSet<Vec<u8>>> {
        let mut seen = BTreeSet::new();
        for layer in self.0 {
            match look(layer.as_fd(), path)? {
                Visible::Entry(entry) if entry.kind == Kind::Directory => {
                    let dir = tree::open_directory(layer.as_fd(), path)?;
                    seen.extend(tree::names(dir.as_fd(), path)?);
                    if tree::is_opaque(dir.as_fd()) {
                        break;
                    }
                }
                Visible::Deeper => {}
                _ => break,
            }
        }
        let mut kept = BTreeSet::new();
        for name in seen {
            if self.find(&join(path, &name))?.is_some() {
                kept.insert(name);
            }
        }
        Ok(kept)
    }
}

/// What one layer says of a path.
pub(crate) enum Visible {
    /// This is there.
    Entry(Box<Entry>),
    /// Nothing, whatever is below.
    Hidden,
    /// Nothing: lower layers know.
    Deeper,
}

/// Looks at a path in one unpacked layer. A socket, which no layer can carry, is nothing that hides what is below it.
pub(crate) fn look(layer: BorrowedFd<'_>, path: &[u8]) -> Result<Visible> {
    let ends =
        path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
    let mut opaque = false;
    for end in ends {
        let fd = match tree::look(layer, &path[..end]) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if opaque => return Ok(Visible::Hidden),
            Err(Errno::NOENT) => return Ok(Visible::Deeper),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Visible::Hidden),
            Err(errno) => return Err(Error::file("look at", &path[..end])(errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(Error::file("look at", &path[..end]))?;
        if tree::is_socket(&stat) {
            return Ok(Visible::Hidden);
        }
        let entry = tree::entry_from(fd.as_fd(), &path[..end], &stat)?;
        match entry.kind {
            Kind::Char { major: 0, minor: 0 } => return Ok(Visible::Hidden),
            _ if end == path.len() => return Ok(Visible::Entry(Box::new(entry))),
            Kind::Directory => opaque |= tree::is_opaque(fd.as_fd()),
            _ => return Ok(Visible::Hidden),
        }
    }
    Ok(Visible::Deeper)
}
