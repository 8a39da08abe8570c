//! The targets of mounts, made in a root file system that another container, or another host, has filled: CRIU mounts on
//! what is there, and makes nothing.

use super::sources::{self, Mapper};
use super::{devices, mounts};
use crate::error::{Code, Context, Error, Result};
use crate::files::open_place_dir;
use crate::link::Link;
use hull_plan::{Attributes, HostFacts, MountSource, Plan};
use hull_rooted::Root;
use hull_sys::mount::{MS_PRIVATE, move_mount, set_propagation_path};
use hull_sys::namespace::{CloneFlags, unshare};
use hull_sys::process::{CloneRequest, exit_now, spawn, wait};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// How long it may take.
const DEADLINE: Duration = Duration::from_secs(60);

const SIGKILL: i32 = 9;

/// Makes each mount of `plan` once, in a mount namespace that ends with its process, and so the targets of all. New file
/// systems are stood in for by an empty one: what is to be below them comes from the images.
pub fn make_targets(plan: &Plan, facts: &HostFacts) -> Result<()> {
    let (ours, theirs) = Link::pair()?;
    let child = spawn(&CloneRequest::default(), || {
        let made = hull_sys::process::set_parent_death_signal(SIGKILL)
            .and_then(|()| hull_sys::fd::close_all_but(vec![theirs.fd().as_raw_fd()]))
            .and_then(|()| unshare(CloneFlags::NEWNS))
            .context(|| "make a mount namespace")
            .and_then(|()| mount_each(plan, facts));
        let told = match made {
            Ok(()) => theirs.tell(&crate::link::ToParent::Ready),
            Err(error) => theirs.tell(&crate::link::ToParent::Failed(Box::new(error))),
        };
        exit_now(i32::from(told.is_err()))
    })
    .context(|| "clone a process for the targets of the mounts")?;
    drop(theirs);
    let heard = ours.hear(Instant::now() + DEADLINE);
    // Not in time, or done: it is not needed any more.
    let _gone = hull_sys::process::pidfd_send_signal(child.pidfd.as_fd(), SIGKILL);
    wait(child.pidfd.as_fd()).context(|| "reap the process for the targets of the mounts")?;
    match heard? {
        Some(crate::link::ToParent::Ready) => Ok(()),
        Some(crate::link::ToParent::Failed(error)) => Err(*error),
        _ => Err(Error::new(Code::InitDied, "the process for the targets of the mounts went away")),
    }
}

fn mount_each(plan: &Plan, facts: &HostFacts) -> Result<()> {
    set_propagation_path(c"/", true, MS_PRIVATE).context(|| "set the propagation of the mounts")?;
    let rootfs = plan.root.path.as_str();
    let directory = open_place_dir(rootfs).context(|| format!("open rootfs {rootfs}"))?;
    let mut root = Root::from_fd(directory).context(|| "open the root")?;
    if plan.root.readonly {
        // CRIU switches the root by way of this directory, or of one that it would have to make.
        root.open_or_create_dir("/tmp", 0o1777).context(|| "make /tmp for criu")?;
    }
    for mount in &plan.mounts {
        let made = match &mount.source {
            MountSource::Bind { .. } => sources::open_late(plan, mount, &root, &Mapper::Own(facts))
                .and_then(|tree| mounts::mount_one(&mut root, mount, tree, false))
                .map(drop),
            MountSource::Filesystem { .. } | MountSource::Cgroup => stand_in(&root, &mount.target),
            MountSource::Remount { .. } | MountSource::ChangeOnly => Ok(()),
        };
        made.map_err(|error| mounts::named(mount, error))?;
    }
    devices::make_all(&root, plan)
}

fn stand_in(root: &Root, target: &str) -> Result<()> {
    let place = root.open_or_create_dir(target, 0o755).context(|| "make the target directory")?;
    let empty = mounts::new_filesystem("tmpfs", Some("tmpfs"), &[], None, Attributes::default())?;
    move_mount(empty.as_fd(), place.as_fd()).context(|| "attach")
}
