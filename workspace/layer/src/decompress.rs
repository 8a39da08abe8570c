//! Decompression in the process, with limits on what a small stream may become.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::error::{Error, Grows, Result};

/// Output that is free of the ratio, in bytes.
pub(crate) const FREE: u64 = 64 << 20;
/// The largest window a zstd frame may ask for: 32 MiB.
const MAX_WINDOW_LOG: u32 = 25;
/// The most memory that an xz stream may ask for, in KiB: what its highest level needs, and little more.
const MAX_XZ_MEMORY: u32 = 72 << 10;

/// Reads a stream that may be compressed with gzip or zstd (by its first bytes, not by what anybody says).
pub struct Decompressor<'a> {
    inner: Box<dyn Read + 'a>,
    taken: Rc<Cell<u64>>,
    given: u64,
    ratio: u64,
}

impl<'a> Decompressor<'a> {
    /// Reads `source`; more than `ratio` times what was taken from it is refused after the first 64 MiB (0: never).
    /// Zeros do not count: they become holes of files, and logs of databases have gigabytes of them.
    pub fn new(source: impl Read + 'a, ratio: u64) -> Result<Self> {
        Self::of(source, ratio, false)
    }

    /// The same for archives that are no layers: bzip2 and xz, too.
    pub fn archive(source: impl Read + 'a, ratio: u64) -> Result<Self> {
        Self::of(source, ratio, true)
    }

    fn of(source: impl Read + 'a, ratio: u64, archive: bool) -> Result<Self> {
        let taken = Rc::new(Cell::new(0));
        let counted = Counted { inner: source, count: Rc::clone(&taken) };
        let mut source = BufReader::with_capacity(64 << 10, counted);
        let fail = |e| Error::Stream("read compressed layer", e);
        let start = source.fill_buf().map_err(fail)?;
        let inner: Box<dyn Read> = match start {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(source)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::Decoder::with_buffer(source).map_err(fail)?;
                decoder.window_log_max(MAX_WINDOW_LOG).map_err(fail)?;
                Box::new(decoder)
            }
            [b'B', b'Z', b'h', b'1'..=b'9', ..] if archive => Box::new(MultiBzDecoder::new(source)),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] if archive => {
                Box::new(XzReader::new_mem_limit(source, true, MAX_XZ_MEMORY))
            }
            _ => Box::new(source),
        };
        Ok(Self { inner, taken, given: 0, ratio })
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.given += if is_zero(&buffer[..count]) { 0 } else { count as u64 };
        let allowed = self.taken.get().saturating_mul(self.ratio).max(FREE);
        match self.ratio != 0 && self.given > allowed {
            true => Err(io::Error::new(io::ErrorKind::InvalidData, Grows { ratio: self.ratio })),
            false => Ok(count),
        }
    }
}

/// True when every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte) == 0)
}

struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{Compressor, Encoding};

    fn packed(bytes: &[u8], encoding: Encoding) -> Vec<u8> {
        let mut compressor = Compressor::with_threads(Vec::new(), encoding, 1).unwrap();
        compressor.write_all(bytes).unwrap();
        compressor.finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Decompressor::new(bytes, 200).unwrap().read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn members_and_frames_are_read_one_after_the_other() {
        for encoding in [Encoding::Gzip(5), Encoding::Zstd(3)] {
            let both = [packed(b"one", encoding), packed(b"two", encoding)].concat();
            assert_eq!(unpacked(&both).unwrap(), b"onetwo", "{encoding:?}");
        }
    }

    #[test]
    fn a_cut_or_flipped_stream_is_an_error() {
        for encoding in [Encoding::Gzip(5), Encoding::Zstd(3)] {
            let good = packed(&[7; 100_000], encoding);
            assert!(unpacked(&good[..good.len() - 1]).is_err(), "{encoding:?} cut");
            let mut bad = good.clone();
            *bad.last_mut().unwrap() ^= 1;
            assert!(unpacked(&bad).is_err(), "{encoding:?} flipped");
        }
    }

    #[test]
    fn a_databases_empty_log_is_no_bomb() {
        for encoding in [Encoding::Gzip(5), Encoding::Zstd(3)] {
            let mut compressor = Compressor::with_threads(Vec::new(), encoding, 1).unwrap();
            (0..96).for_each(|_| compressor.write_all(&[0; 1 << 20]).unwrap());
            let log = compressor.finish().unwrap();
            assert!(log.len() * 200 < 96 << 20, "{encoding:?}");
            assert_eq!(unpacked(&log).unwrap().len(), 96 << 20, "{encoding:?}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_soon_after_its_free_part() {
        for encoding in [Encoding::Gzip(5), Encoding::Zstd(3)] {
            let mut compressor = Compressor::with_threads(Vec::new(), encoding, 1).unwrap();
            (0..96).for_each(|_| compressor.write_all(&[1; 1 << 20]).unwrap());
            let bomb = compressor.finish().unwrap();
            let mut reader = Decompressor::new(&bomb[..], 200).unwrap();
            let mut buffer = vec![0; 1 << 16];
            let error = loop {
                match reader.read(&mut buffer) {
                    Ok(0) => panic!("{encoding:?} came through"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert!(error.to_string().contains("200 times"), "{encoding:?}: {error}");
            assert!(reader.given <= FREE.max(bomb.len() as u64 * 200) + (1 << 17), "{encoding:?}");
        }
    }
}
