//! The reader: any archive that other tools write, and a clear refusal of any that two readers could see differently.

use std::io::{self, Read};

use super::header::Header;
use super::{BLOCK, pax};
use crate::entry::{Kind, Time};
use crate::error::{Error, Result};

const MAX_LONG_NAME: u64 = 64 << 10;

/// An entry as the archive has it: names unchecked, attributes unfiltered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEntry {
    /// Number of the entry, from 0.
    pub index: u64,
    /// Name, verbatim.
    pub name: Vec<u8>,
    /// What it is; link targets verbatim.
    pub kind: Kind,
    /// All bits the archive has.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change.
    pub mtime: Time,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads entries one after the other; the data of an entry is read from the reader itself.
pub struct TarReader<R> {
    source: R,
    index: u64,
    left: u64,
    padding: usize,
    max_records: u64,
}

/// What came before an entry and belongs to it.
#[derive(Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: pax::Records,
    any: bool,
}

impl<R: Read> TarReader<R> {
    /// Reads from `source`, taking at most `max_records` bytes of PAX data for one entry.
    pub fn new(source: R, max_records: u64) -> Self {
        Self { source, index: 0, left: 0, padding: 0, max_records }
    }

    /// Gives the source back, wherever reading stopped.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// Skips what is left of the present entry and reads the next one; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<RawEntry>> {
        self.skip_data()?;
        let mut ahead = Ahead::default();
        loop {
            let Some(header) = self.header()? else {
                return match ahead.any {
                    true => {
                        Err(self.refuse(b"", "the archive ends after a header that belongs to a next entry"))
                    }
                    false => Ok(None),
                };
            };
            match header.kind() {
                b'x' => {
                    let bytes = self.small(&header, self.max_records)?;
                    ahead.records = pax::parse(&bytes).map_err(|rule| self.refuse(b"", rule))?;
                    ahead.any = true;
                }
                // Global records say nothing that a layer needs: they are passed over.
                b'g' => drop(self.small(&header, self.max_records)?),
                b'L' => (ahead.name, ahead.any) = (Some(trimmed(self.small(&header, MAX_LONG_NAME)?)), true),
                b'K' => (ahead.link, ahead.any) = (Some(trimmed(self.small(&header, MAX_LONG_NAME)?)), true),
                _ => return self.entry(&header, ahead).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, ahead: Ahead) -> Result<RawEntry> {
        let record = |key: &[u8]| ahead.records.get(key).cloned();
        let name = record(b"path").or(ahead.name).unwrap_or_else(|| header.name());
        let link = record(b"linkpath").or(ahead.link).unwrap_or_else(|| header.link());
        let refuse =
            |rule: &str| Error::Archive { index: self.index, name: name.clone(), rule: rule.to_owned() };
        if ahead.records.keys().any(|key| key.starts_with(b"GNU.sparse.")) || header.kind() == b'S' {
            return Err(refuse("sparse entries are not taken: pack the file without holes"));
        }
        let [mode, uid, gid, size, mtime, major, minor] = header.numbers();
        let id = |header: Option<i128>, key: &[u8]| -> Result<u32> {
            let value = record(key).map_or(header, |text| parse_decimal(&text));
            value
                .and_then(|value| u32::try_from(value).ok())
                .ok_or_else(|| refuse("an owner or device number is out of range"))
        };
        let size = record(b"size").map_or(size, |text| parse_decimal(&text));
        let size = size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size < 1 << 62);
        let size = size.ok_or_else(|| refuse("the size is out of range"))?;
        let device = (id(major, b"SCHILY.devmajor")?, id(minor, b"SCHILY.devminor")?);
        let mut kind = kind_of(header.kind(), size, link, device).map_err(refuse)?;
        // Archives older than the directory type mark directories by the slash.
        if name.ends_with(b"/") && matches!(kind, Kind::File { size: 0 }) {
            kind = Kind::Directory;
        }
        // Only regular files have data; a size on anything else is read differently by different programs.
        let data = if let Kind::File { size } = kind { size } else { 0 };
        if size != data && !(size == 0 || matches!(kind, Kind::Hardlink(_))) {
            return Err(refuse("an entry that is no file has data"));
        }
        if matches!(kind, Kind::Hardlink(_)) && size != 0 && record(b"size").is_some() {
            return Err(refuse("a hard link has data"));
        }
        let mtime = match record(b"mtime") {
            Some(text) => parse_time(&text),
            None => mtime.and_then(|seconds| i64::try_from(seconds).ok()).map(Time::at),
        };
        let entry = RawEntry {
            index: self.index,
            kind,
            mode: mode
                .and_then(|mode| u32::try_from(mode).ok())
                .ok_or_else(|| refuse("the mode is out of range"))?,
            uid: id(uid, b"uid")?,
            gid: id(gid, b"gid")?,
            mtime: mtime.ok_or_else(|| refuse("the time is out of range"))?,
            xattrs: xattrs(&ahead.records),
            name: name.clone(),
        };
        self.index += 1;
        self.left = data;
        self.padding = padding(data);
        Ok(entry)
    }

