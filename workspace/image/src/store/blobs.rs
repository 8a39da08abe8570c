//! Blobs: content by its digest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::growing::{Announce, Growing};
use super::{Store, read_bounded, remove, sync_directory};
use crate::descriptor::Descriptor;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};

const CHUNK: usize = 256 << 10;
/// A blob is synced each time that so much of it was written, in bytes.
const EARLY: u64 = 64 << 20;
/// A blob is told of once so much of it was written, in bytes.
const LARGE: u64 = 16 << 20;

impl Store {
    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.algorithm()).join(digest.encoded())
    }

    /// True when the blob is there and has the described size.
    pub fn has_blob(&self, descriptor: &Descriptor) -> bool {
        self.blob(descriptor).is_ok()
    }

    /// Opens a blob after checking its size.
    ///
    /// # Errors
    /// A blob that is missing or has another length. Its digest is not checked: see [`Store::read_blob`] and
    /// [`Store::verify_blob`].
    pub fn blob(&self, descriptor: &Descriptor) -> Result<File> {
        let file = self.open_blob(&descriptor.digest)?;
        let meta = file.metadata().map_err(Error::Stream)?;
        if !meta.is_file() || meta.len() != descriptor.size {
            let reason = format!("has {} bytes instead of {}", meta.len(), descriptor.size);
            return Err(Error::Mismatch { digest: descriptor.digest.clone(), reason });
        }
        Ok(file)
    }

    /// Reads a blob of at most `limit` bytes into memory, and checks its size and digest.
    pub fn read_blob(&self, descriptor: &Descriptor, limit: usize) -> Result<Vec<u8>> {
        let bytes = read_bounded(self.blob(descriptor)?, limit, "blob")?;
        let mut hasher = hasher_for(&descriptor.digest)?;
        hasher.update(&bytes);
        agree(&descriptor.digest, hasher.finish())?;
        Ok(bytes)
    }

    /// Reads a blob through and checks its digest.
    pub fn verify_blob(&self, digest: &Digest) -> Result<u64> {
        let mut file = self.open_blob(digest)?;
        let mut hasher = hasher_for(digest)?;
        let mut buffer = vec![0; CHUNK];
        let mut size = 0;
        loop {
            let count = file.read(&mut buffer).map_err(Error::Stream)?;
            if count == 0 {
                agree(digest, hasher.finish())?;
                return Ok(size);
            }
            hasher.update(&buffer[..count]);
            size += count as u64;
        }
    }

    /// Begins a blob of unknown digest.
    pub fn blob_writer(&self) -> Result<BlobWriter<'_>> {
        self.writer(Hasher::new(), None)
    }

    /// Begins a blob that must turn out as described.
    pub fn expected_blob_writer(&self, descriptor: &Descriptor) -> Result<BlobWriter<'_>> {
        self.writer(hasher_for(&descriptor.digest)?, Some(descriptor.clone()))
    }

    /// Stores what `from` yields and describes it.
    pub fn put_blob(&self, media_type: &str, from: &mut impl Read) -> Result<Descriptor> {
        let mut writer = self.blob_writer()?;
        copy(from, &mut writer)?;
        writer.finish(media_type)
    }

    /// Stores what `from` yields if it is what `descriptor` says.
    pub fn put_expected_blob(&self, descriptor: &Descriptor, from: &mut impl Read) -> Result<()> {
        let mut writer = self.expected_blob_writer(descriptor)?;
        copy(from, &mut writer)?;
        writer.finish(&descriptor.media_type).map(drop)
    }

    /// Stores `bytes` and describes them.
    pub fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = Descriptor::of(media_type, bytes);
        if !self.has_blob(&descriptor) {
            self.put_expected_blob(&descriptor, &mut &bytes[..])?;
        }
        Ok(descriptor)
    }

    fn open_blob(&self, digest: &Digest) -> Result<File> {
        let name = format!("blobs/{}/{}", digest.algorithm(), digest.encoded());
        self.open_file(&name).map_err(|error| match error {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::NoBlob(digest.clone())
            }
            other => other,
        })
    }

    fn writer(&self, hasher: Hasher, expected: Option<Descriptor>) -> Result<BlobWriter<'_>> {
        let path = self.temporary_path();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        let followed = Followed::No;
        let early = EarlySync::default();
        Ok(BlobWriter { store: self, file: Some(file), path, hasher, size: 0, expected, early, followed })
    }
}

/// A blob being written; gone without a trace unless finished.
pub struct BlobWriter<'a> {
    store: &'a Store,
    file: Option<File>,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
    expected: Option<Descriptor>,
    early: EarlySync,
    followed: Followed,
}

/// Whether somebody reads a blob while it is written.
enum Followed {
    No,
    /// Who is told of it once it is large.
    Later(Announce),
    Now(Growing),
}

impl<'a> BlobWriter<'a> {
    /// Tells `to` of the blob as soon as it is large, so that it can be read while it is written.
    pub fn announce(&mut self, to: Announce) {
        self.followed = Followed::Later(to);
    }

    /// Whether somebody is told of the blob while it is written.
    pub fn is_announced(&self) -> bool {
        !matches!(self.followed, Followed::No)
    }

