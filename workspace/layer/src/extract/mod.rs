//! The extractor: a hostile archive becomes a tree below one directory, and nothing else changes.
//!
//! Links of the archive are never followed by the kernel: parents are walked by [`place`] one part at a time, in a model
//! of the root where a link can only lead to another place below it, and every call that creates takes a directory
//! descriptor and one name. Entries are applied as the image specification says (layer, applying changesets).

mod mapped;
pub(crate) mod metadata;
mod place;
mod rights;
mod whiteout;

use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_image::Made;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::decompress::is_zero;
use crate::entry::{Entry, Kind, Time, split};
use crate::error::{Error, Result};
use crate::tar::{RawEntry, TarReader};

use mapped::Mapped;
use place::Places;

pub(crate) use rights::Rights;
pub use rights::{Devices, Owners};

/// What one archive may cost (security rule: every input has limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Number of entries.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes of one path.
    pub path: usize,
    /// Parts of one path.
    pub depth: usize,
    /// Bytes of the extended attributes of one entry.
    pub xattrs: usize,
    /// Bytes of the PAX records of one entry.
    pub records: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 16 << 30,
            path: 4096,
            depth: 255,
            xattrs: 64 << 10,
            records: 1 << 20,
        }
    }
}

impl Limits {
    /// The limits for a layer of which no more is known than its extent, and whether the ratio of its compression counts.
    pub(crate) fn of(self, ratio: u64, made: Option<Made>) -> (Self, u64) {
        match made {
            Some(Made { bytes, entries }) => {
                (Self { bytes: self.bytes.max(bytes), entries: self.entries.max(entries), ..self }, 0)
            }
            None => (self, ratio),
        }
    }
}

/// What becomes of the marks for removed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// What lower layers put there is removed.
    Apply,
    /// They become overlayfs's: devices 0/0 and `trusted.overlay.opaque` (`user.` without privilege).
    Overlay {
        /// Use `user.overlay.*`, as mounts in a user namespace need.
        user: bool,
    },
    /// They are refused: the archive is no layer.
    Refuse,
}

/// What an extraction did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries in the archive, marks included.
    pub entries: u64,
    /// Bytes of all regular files.
    pub bytes: u64,
    /// Paths of device nodes left out.
    pub skipped: Vec<Vec<u8>>,
    /// Entries that belong to root, as the user namespace has not the owner or group that they should have.
    pub foreign: u64,
    /// Parents that the archive takes for granted: another layer below might have given them other attributes.
    pub implied: u64,
    /// The latest modification time of an entry, in seconds since 1970; none of an empty archive.
    pub newest: Option<i64>,
}

/// How to extract.
#[derive(Debug, Clone, Copy)]
pub struct Extractor<'a> {
    /// The limits.
    pub limits: Limits,
    /// Marks for removed files.
    pub whiteouts: Whiteouts,
    /// Device nodes.
    pub devices: Devices,
    /// Owners.
    pub owners: Owners,
    /// User and group of everything, whatever the archive says.
    pub owner: Option<(u32, u32)>,
    /// Whether a directory in the place of something else, or the reverse, is an error instead of replacing it.
    pub keeps_kinds: bool,
    /// Unpacked layers below this one, topmost first, where parents that the archive lacks are looked up.
    pub lowers: &'a [OwnedFd],
}

impl Extractor<'_> {
    /// Puts an archive that is no layer into a tree, as far as this process may: see [`crate::LeftOut`].
    pub fn archive() -> Self {
        let Rights { devices, owners } = Rights::here();
        Self { whiteouts: Whiteouts::Refuse, devices, owners, ..Self::layer() }
    }

    /// Applies a layer to a tree, as root.
    pub const fn layer() -> Self {
        Self {
            limits: Limits {
                entries: 1_000_000,
                bytes: 16 << 30,
                path: 4096,
                depth: 255,
                xattrs: 64 << 10,
                records: 1 << 20,
            },
            whiteouts: Whiteouts::Apply,
            devices: Devices::Make,
            owners: Owners::Keep,
            owner: None,
            keeps_kinds: false,
            lowers: &[],
        }
    }
}

