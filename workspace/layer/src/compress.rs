//! Compression whose bytes do not depend on the number of threads.
//!
//! gzip: blocks of 1 MiB, each a member of its own, compressed by a pool and written in order. A block that a sample shows
//! to be incompressible is stored. zstd: one frame; the library's own workers cut it by size, not by their number.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use hull_image::media;
use libdeflater::{CompressionLvl, Compressor as Deflate};

use crate::error::{Error, Result};

const BLOCK: usize = 1 << 20;
const SAMPLE: usize = 16 << 10;

/// How a layer's archive is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// gzip, level 1 to 12.
    Gzip(i32),
    /// zstd, level 1 to 19.
    Zstd(i32),
}

impl Encoding {
    /// What is written unless somebody asks for something else: every reader of images takes it.
    pub const DEFAULT: Self = Self::Gzip(5);

    /// The media type of a layer encoded so.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Plain => media::OCI_LAYER,
            Self::Gzip(_) => media::OCI_LAYER_GZIP,
            Self::Zstd(_) => media::OCI_LAYER_ZSTD,
        }
    }
}

/// Compresses what is written to it.
pub struct Compressor<W: Write>(Inner<W>);

enum Inner<W: Write> {
    Plain(W),
    Gzip(Gzip<W>),
    Zstd(Box<zstd::Encoder<'static, W>>),
}

impl<W: Write> Compressor<W> {
    /// Compresses into `sink`.
    pub fn new(sink: W, encoding: Encoding) -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads(sink, encoding, threads)
    }

    /// The same with a given number of threads.
    pub fn with_threads(sink: W, encoding: Encoding, threads: usize) -> Result<Self> {
        let fail = |e| Error::Stream("start compression", e);
        Ok(Self(match encoding {
            Encoding::Plain => Inner::Plain(sink),
            Encoding::Gzip(level) => Inner::Gzip(Gzip::new(sink, level, threads)),
            Encoding::Zstd(level) => {
                let mut encoder = zstd::Encoder::new(sink, level).map_err(fail)?;
                // At least one worker: none would cut the frame differently.
                encoder.multithread(threads.max(1) as u32).map_err(fail)?;
                encoder.include_checksum(true).map_err(fail)?;
                Inner::Zstd(Box::new(encoder))
            }
        }))
    }

    /// Ends the stream and gives the sink back.
    pub fn finish(self) -> Result<W> {
        match self.0 {
            Inner::Plain(sink) => Ok(sink),
            Inner::Gzip(gzip) => gzip.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
        }
        .map_err(|e| Error::Stream("finish compression", e))
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(sink) => sink.write(bytes),
            Inner::Gzip(gzip) => gzip.write(bytes),
            Inner::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Gzip<W> {
    sink: W,
    level: i32,
    threads: usize,
    block: Vec<u8>,
    any: bool,
    pool: Option<Pool>,
    waiting: VecDeque<Receiver<Vec<u8>>>,
}

impl<W: Write> Gzip<W> {
    fn new(sink: W, level: i32, threads: usize) -> Self {
        let (block, waiting) = (Vec::with_capacity(BLOCK), VecDeque::new());
        Self { sink, level, threads, block, any: false, pool: None, waiting }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
            self.submit()?;
        }
        Ok(count)
    }

    /// Hands a full block to the pool, and writes what is ready when too much waits.
    fn submit(&mut self) -> io::Result<()> {
        self.any = true;
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let pool = self.pool.get_or_insert_with(|| Pool::start(self.level, self.threads.clamp(1, 16)));
        let (give, take) = sync_channel(1);
        pool.give(block, give)?;
        self.waiting.push_back(take);
        while self.waiting.len() > 2 * self.threads {
            self.write_oldest()?;
        }
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.waiting.pop_front() else { return Ok(()) };
        let member = oldest.recv().map_err(|_| io::Error::other("a compression thread ended early"))?;
        self.sink.write_all(&member)
    }

    fn finish(mut self) -> io::Result<W> {
        while !self.waiting.is_empty() {
            self.write_oldest()?;
        }
        // An empty stream still is one member.
        if !self.block.is_empty() || !self.any {
            let member = Member::new(self.level).compress(&self.block);
            self.sink.write_all(&member)?;
        }
        Ok(self.sink)
    }
}

type Job = (Vec<u8>, SyncSender<Vec<u8>>);

/// Threads that compress blocks; they end when the pool is dropped.
struct Pool {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    fn start(level: i32, count: usize) -> Self {
        let (jobs, queue) = sync_channel::<Job>(count);
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..count)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || work(&queue, level))
            })
            .collect();
        Self { jobs: Some(jobs), threads }
    }

    fn give(&self, block: Vec<u8>, answer: SyncSender<Vec<u8>>) -> io::Result<()> {
        let jobs = self.jobs.as_ref().expect("the queue lives as long as the pool");
        jobs.send((block, answer)).map_err(|_| io::Error::other("all compression threads ended early"))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has been noticed by whoever waited for its block.
            let _ = thread.join();
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, level: i32) {
    let mut member = Member::new(level);
    loop {
        let job = match queue.lock() {
            Ok(queue) => queue.recv(),
            Err(_) => return,
        };
        let Ok((block, answer)) = job else { return };
        // Nobody waits any more: the whole stream was given up.
        let _ = answer.send(member.compress(&block));
    }
}

