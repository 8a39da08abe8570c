//! The writer: the same entries give the same bytes.

use std::io::{Read, Write};

use super::header::{Header, octal_max};
use super::{BLOCK, pax};
use crate::entry::{Entry, Kind, Time, join, split};
use crate::error::{Error, Result};

const CHUNK: usize = 256 << 10;

/// Which times an archive shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeRule {
    /// Those of the files, to the nanosecond.
    Keep,
    /// This second for every entry.
    Set(i64),
    /// Those of the files in whole seconds, but none later than this second.
    Clamp(i64),
}

impl TimeRule {
    /// The time an entry gets.
    pub fn apply(self, time: Time) -> Time {
        match self {
            Self::Keep => time,
            Self::Set(seconds) => Time::at(seconds),
            Self::Clamp(limit) => Time::at(time.seconds.min(limit)),
        }
    }
}

/// Writes a layer: ustar headers, PAX records only where those do not suffice, no names of users, two zero blocks at the end.
///
/// The caller gives the entries in their order: see [`crate::order`].
pub struct TarWriter<W> {
    sink: W,
    times: TimeRule,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// Writes to `sink`.
    pub fn new(sink: W, times: TimeRule) -> Self {
        Self { sink, times, buffer: vec![0; CHUNK] }
    }

    /// Adds an entry; of a file's data exactly the announced size is read.
    ///
    /// # Errors
    /// A name that no layer can hold (a part that begins with `.wh.`), data that end early, or the sink's error.
    pub fn append(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<()> {
        if entry.path.split(|byte| *byte == b'/').any(|part| part.starts_with(b".wh.")) {
            let rule = "names that begin with .wh. mean removal in a layer and cannot be files".to_owned();
            return Err(Error::Pack { path: entry.path.clone(), rule });
        }
        if entry.path.split(|byte| *byte == b'/').any(|part| matches!(part, b"." | b"..")) {
            let rule = "a path of a layer has no part that leads elsewhere".to_owned();
            return Err(Error::Pack { path: entry.path.clone(), rule });
        }
        self.header(entry)?;
        self.data(&entry.path, entry.size(), data)
    }

    /// Adds the mark that `path` of a lower layer is gone.
    pub fn whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (dir, name) = split(path);
        self.mark(&join(dir, &[b".wh.", name].concat()))
    }

    /// Adds the mark that nothing of the directory `dir` in lower layers is seen.
    pub fn opaque(&mut self, dir: &[u8]) -> Result<()> {
        self.mark(&join(dir, b".wh..wh..opq"))
    }

    /// What is written to.
    pub(crate) fn sink_mut(&mut self) -> &mut W {
        &mut self.sink
    }

    /// Ends the archive and gives the sink back.
    pub fn finish(mut self) -> Result<W> {
        self.write(&[0; 2 * BLOCK])?;
        Ok(self.sink)
    }

    fn mark(&mut self, path: &[u8]) -> Result<()> {
        // Marks have no time of their own: 1970, unless the rule sets one.
        self.header(&Entry::file(path, 0, 0))
    }

    fn header(&mut self, entry: &Entry) -> Result<()> {
        let mut records = Vec::new();
        let mut header = Header::new(type_flag(&entry.kind));
        header.set_owner(entry.mode & 0o7777, entry.uid, entry.gid);
        set_owner_records(&mut records, entry);
        set_time(&mut header, &mut records, self.times.apply(entry.mtime));
        set_names(&mut header, &mut records, entry);
        set_kind(&mut header, &mut records, &entry.kind);
        for (name, value) in &entry.xattrs {
            pax::append(&mut records, &[pax::XATTR, name].concat(), value);
        }
        if !records.is_empty() {
            self.pax(&entry.path, &records)?;
        }
        header.seal();
        self.write(&header.0)
    }

    fn pax(&mut self, path: &[u8], records: &[u8]) -> Result<()> {
        let mut header = Header::new(b'x');
        header.set_owner(0o644, 0, 0);
        header.set_size(records.len() as u64);
        let name = split(path).1;
        header.set_short_name(&[b"PaxHeaders.0/", &name[..name.len().min(80)]].concat());
        header.seal();
        self.write(&header.0)?;
        self.write(records)?;
        self.pad(records.len() as u64)
    }

    fn data(&mut self, path: &[u8], size: u64, data: &mut dyn Read) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let wanted = left.min(CHUNK as u64) as usize;
            let count = match data.read(&mut self.buffer[..wanted]) {
                Ok(0) => {
                    let rule = format!("is {left} bytes shorter than when it was looked at");
                    return Err(Error::Pack { path: path.to_vec(), rule });
                }
                Ok(count) => count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::file("read", path)(e)),
            };
            self.sink.write_all(&self.buffer[..count]).map_err(|e| Error::Stream("write archive", e))?;
            left -= count as u64;
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = (size % BLOCK as u64) as usize;
        match over {
            0 => Ok(()),
            _ => self.write(&[0; BLOCK][over..]),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(|e| Error::Stream("write archive", e))
    }
}

