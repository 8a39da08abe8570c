//! Layers below a new one, looked at without mounting or even unpacking them: a layer may be a mere list.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::entry::{Entry, Kind, join, split};
use crate::error::{Error, Result};
use crate::merged::{Visible, look};

/// Most links that a path may lead through, as in the kernel.
const MOST_LINKS: usize = 40;

/// One layer.
pub enum View {
    /// Unpacked for overlayfs.
    Tree(OwnedFd),
    /// What is in it, sorted by the bytes of the paths; every parent listed, nothing removed by it.
    List(Vec<Entry>),
}

/// Layers seen as one tree, topmost first.
pub struct Below(pub Vec<View>);

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The part that is there, links followed; empty for the root.
    pub path: Vec<u8>,
    /// What is there; `None` is the root, which is always a directory.
    pub entry: Option<Entry>,
    /// The names below that are not there.
    pub missing: Vec<Vec<u8>>,
}

impl Below {
    /// What is at a path without links.
    pub fn find(&self, path: &[u8]) -> Result<Option<Entry>> {
        for view in &self.0 {
            let seen = match view {
                View::Tree(fd) => look(fd.as_fd(), path)?,
                View::List(entries) => listed(entries, path),
            };
            match seen {
                Visible::Entry(entry) => return Ok(Some(*entry)),
                Visible::Hidden => return Ok(None),
                Visible::Deeper => {}
            }
        }
        Ok(None)
    }

    /// Follows a path as a process in this root would, as far as there is something.
    ///
    /// # Errors
    /// A file in the middle of the path, or too many links.
    pub fn resolve(&self, path: &[u8]) -> Result<Found> {
        let parts = |path: &[u8]| path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut left: VecDeque<Vec<u8>> = parts(path).into();
        let mut at = Found { path: Vec::new(), entry: None, missing: Vec::new() };
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            match (&name[..], at.missing.is_empty()) {
                (b"" | b".", _) => continue,
                (b"..", true) => {
                    at.path = split(&at.path).0.to_vec();
                    at.entry = self.find_directory(&at.path)?;
                    continue;
                }
                (b"..", false) => {
                    at.missing.pop();
                    continue;
                }
                (_, false) => {
                    at.missing.push(name);
                    continue;
                }
                (_, true) => {}
            }
            if at.entry.as_ref().is_some_and(|entry| entry.kind != Kind::Directory) {
                return Err(Error::file("resolve", path)(Errno::NOTDIR));
            }
            let next = join(&at.path, &name);
            match self.find(&next)? {
                None => at.missing.push(name),
                Some(Entry { kind: Kind::Symlink(target), .. }) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Error::file("resolve", path)(Errno::LOOP));
                    }
                    if target.starts_with(b"/") {
                        (at.path, at.entry) = (Vec::new(), None);
                    }
                    parts(&target).into_iter().rev().for_each(|part| left.push_front(part));
                }
                found => (at.path, at.entry) = (next, found),
            }
        }
        Ok(at)
    }

    fn find_directory(&self, path: &[u8]) -> Result<Option<Entry>> {
        if path.is_empty() { Ok(None) } else { self.find(path) }
    }
}

fn listed(entries: &[Entry], path: &[u8]) -> Visible {
    let ends =
        path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
    for end in ends {
        let Ok(found) = entries.binary_search_by(|entry| entry.path[..].cmp(&path[..end])) else {
            return Visible::Deeper;
        };
        match entries[found].kind {
            _ if end == path.len() => return Visible::Entry(Box::new(entries[found].clone())),
            Kind::Directory => {}
            _ => return Visible::Hidden,
        }
    }
    Visible::Deeper
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A list on top of a tree: etc/, var -> real, loop -> loop, file, top/ with a link out.
    fn below(tree: &std::path::Path) -> Below {
        fs::create_dir_all(tree.join("etc/deep")).unwrap();
        fs::create_dir(tree.join("real")).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        fs::write(tree.join("etc/hidden"), "x").unwrap();
        symlink("real", tree.join("var")).unwrap();
        symlink("loop", tree.join("loop")).unwrap();
        symlink("/nowhere/at", tree.join("dangling")).unwrap();
        let mut list = vec![
            Entry::directory(b"etc"),
            Entry::new(b"etc/hidden", Kind::Symlink(b"../../../var/new".to_vec()), 0o777),
            Entry::directory(b"top"),
        ];
        list.sort_by(|a, b| a.path.cmp(&b.path));
        Below(vec![View::List(list), View::Tree(fs::File::open(tree).unwrap().into())])
    }

    #[test]
    fn lists_and_trees_are_one_tree() {
        let tree = tempfile::tempdir().unwrap();
        let below = below(tree.path());
        let kind = |path: &[u8]| below.find(path).unwrap().map(|entry| entry.kind);
        assert_eq!(kind(b"etc/deep"), Some(Kind::Directory), "below a listed directory");
        assert_eq!(kind(b"etc/hidden"), Some(Kind::Symlink(b"../../../var/new".to_vec())), "the list wins");
        assert_eq!(kind(b"etc/hidden/below"), None, "nothing shines through a link");
        assert_eq!(kind(b"file"), Some(Kind::File { size: 1 }));
        assert_eq!(kind(b"top"), Some(Kind::Directory));
    }

    #[test]
    fn paths_lead_where_a_process_would_go() {
        let tree = tempfile::tempdir().unwrap();
        let below = below(tree.path());
        for (path, wanted, missing) in [
            (&b"/etc/deep/"[..], &b"etc/deep"[..], &[][..]),
            (b"var/a/b", b"real", &[&b"a"[..], b"b"]),
            (b"etc/hidden/x", b"real", &[b"new", b"x"]),
            (b"dangling", b"", &[b"nowhere", b"at"]),
            (b"../../etc/./deep/..", b"etc", &[]),
            (b"new/../file", b"file", &[]),
        ] {
            // What follows a missing part stays missing unless `..` takes it away.
            let found = below.resolve(path).unwrap();
            let names: Vec<&[u8]> = found.missing.iter().map(|name| &name[..]).collect();
            assert_eq!((&found.path[..], &names[..]), (wanted, missing), "{}", String::from_utf8_lossy(path));
        }
        assert!(below.resolve(b"loop/x").is_err(), "links that never end");
        assert!(below.resolve(b"file/x").is_err(), "a file on the way");
        assert_eq!(below.resolve(b"").unwrap().entry, None, "the root");
    }
}
