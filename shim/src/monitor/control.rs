//! The bundle's fifos: `ctl` for managers (terminal size, new log), `winsz` for terminal sizes alone.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hull_sys::io;
use rustix::fs::{FileType, Mode, OFlags};

/// Longest line that is waited for.
const LINE_LIMIT: usize = 8192;

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Set the terminal's size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters a line.
        columns: u16,
    },
    /// Open the log anew.
    ReopenLog,
}

/// A fifo with lines of three numbers, or of two.
#[derive(Debug)]
pub struct ControlFifo {
    fd: OwnedFd,
    /// Ours, so that the end of one writer is not the fifo's end.
    _keeper: OwnedFd,
    text: Vec<u8>,
    sizes_only: bool,
}

impl ControlFifo {
    /// Makes the fifo `name` in the bundle and opens it.
    pub fn new(bundle: &Path, name: &str) -> Result<Self, String> {
        let path = bundle.join(name);
        let failed = |errno: rustix::io::Errno| format!("fifo {}: {errno}", path.display());
        // One that is left of an earlier life of this container.
        let _ = std::fs::remove_file(&path);
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).map_err(failed)?;
        let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&path, OFlags::RDONLY | flags, Mode::empty()).map_err(failed)?;
        let keeper = rustix::fs::open(&path, OFlags::WRONLY | flags, Mode::empty()).map_err(failed)?;
        Ok(Self { fd, _keeper: keeper, text: Vec::new(), sizes_only: name == "winsz" })
    }

    /// What to wait on.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Reads the lines that are there; what is no request is passed over.
    pub fn requests(&mut self) -> Vec<Request> {
        let mut bytes = [0; 512];
        while let Ok(got @ 1..) = io::read(self.fd.as_fd(), &mut bytes) {
            self.text.extend_from_slice(&bytes[..got]);
            if self.text.len() > LINE_LIMIT {
                self.text.clear();
            }
        }
        let Some(end) = self.text.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let lines: Vec<u8> = self.text.drain(..=end).collect();
        let lines = String::from_utf8_lossy(&lines).into_owned();
        lines.lines().filter_map(|line| parse(line, self.sizes_only)).collect()
    }
}

fn parse(line: &str, sizes_only: bool) -> Option<Request> {
    let numbers: Vec<u16> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    match (sizes_only, numbers.as_slice()) {
        (true, &[rows, columns]) | (false, &[1, rows, columns]) => Some(Request::Resize { rows, columns }),
        (false, [2, ..]) => Some(Request::ReopenLog),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_lines_are_requests() {
        let cases = [
            ("1 24 80", false, Some(Request::Resize { rows: 24, columns: 80 })),
            ("2 0 0", false, Some(Request::ReopenLog)),
            ("24 80", true, Some(Request::Resize { rows: 24, columns: 80 })),
            ("1 24 80", true, None),
            ("3 0 0", false, None),
            ("1 99999 80", false, None),
            ("", false, None),
        ];
        for (line, sizes_only, wanted) in cases {
            assert_eq!(parse(line, sizes_only), wanted, "{line:?}");
        }
    }
}
