//! How a new process gets into the container's control groups.
//!
//! Where it may, it is born in the version 2 group and enters the others itself (see [`hull_cgroup::Door`] for what
//! that saves), before it becomes another user, since older kernels judge it by what it has become. Where it may not, the
//! parent puts it there by its pid: an ordinary user, whose groups may be half his; a process that a relay clones in a
//! user namespace that is joined; `exec --cgroup`.

use crate::error::{Error, Result};
use crate::root::cgroups;
use hull_cgroup::{Cgroup, Door};
use hull_plan::{HostFacts, Plan};
use hull_sys::errno::EPERM;
use hull_sys::process::{Child, CloneRequest, Pid, spawn};
use std::convert::Infallible;

/// What is left for the parent to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    /// Every group.
    All,
    /// The version 2 group: the kernel refused the birth there.
    Version2,
    /// Nothing.
    Nothing,
}

/// Clones a process; one that enters by itself into the version 2 group. `child` runs once.
pub fn spawn_into(
    cgroup: &Cgroup,
    enters_itself: bool,
    request: &CloneRequest<'_>,
    child: &mut dyn FnMut() -> Infallible,
) -> hull_sys::Result<(Child, Remaining)> {
    let place = cgroup.v2_fd().filter(|_| enters_itself);
    if place.is_some()
        && let Ok(born) = spawn(&CloneRequest { into_cgroup: place, ..*request }, &mut *child)
    {
        return Ok((born, Remaining::Nothing));
    }
    // A group that takes no births (pids.max of 0) may still be moved into, and says more when it refuses that.
    let remaining = match (enters_itself, place) {
        (false, _) => Remaining::All,
        (true, Some(_)) => Remaining::Version2,
        (true, None) => Remaining::Nothing,
    };
    Ok((spawn(request, child)?, remaining))
}

/// Parent: puts the process where it does not go itself.
pub fn attach(cgroup: &mut Cgroup, pid: Pid, remaining: Remaining) -> Result<()> {
    match remaining {
        Remaining::All => cgroup.attach(pid.as_raw()),
        Remaining::Version2 => cgroup.attach_v2(pid.as_raw()),
        Remaining::Nothing => Ok(()),
    }
    .map_err(Error::from)
}

/// As [`attach`], for a further process: a version 2 group that hands controllers on holds none itself, so the process
/// goes where the container's first one, `init`, went; and so it does where the container's group is gone.
pub fn attach_beside(
    cgroup: &mut Cgroup,
    pid: Pid,
    remaining: Remaining,
    init: i32,
    rootless: bool,
) -> Result<()> {
    match remaining {
        Remaining::All | Remaining::Version2 => cgroup.attach_beside(pid.as_raw(), init)?,
        Remaining::Nothing => {}
    }
    match cgroup.follow(pid.as_raw(), init) {
        // An ordinary user's container may never have had a group, and its first process be where they may not write.
        Err(_) if rootless => Ok(()),
        followed => followed.map_err(Error::from),
    }
}

/// Parent: gives the version 2 group to the container's user, where the configuration has it so.
pub fn give_away(cgroup: &Cgroup, plan: &Plan, facts: &HostFacts) -> Result<()> {
    let Some(owner) = cgroups::owner(plan).filter(|owner| *owner != facts.uid) else { return Ok(()) };
    match cgroup.delegate(owner) {
        // An ordinary user gives nothing away: the container does without.
        Err(error) if facts.rootless && error.errno() == Some(EPERM) => Ok(()),
        given => given.map_err(Error::from),
    }
}

/// Child: enters by a door that the parent has opened, and closes it.
pub fn enter(door: Door) -> Result<()> {
    door.enter().map_err(Error::from)
}

/// The caller's own CPU affinity is not the container's: only its cpuset counts.
pub fn allow_all_cpus(pid: Pid) {
    const EVERY_CPU: [u64; 128] = [u64::MAX; 128];
    // A caller that may not do it leaves the process with what it has, as it always was.
    let _kept = hull_sys::scheduling::set_affinity(pid, &EVERY_CPU);
}
