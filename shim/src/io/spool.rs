//! A bounded file that keeps a stream's bytes in order until their reader is back.

use std::fs::File;
use std::io::Error;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hull_sys::SysError;

/// Most bytes that are kept for one stream.
pub const SPOOL_LIMIT: u64 = 16 << 20;

/// Bytes copied at once where splice does not work.
const COPY_STEP: usize = 16 << 10;

/// Bytes that were written and not yet read; the file has no name, so nothing is left of it after a crash.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    file: Option<File>,
    read: u64,
    written: u64,
}

impl Spool {
    /// An empty spool that will live in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), file: None, read: 0, written: 0 }
    }

    /// Bytes that wait to be read.
    pub fn len(&self) -> u64 {
        self.written - self.read
    }

    /// Bytes that it may still take.
    pub fn room(&self) -> usize {
        usize::try_from(SPOOL_LIMIT.saturating_sub(self.written)).unwrap_or(0)
    }

    /// Moves bytes out of a pipe to its end without waiting; 0 is the pipe's end.
    pub fn absorb(&mut self, pipe: BorrowedFd<'_>) -> Result<usize, SysError> {
        let room = self.room().min(1 << 20);
        let at = self.written;
        let file = self.file()?;
        let moved = rustix::pipe::splice(
            pipe,
            None,
            file,
            Some(&mut at.clone()),
            room,
            rustix::pipe::SpliceFlags::NONBLOCK | rustix::pipe::SpliceFlags::MOVE,
        )
        .map_err(SysError::from_rustix("splice"))?;
        self.written += moved as u64;
        Ok(moved)
    }

    /// Adds `bytes` at its end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, SysError> {
        let at = self.written;
        let file = self.file()?;
        let moved = rustix::io::pwrite(file, bytes, at).map_err(SysError::from_rustix("pwrite"))?;
        self.written += moved as u64;
        Ok(moved)
    }

    /// Moves bytes from its start to `output` without waiting.
    pub fn replay(&mut self, output: BorrowedFd<'_>) -> Result<usize, SysError> {
        let Some(file) = &self.file else { return Ok(0) };
        let most = usize::try_from(self.len()).unwrap_or(usize::MAX).min(1 << 20);
        let flags = rustix::pipe::SpliceFlags::NONBLOCK;
        let moved =
            match rustix::pipe::splice(file.as_fd(), Some(&mut self.read.clone()), output, None, most, flags)
            {
                // Not every file system can give pages to a pipe, and not every output is one.
                Err(rustix::io::Errno::INVAL) => copy(file, self.read, most, output)?,
                moved => moved.map_err(SysError::from_rustix("splice"))?,
            };
        self.read += moved as u64;
        if self.read == self.written {
            *self = Self::new(&self.directory);
        }
        Ok(moved)
    }

    fn file(&mut self) -> Result<BorrowedFd<'_>, SysError> {
        if self.file.is_none() {
            let made = make_unnamed(&self.directory)
                .map_err(|error| SysError::new("open spool", error.raw_os_error().unwrap_or(0)))?;
            self.file = Some(made);
        }
        let file = self.file.as_ref().ok_or(SysError::new("open spool", 0))?;
        Ok(file.as_fd())
    }
}

/// Writes at most `most` bytes of `file` from `at` on to `output`.
fn copy(file: &File, at: u64, most: usize, output: BorrowedFd<'_>) -> Result<usize, SysError> {
    let mut bytes = [0; COPY_STEP];
    let room = &mut bytes[..most.min(COPY_STEP)];
    let got = rustix::io::pread(file, &mut *room, at).map_err(SysError::from_rustix("pread"))?;
    hull_sys::io::write(output, &room[..got])
}

fn make_unnamed(directory: &Path) -> Result<File, Error> {
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::CLOEXEC;
    let mut options = File::options();
    options.read(true).write(true).mode(0o600);
    let unnamed = options.clone().custom_flags(i32::try_from(flags.bits()).unwrap_or(0)).open(directory);
    unnamed.or_else(|_| {
        // Overlay file systems of older kernels know no O_TMPFILE.
        let name = directory.join(format!(".spool-{}", std::process::id()));
        let file = options.create_new(true).open(&name)?;
        std::fs::remove_file(&name)?;
        Ok(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between two files nothing can be spliced.
    #[test]
    fn what_was_kept_is_copied_where_it_cannot_be_spliced() {
        let directory = std::env::temp_dir();
        let output = make_unnamed(&directory).unwrap();
        let mut spool = Spool::new(&directory);
        let text: Vec<u8> = (0..COPY_STEP + 100).map(|at| (at % 251) as u8).collect();
        spool.push(&text).unwrap();
        assert_eq!(spool.replay(output.as_fd()).unwrap(), COPY_STEP);
        assert_eq!(spool.len(), 100);
        assert_eq!(spool.replay(output.as_fd()).unwrap(), 100);
        assert_eq!((spool.len(), spool.replay(output.as_fd()).unwrap()), (0, 0));
        let mut copied = vec![0; text.len() + 1];
        assert_eq!(rustix::io::pread(&output, &mut copied, 0).unwrap(), text.len());
        assert!(copied.starts_with(&text));
    }
}
