//! Becoming another program.

use crate::SysError;
use crate::raw::errno;
use std::ffi::{CStr, CString, c_char};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Arguments or environment in the form the kernel wants, prepared before any clone so that nothing is allocated after.
pub struct CStrings {
    /// Keeps the memory alive that `pointers` names.
    strings: Vec<CString>,
    /// One more behind them, with its end mark: see [`CStrings::with_number`].
    numbered: Option<Numbered>,
    pointers: Vec<*const c_char>,
}

/// A string that ends in a number.
struct Numbered {
    bytes: Vec<u8>,
    /// Where the number begins.
    at: usize,
}

/// Bytes of the longest number, and the end mark.
const NUMBER: usize = 12;

impl CStrings {
    /// Prepares the NULL-terminated array of pointers.
    pub fn new(strings: Vec<CString>) -> Self {
        // A CString's bytes stay where they are when the CString itself is moved.
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { strings, numbered: None, pointers }
    }

    /// The same with one more string, which begins with `prefix` and ends in a number that is known later: the process id
    /// of a child that only the child can know. It must have no NUL byte.
    pub fn with_number(strings: Vec<CString>, prefix: &str) -> Self {
        let mut bytes = prefix.as_bytes().to_vec();
        bytes.resize(prefix.len() + NUMBER, 0);
        let mut prepared = Self::new(strings);
        prepared.pointers.insert(prepared.strings.len(), bytes.as_ptr().cast());
        prepared.numbered = Some(Numbered { bytes, at: prefix.len() });
        prepared
    }

    /// Sets that number, and allocates nothing for it. Without such a string nothing happens.
    pub fn set_number(&mut self, number: i32) {
        let Some(Numbered { bytes, at }) = &mut self.numbered else { return };
        bytes[*at..].fill(0);
        write!(&mut bytes[*at..], "{number}").expect("there is room for the longest number");
        self.pointers[self.strings.len()] = bytes.as_ptr().cast();
    }

    /// The strings, in order, but for one with a number.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

impl std::fmt::Debug for CStrings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.strings.fmt(f)
    }
}

/// Replaces this process's program by the file at `path`; comes back only with the error.
pub fn execve(path: &CStr, argv: &CStrings, envp: &CStrings) -> SysError {
    // SAFETY: `path` ends in NUL and both arrays end in NULL; all of them outlive the call.
    unsafe { libc::syscall(libc::SYS_execve, path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    SysError::new("execve", errno())
}

/// Replaces this process's program by `path` under `dirfd`, or by `dirfd` itself with an empty path and
/// `AT_EMPTY_PATH` among `flags`; comes back only with the error.
pub fn execveat(
    dirfd: BorrowedFd<'_>,
    path: &CStr,
    argv: &CStrings,
    envp: &CStrings,
    flags: i32,
) -> SysError {
    let (dirfd, path, argv, envp) = (dirfd.as_raw_fd(), path.as_ptr(), argv.as_ptr(), envp.as_ptr());
    // SAFETY: `path` ends in NUL and both arrays end in NULL; all of them outlive the call.
    unsafe { libc::syscall(libc::SYS_execveat, dirfd, path, argv, envp, flags) };
    SysError::new("execveat", errno())
}
