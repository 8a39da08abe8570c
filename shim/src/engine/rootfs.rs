//! The mounts that a Create request asks for, under the bundle's `rootfs`.
//!
//! To be called in a helper (`root_job`): each of these calls may take for ever.
//!
//! They are made by path with mount(2): the path is in containerd's own 0700 state directory, and overlay options are
//! longer than fsconfig(2) takes (256 bytes each). Below `rootfs` the names are the image's, and a link there may lead
//! anywhere: such a target is looked up with `rootfs` as its root.

use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::api::Mount;

/// Longest option string that mount(2) reads: a page with its end mark.
const DATA_LIMIT: usize = 4095;
/// Most mounts that may lie over each other on one directory.
const STACKED_LIMIT: usize = 256;

/// What a request has mounted, and so what is to be unmounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// Nothing: the root is somebody else's.
    None,
    /// On the root.
    OnRoot,
    /// Below it, too.
    Below,
}

impl Mounts {
    /// What these are.
    pub fn of(mounts: &[Mount]) -> Self {
        match mounts {
            [] => Self::None,
            mounts if mounts.iter().all(|mount| mount.target.is_empty()) => Self::OnRoot,
            _ => Self::Below,
        }
    }
}

/// Makes the mounts in order on `rootfs`. What was made before one fails is there still.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), String> {
    mounts.iter().try_for_each(|one| {
        mount_one(one, rootfs).map_err(|error| {
            let (source, target) = (&one.source, rootfs.join(inner(one)));
            format!("failed to mount rootfs component: mount {source} on {}: {error}", target.display())
        })
    })
}

/// The target as a path below `rootfs`.
fn inner(one: &Mount) -> &Path {
    Path::new(one.target.trim_start_matches('/'))
}

/// A place to mount on.
struct Place {
    path: PathBuf,
    /// Behind the path, if it is not our own.
    _opened: Option<OwnedFd>,
}

impl Place {
    /// What is uppermost there now.
    fn of(one: &Mount, rootfs: &Path) -> Result<Self, String> {
        let inner = inner(one);
        if inner.as_os_str().is_empty() {
            return Ok(Self { path: rootfs.to_owned(), _opened: None });
        }
        if inner.components().any(|part| part == std::path::Component::ParentDir) {
            return Err("the target leaves the root file system".to_owned());
        }
        let text = |errno: rustix::io::Errno| format!("open the target: {errno}");
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(rootfs, flags | OFlags::DIRECTORY, Mode::empty()).map_err(text)?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(&root, inner, flags, Mode::empty(), resolve).map_err(text)?;
        let path = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string());
        Ok(Self { path, _opened: Some(opened) })
    }
}

