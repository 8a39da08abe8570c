//! The mount API of file descriptors: file system contexts, detached trees, attributes.

use crate::raw::{check_fd, check_unit, errno, with_path};
use crate::{Result, SysError};
use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::path::Arg;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Read-only.
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// Set-id bits and file capabilities have no effect.
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
/// Device nodes cannot be opened.
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
/// Nothing can be executed.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;
/// The bits of the access time mode: to change it, clear this mask and set one of the three.
pub const MOUNT_ATTR_ATIME: u64 = 0x70;
/// Access times relative to modification (the kernel's default; no bit).
pub const MOUNT_ATTR_RELATIME: u64 = 0x0;
/// No access times.
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
/// Always access times.
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
/// No access times of directories.
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
/// Ids are mapped by a user namespace.
pub const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
/// Symbolic links are not followed (5.14).
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// Propagation of [`MountAttr`]: peers exchange events.
pub const MS_SHARED: u64 = libc::MS_SHARED;
/// Propagation: receives events only.
pub const MS_SLAVE: u64 = libc::MS_SLAVE;
/// Propagation: none.
pub const MS_PRIVATE: u64 = libc::MS_PRIVATE;
/// Propagation: none, and cannot be bound elsewhere.
pub const MS_UNBINDABLE: u64 = libc::MS_UNBINDABLE;

const AT_RECURSIVE: u32 = 0x8000;
const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

/// Opens a context for a new file system of type `name`; `ENODEV` when the kernel does not know the type.
pub fn fsopen(name: impl Arg) -> Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    with_path("fsopen", name, |name| {
        // SAFETY: `name` ends in NUL and outlives the call.
        check_fd("fsopen", unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })
    })
}

/// Switches on the option `key` that takes no value.
pub fn fsconfig_flag(context: BorrowedFd<'_>, key: impl Arg) -> Result<()> {
    with_path("fsconfig", key, |key| fsconfig(context, FSCONFIG_SET_FLAG, Some(key), None, 0))
}

/// Sets the option `key` to a string; `source` is an option too.
pub fn fsconfig_string(context: BorrowedFd<'_>, key: impl Arg, value: impl Arg) -> Result<()> {
    with_path("fsconfig", key, |key| {
        with_path("fsconfig", value, |value| {
            fsconfig(context, FSCONFIG_SET_STRING, Some(key), Some(value), 0)
        })
    })
}

/// Sets the option `key` to an open file.
pub fn fsconfig_fd(context: BorrowedFd<'_>, key: impl Arg, value: BorrowedFd<'_>) -> Result<()> {
    let value = value.as_raw_fd();
    with_path("fsconfig", key, |key| fsconfig(context, FSCONFIG_SET_FD, Some(key), None, value))
}

/// Makes the file system with the options set before; why it failed is in [`fs_log`].
pub fn fsconfig_create(context: BorrowedFd<'_>) -> Result<()> {
    fsconfig(context, FSCONFIG_CMD_CREATE, None, None, 0)
}

