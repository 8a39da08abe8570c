//! The directories of a checkpoint, and the note beside CRIU's images about the streams of the first process.

use super::report;
use crate::error::{Code, Context, Error, Result};
use crate::files::{open_dir, open_regular};
use hull_sys::fs::{Mode, OFlags, openat};
use hull_sys::io::read_to_limit;
use hull_sys::mount::open_tree_fd;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where images are when nobody says where, below the working directory.
const DEFAULT: &str = "checkpoint";

/// The note's name, and its longest form (R19). runc writes the same.
const NOTE: &str = "descriptors.json";
const LONGEST_NOTE: usize = 64 << 10;

/// Opened by the caller's own rights; CRIU opens them by way of our descriptors.
#[derive(Debug)]
pub struct Images {
    images: OwnedFd,
    work: Option<OwnedFd>,
    path: PathBuf,
    log: &'static str,
    log_path: PathBuf,
}

impl Images {
    /// The directories of a dump, made when they are missing.
    pub fn make(image_path: Option<&Path>, work_path: Option<&Path>) -> Result<Self> {
        let path = image_path.unwrap_or(Path::new(DEFAULT));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .context(|| format!("make the image directory {}", path.display()))?;
        Self::open_at(path, work_path, "dump.log")
    }

    /// The directories of a restore.
    pub fn open(image_path: Option<&Path>, work_path: Option<&Path>) -> Result<Self> {
        Self::open_at(image_path.unwrap_or(Path::new(DEFAULT)), work_path, "restore.log")
    }

    fn open_at(path: &Path, work_path: Option<&Path>, log: &'static str) -> Result<Self> {
        let images = open_dir(path)
            .context(|| format!("open the image directory {}", path.display()))
            .map_err(|error| error.object(path.display().to_string()).hint("--image-path names it"))?;
        let work = work_path.map(open_work).transpose()?;
        let log_path = work_path.unwrap_or(path).join(log);
        Ok(Self { images, work, path: path.to_owned(), log, log_path })
    }

    /// Refuses a parent that is not a directory beside the images.
    pub fn check_parent(&self, parent: &Path) -> Result<()> {
        if parent.is_absolute() {
            return Err(Error::new(Code::Usage, "--parent-path must be relative (to --image-path)"));
        }
        openat(self.images.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
            .map(drop)
            .context(|| format!("invalid --parent-path: open {}", self.path.join(parent).display()))
    }

    /// Number of the image directory's descriptor.
    pub fn images_fd(&self) -> i32 {
        self.images.as_raw_fd()
    }

    /// Number of the work directory's descriptor, if it is another one.
    pub fn work_fd(&self) -> Option<i32> {
        self.work.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The work directory as a mount that is attached nowhere: CRIU mounts in there, which takes a directory of its own
    /// mount namespace.
    pub fn work_tree(&self) -> Result<OwnedFd> {
        let directory = self.work.as_ref().unwrap_or(&self.images);
        open_tree_fd(directory.as_fd(), true, false).context(|| "clone the work directory")
    }

    /// The log's name.
    pub const fn log(&self) -> &'static str {
        self.log
    }

    /// The error of a CRIU that has ended, with the last errors of its log.
    pub fn explain(&self, error: Error) -> Error {
        let mut error = error;
        if error.code == Code::Criu {
            let place = self.work.as_ref().unwrap_or(&self.images);
            error.message = report::last_errors(place.as_fd(), self.log, &error.message);
        }
        error
            .object(self.log_path.display().to_string())
            .hint(format!("all of it is in {}", self.log_path.display()))
    }

    /// Notes what the first process has on its standard streams.
    pub fn write_streams(&self, streams: &[String]) -> Result<()> {
        // A fifo that lies there is an error, not a wait.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(self.images.as_fd(), NOTE, flags, Mode::from_raw_mode(0o600))
            .context(|| format!("write {NOTE}"))?;
        // A list of texts always serialises.
        let text = serde_json::to_string(streams).unwrap_or_default();
        File::from(file).write_all(text.as_bytes()).context(|| format!("write {NOTE}"))
    }

    /// What the first process had there.
    pub fn read_streams(&self) -> Result<Vec<String>> {
        let broken = |why: String| {
            Error::new(Code::Criu, format!("{} holds no checkpoint: {why}", self.path.display()))
                .object(self.path.display().to_string())
                .hint("--image-path names the directory that checkpoint wrote")
        };
        let file = open_regular(self.images.as_fd(), NOTE, false)
            .map_err(|error| broken(format!("open {NOTE}: {}", crate::error::errno_text(error.errno))))?;
        let bytes = read_to_limit(file.as_fd(), LONGEST_NOTE).context(|| format!("read {NOTE}"))?;
        serde_json::from_slice(&bytes).map_err(|error| broken(format!("{NOTE}: {error}")))
    }
}

fn open_work(path: &Path) -> Result<OwnedFd> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).context(|| format!("make the work directory {}", path.display()))
        }
        _ => open_dir(path).context(|| format!("open the work directory {}", path.display())),
    }
}