/// Extracts a plain archive from `source` below the directory `root`.
///
/// # Errors
/// The first entry that breaks a rule, by number, name and rule; what came before it stays.
pub fn extract(source: impl Read, root: BorrowedFd<'_>, options: &Extractor<'_>) -> Result<Extracted> {
    let mut reader = TarReader::new(source, options.limits.records);
    let mapped = (options.owners == Owners::Mapped).then(Mapped::read).transpose()?;
    let mut work = Work {
        options,
        mapped,
        places: Places::new(root, options.lowers),
        made: HashSet::new(),
        absent: HashSet::new(),
        hasher: RandomState::new(),
        directories: Vec::new(),
        done: Extracted::default(),
        buffer: vec![0; 64 << 10],
    };
    while let Some(raw) = reader.next_entry()? {
        work.apply(raw, &mut reader)?;
    }
    work.finish()
}

struct Work<'a> {
    options: &'a Extractor<'a>,
    mapped: Option<Mapped>,
    places: Places<'a>,
    /// Hashes of the paths this layer made: whiteouts concern lower layers only.
    made: HashSet<u64>,
    /// Hashes of the paths that were left out: no link can lead there.
    absent: HashSet<u64>,
    hasher: RandomState,
    directories: Vec<(Vec<u8>, Time)>,
    done: Extracted,
    buffer: Vec<u8>,
}

