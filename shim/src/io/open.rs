//! Opening what a client named for a process's streams.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Error;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::spool::Spool;
use super::stream::Output;
use super::uri::unescape;

/// What a client named for a process's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint<'a> {
    /// A fifo (or a file, as tests of other shims do it) that the client made.
    Path(Cow<'a, str>),
    /// `file://`: both streams are appended to one file.
    File(Cow<'a, str>),
    /// `binary://`: a logger program with its arguments.
    Binary {
        /// Absolute path of the program.
        path: Cow<'a, str>,
        /// `key=value&key=value`.
        query: &'a str,
    },
    /// Any other scheme.
    Unknown(&'a str),
}

impl<'a> Endpoint<'a> {
    /// Reads `text`, which is a path or a URI; what is escaped in a URI is not in a path.
    pub fn parse(text: &'a str) -> Self {
        let Some((scheme, rest)) = text.split_once("://") else { return Self::Path(text.into()) };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = unescape(path);
        match scheme {
            "fifo" => Self::Path(path),
            "file" => Self::File(path),
            "binary" | "binary-v2" => Self::Binary { path, query },
            other => Self::Unknown(other),
        }
    }
}

/// The reading side of a process's input.
#[derive(Debug)]
pub struct Stdin {
    /// Where the client's bytes come from.
    pub input: OwnedFd,
    /// A writing end of our own: while it is open the end of one client is not the end of the input.
    pub keeper: Option<OwnedFd>,
}

/// Opens the writing end of an output without waiting for a reader.
///
/// Ours is a writing end only: a reading one would hide that nobody reads.
pub fn open_output(path: &str, spool_directory: &Path) -> Result<Output, Error> {
    if !is_fifo(path)? {
        return open_append(path, 0o600);
    }
    // A fifo opens for writing only while something reads it: for a moment we do.
    let _reader = open(path, OFlags::RDWR | OFlags::NONBLOCK)?;
    let fd = open(path, OFlags::WRONLY | OFlags::NONBLOCK)?;
    Ok(Output::Fifo { fd, spool: Spool::new(spool_directory) })
}

/// Opens the file of `file://` to append to it; the file and its directory are made if they are missing, for everybody to
/// read, as logs are collected.
pub fn open_log(path: &str) -> Result<Output, Error> {
    if let Some(directory) = Path::new(path).parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let output = open_append(path, 0o644)?;
    if !fs::metadata(path)?.is_file() {
        return Err(Error::other(format!("{path} is no regular file")));
    }
    Ok(output)
}

/// Without waiting: of a fifo somebody may have to become the reader.
fn open_append(path: &str, mode: u32) -> Result<Output, Error> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().append(true).create(true).mode(mode).custom_flags(flags).open(path)?;
    Ok(Output::Append(file.into()))
}

/// Opens both ends of an input fifo without waiting for a writer.
pub fn open_stdin(path: &str) -> Result<Stdin, Error> {
    if !is_fifo(path)? {
        return Ok(Stdin { input: open(path, OFlags::RDONLY | OFlags::NONBLOCK)?, keeper: None });
    }
    let input = open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let keeper = open(path, OFlags::WRONLY | OFlags::NONBLOCK)?;
    Ok(Stdin { input, keeper: Some(keeper) })
}

fn is_fifo(path: &str) -> Result<bool, Error> {
    Ok(fs::metadata(path)?.file_type().is_fifo())
}

fn open(path: &str, flags: OFlags) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, rustix::fs::Mode::empty()).map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_told_apart_by_scheme() {
        let binary = |path: &'static str, query| Endpoint::Binary { path: path.into(), query };
        let cases = [
            ("/run/x/std%20out", Endpoint::Path("/run/x/std%20out".into())),
            ("fifo:///run/x", Endpoint::Path("/run/x".into())),
            ("file:///var/log/a%20b+c.log", Endpoint::File("/var/log/a b+c.log".into())),
            ("binary:///bin/l?a=1&b", binary("/bin/l", "a=1&b")),
            ("binary:///bin/a%2fb", binary("/bin/a/b", "")),
            ("npipe:////x", Endpoint::Unknown("npipe")),
        ];
        for (text, endpoint) in cases {
            assert_eq!(Endpoint::parse(text), endpoint);
        }
    }
}
