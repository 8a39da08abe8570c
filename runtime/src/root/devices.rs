//! Device nodes and the links beside them, all below the root by descriptor (CVE-2026-41579, CVE-2026-47766).

use crate::error::{Code, Context, Error, Result};
use crate::files::{exists, node, numbers};
use hull_plan::{DeviceKind, DevicePlan, Plan};
use hull_rooted::Root;
use hull_sys::CWD;
use hull_sys::errno::{EEXIST, EPERM};
use hull_sys::fs::{self, FileType, Mode, makedev};
use hull_sys::mount::{move_mount, open_tree};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Links that exist wherever /proc is mounted (P30), and the container's own ptmx (D8).
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Makes all devices and links of `plan`.
pub fn make_all(root: &Root, plan: &Plan) -> Result<()> {
    // Modes are exactly as configured; the process's own umask is set later.
    let before = hull_sys::process::umask(0);
    let mut parent = None;
    let done = plan.devices.iter().try_for_each(|device| {
        make(root, device, &mut parent).map_err(|error| {
            error.within(format!("error creating device node {:?}", device.path)).field(device.field.clone())
        })
    });
    hull_sys::process::umask(before);
    done?;
    if plan.default_dev_links {
        link_all(root, &mut parent)?;
    }
    Ok(())
}

fn make(root: &Root, device: &DevicePlan, parent: &mut Parent) -> Result<()> {
    if device.bind {
        return bind(root, device);
    }
    let (parent, leaf) = open_parent(root, &device.path, parent)?;
    let mode = Mode::from_raw_mode(device.mode);
    match fs::mknodat(parent, leaf, kind_of(device), mode, makedev(device.major, device.minor)) {
        Ok(()) => {}
        Err(error) if error.is(EEXIST) => return existing(parent, leaf, device),
        Err(error) if error.is(EPERM) && device.kind != DeviceKind::Fifo => return bind(root, device),
        Err(error) => return Err(Error::sys("mknod", error)),
    }
    if (device.uid, device.gid) != (0, 0) {
        fs::fchownat(parent, leaf, device.uid, device.gid).context(|| "chown")?;
    }
    Ok(())
}

/// The directory that the last device or link lay in: most lie in the same one.
type Parent = Option<(String, OwnedFd)>;

/// The directory of a path in the container, made when it is missing, and the last component.
fn open_parent<'a, 'p>(
    root: &Root,
    path: &'a str,
    last: &'p mut Parent,
) -> Result<(BorrowedFd<'p>, &'a OsStr)> {
    let (parent, leaf) = path.rsplit_once('/').unwrap_or(("", path));
    if matches!(leaf, "" | "." | "..") {
        return Err(Error::new(Code::ConfigInvalid, "the path has no name at its end").object(path));
    }
    let opened = match last.take().filter(|(known, _)| known == parent) {
        Some(known) => known,
        None => {
            let above = if parent.is_empty() { "/" } else { parent };
            (parent.to_owned(), root.open_or_create_dir(above, 0o755).context(|| "make its directory")?)
        }
    };
    Ok((last.insert(opened).1.as_fd(), OsStr::new(leaf)))
}

const fn kind_of(device: &DevicePlan) -> FileType {
    match device.kind {
        DeviceKind::Character => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
        DeviceKind::Fifo => FileType::Fifo,
    }
}

/// A node that is already there has to be the same one (D5); what the image brought is not changed.
fn existing(parent: BorrowedFd<'_>, leaf: &OsStr, device: &DevicePlan) -> Result<()> {
    let found = fs::statat(parent, leaf).context(|| "look at what is there")?;
    let same_kind = crate::files::file_type(&found) == kind_of(device);
    if same_kind
        && (device.kind == DeviceKind::Fifo || numbers(found.st_rdev) == (device.major, device.minor))
    {
        return Ok(());
    }
    Err(Error::new(Code::Syscall, "another file lies at the path of the device").object(device.path.clone()))
}

/// Binds the host's node, proved to be that device (R4, D6).
fn bind(root: &Root, device: &DevicePlan) -> Result<()> {
    let tree = open_tree(CWD, device.path.as_str(), true, false).context(|| "open the host's node")?;
    let found = node(tree.as_fd()).context(|| "look at the host's node")?;
    if found != (kind_of(device), (device.major, device.minor)) {
        return Err(Error::new(
            Code::Unsupported,
            "the host has another device there, and nodes cannot be made here",
        )
        .object(device.path.clone()));
    }
    let target = root.open_or_create_file(&device.path).context(|| "make the target file")?;
    move_mount(tree.as_fd(), target.as_fd()).context(|| "bind the host's node")
}

fn link_all(root: &Root, parent: &mut Parent) -> Result<()> {
    for (to, at) in LINKS {
        if at == "/dev/core" && !exists(c"/proc/kcore") {
            continue;
        }
        let (directory, leaf) = open_parent(root, at, parent)?;
        match fs::symlinkat(to, directory, leaf) {
            Err(error) if error.is(EEXIST) => {}
            other => other.context(|| format!("link {at}"))?,
        }
    }
    Ok(())
}
