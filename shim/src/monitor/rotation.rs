//! Limits on a log file's size: begin again, or keep some old files.

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};

use super::args::Args;

/// How much a log file may hold, and what happens then.
#[derive(Debug)]
pub struct Rotation {
    size_max: u64,
    total_max: u64,
    keep: u32,
    written: u64,
    written_in_all: u64,
}

impl Rotation {
    /// The limits of `args` for a file that holds `written` bytes.
    pub fn new(args: &Args, written: u64) -> Self {
        let keep = if args.log_rotate { args.log_max_files.max(1) } else { 0 };
        Self {
            size_max: args.log_size_max,
            total_max: args.log_size_total,
            keep,
            written,
            written_in_all: written,
        }
    }

    /// How many bytes of `lines` still fit (whole lines, at least one into an empty file), and whether the file is
    /// to be turned after them; `None` when nothing may be written any more at all.
    pub fn split(&mut self, lines: &[u8]) -> Option<(usize, bool)> {
        if self.total_max > 0 && self.written_in_all >= self.total_max {
            return None;
        }
        let room = if self.size_max == 0 { u64::MAX } else { self.size_max.saturating_sub(self.written) };
        let len = lines.len() as u64;
        let now = if len <= room {
            lines.len()
        } else {
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let fits = lines[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let first = lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1);
            if fits == 0 && self.written == 0 { first } else { fits }
        };
        self.written += now as u64;
        self.written_in_all += now as u64;
        Some((now, now < lines.len()))
    }

    /// Puts the full file away. Somebody else may have done so already.
    pub fn turn(&self, path: &Path) -> Result<(), Error> {
        if self.keep == 0 {
            return unless_missing(fs::remove_file(path));
        }
        for number in (1..self.keep).rev() {
            unless_missing(fs::rename(numbered(path, number), numbered(path, number + 1)))?;
        }
        unless_missing(fs::rename(path, numbered(path, 1)))
    }

    /// A file that holds `written` bytes was opened.
    pub fn opened(&mut self, written: u64) {
        self.written = written;
    }
}

fn unless_missing(done: Result<(), Error>) -> Result<(), Error> {
    match done {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_turned_at_line_ends_before_the_limit() {
        let mut rotation = Rotation::new(&Args { log_size_max: 10, ..Args::default() }, 0);
        assert_eq!(rotation.split(b"aaaa\nbbbb\ncc\n"), Some((10, true)));
        rotation.opened(0);
        assert_eq!(rotation.split(b"cc\n"), Some((3, false)));
        assert_eq!(rotation.split(b"dddddddd\n"), Some((0, true)));
        rotation.opened(0);
        assert_eq!(rotation.split(b"longer than the limit\nx\n"), Some((22, true)), "a line is never cut");
    }

    #[test]
    fn old_files_are_kept_up_to_the_number() {
        let dir = std::env::temp_dir().join(format!("hull-rotation-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log");
        let args = Args { log_rotate: true, log_max_files: 2, ..Args::default() };
        let rotation = Rotation::new(&args, 0);
        for text in ["1", "2", "3"] {
            fs::write(&path, text).unwrap();
            rotation.turn(&path).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        assert_eq!(
            (read("log"), read("log.1"), read("log.2"), read("log.3")),
            (None, Some("3".into()), Some("2".into()), None)
        );
        // The file was moved away by others, without a word to us.
        for rotation in [rotation, Rotation::new(&Args::default(), 0)] {
            rotation.turn(&path).unwrap();
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
