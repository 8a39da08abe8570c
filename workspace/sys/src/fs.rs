//! Files by directory fd. No function here follows a symbolic link in the last component unless its doc says so.

use crate::raw::{check_unit, with_path};
use crate::{Result, SysError};
use rustix::fs::{FlockOperation, Gid, Uid, XattrFlags};
use rustix::path::Arg;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

pub use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, StatFs};
pub use rustix::fs::{Dev, major, makedev, minor};

/// `statfs` type of procfs.
pub const PROC_SUPER_MAGIC: u64 = 0x9fa0;
/// `statfs` type of sysfs.
pub const SYSFS_MAGIC: u64 = 0x6265_6572;
/// `statfs` type of tmpfs.
pub const TMPFS_MAGIC: u64 = 0x0102_1994;
/// `statfs` type of cgroup v2.
pub const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
/// `statfs` type of cgroup v1.
pub const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;
/// `statfs` type of devpts.
pub const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
/// `statfs` type of nsfs.
pub const NSFS_MAGIC: u64 = 0x6e73_6673;
/// `statfs` type of overlayfs.
pub const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

/// Opens `path` under `dirfd` with `openat2`'s limits on resolution (openat2(2)); CLOEXEC always.
///
/// `mode` counts only with `CREATE` or `TMPFILE`. Whether the last component may be a link is `NOFOLLOW`'s to say.
pub fn openat2(
    dirfd: BorrowedFd<'_>,
    path: impl Arg,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    rustix::fs::openat2(dirfd, path, flags | OFlags::CLOEXEC, mode, resolve)
        .map_err(SysError::from_rustix("openat2"))
}

/// Opens `path` under `dirfd` as openat(2) does, CLOEXEC; for paths that nobody else has a say in. Follows links
/// without `NOFOLLOW`.
pub fn openat(dirfd: BorrowedFd<'_>, path: impl Arg, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    rustix::fs::openat(dirfd, path, flags | OFlags::CLOEXEC, mode).map_err(SysError::from_rustix("openat"))
}

/// The inode behind `fd`.
pub fn fstat(fd: BorrowedFd<'_>) -> Result<Stat> {
    rustix::fs::fstat(fd).map_err(SysError::from_rustix("fstat"))
}

/// The inode at `path` under `dirfd`; of a link, the link itself.
pub fn statat(dirfd: BorrowedFd<'_>, path: impl Arg) -> Result<Stat> {
    rustix::fs::statat(dirfd, path, AtFlags::SYMLINK_NOFOLLOW).map_err(SysError::from_rustix("newfstatat"))
}

/// The file system's type (`*_MAGIC`) that `fd` lies on.
pub fn fs_type(fd: BorrowedFd<'_>) -> Result<u64> {
    // The field's sign and width differ between architectures; the magic numbers have 32 bits.
    fstatfs(fd).map(|found| found.f_type as u64 & 0xffff_ffff)
}

/// What statfs(2) says about the file system that `fd` lies on.
pub fn fstatfs(fd: BorrowedFd<'_>) -> Result<StatFs> {
    rustix::fs::fstatfs(fd).map_err(SysError::from_rustix("fstatfs"))
}

/// `ST_*` flags of the mount and the file system that `fd` lies on (statfs(2)).
pub fn mount_flags(fd: BorrowedFd<'_>) -> Result<u64> {
    // The field's sign and width differ between architectures.
    fstatfs(fd).map(|found| found.f_flags as u64 & 0xffff_ffff)
}

/// The text of the link at `path` under `dirfd`; with an empty path, of the link that `dirfd` is.
pub fn readlinkat(dirfd: BorrowedFd<'_>, path: impl Arg) -> Result<CString> {
    rustix::fs::readlinkat(dirfd, path, Vec::new()).map_err(SysError::from_rustix("readlinkat"))
}

/// Makes a directory with `mode` less the umask.
pub fn mkdirat(dirfd: BorrowedFd<'_>, path: impl Arg, mode: Mode) -> Result<()> {
    rustix::fs::mkdirat(dirfd, path, mode).map_err(SysError::from_rustix("mkdirat"))
}

/// Makes a device node, fifo, socket or empty file with `mode` less the umask.
pub fn mknodat(dirfd: BorrowedFd<'_>, path: impl Arg, kind: FileType, mode: Mode, device: Dev) -> Result<()> {
    rustix::fs::mknodat(dirfd, path, kind, mode, device).map_err(SysError::from_rustix("mknodat"))
}

/// Makes a symbolic link at `path` under `dirfd` whose text is `target`.
pub fn symlinkat(target: impl Arg, dirfd: BorrowedFd<'_>, path: impl Arg) -> Result<()> {
    rustix::fs::symlinkat(target, dirfd, path).map_err(SysError::from_rustix("symlinkat"))
}

/// Makes another name of the file at `old`; of a link, of the link itself.
pub fn linkat(
    old_dirfd: BorrowedFd<'_>,
    old: impl Arg,
    new_dirfd: BorrowedFd<'_>,
    new: impl Arg,
) -> Result<()> {
    let flags = AtFlags::empty();
    rustix::fs::linkat(old_dirfd, old, new_dirfd, new, flags).map_err(SysError::from_rustix("linkat"))
}

