//! `binary://`: a logger program that reads the container's output itself.

use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::fd;
use hull_sys::process::Child;

use crate::spawn::{Program, is_executable};

use super::uri::unescape_query;

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
        // The container would write to nobody, and be killed by that.
        if !is_executable(Path::new(path)) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("failed to start logger {path}: no such program"),
            ));
        }
        let (out_read, stdout) = fd::pipe()?;
        let (err_read, stderr) = fd::pipe()?;
        // Nobody waits for the readiness: the pipes keep what is written before it. A pipe without a reader would kill a
        // logger that tells it by a byte.
        let ready = std::fs::File::options().write(true).open("/dev/null")?;
        let mut args = vec![path.to_owned()];
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            args.push(unescape_query(key));
            if !value.is_empty() {
                args.push(unescape_query(value));
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