    /// The next header that is no end mark; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header([0; BLOCK]);
        match fill(&mut self.source, &mut header.0).map_err(|e| Error::Stream("read archive", e))? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return Err(self.refuse(b"", "the archive ends inside a header")),
        }
        if header.is_zero() {
            // One zero block ends an archive as well as two; what follows is padding or garbage, which nobody reads.
            return Ok(None);
        }
        match header.is_valid() {
            true => Ok(Some(header)),
            false => Err(self.refuse(b"", "the checksum of a header is wrong")),
        }
    }

    /// The data of a header that belongs to the next entry.
    fn small(&mut self, header: &Header, limit: u64) -> Result<Vec<u8>> {
        let size = header.numbers()[3].and_then(|size| u64::try_from(size).ok());
        let size = size.filter(|size| *size <= limit);
        let size =
            size.ok_or_else(|| self.refuse(b"", "a long name or PAX record is larger than allowed"))?;
        let mut bytes = vec![0; size as usize + padding(size)];
        let count = fill(&mut self.source, &mut bytes).map_err(|e| Error::Stream("read archive", e))?;
        if count != bytes.len() {
            return Err(self.refuse(b"", "the archive ends inside a header"));
        }
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn skip_data(&mut self) -> Result<()> {
        let skip = self.left + self.padding as u64;
        let done = io::copy(&mut (&mut self.source).take(skip), &mut io::sink());
        if done.map_err(|e| Error::Stream("read archive", e))? != skip {
            return Err(self.refuse(b"", "the archive ends inside the data of an entry"));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    fn refuse(&self, name: &[u8], rule: &str) -> Error {
        Error::Archive { index: self.index, name: name.to_vec(), rule: rule.to_owned() }
    }
}

/// Reads the data of the present entry.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = (buffer.len() as u64).min(self.left) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive ends inside the data of an entry",
            ));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn kind_of(
    flag: u8,
    size: u64,
    link: Vec<u8>,
    (major, minor): (u32, u32),
) -> std::result::Result<Kind, &'static str> {
    Ok(match flag {
        b'0' | 0 | b'7' => Kind::File { size },
        b'1' => Kind::Hardlink(link),
        b'2' => Kind::Symlink(link),
        b'3' => Kind::Char { major, minor },
        b'4' => Kind::Block { major, minor },
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return Err("the type of the entry is unknown"),
    })
}

fn xattrs(records: &pax::Records) -> Vec<(Vec<u8>, Vec<u8>)> {
    let named =
        |(key, value): (&Vec<u8>, &Vec<u8>)| Some((key.strip_prefix(pax::XATTR)?.to_vec(), value.clone()));
    records.iter().filter_map(named).collect()
}