/// Removes a file's name; `EISDIR` for a directory.
pub fn unlinkat(dirfd: BorrowedFd<'_>, path: impl Arg) -> Result<()> {
    rustix::fs::unlinkat(dirfd, path, AtFlags::empty()).map_err(SysError::from_rustix("unlinkat"))
}

/// Removes an empty directory.
pub fn rmdirat(dirfd: BorrowedFd<'_>, path: impl Arg) -> Result<()> {
    rustix::fs::unlinkat(dirfd, path, AtFlags::REMOVEDIR).map_err(SysError::from_rustix("unlinkat"))
}

/// Renames; what is at `new` is replaced.
pub fn renameat(
    old_dirfd: BorrowedFd<'_>,
    old: impl Arg,
    new_dirfd: BorrowedFd<'_>,
    new: impl Arg,
) -> Result<()> {
    rustix::fs::renameat(old_dirfd, old, new_dirfd, new).map_err(SysError::from_rustix("renameat"))
}

/// Renames with `NOREPLACE`, `EXCHANGE` or `WHITEOUT`.
pub fn renameat_with(
    old_dirfd: BorrowedFd<'_>,
    old: impl Arg,
    new_dirfd: BorrowedFd<'_>,
    new: impl Arg,
    flags: RenameFlags,
) -> Result<()> {
    rustix::fs::renameat_with(old_dirfd, old, new_dirfd, new, flags)
        .map_err(SysError::from_rustix("renameat2"))
}

/// Changes the owner of the file behind `fd`, an `O_PATH` fd too; `u32::MAX` leaves an id as it is.
pub fn fchown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    chown(fd, c"", uid, gid, AtFlags::EMPTY_PATH)
}

/// Changes the owner of the file at `path` under `dirfd`; of a link, the link's own.
pub fn fchownat(dirfd: BorrowedFd<'_>, path: impl Arg, uid: u32, gid: u32) -> Result<()> {
    chown(dirfd, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

fn chown(dirfd: BorrowedFd<'_>, path: impl Arg, uid: u32, gid: u32, flags: AtFlags) -> Result<()> {
    let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
    let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
    rustix::fs::chownat(dirfd, path, uid, gid, flags).map_err(SysError::from_rustix("fchownat"))
}

/// Changes the mode of the file behind `fd`, an `O_PATH` fd too.
///
/// For the latter `fchmodat2` (6.6) is asked; where the kernel lacks it, the link of the fd in `/proc/self/fd`, once
/// that file system has proved to be procfs. A symbolic link is `EOPNOTSUPP`.
pub fn fchmod(fd: BorrowedFd<'_>, mode: Mode) -> Result<()> {
    match rustix::fs::fchmod(fd, mode).map_err(SysError::from_rustix("fchmod")) {
        Err(error) if error.is(libc::EBADF) => fchmod_path_only(fd, mode),
        other => other,
    }
}

fn fchmod_path_only(fd: BorrowedFd<'_>, mode: Mode) -> Result<()> {
    const SYS_FCHMODAT2: libc::c_long = 452;
    let (number, empty, mode_bits) = (fd.as_raw_fd(), c"".as_ptr(), mode.as_raw_mode());
    // SAFETY: the path is a static empty string.
    let returned = unsafe { libc::syscall(SYS_FCHMODAT2, number, empty, mode_bits, libc::AT_EMPTY_PATH) };
    match check_unit("fchmodat2", returned) {
        Err(error) if error.is_unknown_call() => fchmod_by_proc(fd, mode),
        other => other,
    }
}

fn fchmod_by_proc(fd: BorrowedFd<'_>, mode: Mode) -> Result<()> {
    if FileType::from_raw_mode(fstat(fd)?.st_mode).is_symlink() {
        return Err(SysError::new("fchmod", libc::EOPNOTSUPP));
    }
    let links = openat(crate::CWD, "/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    if fs_type(links.as_fd())? != PROC_SUPER_MAGIC {
        return Err(SysError::new("fchmod", libc::EXDEV));
    }
    let name = fd.as_raw_fd().to_string();
    rustix::fs::chmodat(&links, name, mode, AtFlags::empty()).map_err(SysError::from_rustix("fchmodat"))
}

/// Sets the file's length in bytes.
pub fn ftruncate(fd: BorrowedFd<'_>, len: u64) -> Result<()> {
    rustix::fs::ftruncate(fd, len).map_err(SysError::from_rustix("ftruncate"))
}

/// Waits until the file's content is on the disk.
pub fn fsync(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::fsync(fd).map_err(SysError::from_rustix("fsync"))
}

/// How [`flock`] takes a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Others may share it.
    Shared,
    /// Nobody else has it.
    Exclusive,
    /// Given back.
    None,
}

/// Takes or gives back the lock of the open file behind `fd` without waiting; false when somebody else has it.
pub fn try_flock(fd: BorrowedFd<'_>, lock: Lock) -> Result<bool> {
    let operation = match lock {
        Lock::Shared => FlockOperation::NonBlockingLockShared,
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Lock::None => FlockOperation::NonBlockingUnlock,
    };
    match rustix::fs::flock(fd, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(SysError::from_rustix("flock")(errno)),
    }
}

/// Takes or gives back the lock of the open file behind `fd`; waits without a deadline.
pub fn flock(fd: BorrowedFd<'_>, lock: Lock) -> Result<()> {
    let operation = match lock {
        Lock::Shared => FlockOperation::LockShared,
        Lock::Exclusive => FlockOperation::LockExclusive,
        Lock::None => FlockOperation::Unlock,
    };
    crate::raw::uninterrupted(|| rustix::fs::flock(fd, operation).map_err(SysError::from_rustix("flock")))
}

/// True when `path` under `dirfd` still is the file behind `fd`: nobody has removed it, or put another in its place, since
/// it was opened. Whoever locks a file by its name looks so whether that was the one he meant. Where it cannot be told, it
/// is: what comes next says what is wrong.
pub fn is_in_place(fd: BorrowedFd<'_>, dirfd: BorrowedFd<'_>, path: impl Arg) -> bool {
    match (fstat(fd), statat(dirfd, path)) {
        (Ok(own), Ok(named)) => (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino),
        (_, Err(error)) => !error.is(libc::ENOENT),
        (Err(_), Ok(_)) => true,
    }
}

/// The most bytes an extended attribute or the list of names may have.
const XATTR_MAX: usize = 65536;

/// The extended attribute `name` of the file behind `fd`; none when it has none of that name.
pub fn fgetxattr(fd: BorrowedFd<'_>, name: impl Arg) -> Result<Option<Vec<u8>>> {
    let mut value = vec![0u8; XATTR_MAX];
    match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
        Ok(len) => {
            value.truncate(len);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA) => Ok(None),
        Err(errno) => Err(SysError::from_rustix("fgetxattr")(errno)),
    }
}

