//! The mounts that a Create request asks for, under the bundle's `rootfs`.
//!
//! They are made by path with mount(2): the path is in containerd's own 0700 state directory, and overlay options are
//! longer than fsconfig(2) takes (256 bytes each).

use std::ffi::CString;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::api::Mount;

/// Longest option string that mount(2) reads: a page with its end mark.
const DATA_LIMIT: usize = 4095;
/// Most mounts that may lie over each other on one directory.
const STACKED_LIMIT: usize = 256;

/// Makes the mounts in order on `rootfs`; takes back what it made when one fails.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), String> {
    for one in mounts {
        let target = target_of(one, rootfs)?;
        if let Err(error) = mount_one(one, &target) {
            let text = format!(
                "failed to mount rootfs component: mount {} on {}: {error}",
                one.source,
                target.display()
            );
            let left = unmount_all(rootfs).err().map(|left| format!(" ({left})"));
            return Err(text + &left.unwrap_or_default());
        }
    }
    Ok(())
}

fn target_of(one: &Mount, rootfs: &Path) -> Result<PathBuf, String> {
    let inner = Path::new(one.target.trim_start_matches('/'));
    if inner.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(format!("mount target {} leaves the root file system", one.target));
    }
    Ok(if one.target.is_empty() { rootfs.to_owned() } else { rootfs.join(inner) })
}

fn mount_one(one: &Mount, target: &Path) -> Result<(), String> {
    let (flags, recursive, data) = options(&one.options);
    let text = |errno: rustix::io::Errno| errno.to_string();
    let is_bind = recursive || flags.contains(MountFlags::BIND) || one.r#type == "bind";
    if is_bind {
        let bind = if recursive { MountFlags::BIND | MountFlags::REC } else { MountFlags::BIND };
        mount(&one.source, target, "", bind, None).map_err(text)?;
        let rest = flags - MountFlags::BIND;
        // A bind mount takes its flags only when it is mounted again.
        if !rest.is_empty() {
            mount_remount(target, MountFlags::BIND | rest, "").map_err(text)?;
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
            "relatime" => (true, MountFlags::RELATIME),
            "strictatime" => (true, MountFlags::STRICTATIME),
            "nodiratime" => (true, MountFlags::NODIRATIME),
            "sync" => (true, MountFlags::SYNCHRONOUS),
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
        let mount = |target: &str| Mount { target: target.into(), ..Mount::default() };
        assert_eq!(target_of(&mount(""), Path::new("/b/rootfs")).unwrap(), Path::new("/b/rootfs"));
        assert_eq!(
            target_of(&mount("/etc/x"), Path::new("/b/rootfs")).unwrap(),
            Path::new("/b/rootfs/etc/x")
        );
        assert!(target_of(&mount("../../etc"), Path::new("/b/rootfs")).is_err());
    }
}
