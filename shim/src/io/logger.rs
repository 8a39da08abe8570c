//! `binary://`: a logger program that reads the container's output itself.

use std::io::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use hull_sys::fd;
use hull_sys::process::Child;

use crate::spawn::Program;

/// A logger that was started. The container writes into its pipes: the shim copies nothing.
#[derive(Debug)]
pub struct Logger {
    /// Its process.
    pub child: Child,
    /// The container's standard output and error, for the container alone: the logger sees their end when no
    /// process of the container has them any more.
    pub outputs: [OwnedFd; 2],
}

impl Logger {
    /// Starts the program at `path` with the pairs of `query` as arguments, as the Go shim does: 3 and 4 are the
    /// container's output and error, 5 tells that it is ready.
    pub fn start(path: &str, query: &str, id: &str, namespace: &str) -> Result<Self, Error> {
        let (out_read, stdout) = fd::pipe()?;
        let (err_read, stderr) = fd::pipe()?;
        // Nobody waits for the readiness: the pipes keep what is written before it. A pipe without a reader would kill a
        // logger that tells it by a byte.
        let ready = std::fs::File::options().write(true).open("/dev/null")?;
        let mut args = vec![path.to_owned()];
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            args.push(unescape(key));
            if !value.is_empty() {
                args.push(unescape(value));
            }
        }
        let mut program = Program::new(PathBuf::from(path), args)
            .fd(out_read.as_fd(), 3)
            .fd(err_read.as_fd(), 4)
            .fd(ready.as_fd(), 5);
        program.env.push(("CONTAINER_ID".to_owned(), id.to_owned()));
        program.env.push(("CONTAINER_NAMESPACE".to_owned(), namespace.to_owned()));
        // It must see the end of the output even when the shim is killed before it.
        program.dies_with_us = false;
        let child = program.start()?;
        Ok(Self { child, outputs: [stdout, stderr] })
    }
}

/// Undoes the escapes of a URI's query (RFC 3986 section 2.1, and `+` for a space).
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = || u8::from_str_radix(std::str::from_utf8(tail.get(..2)?).ok()?, 16).ok();
        match (first, escaped()) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn escapes_are_undone_and_broken_ones_kept() {
        for (text, plain) in [("a%20b", "a b"), ("a+b", "a b"), ("100%", "100%"), ("%zz", "%zz"), ("", "")] {
            assert_eq!(unescape(text), plain);
        }
    }
}