/// Opens a context for changing the options of the file system that is mounted at `target`.
pub fn fspick(target: BorrowedFd<'_>) -> Result<OwnedFd> {
    const FSPICK_CLOEXEC: u32 = 1;
    const FSPICK_EMPTY_PATH: u32 = 8;
    let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
    // SAFETY: the path is an empty string that ends in NUL; the fd lives until the call is over.
    check_fd("fspick", unsafe { libc::syscall(libc::SYS_fspick, target.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Changes the file system behind a context of [`fspick`] as the options set before say.
pub fn fsconfig_reconfigure(context: BorrowedFd<'_>) -> Result<()> {
    fsconfig(context, FSCONFIG_CMD_RECONFIGURE, None, None, 0)
}

fn fsconfig(
    context: BorrowedFd<'_>,
    command: u32,
    key: Option<&CStr>,
    value: Option<&CStr>,
    number: i32,
) -> Result<()> {
    let key = key.map_or(std::ptr::null(), CStr::as_ptr);
    let value = value.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: both strings end in NUL or are absent, as the command wants it, and outlive the call.
    let returned =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, number) };
    check_unit("fsconfig", returned)
}

/// What the kernel said about this file system context, oldest first, joined by `; `; empty if nothing.
pub fn fs_log(context: BorrowedFd<'_>) -> String {
    let mut messages: Vec<String> = Vec::new();
    let mut line = [0u8; 512];
    // One message a read; the kernel keeps eight at most, so the loop ends even if a read never failed.
    while messages.len() < 16 {
        match rustix::io::read(context, &mut line) {
            Ok(len) if len > 0 => messages.push(String::from_utf8_lossy(&line[..len]).trim().to_owned()),
            _ => break,
        }
    }
    messages.join("; ")
}

/// Makes a detached mount of the file system of `context` with `MOUNT_ATTR_*` flags.
pub fn fsmount(context: BorrowedFd<'_>, attr_flags: u64) -> Result<OwnedFd> {
    const FSMOUNT_CLOEXEC: u32 = 1;
    // SAFETY: three numbers, no memory.
    let returned =
        unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attr_flags as u32) };
    check_fd("fsmount", returned)
}

/// Opens the tree at `path` under `dirfd`, following symbolic links: itself, or a detached copy of the mount
/// (`clone`), with those mounted below it (`recursive`, only of a copy).
pub fn open_tree(dirfd: BorrowedFd<'_>, path: impl Arg, clone: bool, recursive: bool) -> Result<OwnedFd> {
    with_path("open_tree", path, |path| open_tree_raw(dirfd, path, 0, (clone, recursive)))
}

/// The same for the file `fd` itself.
pub fn open_tree_fd(fd: BorrowedFd<'_>, clone: bool, recursive: bool) -> Result<OwnedFd> {
    open_tree_raw(fd, c"", libc::AT_EMPTY_PATH as u32, (clone, recursive))
}

fn open_tree_raw(
    dirfd: BorrowedFd<'_>,
    path: &CStr,
    flags: u32,
    (clone, recursive): (bool, bool),
) -> Result<OwnedFd> {
    let clone = if clone { OPEN_TREE_CLONE } else { 0 };
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    let flags = flags | clone | recursive | libc::O_CLOEXEC as u32;
    // SAFETY: `path` ends in NUL and outlives the call.
    let returned = unsafe { libc::syscall(libc::SYS_open_tree, dirfd.as_raw_fd(), path.as_ptr(), flags) };
    check_fd("open_tree", returned)
}

/// Attaches the tree `from` (detached, or moved from where it is) on top of the file `to`. No path is looked at.
pub fn move_mount(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let (from, to, empty) = (from.as_raw_fd(), to.as_raw_fd(), c"".as_ptr());
    // SAFETY: both paths are the same static empty string.
    let returned = unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, empty, flags) };
    check_unit("move_mount", returned)
}

/// The same on top of `name` in the directory `to`; a symbolic link as last component is not followed.
pub fn move_mount_at(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: impl Arg) -> Result<()> {
    let (from, to, empty) = (from.as_raw_fd(), to.as_raw_fd(), c"".as_ptr());
    with_path("move_mount", name, |name| {
        let (name, flags) = (name.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH);
        // SAFETY: `name` ends in NUL and outlives the call, as the static empty string does.
        let returned = unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, name, flags) };
        check_unit("move_mount", returned)
    })
}

/// A change of mount attributes.
#[derive(Debug, Default, Clone, Copy)]
pub struct MountAttr<'fd> {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear, before.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`; 0 leaves it.
    pub propagation: u64,
    /// The user namespace whose maps ids go through; sets `MOUNT_ATTR_IDMAP`.
    pub userns: Option<BorrowedFd<'fd>>,
}

/// `struct mount_attr` of linux/mount.h, 32 bytes.
#[repr(C)]
struct RawMountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

