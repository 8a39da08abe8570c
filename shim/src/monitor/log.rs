//! Log drivers: one buffer of output in, whole lines with their time out.

use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::path::PathBuf;

use crate::clock::{Clock, rfc3339};

use super::args::Args;
use super::journal::Journal;
use super::rotation::Rotation;

/// Reads of this size come one after the other, and the buffer of the last is kept for the next.
const BUSY: usize = 64 << 10;

/// Which of the container's streams bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One place where the log goes.
#[derive(Debug)]
enum Driver {
    /// `TIME STREAM F|P TEXT`: what podman, CRI and their readers know.
    Kubernetes(LogFile),
    /// `{"log","stream","time"}`: what docker's readers know.
    Json(LogFile),
    Journal(Journal),
}

/// Every place where the log goes.
#[derive(Debug, Default)]
pub struct Logs {
    drivers: Vec<Driver>,
    line: Vec<u8>,
    /// The container keeps our own streams: there is nothing to log.
    pub passthrough: bool,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    rotation: Rotation,
}

impl Logs {
    /// Opens what `args` name: `DRIVER:PATH`, or a path for the first driver.
    pub fn open(args: &Args) -> Result<Self, String> {
        let mut logs = Self::default();
        for text in &args.logs {
            let (driver, path) = match text.split_once(':') {
                Some((driver, path)) => (driver, path),
                None if text.starts_with('/') => ("k8s-file", text.as_str()),
                None => (text.as_str(), ""),
            };
            match driver {
                "k8s-file" => logs.drivers.push(Driver::Kubernetes(LogFile::open(path, args)?)),
                "json-file" => logs.drivers.push(Driver::Json(LogFile::open(path, args)?)),
                "journald" => logs.drivers.push(Driver::Journal(Journal::open(args)?)),
                "none" | "off" | "null" => {}
                "passthrough" => logs.passthrough = true,
                other => return Err(format!("No such log driver {other}")),
            }
        }
        Ok(logs)
    }

    /// Logs what was read at once from one stream. A last line without its end is marked as a part.
    pub fn write(&mut self, source: Source, bytes: &[u8]) {
        if self.drivers.is_empty() || bytes.is_empty() {
            return;
        }
        let time = rfc3339(Clock::new().now());
        for driver in &mut self.drivers {
            self.line.clear();
            match driver {
                Driver::Kubernetes(file) => {
                    kubernetes_lines(&mut self.line, &time, source, bytes);
                    file.write(&self.line);
                }
                Driver::Json(file) => {
                    json_lines(&mut self.line, &time, source, bytes);
                    file.write(&self.line);
                }
                Driver::Journal(journal) => journal.write(&mut self.line, source, bytes),
            }
        }
        if bytes.len() < BUSY {
            // An idle monitor keeps no buffer.
            self.line = Vec::new();
        }
    }

    /// Opens the files anew, after somebody moved them away.
    pub fn reopen(&mut self) {
        for driver in &mut self.drivers {
            if let Driver::Kubernetes(file) | Driver::Json(file) = driver {
                // The old file goes on being written when the new one cannot be opened.
                let _ = file.reopen();
            }
        }
    }

    /// Makes sure that what was logged is on the disk.
    pub fn sync(&mut self) {
        for driver in &mut self.drivers {
            match driver {
                Driver::Kubernetes(file) | Driver::Json(file) => {
                    // The exit is reported in any case.
                    let _ = file.file.sync_all();
                }
                Driver::Journal(journal) => journal.tell_of_losses(),
            }
        }
    }
}

impl LogFile {
    fn open(path: &str, args: &Args) -> Result<Self, String> {
        if path.is_empty() {
            return Err("the log driver needs a path".to_owned());
        }
        let path = PathBuf::from(path);
        let file = open_log(&path).map_err(|error| format!("open log {}: {error}", path.display()))?;
        let written = file.metadata().map_or(0, |found| found.len());
        Ok(Self { rotation: Rotation::new(args, written), path, file })
    }

    /// Writes whole lines; a disk that is full loses them, never the container.
    fn write(&mut self, mut lines: &[u8]) {
        while !lines.is_empty() {
            let Some((now, turn)) = self.rotation.split(lines) else { return };
            if !self.append(&lines[..now]) {
                return;
            }
            lines = &lines[now..];
            if turn && self.rotation.turn(&self.path).and_then(|()| self.reopen()).is_err() {
                return;
            }
        }
    }

    /// False when not all of it could be written; a line is there whole or not at all.
    fn append(&mut self, lines: &[u8]) -> bool {
        let mut rest = lines;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(more @ 1..) => rest = &rest[more..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        let written = &lines[..lines.len() - rest.len()];
        let whole = written.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let cut = (written.len() - whole) as u64;
        if cut > 0
            && let Ok(found) = self.file.metadata()
        {
            // What cannot be taken back is the reader's to pass over.
            let _ = self.file.set_len(found.len().saturating_sub(cut));
        }
        rest.is_empty()
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.file = open_log(&self.path)?;
        self.rotation.opened(self.file.metadata().map_or(0, |found| found.len()));
        Ok(())
    }
}

fn open_log(path: &std::path::Path) -> Result<File, Error> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().append(true).create(true).mode(0o600).open(path)
}

fn kubernetes_lines(out: &mut Vec<u8>, time: &str, source: Source, bytes: &[u8]) {
    let full = format!("{time} {} F ", source.name()).into_bytes();
    out.reserve(bytes.len() + bytes.len() / 2);
    let mut rest = bytes;
    while let Some(end) = line_end(rest) {
        out.extend_from_slice(&full);
        out.extend_from_slice(&rest[..end]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        let mark = out.len() + full.len() - 2;
        out.extend_from_slice(&full);
        out.extend_from_slice(rest);
        out[mark] = b'P';
        out.push(b'\n');
    }
}

/// Where the first line ends, its line end included. Looks at 32 bytes at once, which the compiler makes vectors of.
fn line_end(bytes: &[u8]) -> Option<usize> {
    const STEP: usize = 32;
    let has_end = |chunk: &[u8]| chunk.iter().fold(false, |found, byte| found | (*byte == b'\n'));
    let skipped = bytes.chunks_exact(STEP).take_while(|chunk| !has_end(chunk)).count() * STEP;
    bytes[skipped..].iter().position(|byte| *byte == b'\n').map(|at| skipped + at + 1)
}

fn json_lines(out: &mut Vec<u8>, time: &str, source: Source, bytes: &[u8]) {
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = serde_json::Value::from(String::from_utf8_lossy(line).into_owned());
        let entry = format!("{{\"log\":{text},\"stream\":\"{}\",\"time\":\"{time}\"}}\n", source.name());
        out.extend_from_slice(entry.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_parts_are_marked() {
        let mut out = Vec::new();
        kubernetes_lines(&mut out, "T", Source::Stdout, b"one\n\ntwo");
        assert_eq!(out, b"T stdout F one\nT stdout F \nT stdout P two\n");
        let mut out = Vec::new();
        json_lines(&mut out, "T", Source::Stderr, b"a\"b\n");
        assert_eq!(out, b"{\"log\":\"a\\\"b\\n\",\"stream\":\"stderr\",\"time\":\"T\"}\n");
    }

    #[test]
    fn line_ends_are_found_wherever_they_are() {
        let mut bytes = vec![b'x'; 100];
        assert_eq!(line_end(&bytes), None);
        for at in 0..100 {
            bytes[at..].fill(b'x');
            bytes[at] = b'\n';
            bytes[99] = b'\n';
            assert_eq!(line_end(&bytes), Some(at + 1));
            bytes[at] = b'x';
        }
    }
}
