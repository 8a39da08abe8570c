//! The bundle's fifos: `ctl` for managers (terminal size, new log), `winsz` for terminal sizes alone.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hull_sys::io;
use rustix::fs::{FileType, Mode, OFlags};

/// Longest line that is waited for.
const LINE_LIMIT: usize = 8192;
/// Most reads of one turn: a writer that does not stop stops nothing else.
const TURN: u32 = 8;

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

    /// Reads the lines that are there, a fifo full of them at most; what is no request is passed over.
    pub fn requests(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut bytes = [0; LINE_LIMIT];
        for _ in 0..TURN {
            let Ok(got @ 1..) = io::read(self.fd.as_fd(), &mut bytes) else { break };
            self.text.extend_from_slice(&bytes[..got]);
            let end = self.text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let lines: Vec<u8> = self.text.drain(..end).collect();
            let lines = String::from_utf8_lossy(&lines);
            requests.extend(lines.lines().filter_map(|line| parse(line, self.sizes_only)));
            if self.text.len() > LINE_LIMIT {
                self.text.clear();
            }
        }
        requests
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
    fn last_of_many_sizes_that_come_at_once_is_not_lost() {
        use std::io::Write;
        let bundle = std::env::temp_dir().join(format!("hull-control-{}", std::process::id()));
        std::fs::create_dir(&bundle).unwrap();
        let mut fifo = ControlFifo::new(&bundle, "ctl").unwrap();
        let mut writer = std::fs::File::options().write(true).open(bundle.join("ctl")).unwrap();
        let storm: String = (1..=4000).map(|rows| format!("1 {rows} 80\n")).collect();
        assert!(storm.len() > 4 * LINE_LIMIT && storm.len() < 64 << 10, "a fifo takes it at once");
        writer.write_all(storm.as_bytes()).unwrap();
        let requests = fifo.requests();
        assert_eq!(requests.len(), 4000);
        assert_eq!(requests.last(), Some(&Request::Resize { rows: 4000, columns: 80 }));
        let endless = [b'1'; LINE_LIMIT + 1];
        for (text, wanted) in [(&endless[..], 0), (b"\n2 0 0\n", 1)] {
            writer.write_all(text).unwrap();
            assert_eq!(fifo.requests().len(), wanted, "a line without end is not kept");
        }
        std::fs::remove_dir_all(bundle).unwrap();
    }

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
