//! `cp`: files between a container and the host, or an archive on a stream.
//!
//! Whatever the direction, one end is packed while the other is extracted: nothing but the extractor ever writes, and it
//! knows links of an archive and of a tree that somebody changes at the same time. A container's paths are resolved by
//! the kernel inside the container's root, and nothing of a container is run or loaded (CVE-2018-15664, CVE-2019-14271).

mod inside;
mod landing;
mod picked;

use std::fs;
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use hull_layer::{Decompressor, Devices, Extractor, Owners, Whiteouts, extract};

use super::Outcome;
use crate::context::tree::split;
use crate::directory::open_directory;
use crate::host;
use crate::pattern::path::relative;
use inside::Inside;
use landing::{Landing, There, land};
use picked::{Picked, ending};

type Failure = Box<dyn std::error::Error>;

/// Arguments of `cp`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Keep owners, and what lets a file give rights away
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link leads to instead of the link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of the host, or - for an archive on standard input
    source: String,
    /// CONTAINER:PATH, a path of the host, or - for an archive on standard output
    destination: String,
}

/// One of the two ends.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    Stream,
    Host(&'a str),
    Container(&'a str, &'a str),
}

impl<'a> End<'a> {
    /// A name before a colon is a container's, unless the text begins like a path.
    fn of(text: &'a str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((name, path)) if !text.starts_with(['/', '.']) && !name.contains('/') => {
                Self::Container(name, path)
            }
            _ => Self::Host(text),
        }
    }
}

/// Copies.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let copied = match (End::of(&arguments.source), End::of(&arguments.destination)) {
        (End::Container(..), End::Container(..)) => {
            return Err("cp: copies between a container and the host, not between containers".into());
        }
        (End::Container(name, path), End::Stream) => to_stream(arguments, name, path)?,
        (End::Container(name, path), End::Host(to)) => to_host(arguments, name, path, to)?,
        (End::Stream, End::Container(name, path)) => from_stream(arguments, name, path)?,
        (End::Host(from), End::Container(name, path)) => from_host(arguments, from, name, path)?,
        _ => return Err("cp: one end must be CONTAINER:PATH".into()),
    };
    if !arguments.quiet {
        let (size, to) = (host::size(copied), &arguments.destination);
        eprintln!("Successfully copied {size} to {to}");
    }
    Ok(ExitCode::SUCCESS)
}

fn to_stream(arguments: &Arguments, name: &str, path: &str) -> Result<u64, Failure> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        return Err("cp: an archive is not for a terminal: redirect it".into());
    }
    let inside = Inside::open(&host::open_store()?, name, path)?;
    let picked = Picked::find(&inside.tree, &inside.path, arguments.follow_link)?;
    let count = picked.pack(&picked.name, true, BufWriter::new(&mut out))?;
    out.flush()?;
    Ok(count)
}

fn to_host(arguments: &Arguments, name: &str, path: &str, to: &str) -> Result<u64, Failure> {
    let inside = Inside::open(&host::open_store()?, name, path)?;
    let picked = Picked::find(&inside.tree, &inside.path, arguments.follow_link)?;
    // A link of the user's own is followed, as by every other program.
    let to = match fs::canonicalize(to) {
        Ok(real) if !to.ends_with('/') => real.to_string_lossy().into_owned(),
        _ => to.to_owned(),
    };
    let there = match fs::metadata(&to) {
        Ok(meta) if meta.is_dir() => There::Directory,
        Ok(_) => There::Other,
        Err(_) => There::Nothing,
    };
    let landing = land(&picked.what(), there, to.ends_with('/')).map_err(|why| format!("cp: {to}: {why}"))?;
    let path = Path::new(to.trim_end_matches('/'));
    let (root, prefix) = match landing {
        Landing::Into => (open_directory(Path::new(&to))?, picked.name.clone()),
        Landing::Contents => (open_directory(Path::new(&to))?, Vec::new()),
        Landing::As => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let name = path.file_name().ok_or("cp: the destination has no name")?;
            (open_directory(parent.unwrap_or(Path::new(".")))?, name.as_encoded_bytes().to_vec())
        }
    };
    pump(&picked, &prefix, root.as_fd(), arguments.archive)
}

