//! Decompression on a thread of its own, a few buffers ahead of who reads.

use std::fs::File;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use hull_image::{Digest, Hasher};

use crate::decompress::Decompressor;
use crate::error::{Error, Result};

const BUFFER: usize = 256 << 10;
/// How many buffers go round: all the memory that this takes.
const BUFFERS: usize = 6;

/// Lets `read` have the uncompressed bytes of `blob`, and gives what it returns with the digest of all of them.
///
/// What `read` leaves is not part of the digest: it must read to the end.
///
/// # Errors
/// Those of `read`, which sees those of the decompression; a stream whose beginning cannot be read.
pub(crate) fn read_ahead<T>(
    blob: File,
    ratio: u64,
    hasher: Hasher,
    read: impl FnOnce(&mut Ahead) -> Result<T>,
) -> Result<(T, Digest)> {
    std::thread::scope(|scope| {
        let (full, filled) = sync_channel(BUFFERS);
        let (back, empty) = channel();
        for _ in 0..BUFFERS {
            back.send(vec![0; BUFFER]).expect("the other end is held");
        }
        let producing = scope.spawn(move || produce(blob, ratio, hasher, &empty, &full));
        let mut ahead = Ahead { filled, back, current: Vec::new(), at: 0, end: 0 };
        let outcome = read(&mut ahead);
        // With nobody to read, the producer ends.
        drop(ahead);
        let digest = producing.join().expect("the producer does not panic")?;
        Ok((outcome?, digest))
    })
}

type Filled = io::Result<(Vec<u8>, usize)>;

fn produce(
    blob: File,
    ratio: u64,
    mut hasher: Hasher,
    empty: &Receiver<Vec<u8>>,
    full: &SyncSender<Filled>,
) -> Result<Digest> {
    let mut source = Decompressor::new(blob, ratio)?;
    while let Ok(mut buffer) = empty.recv() {
        let (count, error) = fill(&mut source, &mut buffer);
        hasher.update(&buffer[..count]);
        let told = count == 0 || full.send(Ok((buffer, count))).is_ok();
        if let Some(error) = error {
            // The reader tells it, with the place in the archive; or has gone.
            let _ = full.send(Err(error));
            break;
        }
        if count < BUFFER || !told {
            break;
        }
    }
    Ok(hasher.finish())
}

/// Reads until the buffer is full, the source ends or fails.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut count = 0;
    while count < buffer.len() {
        match source.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (count, Some(error)),
        }
    }
    (count, None)
}

/// The reader's end.
pub(crate) struct Ahead {
    filled: Receiver<Filled>,
    back: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    end: usize,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end {
            let Ok(next) = self.filled.recv() else { return Ok(0) };
            let (next, end) = next?;
            let used = std::mem::replace(&mut self.current, next);
            (self.at, self.end) = (0, end);
            if !used.is_empty() {
                // The producer may have ended.
                let _ = self.back.send(used);
            }
        }
        let count = buffer.len().min(self.end - self.at);
        buffer[..count].copy_from_slice(&self.current[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Reads what follows, at most `limit` bytes of it.
///
/// # Errors
/// More than `limit` bytes, or a stream that fails.
pub(crate) fn drain(ahead: &mut Ahead, limit: u64) -> Result<()> {
    let fail = |e| Error::Stream("read the end of a layer", e);
    match io::copy(&mut ahead.take(limit), &mut io::sink()).map_err(fail)? {
        rest if rest == limit => {
            Err(fail(io::Error::new(io::ErrorKind::InvalidData, "too much follows the archive")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;
    use crate::{Compressor, Encoding};

    fn blob(bytes: &[u8]) -> File {
        let mut compressor =
            Compressor::with_threads(tempfile::tempfile().unwrap(), Encoding::Gzip(1), 1).unwrap();
        compressor.write_all(bytes).unwrap();
        let mut file = compressor.finish().unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn all_bytes_come_in_order_with_their_digest() {
        for size in [0, 1, BUFFER - 1, BUFFER, BUFFER + 1, 20 * BUFFER + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut all = Vec::new();
            let read = |ahead: &mut Ahead| ahead.read_to_end(&mut all).map_err(|e| Error::Stream("read", e));
            let (count, digest) = read_ahead(blob(&bytes), 0, Hasher::new(), read).unwrap();
            assert_eq!((count, digest), (size, Digest::of(&bytes)));
            assert!(all == bytes, "{size}");
        }
    }

    #[test]
    fn a_reader_that_gives_up_ends_the_thread() {
        let bytes = vec![7; 40 * BUFFER];
        let read = |_: &mut Ahead| Err::<(), _>(Error::Stream("read", io::ErrorKind::Other.into()));
        assert!(read_ahead(blob(&bytes), 0, Hasher::new(), read).is_err());
    }

    #[test]
    fn an_error_comes_after_the_bytes_before_it() {
        let mut file = blob(&vec![7; 4 * BUFFER]);
        let end = file.seek(io::SeekFrom::End(-1)).unwrap();
        file.set_len(end).unwrap();
        file.rewind().unwrap();
        let mut all = Vec::new();
        let read = |ahead: &mut Ahead| ahead.read_to_end(&mut all).map_err(|e| Error::Stream("read", e));
        assert!(read_ahead(file, 0, Hasher::new(), read).is_err());
        assert_eq!(all.len(), 4 * BUFFER);
    }

    #[test]
    fn what_follows_an_archive_is_limited() {
        let drained = |limit| read_ahead(blob(&[0; 5000]), 0, Hasher::new(), |ahead| drain(ahead, limit));
        assert_eq!(drained(5001).unwrap().1, Digest::of(&[0; 5000]));
        assert!(drained(5000).unwrap_err().to_string().contains("end of a layer"));
    }
}
