//! Locks between processes: `flock`, which the kernel releases when a process dies.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::{Error, Result};

const SHARED_DEADLINE: Duration = Duration::from_secs(60);
const EXCLUSIVE_DEADLINE: Duration = Duration::from_secs(600);

/// A held lock; released on drop.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn shared(path: &Path) -> Result<Self> {
        wait(path, FlockOperation::NonBlockingLockShared, SHARED_DEADLINE)
    }

    pub(super) fn exclusive(path: &Path) -> Result<Self> {
        wait(path, FlockOperation::NonBlockingLockExclusive, EXCLUSIVE_DEADLINE)
    }

    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        take(path, FlockOperation::NonBlockingLockExclusive)
    }
}

/// Polls, because a blocking `flock` has no deadline.
fn wait(path: &Path, operation: FlockOperation, deadline: Duration) -> Result<Lock> {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(lock) = take(path, operation)? {
            return Ok(lock);
        }
        if Instant::now() >= end {
            return Err(Error::Busy(path.display().to_string()));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn take(path: &Path, operation: FlockOperation) -> Result<Option<Lock>> {
    // One that another user has made may be locked all the same.
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            File::options().create(true).truncate(false).write(true).open(path)
        }
        opened => opened,
    };
    let file = file.map_err(Error::io("open lock", path))?;
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(Error::errno("lock", path)(errno)),
    }
}
