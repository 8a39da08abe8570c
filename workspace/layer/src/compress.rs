//! Compression whose bytes do not depend on the number of threads.
//!
//! gzip: blocks, each a member of its own: see `gzip`. zstd: one frame; the library's own workers cut it by size, not by
//! their number.

use std::io::{self, Write};

use hull_image::media;

use crate::blocks::{Known, Recorded};
use crate::error::{Error, Result};
use crate::gzip::Gzip;

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
    /// What is written unless somebody asks for something else: every reader of images takes it, and this level makes
    /// what gzip's usual one makes in half of its time.
    pub const DEFAULT: Self = Self::Gzip(4);

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

    /// Lets whoever reads what comes out have the processor first; before the first byte.
    pub fn step_back(&mut self) {
        if let Inner::Gzip(gzip) = &mut self.0 {
            gzip.step_back();
        }
    }

    /// Takes the members of blocks that an earlier archive has too from there.
    pub fn reuse(&mut self, known: Known) {
        if let Inner::Gzip(gzip) = &mut self.0 {
            gzip.reuse(known);
        }
    }

    /// Says that a block may end here: archives that are alike in part then have blocks alike.
    ///
    /// `now` is for a place that shall be a block's beginning whatever came before.
    pub fn may_cut(&mut self, now: bool) -> io::Result<()> {
        match &mut self.0 {
            Inner::Gzip(gzip) => gzip.may_cut(now),
            Inner::Plain(_) | Inner::Zstd(_) => Ok(()),
        }
    }

    /// Says that what follows is much: then speed counts more than size, unless the level is above the usual one.
    pub fn hurry(&mut self, quick: bool) {
        if let Inner::Gzip(gzip) = &mut self.0 {
            gzip.hurry(quick);
        }
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
        self.finish_blocks().map(|(sink, _)| sink)
    }

    /// The same, with what later archives can take from this one; nothing unless it is gzip.
    pub fn finish_blocks(self) -> Result<(W, Vec<Recorded>)> {
        match self.0 {
            Inner::Plain(sink) => Ok((sink, Vec::new())),
            Inner::Gzip(gzip) => gzip.finish(),
            Inner::Zstd(encoder) => encoder.finish().map(|sink| (sink, Vec::new())),
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::gzip::{BLOCK, STEP};

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
    fn stepping_back_changes_no_byte_and_not_the_threads_of_others() {
        let bytes = &sample()[..2 * BLOCK];
        let wanted = compressed(bytes, Encoding::Gzip(4), 2);
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let mut compressor = Compressor::with_threads(Vec::new(), Encoding::Gzip(4), 2).unwrap();
        assert_eq!(threads_at(before + STEP), 0);
        compressor.step_back();
        compressor.write_all(bytes).unwrap();
        let limit = Instant::now() + Duration::from_secs(60);
        while threads_at(before + STEP) < 2 {
            assert!(Instant::now() < limit, "{} of two step back", threads_at(before + STEP));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(compressor.finish().unwrap() == wanted);
        assert_eq!(own(), before);
    }

    /// How many threads of this process have this nice value (proc_pid_stat(5)).
    fn threads_at(nice: i32) -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        let values =
            stats.map(|stat| stat.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap().to_owned());
        values.filter(|value| *value == nice.to_string()).count()
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
    fn what_is_much_is_compressed_for_speed_at_usual_levels_only() {
        let bytes = &sample()[..2 * BLOCK];
        let written = |level: i32, quick: bool| {
            let mut compressor = Compressor::with_threads(Vec::new(), Encoding::Gzip(level), 2).unwrap();
            compressor.hurry(quick);
            compressor.write_all(bytes).unwrap();
            compressor.finish().unwrap()
        };
        assert!(written(4, true) == written(1, false), "as level 1 does it");
        assert!(written(4, true) != written(4, false));
        assert!(written(5, true) == written(5, false));
    }

    #[test]
    fn nothing_becomes_one_member_that_names_nothing() {
        let member = compressed(b"", Encoding::Gzip(5), 1);
        assert_eq!(member[..4], [0x1f, 0x8b, 8, 0], "no flags: no name");
        assert_eq!(member[4..8], [0; 4], "no time");
        assert_eq!(member[member.len() - 8..], [0; 8], "checksum and size of nothing");
    }
}