    /// How many bytes have been written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Forgets everything written: the source starts again from its first byte.
    pub fn restart(&mut self) -> Result<()> {
        let file = self.file.as_mut().expect("the file is there until finish");
        file.set_len(0).map_err(Error::io("empty", &self.path))?;
        io::Seek::rewind(file).map_err(Error::io("rewind", &self.path))?;
        self.size = 0;
        self.early.end()?;
        self.unfollow();
        self.hasher = match &self.expected {
            Some(descriptor) => hasher_for(&descriptor.digest)?,
            None => Hasher::new(),
        };
        Ok(())
    }

    /// Makes the blob visible: checked, synced, renamed, directory synced.
    pub fn finish(self, media_type: &str) -> Result<Descriptor> {
        let sealed = self.seal(media_type)?;
        let descriptor = sealed.descriptor.clone();
        publish(vec![sealed])?;
        Ok(descriptor)
    }

    /// Ends the writing and checks what was written; nobody sees the blob before [`publish`].
    pub fn seal(mut self, media_type: &str) -> Result<Sealed<'a>> {
        self.early.end()?;
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = &self.expected {
            if self.size != expected.size {
                let reason = format!("has {} bytes instead of {}", self.size, expected.size);
                return Err(Error::Mismatch { digest: expected.digest.clone(), reason });
            }
            agree(&expected.digest, digest.clone())?;
        }
        let descriptor = Descriptor::new(media_type, digest, self.size);
        if let Followed::Now(growing) = std::mem::replace(&mut self.followed, Followed::No) {
            growing.became(&descriptor);
        }
        Ok(Sealed { writer: self, descriptor })
    }

    /// Tells those who follow how far it is.
    fn tell(&mut self) -> io::Result<()> {
        match &self.followed {
            Followed::Now(growing) => growing.reached(self.size),
            Followed::Later(announce) if self.size >= LARGE => {
                let file = self.file.as_ref().expect("the file is there until finish");
                let growing = Growing::new(file, self.size)?;
                announce(&growing);
                self.followed = Followed::Now(growing);
            }
            Followed::Later(_) | Followed::No => {}
        }
        Ok(())
    }

    /// Lets go of those who follow: what they read is nothing.
    fn unfollow(&mut self) {
        if let Followed::Now(growing) = std::mem::replace(&mut self.followed, Followed::No) {
            growing.give_up();
        }
    }
}

/// A blob that is written but not yet visible; gone without a trace unless published.
pub struct Sealed<'a> {
    writer: BlobWriter<'a>,
    descriptor: Descriptor,
}

impl Sealed<'_> {
    /// What it will be.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Where it will be.
    pub(super) fn store(&self) -> &Store {
        self.writer.store
    }
}

/// Makes blobs visible: all synced, renamed, and then their directories synced once.
pub fn publish(blobs: Vec<Sealed<'_>>) -> Result<()> {
    let mut directories = BTreeSet::new();
    for Sealed { mut writer, descriptor } in blobs {
        if writer.store.has_blob(&descriptor) {
            continue;
        }
        let file = writer.file.take().expect("the file is there until it is published");
        file.sync_all().map_err(Error::io("sync", &writer.path))?;
        let target = writer.store.blob_path(&descriptor.digest);
        fs::rename(&writer.path, &target).map_err(Error::io("rename to", &target))?;
        directories.insert(target.parent().unwrap_or(&target).to_owned());
    }
    directories.iter().try_for_each(|directory| sync_directory(directory))
}

/// Syncs a large blob while it is written, so that little is left to wait for at its end.
///
/// The kernel tells an error of the disk once only: whoever syncs here must hand it on.
#[derive(Default)]
struct EarlySync(Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>);

impl EarlySync {
    /// Says that there is more to sync; one sync at a time.
    fn kick(&mut self, file: &File) -> io::Result<()> {
        if self.0.is_none() {
            let (more, wanted) = sync_channel(1);
            let file = file.try_clone()?;
            let work = move || wanted.iter().try_for_each(|()| file.sync_data());
            self.0 = Some((more, std::thread::spawn(work)));
        }
        if let Some((more, _)) = &self.0 {
            // Full: the next sync is asked for already. Gone: its error is told at the end.
            let _ = more.try_send(());
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some((more, thread)) = self.0.take() else { return Ok(()) };
        drop(more);
        thread.join().expect("syncing does not panic").map_err(Error::Stream)
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.expected.as_ref().map_or(u64::MAX, |d| d.size - self.size);
        if bytes.len() as u64 > room {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "content is longer than described"));
        }
        let file = self.file.as_mut().expect("the file is there until finish");
        let count = file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        if self.size / EARLY > (self.size - count as u64) / EARLY {
            self.early.kick(file)?;
        }
        self.tell()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        self.unfollow();
        // Given up: whether the disk took it does not matter.
        let _ = self.early.end();
        // A leftover is collected when the store is next opened by one process alone.
        let _ = remove(&self.path);
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::Stream(e)),
        };
        to.write_all(&buffer[..count]).map_err(Error::Stream)?;
    }
}

fn hasher_for(digest: &Digest) -> Result<Hasher> {
    let reason = "its algorithm cannot be verified here".to_owned();
    Hasher::for_digest(digest).ok_or_else(|| Error::Mismatch { digest: digest.clone(), reason })
}

fn agree(expected: &Digest, found: Digest) -> Result<()> {
    match *expected == found {
        true => Ok(()),
        false => Err(Error::Mismatch { digest: expected.clone(), reason: format!("content is {found}") }),
    }
}
