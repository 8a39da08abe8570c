//! gzip in blocks, each a member of its own, compressed by a pool and written in order.
//!
//! A block ends after 1 MiB, or where the writer says that it may: between the entries of an archive. A block that a
//! sample shows to be incompressible is stored; one that an earlier archive has too is taken from there.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor as Deflate};

use crate::blocks::{Known, Recorded};

/// Longest block, in bytes.
pub(crate) const BLOCK: usize = 1 << 20;
/// Shortest block that ends where one may, in bytes.
const SHORTEST: usize = 128 << 10;
const SAMPLE: usize = 4 << 10;
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
    pool: Option<Pool>,
    waiting: VecDeque<Receiver<Done>>,
    known: Option<Arc<Known>>,
    recorded: Vec<Recorded>,
    /// Blocks that were written.
    spare: Vec<Vec<u8>>,
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
            pool: None,
            waiting: VecDeque::new(),
            known: None,
            recorded: Vec::new(),
            spare: Vec::new(),
        }
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
        let empty = self.spare.pop().unwrap_or_default();
        let block = std::mem::replace(&mut self.block, empty);
        let start = || Pool::start(self.level, self.threads.clamp(1, 16), self.known.as_ref());
        let pool = self.pool.get_or_insert_with(start);
        let (give, take) = sync_channel(1);
        pool.give((block, self.quick), give)?;
        self.waiting.push_back(take);
        while self.waiting.len() > 2 * self.threads {
            self.write_oldest()?;
        }
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.waiting.pop_front() else { return Ok(()) };
        let ended = |_| io::Error::other("a compression thread ended early");
        let (member, recorded, mut block) = oldest.recv().map_err(ended)?;
        block.clear();
        self.spare.push(block);
        self.recorded.push(recorded);
        self.sink.write_all(&member)
    }

    pub(crate) fn finish(mut self) -> io::Result<(W, Vec<Recorded>)> {
        while !self.waiting.is_empty() {
            self.write_oldest()?;
        }
        // An empty stream still is one member.
        if !self.block.is_empty() || !self.any {
            let (member, recorded) =
                Member::new(self.level).member((&self.block, self.quick), self.known.as_deref());
            self.recorded.push(recorded);
            self.sink.write_all(&member)?;
        }
        Ok((self.sink, self.recorded))
    }
}

/// A member, what later archives need to take it from here, and the block, which is filled again.
type Done = (Vec<u8>, Recorded, Vec<u8>);
type Job = (Vec<u8>, bool, SyncSender<Done>);

/// Threads that compress blocks; they end when the pool is dropped.
struct Pool {
    jobs: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    fn start(level: i32, count: usize, known: Option<&Arc<Known>>) -> Self {
        let (jobs, queue) = sync_channel::<Job>(count);
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..count)
            .map(|_| {
                let (queue, known) = (Arc::clone(&queue), known.cloned());
                std::thread::spawn(move || work(&queue, level, known.as_deref()))
            })
            .collect();
        Self { jobs: Some(jobs), threads }
    }

    fn give(&self, (block, quick): (Vec<u8>, bool), answer: SyncSender<Done>) -> io::Result<()> {
        let jobs = self.jobs.as_ref().expect("the queue lives as long as the pool");
        jobs.send((block, quick, answer)).map_err(|_| io::Error::other("all compression threads ended early"))
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
        let Ok((block, quick, answer)) = job else { return };
        let (done, recorded) = member.member((&block, quick), known);
        // Nobody waits any more: the whole stream was given up.
        let _ = answer.send((done, recorded, block));
    }
}

/// Makes gzip members: no name, time 0, a fixed operating system byte (RFC 1952).
struct Member {
    normal: Deflate,
    quick: Deflate,
    store: Deflate,
    /// Where members are made.
    room: Vec<u8>,
}

impl Member {
    fn new(level: i32) -> Self {
        let deflate = |level: i32| Deflate::new(CompressionLvl::new(level.clamp(0, 12)).unwrap_or_default());
        Self { normal: deflate(level), quick: deflate(1), store: deflate(0), room: Vec::new() }
    }

    /// The member of a block: an earlier archive's, if it has the same block.
    fn member(&mut self, (block, quick): (&[u8], bool), known: Option<&Known>) -> (Vec<u8>, Recorded) {
        if self.is_incompressible(block) {
            // To make it again costs no more than to find it.
            let member = Self::write(&mut self.store, &mut self.room, block);
            let recorded = Recorded::unfound(&member);
            return (member, recorded);
        }
        let content = Recorded::content_of(block, quick);
        let earlier = known.and_then(|known| known.find(&content));
        let deflate = if quick { &mut self.quick } else { &mut self.normal };
        let member = earlier.unwrap_or_else(|| Self::write(deflate, &mut self.room, block));
        let recorded = Recorded::new(content, &member);
        (member, recorded)
    }

    fn write(deflate: &mut Deflate, room: &mut Vec<u8>, block: &[u8]) -> Vec<u8> {
        let bound = deflate.gzip_compress_bound(block.len());
        if room.len() < bound {
            room.resize(bound, 0);
        }
        let size = deflate.gzip_compress(block, room).expect("the bound is large enough");
        room[..size].to_vec()
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