/// A long name ends at its NUL.
fn trimmed(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

fn parse_decimal(text: &[u8]) -> Option<i128> {
    let digits = std::str::from_utf8(text).ok()?;
    match digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 20 {
        true => digits.parse().ok(),
        false => None,
    }
}

/// `[-]SECONDS[.FRACTION]`; digits beyond the nanosecond are cut.
fn parse_time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 18 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let nanos: i128 = format!("{:0<9.9}", fraction).parse().ok()?;
    let total = whole.parse::<i128>().ok()? * 1_000_000_000 + nanos;
    let total = if negative { -total } else { total };
    let seconds = i64::try_from(total.div_euclid(1_000_000_000)).ok()?;
    Some(Time { seconds, nanos: total.rem_euclid(1_000_000_000) as u32 })
}

fn padding(size: u64) -> usize {
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

/// Reads until the buffer is full or the source ends.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match source.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, TarWriter, TimeRule};

    #[test]
    fn what_the_writer_wrote_the_reader_reads() {
        let mut entry = Entry::file(&[b'x'; 300], 3, 0o640);
        (entry.uid, entry.gid) = (4_000_000_000, 1);
        entry.mtime = Time { seconds: -5, nanos: 250_000_000 };
        entry.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2]);
        let mut writer = TarWriter::new(Vec::new(), TimeRule::Keep);
        writer.append(&entry, &mut &b"abc"[..]).unwrap();
        writer
            .append(&Entry::new(b"l", Kind::Hardlink(entry.path.clone()), 0o640), &mut io::empty())
            .unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = TarReader::new(&bytes[..], 1 << 20);
        let first = reader.next_entry().unwrap().unwrap();
        assert_eq!(
            (&first.name, first.uid, first.gid, first.mtime),
            (&entry.path, 4_000_000_000, 1, entry.mtime)
        );
        assert_eq!(first.xattrs, entry.xattrs.clone().into_iter().collect::<Vec<_>>());
        let mut data = Vec::new();
        reader.read_to_end(&mut data).unwrap();
        assert_eq!(data, b"abc");
        let second = reader.next_entry().unwrap().unwrap();
        assert_eq!(second.kind, Kind::Hardlink(entry.path));
        assert_eq!(reader.next_entry().unwrap(), None);
    }

    #[test]
    fn an_archive_cut_at_any_block_is_an_error_or_a_shorter_archive() {
        let mut writer = TarWriter::new(Vec::new(), TimeRule::Keep);
        for count in 0..4u8 {
            let mut entry = Entry::file(&[b'a' + count; 150], 700, 0o644);
            entry.mtime = Time { seconds: 1, nanos: 1 };
            writer.append(&entry, &mut &[count; 700][..]).unwrap();
        }
        let bytes = writer.finish().unwrap();
        // header and records, header, two blocks of data
        let entry_blocks = (bytes.len() / BLOCK - 2) / 4;
        for blocks in 0..bytes.len() / BLOCK {
            let mut reader = TarReader::new(&bytes[..blocks * BLOCK], 1 << 20);
            let outcome = loop {
                match reader.next_entry() {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(reader.index),
                    Err(error) => break Err(error),
                }
            };
            match blocks % entry_blocks == 0 || blocks >= 4 * entry_blocks {
                true => assert_eq!(outcome.unwrap(), (blocks / entry_blocks).min(4) as u64),
                false => assert!(matches!(outcome, Err(Error::Archive { .. })), "{blocks}"),
            }
        }
    }

    #[test]
    fn times_are_read_with_their_fraction() {
        for (text, time) in [
            ("1.5", Some((1, 500_000_000))),
            ("-1.5", Some((-2, 500_000_000))),
            ("0.0000000019", Some((0, 1))),
            ("7", Some((7, 0))),
            ("", None),
            (".5", None),
            ("1e3", None),
            ("9999999999999999999", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()).map(|t| (t.seconds, t.nanos)), time, "{text}");
        }
    }
}
