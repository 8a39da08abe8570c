//! Device nodes and the links beside them, all below the root by descriptor (CVE-2026-41579, CVE-2026-47766).

use crate::error::{Code, Context, Error, Result};
use crate::files::{exists, node, numbers};
use hull_plan::{DeviceKind, DevicePlan, Plan};
use hull_rooted::Root;
use hull_sys::CWD;
use hull_sys::fs::{self, FileType, Mode, makedev};
use hull_sys::mount::{move_mount, open_tree};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

const EEXIST: i32 = 17;
const EPERM: i32 = 1;

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
    let done = plan.devices.iter().try_for_each(|device| {
        make(root, device).map_err(|error| {
            error.within(format!("error creating device node {:?}", device.path)).field(device.field.clone())
        })
    });
    hull_sys::process::umask(before);
    done?;
    if plan.default_dev_links {
        link_all(root)?;
    }
    Ok(())
}

fn make(root: &Root, device: &DevicePlan) -> Result<()> {
    if device.bind {
        return bind(root, device);
    }
    let (parent, leaf) = open_parent(root, &device.path)?;
    let mode = Mode::from_raw_mode(device.mode);
    match fs::mknodat(
        parent.as_fd(),
        leaf.as_os_str(),
        kind_of(device),
        mode,
        makedev(device.major, device.minor),
    ) {
        Ok(()) => {}
        Err(error) if error.is(EEXIST) => return existing(parent.as_fd(), &leaf, device),
        Err(error) if error.is(EPERM) && device.kind != DeviceKind::Fifo => return bind(root, device),
        Err(error) => return Err(Error::sys("mknod", error)),
    }
    if (device.uid, device.gid) != (0, 0) {
        fs::fchownat(parent.as_fd(), leaf.as_os_str(), device.uid, device.gid).context(|| "chown")?;
    }
    Ok(())
}

/// The directory of a path in the container, made when it is missing, and the last component.
fn open_parent(root: &Root, path: &str) -> Result<(std::os::fd::OwnedFd, std::ffi::OsString)> {
    let parent =
        path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
    root.open_or_create_dir(parent, 0o755).context(|| "make its directory")?;
    root.parent_and_leaf(path).context(|| "open its directory")
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

fn link_all(root: &Root) -> Result<()> {
    for (to, at) in LINKS {
        if at == "/dev/core" && !exists(c"/proc/kcore") {
            continue;
        }
        let (parent, leaf) = open_parent(root, at)?;
        match fs::symlinkat(to, parent.as_fd(), leaf.as_os_str()) {
            Err(error) if error.is(EEXIST) => {}
            other => other.context(|| format!("link {at}"))?,
        }
    }
    Ok(())
}
