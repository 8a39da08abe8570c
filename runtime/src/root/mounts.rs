//! The mounts of the configuration, in the listed order.

use super::cgroups::MountEntry;
use super::sources::{self, Mapper};
use super::{cgroups, copy_up};
use crate::error::{Code, Context, Error, Result};
use crate::files::is_dir;
use crate::link::Link;
use hull_plan::{Attributes, HostFacts, MountPlan, MountSource, NamespaceKind, Plan};
use hull_rooted::Root;
use hull_sys::errno::{ENOENT, EPERM};
use hull_sys::fs::OFlags;
use hull_sys::mount::{
    MOUNT_ATTR_ATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MountAttr, fs_log, fsconfig_create, fsconfig_flag,
    fsconfig_reconfigure, fsconfig_string, fsmount, fsopen, fspick, mount_id, mount_setattr, move_mount,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Every attribute of a mount but those of access times.
const ALL_BUT_TIMES: u64 =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSYMFOLLOW;

/// `ST_RDONLY`, `ST_NOSUID`, `ST_NODEV`, `ST_NOEXEC`: bits of linux/statfs.h, those of the attributes.
const FLAGS_THAT_STAY: u64 = 0xf;

/// `ST_NOATIME`, `ST_NODIRATIME`, `ST_RELATIME`.
const ST_TIMES: u64 = 0x1c00;

/// A file system that becomes read-only when everything below it is made: its place in the plan, and its mount.
#[derive(Debug)]
pub struct Late(usize, OwnedFd);

/// Does all mounts of `plan`; a mount over `/` replaces the handle. Gives those that [`seal_late`] has to finish.
pub fn mount_all(
    root: &mut Root,
    plan: &Plan,
    facts: &HostFacts,
    link: &Link,
    sources: &mut [Option<OwnedFd>],
    cgroup_mounts: &[MountEntry],
) -> Result<Vec<Late>> {
    let own_ids = plan.entry.has_own(NamespaceKind::User);
    let mut late = Vec::new();
    for (index, (mount, source)) in plan.mounts.iter().zip(sources).enumerate() {
        let done = match &mount.source {
            MountSource::Cgroup => cgroups::mount(root, mount, plan, cgroup_mounts).map(|()| None),
            _ => match source.take() {
                Some(opened) => Ok(Some(opened)),
                None => {
                    let mapper = if own_ids { Mapper::Parent(link, index) } else { Mapper::Own(facts) };
                    sources::open_late(plan, mount, root, &mapper)
                }
            }
            .and_then(|tree| mount_one(root, mount, tree, own_ids)),
        };
        late.extend(done.map_err(|error| named(mount, error))?.map(|tree| Late(index, tree)));
    }
    Ok(late)
}

/// Names the mount that failed, in runc's words.
pub fn named(mount: &MountPlan, error: Error) -> Error {
    let field = error.field.clone().unwrap_or_else(|| mount.field.clone());
    error.within(format!("error mounting {:?} to rootfs at {:?}", name(mount), mount.target)).field(field)
}

fn name(mount: &MountPlan) -> &str {
    match &mount.source {
        MountSource::Bind { path, .. } => path,
        MountSource::Filesystem { kind, source, .. } => source.as_deref().unwrap_or(kind),
        MountSource::Cgroup => "cgroup",
        MountSource::Remount { .. } | MountSource::ChangeOnly => "",
    }
}

/// Gives the mount where it is to become read-only later.
pub fn mount_one(
    root: &mut Root,
    mount: &MountPlan,
    source: Option<OwnedFd>,
    own_ids: bool,
) -> Result<Option<OwnedFd>> {
    match &mount.source {
        MountSource::Bind { .. } => {
            let tree = source.ok_or_else(|| Error::new(Code::Unsupported, "the source was not opened"))?;
            let target = bind_target(root, &mount.target, tree.as_fd())?;
            refuse_hidden_proc(target.as_fd(), &mount.target)?;
            change_bind(tree.as_fd(), mount, own_ids)?;
            attach(root, mount, tree, target.as_fd())?;
        }
        MountSource::Filesystem { kind, source, options } => {
            let inherited = inherited_mode(root, mount, kind, options)?;
            let target = filesystem_target(root, &mount.target, kind)?;
            refuse_hidden_proc(target.as_fd(), &mount.target)?;
            let options: Vec<_> = options.iter().cloned().chain(inherited).collect();
            let fresh = new_filesystem(kind, source.as_deref(), &options, None, early_attributes(mount))?;
            if mount.copy_up {
                copy_up::copy(target.as_fd(), fresh.as_fd())
                    .context(|| format!("copy {} into the tmpfs", mount.target))?;
            }
            change_rest(fresh.as_fd(), mount)?;
            let late = is_late(mount) && mount.attributes.set & MOUNT_ATTR_RDONLY != 0;
            let late = late.then(|| fresh.try_clone()).transpose().context(|| "keep the mount")?;
            attach(root, mount, fresh, target.as_fd())?;
            return Ok(late);
        }
        MountSource::Remount { options, bind } => {
            let target = root.open(&mount.target).context(|| "open the target")?;
            if !bind {
                reconfigure(target.as_fd(), options)?;
            }
            change(target.as_fd(), mount)?;
        }
        MountSource::ChangeOnly => {
            let target = root.open(&mount.target).context(|| "open the target")?;
            change(target.as_fd(), mount)?;
        }
        MountSource::Cgroup => {
            return Err(Error::new(Code::Unsupported, "a cgroup mount took the wrong way"));
        }
    }
    Ok(None)
}

/// A tmpfs without a mode of its own takes that of the directory it covers, as runc does.
fn inherited_mode(
    root: &Root,
    mount: &MountPlan,
    kind: &str,
    options: &[(String, Option<String>)],
) -> Result<Option<(String, Option<String>)>> {
    if kind != "tmpfs" || options.iter().any(|(key, _)| key == "mode") {
        return Ok(None);
    }
    let Some(covered) = root.find(&mount.target).context(|| "look at the target")? else { return Ok(None) };
    let stat = hull_sys::fs::fstat(covered.as_fd()).context(|| "look at the target")?;
    Ok(Some(("mode".to_owned(), Some(format!("{:o}", stat.st_mode & 0o7777)))))
}

/// /dev becomes read-only when its devices are there, a tmpfs when the targets of the mounts below it are.
fn is_late(mount: &MountPlan) -> bool {
    let tmpfs = matches!(&mount.source, MountSource::Filesystem { kind, .. } if kind == "tmpfs");
    mount.target == "/dev" || (tmpfs && mount.target != "/")
}

fn early_attributes(mount: &MountPlan) -> Attributes {
    let Attributes { set, clear } = mount.attributes;
    let late = if is_late(mount) { MOUNT_ATTR_RDONLY } else { 0 };
    Attributes { set: set & !late, clear }
}

/// Makes what is to be read-only so, once everything in it is made.
pub fn seal_late(plan: &Plan, late: Vec<Late>) -> Result<()> {
    for Late(index, tree) in late {
        let sealed = set_attributes(tree.as_fd(), false, MOUNT_ATTR_RDONLY, 0);
        sealed.map_err(|error| match plan.mounts.get(index) {
            Some(mount) => named(mount, error),
            None => error,
        })?;
    }
    Ok(())
}

/// A new file system of `kind`, attached nowhere.
pub fn new_filesystem(
    kind: &str,
    source: Option<&str>,
    options: &[(String, Option<String>)],
    label: Option<&str>,
    attributes: Attributes,
) -> Result<OwnedFd> {
    let context = fsopen(kind).context(|| format!("file system {kind}"))?;
    let configure = || -> hull_sys::Result<OwnedFd> {
        if let Some(source) = source {
            fsconfig_string(context.as_fd(), "source", source)?;
        }
        for (key, value) in options {
            match value {
                Some(value) => fsconfig_string(context.as_fd(), key.as_str(), value.as_str())?,
                None => fsconfig_flag(context.as_fd(), key.as_str())?,
            }
        }
        if let Some(label) = label {
            fsconfig_string(context.as_fd(), "context", label)?;
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), attributes.set)
    };
    configure().map_err(|cause| {
        let mut error = Error::sys(format!("file system {kind}"), cause);
        let said = fs_log(context.as_fd());
        if !said.is_empty() {
            error.message = format!("{} ({said})", error.message);
        }
        error
    })
}