fn from_host(arguments: &Arguments, from: &str, name: &str, path: &str) -> Result<u64, Failure> {
    let picked = Picked::of_host(from, arguments.follow_link)?;
    let inside = Inside::open(&host::open_store()?, name, path)?;
    inside.refuse_read_only()?;
    let (root, prefix) = place(&inside, &picked, path)?;
    pump(&picked, &prefix, root.as_fd(), arguments.archive)
}

/// Where something goes in a container: an open directory, and what it is called in there.
fn place(inside: &Inside, picked: &Picked, path: &str) -> Result<(OwnedFd, Vec<u8>), Failure> {
    let found = inside.tree.find(inside.path.as_bytes())?;
    let there = match &found {
        Some(node) if node.is_directory() => There::Directory,
        Some(_) => There::Other,
        None => There::Nothing,
    };
    let landing = land(&picked.what(), there, ending(path)).map_err(|why| format!("cp: {path}: {why}"))?;
    let real = found.map_or_else(|| relative(&inside.path).into_bytes(), |node| node.path);
    match landing {
        Landing::Into => Ok((inside.tree.open_directory(&real)?, picked.name.clone())),
        Landing::Contents => Ok((inside.tree.open_directory(&real)?, Vec::new())),
        Landing::As => {
            let (parent, name) = split(&real);
            let parent = inside.tree.find(parent)?.filter(|node| node.is_directory());
            let parent = parent.ok_or_else(|| format!("cp: {path}: there is no directory to put it in"))?;
            Ok((inside.tree.open_directory(&parent.path)?, name.to_vec()))
        }
    }
}

/// Extracts an archive, compressed or not, into a directory of a container.
fn from_stream(arguments: &Arguments, name: &str, path: &str) -> Result<u64, Failure> {
    let inside = Inside::open(&host::open_store()?, name, path)?;
    inside.refuse_read_only()?;
    let found = inside.tree.find(inside.path.as_bytes())?.filter(|node| node.is_directory());
    let found = found.ok_or_else(|| format!("cp: {path}: an archive goes into a directory that is there"))?;
    let root = inside.tree.open_directory(&found.path)?;
    let mut archive = Decompressor::archive(io::stdin().lock(), 0)?;
    unpack(&mut archive, root.as_fd(), arguments.archive)
}

/// Packs on one side of a pipe and extracts on the other.
fn pump(picked: &Picked, prefix: &[u8], root: BorrowedFd<'_>, keep: bool) -> Result<u64, Failure> {
    let (reader, writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let packing =
            scope.spawn(move || picked.pack(prefix, keep, BufWriter::with_capacity(64 << 10, writer)));
        let unpacked = unpack(&mut BufReader::with_capacity(64 << 10, reader), root, keep);
        // When the extraction fails the packing does too, as nobody reads any more: the first one is the cause.
        match (packing.join().expect("packing does not panic"), unpacked) {
            (Err(error), Err(late)) if is_broken_pipe(&error) => Err(late),
            (Err(error), _) => Err(error.into()),
            (Ok(_), outcome) => outcome,
        }
    })
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn unpack(source: &mut impl Read, root: BorrowedFd<'_>, keep: bool) -> Result<u64, Failure> {
    let options = Extractor {
        whiteouts: Whiteouts::Refuse,
        // A node of a container is none for the host, nor the reverse.
        devices: Devices::Skip,
        owners: if keep { Owners::Keep } else { Owners::Process },
        keeps_kinds: true,
        ..Extractor::layer()
    };
    let done = extract(&mut *source, root, &options)?;
    io::copy(source, &mut io::sink())?;
    for path in &done.skipped {
        eprintln!("hull-build: notice: the device {} is left out", path.escape_ascii());
    }
    Ok(done.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_before_a_colon_is_a_containers() {
        for (text, expected) in [
            ("-", End::Stream),
            ("c:/etc", End::Container("c", "/etc")),
            ("c:", End::Container("c", "")),
            ("c:a:b", End::Container("c", "a:b")),
            ("./c:x", End::Host("./c:x")),
            ("/c:x", End::Host("/c:x")),
            ("dir/c:x", End::Host("dir/c:x")),
            ("plain", End::Host("plain")),
        ] {
            assert_eq!(End::of(text), expected, "{text}");
        }
    }
}
