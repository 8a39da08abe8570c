//! Namespaces: leaving, joining, and asking what a namespace fd is.

use crate::raw::{check, check_fd, check_unit};
use crate::{Result, ioctl};
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// A set of `CLONE_NEW*` flags of clone3(2), unshare(2) and setns(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// User namespace.
    pub const NEWUSER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// Mount namespace.
    pub const NEWNS: Self = Self(libc::CLONE_NEWNS as u64);
    /// Pid namespace.
    pub const NEWPID: Self = Self(libc::CLONE_NEWPID as u64);
    /// Network namespace.
    pub const NEWNET: Self = Self(libc::CLONE_NEWNET as u64);
    /// System V IPC and POSIX message queues.
    pub const NEWIPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// Host and domain name.
    pub const NEWUTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// Cgroup namespace.
    pub const NEWCGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// Time namespace: of the children, not of the caller.
    pub const NEWTIME: Self = Self(0x80);

    /// No flag.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// The flags with these bits, known here or not.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// True when every flag of `other` is in here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when there is no flag.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for CloneFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for CloneFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for CloneFlags {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for CloneFlags {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// Joins the namespace of `fd`; with a pidfd, all those of that process that `flags` names, at once.
/// A pid or time namespace holds for children only.
pub fn setns(fd: BorrowedFd<'_>, flags: CloneFlags) -> Result<()> {
    // SAFETY: two numbers, no memory.
    check_unit("setns", unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), flags.0) })
}

/// Moves the caller into new namespaces of its own.
pub fn unshare(flags: CloneFlags) -> Result<()> {
    // SAFETY: one number, no memory.
    check_unit("unshare", unsafe { libc::syscall(libc::SYS_unshare, flags.0) })
}

/// What kind of namespace `fd` is: one flag. `ENOTTY` when it is none.
pub fn namespace_type(fd: BorrowedFd<'_>) -> Result<CloneFlags> {
    const NS_GET_NSTYPE: u32 = ioctl::none(0xb7, 3);
    // SAFETY: the request takes no argument.
    let returned = unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), NS_GET_NSTYPE, 0usize) };
    Ok(CloneFlags(check("ioctl(NS_GET_NSTYPE)", returned)? as u64))
}

/// The user namespace that owns the namespace `fd`; `EPERM` when it is above the caller's own.
pub fn namespace_owner(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    const NS_GET_USERNS: u32 = ioctl::none(0xb7, 1);
    // SAFETY: the request takes no argument and gives a new CLOEXEC fd.
    let returned = unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), NS_GET_USERNS, 0usize) };
    check_fd("ioctl(NS_GET_USERNS)", returned)
}

/// The parent of a pid or user namespace; `EPERM` when it is above the caller's own.
pub fn namespace_parent(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    const NS_GET_PARENT: u32 = ioctl::none(0xb7, 2);
    // SAFETY: the request takes no argument and gives a new CLOEXEC fd.
    let returned = unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), NS_GET_PARENT, 0usize) };
    check_fd("ioctl(NS_GET_PARENT)", returned)
}