impl Work<'_> {
    fn apply(&mut self, raw: RawEntry, data: &mut TarReader<impl Read>) -> Result<()> {
        let refuse = |rule: String| Error::Archive { index: raw.index, name: raw.name.clone(), rule };
        self.done.entries += 1;
        if self.done.entries > self.options.limits.entries {
            return Err(too_large(&raw, format!("more than {} entries", self.options.limits.entries)));
        }
        let path = clean_path(&raw.name, &self.options.limits).map_err(refuse)?;
        let (dir, name) = split(&path);
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            if self.options.whiteouts == Whiteouts::Refuse {
                return Err(refuse("names that begin with .wh. have no place in this archive".to_owned()));
            }
            return whiteout::apply(self, dir, hidden)
                .map_err(|e| e.unwrap_or_else(|| refuse(BAD_WHITEOUT.to_owned())));
        }
        if dir.split(|b| *b == b'/').any(|part| part.starts_with(b".wh.")) {
            return Err(refuse(BAD_WHITEOUT.to_owned()));
        }
        let entry = self.entry(&raw, path)?;
        self.done.newest = self.done.newest.max(Some(entry.mtime.seconds));
        if entry.path.is_empty() {
            return match entry.kind {
                Kind::Directory => self.root(&entry),
                _ => Err(refuse("the root of the archive is no directory".to_owned())),
            };
        }
        self.done.bytes = self.done.bytes.saturating_add(entry.size());
        if self.done.bytes > self.options.limits.bytes {
            return Err(too_large(&raw, format!("more than {} bytes of files", self.options.limits.bytes)));
        }
        self.place(&entry, raw.index, data)
    }

    /// Checks attributes and link targets against the rules.
    fn entry(&mut self, raw: &RawEntry, path: Vec<u8>) -> Result<Entry> {
        let refuse = |rule: String| Error::Archive { index: raw.index, name: raw.name.clone(), rule };
        let kind = match &raw.kind {
            Kind::Hardlink(target) => {
                Kind::Hardlink(clean_path(target, &self.options.limits).map_err(refuse)?)
            }
            Kind::Symlink(target) if target.is_empty() || target.contains(&0) => {
                return Err(refuse("the target of a link is empty or has a NUL byte".to_owned()));
            }
            Kind::Symlink(target) if target.len() >= 4096 => {
                return Err(refuse("the target of a link is longer than 4095 bytes".to_owned()));
            }
            other => other.clone(),
        };
        let xattrs = metadata::allowed(&raw.xattrs, self.options.limits.xattrs).map_err(refuse)?;
        let (mode, mtime) = (raw.mode & 0o7777, raw.mtime);
        let wanted = self.options.owner.unwrap_or((raw.uid, raw.gid));
        let (uid, gid) = self.mapped.as_ref().map_or(wanted, |ids| ids.nearest(wanted.0, wanted.1));
        let mut entry = Entry { path, kind, mode, uid, gid, mtime, xattrs };
        if (uid, gid) != wanted {
            self.done.foreign += 1;
            mapped::take_rights(&mut entry);
        }
        Ok(entry)
    }

    fn root(&mut self, entry: &Entry) -> Result<()> {
        metadata::set(self.places.root, entry, self.options.owners)?;
        self.directories.push((Vec::new(), entry.mtime));
        Ok(())
    }

    fn place(&mut self, entry: &Entry, index: u64, data: &mut TarReader<impl Read>) -> Result<()> {
        let (dir, name) = split(&entry.path);
        let device = matches!(entry.kind, Kind::Char { .. } | Kind::Block { .. });
        if device && self.options.devices == Devices::Skip {
            self.leave_out(&entry.path);
            return Ok(());
        }
        if matches!(entry.kind, Kind::Char { major: 0, minor: 0 }) {
            let rule = "a device 0/0 means removal to overlayfs".to_owned();
            return Err(Error::Archive { index, name: entry.path.clone(), rule });
        }
        if let Kind::Hardlink(target) = &entry.kind
            && self.absent.contains(&self.hasher.hash_one(target))
        {
            self.leave_out(&entry.path);
            return Ok(());
        }
        let parent = self.parent(dir)?;
        let source = match &entry.kind {
            Kind::Hardlink(target) => Some(self.link_source(entry, target, index)?),
            _ => None,
        };
        if let Some((from, from_name)) = &source
            && same_file(from.as_fd(), from_name, parent.as_fd(), name)
        {
            return Ok(());
        }
        let replaced = self.clear(parent.as_fd(), entry, index)?;
        let made = self.hasher.hash_one(&entry.path);
        self.made.insert(made);
        self.absent.remove(&made);
        match &entry.kind {
            Kind::File { size } => self.file(parent.as_fd(), name, entry, *size, data),
            Kind::Directory => self.directory(parent.as_fd(), name, entry, replaced),
            Kind::Hardlink(_) => {
                let (from, from_name) = source.expect("a hard link has a source");
                rustix::fs::linkat(&from, &from_name[..], &parent, name, AtFlags::empty())
                    .map_err(Error::file("link", &entry.path))
            }
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(&target[..], &parent, name)
                    .map_err(Error::file("make link", &entry.path))?;
                metadata::set_link(parent.as_fd(), name, entry, self.options.owners)
            }
            Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => {
                metadata::make_node(parent.as_fd(), name, entry)?;
                metadata::set_node(parent.as_fd(), name, entry, self.options.owners)
            }
        }
    }

    fn leave_out(&mut self, path: &[u8]) {
        self.absent.insert(self.hasher.hash_one(path));
        self.done.skipped.push(path.to_owned());
    }

    /// Removes what is in the way; tells what that was.
    fn clear(&mut self, parent: BorrowedFd<'_>, entry: &Entry, index: u64) -> Result<Option<FileType>> {
        let name = split(&entry.path).1;
        let there = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::file("look at", &entry.path)(errno)),
        };
        if there == FileType::Directory && entry.kind == Kind::Directory {
            return Ok(Some(there));
        }
        if self.options.keeps_kinds && (there == FileType::Directory) != (entry.kind == Kind::Directory) {
            let rule = match there {
                FileType::Directory => "would replace a directory by something that is none",
                _ => "would replace something that is no directory by one",
            };
            return Err(Error::Archive { index, name: entry.path.clone(), rule: rule.to_owned() });
        }
        self.places.forget();
        crate::tree::remove(parent, name, &entry.path)?;
        Ok(Some(there))
    }

    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        size: u64,
        data: &mut TarReader<impl Read>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(Error::file("create", &entry.path))?;
        let mut file = File::from(fd);
        self.fill(&mut file, size, data).map_err(Error::file("write", &entry.path))?;
        metadata::set(file.as_fd(), entry, self.options.owners)?;
        metadata::set_time(file.as_fd(), entry)
    }

    /// Copies the data; runs of zeros become holes.
    fn fill(&mut self, file: &mut File, size: u64, data: &mut impl Read) -> std::io::Result<()> {
        let mut hole = false;
        let mut left = size;
        while left > 0 {
            let wanted = left.min(self.buffer.len() as u64) as usize;
            let count = read_full(data, &mut self.buffer[..wanted])?;
            let chunk = &self.buffer[..count];
            hole = count >= 4096 && is_zero(chunk);
            match hole {
                true => drop(file.seek(SeekFrom::Current(count as i64))?),
                false => file.write_all(chunk)?,
            }
            left -= count as u64;
        }
        if hole {
            file.set_len(size)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        replaced: Option<FileType>,
    ) -> Result<()> {
        if replaced != Some(FileType::Directory) {
            rustix::fs::mkdirat(parent, name, Mode::RWXU)
                .map_err(Error::file("make directory", &entry.path))?;
        }
        let fd = place::open_directory(parent, name).map_err(Error::file("open directory", &entry.path))?;
        metadata::set(fd.as_fd(), entry, self.options.owners)?;
        // In place of a lower file or a removed directory: nothing of the lower layers may shine through.
        if let Whiteouts::Overlay { user } = self.options.whiteouts
            && replaced == Some(FileType::CharacterDevice)
        {
            whiteout::make_opaque(fd.as_fd(), user, &entry.path)?;
        }
        self.directories.push((entry.path.clone(), entry.mtime));
        Ok(())
    }

    /// The directory that the archive calls `dir`, made if need be.
    fn parent(&mut self, dir: &[u8]) -> Result<OwnedFd> {
        let found = self.places.directory(dir, self.options.owners)?;
        for (path, mtime) in self.places.take_made() {
            let made = self.hasher.hash_one(&path);
            self.made.insert(made);
            self.directories.push((path, mtime));
        }
        Ok(found)
    }

    /// The directory and name of what a hard link points at: it must exist, and be neither directory nor link.
    fn link_source(&mut self, entry: &Entry, target: &[u8], index: u64) -> Result<(OwnedFd, Vec<u8>)> {
        let refuse = |rule: &str| Error::Archive { index, name: entry.path.clone(), rule: rule.to_owned() };
        let (dir, name) = split(target);
        let Some(parent) = self.places.existing(dir)? else {
            return Err(refuse("a hard link points at nothing in this layer"));
        };
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Err(refuse("a hard link points at a directory"))
            }
            Ok(stat)
                if stat.st_rdev == 0
                    && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice =>
            {
                Err(refuse("a hard link points at a removed file"))
            }
            Ok(_) => Ok((parent, name.to_vec())),
            Err(Errno::NOENT) => Err(refuse("a hard link points at nothing in this layer")),
            Err(errno) => Err(Error::file("look at", target)(errno)),
        }
    }

    /// Sets the times of directories, which making their entries has changed.
    fn finish(mut self) -> Result<Extracted> {
        for (path, mtime) in std::mem::take(&mut self.directories).iter().rev() {
            let Some(fd) = self.places.physical(path)? else { continue };
            let entry = Entry { mtime: *mtime, ..Entry::directory(path) };
            metadata::set_time(fd.as_fd(), &entry)?;
        }
        self.done.implied = self.places.implied;
        Ok(self.done)
    }
}

