//! gzip in blocks, each a member of its own, compressed by a pool and written in order.
//!
//! A block ends after 1 MiB, or where the writer says that it may: between the entries of an archive. A block that a
//! sample shows to be incompressible is stored; one that an earlier archive has too is taken from there.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor as Deflate, Decompressor as Inflate};

use crate::blocks::{Known, Recorded};

/// Longest block, in bytes.
pub(crate) const BLOCK: usize = 1 << 20;
/// Shortest block that ends where one may, in bytes.
const SHORTEST: usize = 128 << 10;
const SAMPLE: usize = 4 << 10;
/// How far threads step back for who reads what they write (nice(2)).
pub(crate) const STEP: i32 = 5;
/// Highest level at which parts that are written in a hurry get level 1.
const QUICKENED: i32 = 4;

pub(crate) struct Gzip<W> {
    sink: W,
    level: i32,
    threads: usize,
    block: Vec<u8>,
    /// Whether what is written now shall be compressed for speed.
    quick: bool,
    any: bool,
    /// Whether threads step back.
    back: bool,
    pool: Option<Pool>,
    waiting: VecDeque<Receiver<Done>>,
    known: Option<Arc<Known>>,
    recorded: Vec<Recorded>,
    /// Blocks that were written, and where their members were made: both are filled again.
    spare: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<W: Write> Gzip<W> {
    pub(crate) fn new(sink: W, level: i32, threads: usize) -> Self {
        Self {
            sink,
            level,
            threads,
            block: Vec::new(),
            quick: false,
            any: false,
            back: false,
            pool: None,
            waiting: VecDeque::new(),
            known: None,
            recorded: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// A registry that gets a layer while it is compressed is the slower end: on a machine that does both it must not
    /// get its share last.
    pub(crate) fn step_back(&mut self) {
        self.back = true;
    }

    pub(crate) fn reuse(&mut self, known: Known) {
        self.known = Some(Arc::new(known));
    }

    pub(crate) fn may_cut(&mut self, now: bool) -> io::Result<()> {
        let long_enough = self.block.len() >= SHORTEST || now && !self.block.is_empty();
        if long_enough { self.submit() } else { Ok(()) }
    }

    /// Says how what follows shall be compressed; at a block's beginning.
    pub(crate) fn hurry(&mut self, quick: bool) {
        self.quick = quick && self.level <= QUICKENED;
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
        let (empty, room) = self.spare.pop().unwrap_or_default();
        let block = std::mem::replace(&mut self.block, empty);
        let start = || Pool::start(self.level, self.threads.clamp(1, 16), self.known.as_ref(), self.back);
        let pool = self.pool.get_or_insert_with(start);
        let (give, take) = sync_channel(1);
        pool.give(Job { block, quick: self.quick, room, answer: give })?;
        self.waiting.push_back(take);
        while self.waiting.len() > 2 * self.threads {
            self.write_oldest()?;
        }
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.waiting.pop_front() else { return Ok(()) };
        let ended = |_| io::Error::other("a compression thread ended early");
        let Done { mut block, room, size, recorded } = oldest.recv().map_err(ended)?;
        self.recorded.push(recorded);
        self.sink.write_all(&room[..size])?;
        block.clear();
        self.spare.push((block, room));
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<(W, Vec<Recorded>)> {
        while !self.waiting.is_empty() {
            self.write_oldest()?;
        }
        // An empty stream still is one member.
        if !self.block.is_empty() || !self.any {
            let mut room = Vec::new();
            let mut member = Member::new(self.level);
            let (size, recorded) = member.write((&self.block, self.quick), self.known.as_deref(), &mut room);
            self.recorded.push(recorded);
            self.sink.write_all(&room[..size])?;
        }
        Ok((self.sink, self.recorded))
    }
}

/// A block to compress, and where to.
struct Job {
    block: Vec<u8>,
    quick: bool,
    room: Vec<u8>,
    answer: SyncSender<Done>,
}

/// The member of a block: the beginning of `room`.
struct Done {
    block: Vec<u8>,
    room: Vec<u8>,
    size: usize,
    /// What later archives need to take it from here.
    recorded: Recorded,
}

/// Threads that compress blocks; they end when the pool is dropped.
struct Pool {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    fn start(level: i32, count: usize, known: Option<&Arc<Known>>, back: bool) -> Self {
        let (jobs, queue) = sync_channel::<Job>(count);
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..count)
            .map(|_| {
                let (queue, known) = (Arc::clone(&queue), known.cloned());
                std::thread::spawn(move || {
                    if back {
                        // Of this thread alone (setpriority(2)). Where it is not allowed, all are equal.
                        let _ = rustix::process::nice(STEP);
                    }
                    work(&queue, level, known.as_deref());
                })
            })
            .collect();
        Self { jobs: Some(jobs), threads }
    }

    fn give(&self, job: Job) -> io::Result<()> {
        let jobs = self.jobs.as_ref().expect("the queue lives as long as the pool");
        jobs.send(job).map_err(|_| io::Error::other("all compression threads ended early"))
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

fn work(queue: &Mutex<Receiver<Job>>, level: i32, known: Option<&Known>) {
    let mut member = Member::new(level);
    loop {
        let job = match queue.lock() {
            Ok(queue) => queue.recv(),
            Err(_) => return,
        };
        let Ok(Job { block, quick, mut room, answer }) = job else { return };
        let (size, recorded) = member.write((&block, quick), known, &mut room);
        // Nobody waits any more: the whole stream was given up.
        let _ = answer.send(Done { block, room, size, recorded });
    }
}

/// Makes gzip members: no name, time 0, a fixed operating system byte (RFC 1952).
struct Member {
    normal: Deflate,
    quick: Deflate,
    store: Deflate,
    /// What a member was that an earlier archive has.
    inflate: Inflate,
    inflated: Vec<u8>,
}

impl Member {
    fn new(level: i32) -> Self {
        let deflate = |level: i32| Deflate::new(CompressionLvl::new(level.clamp(0, 12)).unwrap_or_default());
        let (normal, quick, store) = (deflate(level), deflate(1), deflate(0));
        Self { normal, quick, store, inflate: Inflate::new(), inflated: Vec::new() }
    }

    /// Writes the member of a block to the beginning of `room`, an earlier archive's if it has the same block; gives its
    /// size.
    ///
    /// `room` only grows: what is behind the member is not cleared each time.
    fn write(
        &mut self,
        (block, quick): (&[u8], bool),
        known: Option<&Known>,
        room: &mut Vec<u8>,
    ) -> (usize, Recorded) {
        let bound = self.store.gzip_compress_bound(block.len());
        if room.len() < bound {
            room.resize(bound, 0);
        }
        let compressed = |deflate: &mut Deflate, room: &mut [u8]| {
            deflate.gzip_compress(block, room).expect("the bound is large enough")
        };
        if self.is_incompressible(block, room) {
            // To make it again costs no more than to find it.
            let size = compressed(&mut self.store, room);
            return (size, Recorded::unfound(&room[..size]));
        }
        let content = if quick { Recorded::content_of_quick(block) } else { Recorded::content_of(block) };
        let earlier = known.and_then(|known| known.find(&content, room));
        let earlier = earlier.filter(|size| !quick || self.is_of(&room[..*size], block));
        let deflate = if quick { &mut self.quick } else { &mut self.normal };
        let size = earlier.unwrap_or_else(|| compressed(deflate, room));
        (size, Recorded::new(content, &room[..size]))
    }

    /// Whether a member is that of a block: quick blocks are found by checksums, which don't prove it.
    fn is_of(&mut self, member: &[u8], block: &[u8]) -> bool {
        self.inflated.resize(block.len(), 0);
        self.inflate.gzip_decompress(member, &mut self.inflated) == Ok(block.len()) && self.inflated == block
    }

    /// Three samples that level 1 cannot shrink by a fiftieth speak for the whole block.
    fn is_incompressible(&mut self, block: &[u8], room: &mut [u8]) -> bool {
        if block.len() < 4 * SAMPLE {
            return false;
        }
        [0, block.len() / 2, block.len() - SAMPLE].iter().all(|start| {
            let sample = &block[*start..start + SAMPLE];
            let size = self.quick.deflate_compress(sample, room).unwrap_or(SAMPLE);
            size > SAMPLE - SAMPLE / 50
        })
    }
}