/// Sets the extended attribute `name` of the file behind `fd`, new or not.
pub fn fsetxattr(fd: BorrowedFd<'_>, name: impl Arg, value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()).map_err(SysError::from_rustix("fsetxattr"))
}

/// Removes the extended attribute `name` of the file behind `fd`.
pub fn fremovexattr(fd: BorrowedFd<'_>, name: impl Arg) -> Result<()> {
    rustix::fs::fremovexattr(fd, name).map_err(SysError::from_rustix("fremovexattr"))
}

/// The names of the extended attributes of the file behind `fd`.
pub fn flistxattr(fd: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut names = vec![0u8; XATTR_MAX];
    let len = rustix::fs::flistxattr(fd, &mut names[..]).map_err(SysError::from_rustix("flistxattr"))?;
    names.truncate(len);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    // A piece between NULs has no NUL inside.
    Ok(names.filter_map(|name| CString::new(name).ok()).collect())
}

/// Makes the directory behind `fd` the current one.
pub fn fchdir(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(fd).map_err(SysError::from_rustix("fchdir"))
}

/// Makes the directory at `path` the current one; follows links.
pub fn chdir(path: impl Arg) -> Result<()> {
    rustix::process::chdir(path).map_err(SysError::from_rustix("chdir"))
}

/// Makes the directory at `path` the root of this process's lookups (chroot(2)); follows links.
pub fn chroot(path: impl Arg) -> Result<()> {
    with_path("chroot", path, |path| {
        // SAFETY: `path` ends in NUL and outlives the call.
        check_unit("chroot", unsafe { libc::syscall(libc::SYS_chroot, path.as_ptr()) })
    })
}

/// The current directory as the kernel names it: `(unreachable)...` when it is outside the root.
pub fn getcwd() -> Result<CString> {
    let mut path = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes no more than the length we give. The C library's function would hide the
    // unreachable case as ENOENT.
    let returned = unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) };
    let len = crate::raw::check("getcwd", returned)? as usize;
    path.truncate(len.saturating_sub(1));
    CString::new(path).map_err(|_| SysError::new("getcwd", libc::EINVAL))
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its name.
    pub name: CString,
    /// What it is; `Unknown` on file systems that do not say.
    pub kind: FileType,
    /// Its inode's number.
    pub inode: u64,
}

/// The names in the directory behind `fd`, without `.` and `..`, in the file system's order, from where the fd's
/// offset is (the beginning, for a new fd).
pub fn read_directory(fd: BorrowedFd<'_>) -> Result<Vec<DirectoryEntry>> {
    let mut space = vec![std::mem::MaybeUninit::uninit(); 16 * 1024];
    let mut entries = Vec::new();
    let mut raw = rustix::fs::RawDir::new(fd, &mut space);
    while let Some(entry) = raw.next() {
        let entry = entry.map_err(SysError::from_rustix("getdents64"))?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            let (name, kind) = (entry.file_name().to_owned(), entry.file_type());
            entries.push(DirectoryEntry { name, kind, inode: entry.ino() });
        }
    }
    Ok(entries)
}

/// Succeeds when the effective ids may execute the file at `path`, links followed; `EACCES` otherwise.
pub fn access_execute(path: impl Arg) -> Result<()> {
    rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(SysError::from_rustix("faccessat2"))
}