fn mount_one(one: &Mount, rootfs: &Path) -> Result<(), String> {
    let (flags, recursive, data) = options(&one.options);
    if let Some(option) = one.options.iter().find(|option| is_for_a_helper(option)) {
        return Err(format!("option {option} is not supported"));
    }
    let place = Place::of(one, rootfs)?;
    let target = place.path.as_path();
    let text = |errno: rustix::io::Errno| errno.to_string();
    let is_bind = recursive || flags.contains(MountFlags::BIND) || one.r#type == "bind";
    if is_bind {
        let bind = if recursive { MountFlags::BIND | MountFlags::REC } else { MountFlags::BIND };
        mount(&one.source, target, "", bind, None).map_err(text)?;
        let rest = flags - MountFlags::BIND;
        // A bind mount takes its flags only when it is mounted again.
        if !rest.is_empty() {
            let mounted = Place::of(one, rootfs)?;
            mount_remount(&mounted.path, MountFlags::BIND | rest, "").map_err(text)?;
        }
        return Ok(());
    }
    let (data, directory) = if data.len() > DATA_LIMIT { shorten(&data)? } else { (data, None) };
    let data = CString::new(data).map_err(|_| "option with a NUL byte".to_owned())?;
    let Some(directory) = directory else {
        return mount(&one.source, target, &one.r#type, flags, data.as_c_str()).map_err(text);
    };
    let before = hull_sys::fs::getcwd().map_err(|error| error.to_string())?;
    hull_sys::fs::chdir(directory.as_path()).map_err(|error| error.to_string())?;
    let mounted = mount(&one.source, target, &one.r#type, flags, data.as_c_str()).map_err(text);
    let back = hull_sys::fs::chdir(before.as_c_str()).map_err(|error| error.to_string());
    mounted.and(back)
}

/// Options for which containerd's own shim does something before it mounts: a loop device, id-mapped layers.
fn is_for_a_helper(option: &str) -> bool {
    option == "loop" || option.starts_with("uidmap=") || option.starts_with("gidmap=")
}

/// Splits options into flags and what is left for the file system.
fn options(all: &[String]) -> (MountFlags, bool, String) {
    let mut flags = MountFlags::empty();
    let mut recursive = false;
    let mut data = Vec::new();
    for option in all {
        let (on, flag) = match option.as_str() {
            "ro" => (true, MountFlags::RDONLY),
            "rw" => (false, MountFlags::RDONLY),
            "nosuid" => (true, MountFlags::NOSUID),
            "suid" => (false, MountFlags::NOSUID),
            "nodev" => (true, MountFlags::NODEV),
            "dev" => (false, MountFlags::NODEV),
            "noexec" => (true, MountFlags::NOEXEC),
            "exec" => (false, MountFlags::NOEXEC),
            "noatime" => (true, MountFlags::NOATIME),
            "atime" => (false, MountFlags::NOATIME),
            "relatime" => (true, MountFlags::RELATIME),
            "norelatime" => (false, MountFlags::RELATIME),
            "strictatime" => (true, MountFlags::STRICTATIME),
            "nostrictatime" => (false, MountFlags::STRICTATIME),
            "nodiratime" => (true, MountFlags::NODIRATIME),
            "diratime" => (false, MountFlags::NODIRATIME),
            "sync" => (true, MountFlags::SYNCHRONOUS),
            "async" => (false, MountFlags::SYNCHRONOUS),
            "dirsync" => (true, MountFlags::DIRSYNC),
            "mand" => (true, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
            "nomand" => (false, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
            "bind" => (true, MountFlags::BIND),
            "rbind" => {
                recursive = true;
                continue;
            }
            "defaults" => continue,
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(flag, on);
    }
    (flags, recursive, data.join(","))
}

/// Writes long overlay options relative to the longest directory that all lower layers share.
fn shorten(data: &str) -> Result<(String, Option<PathBuf>), String> {
    let lower = data.split(',').find_map(|option| option.strip_prefix("lowerdir=")).unwrap_or_default();
    let mut common = lower.split(':').next().and_then(|first| Path::new(first).parent()).map(Path::to_owned);
    while let Some(directory) = &common {
        if lower.split(':').all(|layer| Path::new(layer).starts_with(directory)) {
            break;
        }
        common = directory.parent().map(Path::to_owned);
    }
    let directory = common.filter(|dir| dir.as_os_str().len() > 1).ok_or("mount options are too long")?;
    let prefix = format!("{}/", directory.display());
    let relative = |layer: &str| layer.strip_prefix(&prefix).unwrap_or(layer).to_owned();
    let short: Vec<String> = lower.split(':').map(relative).collect();
    let data = data.replacen(lower, &short.join(":"), 1);
    if data.len() > DATA_LIMIT {
        return Err("mount options are too long".to_owned());
    }
    Ok((data, Some(directory)))
}

/// Unmounts everything on `rootfs`. A busy mount is detached: it goes when its last user does.
pub fn unmount_all(rootfs: &Path) -> Result<(), String> {
    for _ in 0..STACKED_LIMIT {
        match unmount(rootfs, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point (any more), or there is nothing.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(rustix::io::Errno::BUSY) => unmount(rootfs, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
                .map_err(|errno| format!("failed to unmount {}: {errno}", rootfs.display()))?,
            Err(errno) => return Err(format!("failed to unmount {}: {errno}", rootfs.display())),
        }
    }
    Err(format!("failed to unmount {}: too many mounts", rootfs.display()))
}

/// The same where there may be mounts below it with none on `rootfs` itself: whoever removes the bundle would remove what
/// is mounted there.
pub fn unmount_tree(rootfs: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("find the mounts below {}: {error}", rootfs.display());
    let resolved = match rootfs.canonicalize() {
        Ok(resolved) => resolved,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let table = std::fs::read("/proc/self/mountinfo").map_err(failed)?;
    let below = |path: &PathBuf| path.starts_with(&resolved) && *path != resolved;
    let points: Vec<PathBuf> =
        table.split(|byte| *byte == b'\n').filter_map(mount_point).filter(below).collect();
    for point in points.iter().rev() {
        match unmount(point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
            // It went with the one above it.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(format!("failed to unmount {}: {errno}", point.display())),
        }
    }
    unmount_all(rootfs)
}

/// The mount point in a line of mountinfo (proc_pid_mountinfo(5)), in which some bytes are written as octal numbers.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let mut rest = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(rest.len());
    while let [first, tail @ ..] = rest {
        let octal = || u8::from_str_radix(std::str::from_utf8(tail.get(..3)?).ok()?, 8).ok();
        rest = tail;
        path.push(match octal().filter(|_| *first == b'\\') {
            Some(byte) => {
                rest = &tail[3..];
                byte
            }
            None => *first,
        });
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_data_are_told_apart() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (flags, recursive, data) = options(&words("ro rbind index=off lowerdir=/a:/b dev"));
        assert_eq!((flags, recursive), (MountFlags::RDONLY, true));
        assert_eq!(data, "index=off,lowerdir=/a:/b");
    }

    #[test]
    fn long_overlay_options_become_relative() {
        let layers: Vec<String> = (0..120).map(|n| format!("/var/lib/containerd/snapshots/{n}/fs")).collect();
        let data = format!("index=off,lowerdir={}", layers.join(":"));
        let (short, directory) = shorten(&data).unwrap();
        assert_eq!(directory.as_deref(), Some(Path::new("/var/lib/containerd/snapshots")));
        assert!(short.starts_with("index=off,lowerdir=0/fs:1/fs:2/fs:"), "{short}");
        assert!(short.ends_with(":119/fs"));
    }

    #[test]
    fn targets_stay_inside_the_root() {
        let place = std::env::temp_dir().join(format!("hull-targets-{}", std::process::id()));
        let rootfs = place.join("rootfs");
        std::fs::create_dir_all(rootfs.join("etc/x")).unwrap();
        std::fs::create_dir(place.join("outside")).unwrap();
        for (link, to) in [("up", "../outside"), ("host", "/etc/x")] {
            std::os::unix::fs::symlink(to, rootfs.join(link)).unwrap();
        }
        let leads_to = |target: &str| {
            let place = Place::of(&Mount { target: target.into(), ..Mount::default() }, &rootfs)?;
            std::fs::canonicalize(place.path).map_err(|error| error.to_string())
        };
        assert_eq!(leads_to("").unwrap(), rootfs);
        for target in ["/etc/x", "etc/x", "host"] {
            assert_eq!(leads_to(target).unwrap(), rootfs.join("etc/x"), "{target}");
        }
        for target in ["../outside", "up", "missing"] {
            assert!(leads_to(target).is_err(), "{target}");
        }
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let line = br"36 35 98:0 /mnt1 /run/a\040b\134c/rootfs rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line).unwrap(), Path::new(r"/run/a b\c/rootfs"));
        assert_eq!(mount_point(b""), None);
    }
}
