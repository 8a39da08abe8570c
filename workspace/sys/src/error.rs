//! The one error of this crate: which call failed, and with what errno.

use core::fmt;

/// A system call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SysError {
    /// Name of the call as in section 2 of the manual, such as `openat2`.
    pub call: &'static str,
    /// The kernel's error number.
    pub errno: i32,
}

/// Result of a system call.
pub type Result<T> = core::result::Result<T, SysError>;

impl SysError {
    /// Names the failed `call`, with `errno` as the kernel gave it.
    pub const fn new(call: &'static str, errno: i32) -> Self {
        Self { call, errno }
    }

    /// Turns the error of a wrapped `rustix` call into ours.
    pub fn from_rustix(call: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::new(call, errno.raw_os_error())
    }

    /// True when the call failed with this errno.
    pub const fn is(&self, errno: i32) -> bool {
        self.errno == errno
    }

    /// True when the kernel, or a system call filter, does not know the call.
    pub const fn is_unknown_call(&self) -> bool {
        self.errno == libc::ENOSYS
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, std::io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for SysError {}

impl From<SysError> for std::io::Error {
    fn from(error: SysError) -> Self {
        Self::from_raw_os_error(error.errno)
    }
}
