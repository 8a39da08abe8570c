//! Warnings: to the bundle's `log` fifo, which containerd copies into its own log.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::clock::{Clock, rfc3339};

/// Where warnings go. Losing them must never stop or end the shim.
#[derive(Debug, Default)]
pub struct Log(Option<File>);

impl Log {
    /// Opens the fifo at `path` if somebody reads it, else drops what is written.
    pub fn open(path: &Path) -> Self {
        let flags = rustix::fs::OFlags::NONBLOCK.bits();
        let options = File::options().write(true).custom_flags(i32::try_from(flags).unwrap_or(0)).open(path);
        Self(options.ok())
    }

    /// Writes a line.
    pub fn warn(&self, text: &str) {
        let Some(mut fifo) = self.0.as_ref() else { return };
        let time = rfc3339(Clock::new().now());
        // Nobody reads, or the fifo is full: the line is lost, the shim is not.
        let _ = fifo.write_all(format!("time=\"{time}\" level=warning msg={text:?}\n").as_bytes());
    }
}