/// Makes gzip members: no name, time 0, a fixed operating system byte (RFC 1952).
struct Member {
    normal: Deflate,
    quick: Deflate,
    store: Deflate,
}

impl Member {
    fn new(level: i32) -> Self {
        let deflate = |level: i32| Deflate::new(CompressionLvl::new(level.clamp(0, 12)).unwrap_or_default());
        Self { normal: deflate(level), quick: deflate(1), store: deflate(0) }
    }

    fn compress(&mut self, block: &[u8]) -> Vec<u8> {
        let stored = self.is_incompressible(block);
        let deflate = if stored { &mut self.store } else { &mut self.normal };
        let mut member = vec![0; deflate.gzip_compress_bound(block.len())];
        let size = deflate.gzip_compress(block, &mut member).expect("the bound is large enough");
        member.truncate(size);
        member
    }

    /// Three samples that level 1 cannot shrink by a fiftieth speak for the whole block.
    fn is_incompressible(&mut self, block: &[u8]) -> bool {
        if block.len() < 4 * SAMPLE {
            return false;
        }
        let mut room = vec![0; self.quick.deflate_compress_bound(SAMPLE)];
        [0, block.len() / 2, block.len() - SAMPLE].iter().all(|start| {
            let sample = &block[*start..start + SAMPLE];
            let size = self.quick.deflate_compress(sample, &mut room).unwrap_or(SAMPLE);
            size > SAMPLE - SAMPLE / 50
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Text, zeros and noise, a few blocks of each.
    fn sample() -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..400_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        let mut state = 1u64;
        bytes.extend((0..3 * BLOCK).map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        }));
        bytes
    }

    fn compressed(bytes: &[u8], encoding: Encoding, threads: usize) -> Vec<u8> {
        let mut compressor = Compressor::with_threads(Vec::new(), encoding, threads).unwrap();
        compressor.write_all(bytes).unwrap();
        compressor.finish().unwrap()
    }

    #[test]
    fn the_number_of_threads_changes_no_byte() {
        let bytes = sample();
        for encoding in [Encoding::Gzip(5), Encoding::Zstd(3), Encoding::Plain] {
            let one = compressed(&bytes, encoding, 1);
            for threads in [2, 3, 7] {
                assert!(compressed(&bytes, encoding, threads) == one, "{encoding:?} with {threads}");
            }
            let mut back = Vec::new();
            crate::Decompressor::new(&one[..], 0).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{encoding:?}");
        }
    }

    #[test]
    fn noise_is_stored_and_text_shrinks() {
        let bytes = sample();
        let (text, noise) = (&bytes[..BLOCK], &bytes[bytes.len() - BLOCK..]);
        assert!(compressed(text, Encoding::Gzip(5), 1).len() < BLOCK / 2);
        let stored = compressed(noise, Encoding::Gzip(5), 1).len();
        assert!((BLOCK..BLOCK + 300).contains(&stored), "{stored}");
    }

    #[test]
    fn nothing_becomes_one_member_that_names_nothing() {
        let member = compressed(b"", Encoding::Gzip(5), 1);
        assert_eq!(member[..4], [0x1f, 0x8b, 8, 0], "no flags: no name");
        assert_eq!(member[4..8], [0; 4], "no time");
        assert_eq!(member[member.len() - 8..], [0; 8], "checksum and size of nothing");
    }
}