fn type_flag(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => b'0',
        Kind::Hardlink(_) => b'1',
        Kind::Symlink(_) => b'2',
        Kind::Char { .. } => b'3',
        Kind::Block { .. } => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

fn set_owner_records(records: &mut Vec<u8>, entry: &Entry) {
    for (key, id) in [(&b"gid"[..], entry.gid), (b"uid", entry.uid)] {
        if u64::from(id) > octal_max(8) {
            pax::append(records, key, id.to_string().as_bytes());
        }
    }
}

fn set_time(header: &mut Header, records: &mut Vec<u8>, time: Time) {
    match u64::try_from(time.seconds) {
        Ok(seconds) if time.nanos == 0 && seconds <= octal_max(12) => header.set_mtime(seconds),
        _ => {
            header.set_mtime(u64::try_from(time.seconds).unwrap_or(0).min(octal_max(12)));
            pax::append(records, b"mtime", decimal(time).as_bytes());
        }
    }
}

/// Seconds with a fraction without trailing zeros; before 1970 the fraction counts away from zero.
fn decimal(time: Time) -> String {
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let sign = if total < 0 { "-" } else { "" };
    let (seconds, nanos) = (total.unsigned_abs() / 1_000_000_000, total.unsigned_abs() % 1_000_000_000);
    let fraction = format!("{nanos:09}");
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{seconds}"),
        digits => format!("{sign}{seconds}.{digits}"),
    }
}

fn set_names(header: &mut Header, records: &mut Vec<u8>, entry: &Entry) {
    let mut name = if entry.path.is_empty() { b".".to_vec() } else { entry.path.clone() };
    if entry.kind == Kind::Directory {
        name.push(b'/');
    }
    if !(name.is_ascii() && header.set_name(&name)) {
        header.set_short_name(&name);
        pax::append(records, b"path", &name);
    }
    if let Kind::Symlink(target) | Kind::Hardlink(target) = &entry.kind
        && !(header.set_link(target) && target.is_ascii())
    {
        pax::append(records, b"linkpath", target);
    }
}

fn set_kind(header: &mut Header, records: &mut Vec<u8>, kind: &Kind) {
    match *kind {
        Kind::File { size } => {
            header.set_size(size);
            if size > octal_max(12) {
                pax::append(records, b"size", size.to_string().as_bytes());
            }
        }
        Kind::Char { major, minor } | Kind::Block { major, minor } => header.set_device(major, minor),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_pax_only_when_the_header_cannot_hold_them() {
        for (seconds, nanos, text) in [
            (0, 0, "0"),
            (5, 500_000_000, "5.5"),
            (-1, 0, "-1"),
            (-2, 500_000_000, "-1.5"),
            (-1, 999_999_999, "-0.000000001"),
            (1 << 33, 1, "8589934592.000000001"),
        ] {
            assert_eq!(decimal(Time { seconds, nanos }), text);
        }
        let mut writer = TarWriter::new(Vec::new(), TimeRule::Keep);
        let mut entry = Entry::directory(b"d");
        entry.mtime = Time::at(7);
        writer.append(&entry, &mut std::io::empty()).unwrap();
        assert_eq!(writer.finish().unwrap().len(), 3 * BLOCK, "one header and the end");
    }

    #[test]
    fn names_that_mean_removal_are_refused() {
        let mut writer = TarWriter::new(Vec::new(), TimeRule::Set(0));
        for path in [&b".wh.x"[..], b"a/.wh..wh..opq", b".wh.a/b"] {
            let outcome = writer.append(&Entry::file(path, 0, 0o644), &mut std::io::empty());
            assert!(matches!(outcome, Err(Error::Pack { .. })));
        }
    }

    #[test]
    fn another_reader_sees_what_was_written() {
        let mut writer = TarWriter::new(Vec::new(), TimeRule::Clamp(100));
        let long = [&[b'n'; 120][..], b"/", &[b'm'; 130]].concat();
        let mut entry = Entry::file(&long, 5, 0o4755);
        (entry.uid, entry.gid, entry.mtime) = (3_000_000, 7, Time { seconds: 200, nanos: 3 });
        entry.xattrs.insert(b"user.k".to_vec(), b"a\0b".to_vec());
        writer.append(&entry, &mut &b"hello"[..]).unwrap();
        writer
            .append(&Entry::new("ü".as_bytes(), Kind::Symlink(vec![b't'; 200]), 0o777), &mut std::io::empty())
            .unwrap();
        writer
            .append(&Entry::new(b"c", Kind::Char { major: 1, minor: 3 }, 0o666), &mut std::io::empty())
            .unwrap();
        writer.whiteout(b"d/gone").unwrap();
        let bytes = writer.finish().unwrap();
        let mut archive = ::tar::Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let header = entry.header();
            let facts = (header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap());
            seen.push((
                entry.path_bytes().to_vec(),
                entry.link_name_bytes().map(|l| l.to_vec()),
                facts,
                content,
            ));
        }
        assert_eq!(seen[0], (long, None, (0o4755, 3_000_000, 100), "hello".to_owned()));
        assert_eq!((&seen[1].0[..], seen[1].1.as_deref()), ("ü".as_bytes(), Some(&[b't'; 200][..])));
        assert_eq!(&seen[2].0[..], b"c");
        assert_eq!((&seen[3].0[..], seen[3].2), (&b"d/.wh.gone"[..], (0, 0, 0)));
        assert_eq!(seen.len(), 4);
    }
}