fn too_large(raw: &RawEntry, excess: String) -> Error {
    Error::TooLarge { index: raw.index, name: raw.name.clone(), excess }
}

const BAD_WHITEOUT: &str = "the mark for a removed file names nothing that can be removed";

/// Takes leading slashes and `.` parts away.
fn clean_path(name: &[u8], limits: &Limits) -> std::result::Result<Vec<u8>, String> {
    if name.is_empty() || name.contains(&0) {
        return Err("the name is empty or has a NUL byte".to_owned());
    }
    if name.len() > limits.path {
        return Err(format!("the name is longer than {} bytes", limits.path));
    }
    let parts: Vec<&[u8]> = name.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err("the name has a part \"..\"".to_owned());
    }
    if parts.len() > limits.depth {
        return Err(format!("the name has more than {} parts", limits.depth));
    }
    if parts.iter().any(|part| part.len() > 255) {
        return Err("a part of the name is longer than 255 bytes".to_owned());
    }
    Ok(parts.join(&b'/'))
}

fn same_file(left: BorrowedFd<'_>, left_name: &[u8], right: BorrowedFd<'_>, right_name: &[u8]) -> bool {
    let stat = |dir, name: &[u8]| rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok();
    match (stat(left, left_name), stat(right, right_name)) {
        (Some(left), Some(right)) => (left.st_dev, left.st_ino) == (right.st_dev, right.st_ino),
        _ => false,
    }
}

fn read_full(data: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    data.read_exact(buffer)?;
    Ok(buffer.len())
}