impl MountAttr<'_> {
    fn raw(&self) -> RawMountAttr {
        let idmap = if self.userns.is_some() { MOUNT_ATTR_IDMAP } else { 0 };
        RawMountAttr {
            set: self.set | idmap,
            clear: self.clear,
            propagation: self.propagation,
            userns: self.userns.map_or(0, |fd| fd.as_raw_fd() as u64),
        }
    }
}

/// Changes the mount that `fd` is the root of, and with `recursive` all below it, all or none.
pub fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr<'_>) -> Result<()> {
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    mount_setattr_raw(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH as u32 | recursive, &attr.raw())
}

/// Sets the propagation of the mount at `path`, and with `recursive` of those below it. For `/` of a mount namespace
/// of one's own; where the path could be another's, use [`mount_setattr`].
pub fn set_propagation_path(path: impl Arg, recursive: bool, propagation: u64) -> Result<()> {
    let flags = if recursive { AT_RECURSIVE } else { 0 };
    let attr = MountAttr { propagation, ..MountAttr::default() }.raw();
    with_path("mount_setattr", path, |path| mount_setattr_raw(libc::AT_FDCWD, path, flags, &attr))
}

fn mount_setattr_raw(dirfd: i32, path: &CStr, flags: u32, attr: &RawMountAttr) -> Result<()> {
    let (path, attr, size) = (path.as_ptr(), std::ptr::from_ref(attr), size_of::<RawMountAttr>());
    // SAFETY: `path` ends in NUL, `attr` is to as many bytes as we say; both outlive the call.
    let returned = unsafe { libc::syscall(libc::SYS_mount_setattr, dirfd, path, flags, attr, size) };
    check_unit("mount_setattr", returned)
}

/// Makes the current directory the root and stacks the old root on top of it, where [`unmount_detach`] of `.` takes
/// it away: pivot_root(".", ".") as in pivot_root(2).
pub fn pivot_root_here() -> Result<()> {
    let here = c".".as_ptr();
    // SAFETY: both paths are the same static string.
    check_unit("pivot_root", unsafe { libc::syscall(libc::SYS_pivot_root, here, here) })
}

/// Detaches the mount at `path` and those below it, without following a symbolic link in the last component.
pub fn unmount_detach(path: impl Arg) -> Result<()> {
    let flags = libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW;
    with_path("umount2", path, |path| {
        // SAFETY: `path` ends in NUL and outlives the call.
        check_unit("umount2", unsafe { libc::syscall(libc::SYS_umount2, path.as_ptr(), flags) })
    })
}

/// Detaches the mount on top of the current directory: the old root after [`pivot_root_here`].
pub fn unmount_here() -> Result<()> {
    unmount_detach(c".")
}

const STATX_MNT_ID: u32 = 0x1000;
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// The id of the mount that `fd` lies on: the one never used again (6.8), else the plain one.
pub fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    match mount_id_of_kind(fd, STATX_MNT_ID_UNIQUE)? {
        Some(id) => Ok(id),
        None => plain_mount_id(fd),
    }
}

/// The number of the mount that `fd` lies on, as in mountinfo (5.8); used again after it has gone.
pub fn plain_mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    mount_id_of_kind(fd, STATX_MNT_ID)?.ok_or(SysError::new("statx", libc::ENOSYS))
}

fn mount_id_of_kind(fd: BorrowedFd<'_>, wanted: u32) -> Result<Option<u64>> {
    let flags = StatxFlags::from_bits_retain(wanted);
    let found = statx(fd, c"", AtFlags::EMPTY_PATH, flags).map_err(SysError::from_rustix("statx"))?;
    Ok((found.stx_mask & wanted != 0).then_some(found.stx_mnt_id))
}

/// True when the running kernel has the calls this module is built on (5.12: `mount_setattr`).
pub fn is_supported() -> bool {
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with a size of 0 the kernel refuses before it looks at the pointer.
    let returned = unsafe { libc::syscall(libc::SYS_mount_setattr, -1, nothing, 0, nothing, 0usize) };
    returned != -1 || errno() != libc::ENOSYS
}