fn reconfigure(target: BorrowedFd<'_>, options: &[(String, Option<String>)]) -> Result<()> {
    let context = fspick(target).context(|| "remount")?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_string(context.as_fd(), key.as_str(), value.as_str()),
            None => fsconfig_flag(context.as_fd(), key.as_str()),
        }
        .context(|| format!("remount with {key}"))?;
    }
    fsconfig_reconfigure(context.as_fd()).context(|| "remount")
}

/// Attributes, recursive attributes and propagation of a mount.
fn change(mount: BorrowedFd<'_>, plan: &MountPlan) -> Result<()> {
    let Attributes { set, clear } = plan.attributes;
    if set != 0 || clear != 0 {
        set_attributes(mount, false, set, clear)?;
    }
    change_rest(mount, plan)
}

/// Options of a bind mount are all of its options, as a remount with mount(2) makes them: those of the source that are
/// not named go, but for the access times, which stay unless a word chooses among them.
///
/// In a user namespace those of the source that the kernel would lock for it stay, and to ask for their end is an error
/// (R21): the tree was cloned outside, where nothing is locked.
fn change_bind(tree: BorrowedFd<'_>, plan: &MountPlan, own_ids: bool) -> Result<()> {
    let Attributes { set, mut clear } = plan.attributes;
    if set == 0 && clear == 0 {
        return change_rest(tree, plan);
    }
    let times = clear & MOUNT_ATTR_ATIME != 0 || set & MOUNT_ATTR_NODIRATIME != 0;
    clear |= if own_ids { MOUNT_ATTR_NOSYMFOLLOW } else { ALL_BUT_TIMES };
    let all_times = MOUNT_ATTR_ATIME | MOUNT_ATTR_NODIRATIME;
    clear = if times { clear | all_times } else { clear & !all_times };
    let before = own_ids.then(|| locked_flags(tree)).transpose()?;
    set_attributes(tree, false, set, clear)?;
    if let Some(before) = before {
        refuse_lost_locks(before, locked_flags(tree)?)?;
    }
    change_rest(tree, plan)
}

