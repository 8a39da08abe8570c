//! One tree: looked up inside its root by the kernel, walked by names without links.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::pattern::ignore::Ignore;
use crate::steps::place::open_in_root;

/// A root directory and what in it is not to be seen.
pub(crate) struct Tree {
    root: OwnedFd,
    pub(crate) ignore: Ignore,
    /// Whether owners are kept: files of a context belong to nobody in particular.
    pub(crate) keeps_owners: bool,
}

/// Something in a tree.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Path below the root, links on the way resolved.
    pub(crate) path: Vec<u8>,
    /// What the kernel says of it.
    pub(crate) stat: Stat,
}

impl Node {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == FileType::Directory
    }
}

impl Tree {
    pub(crate) fn new(root: OwnedFd, ignore: Ignore, keeps_owners: bool) -> Self {
        Self { root, ignore, keeps_owners }
    }

    /// What is at `path`, following links inside the root; `None` when nothing is, or it is ignored.
    pub(crate) fn find(&self, path: &[u8]) -> Result<Option<Node>> {
        self.find_with(path, true)
    }

    /// The same, a link at the end of the path not followed.
    pub(crate) fn find_unfollowed(&self, path: &[u8]) -> Result<Option<Node>> {
        self.find_with(path, false)
    }

    /// The root itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn find_with(&self, path: &[u8], follow: bool) -> Result<Option<Node>> {
        let flags = OFlags::PATH | if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let fd = match open_in_root(&self.root, path, flags) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(Error::errno("open", path)(errno)),
        };
        let real = self.real_path(fd.as_fd(), path)?;
        if !self.ignore.is_empty() && self.is_hidden(&real) {
            return Ok(None);
        }
        let mut stat = rustix::fs::fstat(&fd).map_err(Error::errno("look at", path))?;
        if real.is_empty() && !self.keeps_owners {
            // How a context's own directory was made is the business of whoever made it: the same files, the same image.
            stat.st_mode = (stat.st_mode & !0o7777) | 0o755;
        }
        Ok(Some(Node { path: real, stat }))
    }

    /// Whether a path is ignored with all that is below it.
    fn is_hidden(&self, path: &[u8]) -> bool {
        let text = String::from_utf8_lossy(path);
        !text.is_empty() && self.ignore.judge_path(&text).ignored && !self.ignore.must_enter(&text)
    }

    /// The path below the root that a descriptor stands for: the kernel's answer, less the root's own.
    fn real_path(&self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>> {
        let name = |fd: BorrowedFd<'_>| {
            use std::os::fd::AsRawFd;
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::fs::readlink(&link, Vec::new())
                .map(CString::into_bytes)
                .map_err(Error::errno("resolve", path))
        };
        let (root, whole) = (name(self.root.as_fd())?, name(fd)?);
        let below = whole.strip_prefix(root.strip_suffix(b"/").unwrap_or(&root));
        let below = below.ok_or_else(|| Error::fact("a path leads out of its root"))?;
        Ok(below.strip_prefix(b"/").unwrap_or(below).to_vec())
    }

    /// The entries of a directory, sorted by bytes, nothing ignored yet.
    pub(crate) fn entries(&self, directory: &[u8]) -> Result<Vec<Node>> {
        let fd = self.open_directory(directory)?;
        let names = names(&fd).map_err(Error::errno("read directory", directory))?;
        let look = |name: &CStr| {
            let path = join(directory, name.to_bytes());
            match rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(Ok(Node { path, stat })),
                // It went away between the two calls.
                Err(Errno::NOENT) => None,
                Err(errno) => Some(Err(Error::errno("look at", &path)(errno))),
            }
        };
        let mut nodes = Vec::with_capacity(names.places.len());
        for node in names.sorted().filter_map(look) {
            nodes.push(node?);
        }
        Ok(nodes)
    }

    pub(crate) fn open_directory(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, nonempty(path), flags, Mode::empty(), STRICT)
            .map_err(Error::errno("open directory", path))
    }

    /// Opens a regular file for reading; no link on the way is followed.
    pub(crate) fn open_file(&self, path: &[u8]) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), STRICT)
            .map_err(Error::errno("open", path))?;
        Ok(File::from(fd))
    }

    /// Opens anything as a mere place; no link is followed.
    pub(crate) fn open_place(&self, path: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, nonempty(path), flags, Mode::empty(), STRICT)
            .map_err(Error::errno("open", path))
    }

    /// The text of a symbolic link.
    pub(crate) fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let fd = self.open_place(path)?;
        let target = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(Error::errno("read link", path))?;
        Ok(target.into_bytes())
    }
}

/// Names of a directory, in one piece of memory: an allocation for each shows in what a large context costs.
#[derive(Default)]
struct Names {
    /// Each with the 0 that ends it.
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl Names {
    fn sorted(&self) -> impl Iterator<Item = &CStr> {
        let mut names: Vec<&[u8]> = self.places.iter().map(|place| &self.bytes[place.clone()]).collect();
        // The 0 at their ends comes before all that a name can have: the order is that of the names without it.
        names.sort_unstable();
        names.into_iter().filter_map(|name| CStr::from_bytes_with_nul(name).ok())
    }
}

/// The names in a directory but `.` and `..`, in the file system's order.
fn names(fd: &OwnedFd) -> rustix::io::Result<Names> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(fd, &mut buffer);
    let mut names = Names::default();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            let start = names.bytes.len();
            names.bytes.extend_from_slice(name.to_bytes_with_nul());
            names.places.push(start..names.bytes.len());
        }
    }
    Ok(names)
}

/// Opens files of a tree one after another: most are in the directory of the one before.
pub(crate) struct Opener<'a> {
    tree: &'a Tree,
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(tree: &'a Tree) -> Self {
        Self { tree, last: None }
    }

    /// The same as [`Tree::open_file`].
    pub(crate) fn open_file(&mut self, path: &[u8]) -> Result<File> {
        let (directory, name) = split(path);
        let known = self.last.take().filter(|(last, _)| last == directory);
        let (last, fd) = match known {
            Some(known) => known,
            None => (directory.to_vec(), self.tree.open_directory(directory)?),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&fd, name, flags, Mode::empty()).map_err(Error::errno("open", path));
        self.last = Some((last, fd));
        file.map(File::from)
    }
}

/// No link is followed.
const STRICT: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn nonempty(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

/// The directory and the last name of a path below a root.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Appends a name to a path below a root.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match (directory, name) {
        (b"", name) => name.to_vec(),
        (directory, b"") => directory.to_vec(),
        (directory, name) => [directory, b"/", name].concat(),
    }
}
