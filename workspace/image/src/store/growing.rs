//! A blob that is read while it is still being written.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::descriptor::Descriptor;

/// Who is told of a blob that grows, by the thread that writes it.
pub type Announce = Arc<dyn Fn(&Growing) + Send + Sync>;

/// A blob that is still being written, for those who read it already.
#[derive(Clone)]
pub struct Growing(Arc<Shared>);

struct Shared {
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    written: u64,
    /// What it is once all is written.
    whole: Option<Descriptor>,
    given_up: bool,
}

impl Growing {
    /// Follows a file of which so many bytes are written.
    pub(super) fn new(file: &File, written: u64) -> io::Result<Self> {
        let state = Mutex::new(State { written, whole: None, given_up: false });
        Ok(Self(Arc::new(Shared { file: file.try_clone()?, state, changed: Condvar::new() })))
    }

    /// Says how much is written now.
    pub(super) fn reached(&self, written: u64) {
        self.change(|state| state.written = written);
    }

    /// Says that this is all of it.
    pub(super) fn became(&self, descriptor: &Descriptor) {
        self.change(|state| state.whole = Some(descriptor.clone()));
    }

    /// Ends all waiting for more: nobody wants it.
    pub fn give_up(&self) {
        self.change(|state| state.given_up = true);
    }

    /// Whether the writer or a reader has given it up.
    pub fn is_given_up(&self) -> bool {
        self.state().given_up
    }

    /// What it became; nothing as long as it is written, or when its writer gave it up.
    pub fn descriptor(&self) -> Option<Descriptor> {
        self.state().whole.clone()
    }

    /// Waits until so many bytes follow `start`, or all of it is written, and tells how far it is then; nothing when it was
    /// given up. The writer ends the wait by ending, however it does.
    pub fn reaches(&self, start: u64, bytes: u64) -> Option<u64> {
        let is_short = |state: &mut State| {
            !state.given_up && state.whole.is_none() && state.written < start.saturating_add(bytes)
        };
        let state = self.0.changed.wait_while(self.state(), is_short).unwrap_or_else(PoisonError::into_inner);
        (!state.given_up).then_some(state.written)
    }

    /// Reads a part of it that is written.
    pub fn part(&self, part: Range<u64>) -> impl Read + use<> {
        Part { growing: self.clone(), left: part }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A state is changed by one assignment: it is whole whoever panicked.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Growing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Growing({} bytes)", self.state().written)
    }
}

struct Part {
    growing: Growing,
    left: Range<u64>,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = self.growing.0.file.read_at(&mut buffer[..wanted], self.left.start)?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob is shorter than the part"));
        }
        self.left.start += count as u64;
        Ok(count)
    }
}