/// What a mount that comes from a more privileged user namespace has fixed (mount_namespaces(7)), as statfs(2) shows it.
fn locked_flags(mount: BorrowedFd<'_>) -> Result<u64> {
    let flags = hull_sys::fs::mount_flags(mount).context(|| "look at the mount's options")?;
    Ok(flags & (FLAGS_THAT_STAY | ST_TIMES))
}

/// The options only become more; the access times stay as they are. A file system that is read-only itself shows so
/// before and after.
fn refuse_lost_locks(before: u64, after: u64) -> Result<()> {
    if before & !after & FLAGS_THAT_STAY == 0 && before & ST_TIMES == after & ST_TIMES {
        return Ok(());
    }
    let cause = hull_sys::SysError::new("mount_setattr", EPERM);
    Err(Error::sys("set the mount's attributes", cause)
        .hint("options that the source is mounted with cannot be taken back in a user namespace"))
}

/// What fsmount(2) cannot set at once.
fn change_rest(mount: BorrowedFd<'_>, plan: &MountPlan) -> Result<()> {
    let Attributes { set, clear } = plan.recursive_attributes;
    if set != 0 || clear != 0 {
        set_attributes(mount, true, set, clear)?;
    }
    for propagation in &plan.propagation {
        let attr = MountAttr { propagation: propagation.kind.flag(), ..MountAttr::default() };
        mount_setattr(mount, propagation.recursive, &attr).context(|| "set the propagation")?;
    }
    Ok(())
}

fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, set: u64, clear: u64) -> Result<()> {
    let attr = MountAttr { set, clear, ..MountAttr::default() };
    mount_setattr(mount, recursive, &attr).context(|| "set the mount's attributes")
}

/// The target of a bind mount: a directory for a directory, a file for anything else.
fn bind_target(root: &Root, target: &str, source: BorrowedFd<'_>) -> Result<OwnedFd> {
    if is_dir(source).context(|| "look at the source")? {
        root.open_or_create_dir(target, 0o755).context(|| "make the target directory")
    } else {
        root.open_or_create_file(target).context(|| "make the target file")
    }
}

/// The target of a new file system. procfs and sysfs go on real directories only: on a link they would land where the
/// image says (CVE-2023-27561).
fn filesystem_target(root: &Root, target: &str, kind: &str) -> Result<OwnedFd> {
    let make = || root.open_or_create_dir(target, 0o755).context(|| "make the target directory");
    if !matches!(kind, "proc" | "sysfs") {
        return make();
    }
    let open = || root.open_strict(target, OFlags::PATH | OFlags::DIRECTORY);
    let opened = match open() {
        Err(error) if error.is(ENOENT) => {
            make()?;
            open()
        }
        other => other,
    };
    opened.map_err(|_| {
        Error::new(Code::ConfigInvalid, format!("filesystem {kind:?} must be mounted on ordinary directory"))
            .object(target)
            .hint("the image has a symbolic link there")
    })
}

/// A link of the image leads a target into procfs: what labels and limits are written through could be hidden or faked
/// (CVE-2019-16884). Targets that say so themselves were judged by the plan.
pub fn refuse_hidden_proc(target: BorrowedFd<'_>, planned: &str) -> Result<()> {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    if planned == "/proc" || planned.starts_with("/proc/") {
        return Ok(());
    }
    if hull_sys::fs::fs_type(target).context(|| "look at the target")? != PROC_SUPER_MAGIC {
        return Ok(());
    }
    Err(Error::new(Code::ConfigInvalid, format!("{planned:?} cannot be mounted because it is inside /proc"))
        .object(planned)
        .hint("the image has a symbolic link on the way"))
}

/// Attaches `tree`, and proves that it is what the target shows now (R2).
fn attach(root: &mut Root, mount: &MountPlan, tree: OwnedFd, target: BorrowedFd<'_>) -> Result<()> {
    move_mount(tree.as_fd(), target).context(|| "attach")?;
    if mount.target == "/" {
        *root = super::handle(tree)?;
        return Ok(());
    }
    let visible = root.open(&mount.target).context(|| "open the mounted target")?;
    let ids = mount_id(visible.as_fd()).and_then(|seen| Ok((seen, mount_id(tree.as_fd())?)));
    let (seen, own) = ids.context(|| "read the mount id")?;
    if seen == own {
        return Ok(());
    }
    Err(Error::new(Code::Syscall, "the target was replaced while it was being mounted")
        .object(mount.target.clone()))
}
