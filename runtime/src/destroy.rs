//! The end of a container, for `delete`, for `run` and `restore` in the foreground, for a checkpoint, and for a start that
//! fails.

use crate::document;
use crate::error::{Code, Context, Error, Result};
use crate::globals::Globals;
use crate::log::Level;
use crate::spec_of;
use crate::state::{ContainerId, ProcessIdentity, Record, StateDir, Status};
use crate::{hooks, host_mounts};
use hull_cgroup::{Cgroup, SavedPaths};
use hull_sys::process::wait_until;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;

/// How long the container's processes may take to die.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long somebody may take who makes another container in the same control groups: a moment, without a debugger.
const TURN: Duration = Duration::from_secs(2);

/// How long the first process may take to die before it is looked at who else is in its control groups.
const FIRST_DEADLINE: Duration = Duration::from_secs(1);

/// Ends the processes, removes the control groups, runs the poststop hooks. The state directory stays: its removal is
/// the last step of the callers.
pub fn destroy(directory: &StateDir, record: &Record, globals: &Globals) -> Result<()> {
    empty_groups(directory, record, globals)?;
    record.resctrl.remove()?;
    host_mounts::take_away(record);
    if record.has_poststop {
        run_poststop(directory, record, globals);
        note_poststop(directory, record, globals);
    }
    Ok(())
}

/// Who destroys it again, after a start that failed, has no hooks left to run. A removal does not hang on that: it is what
/// makes room where the file system of the state is full.
fn note_poststop(directory: &StateDir, record: &Record, globals: &Globals) {
    if let Err(error) = directory.write(&Record { has_poststop: false, ..record.clone() }) {
        globals.log.write(Level::Warning, &format!("that the poststop hooks ran is not kept: {error}"));
    }
}

/// Ends the processes and removes the control groups, but for those that are another container's by now.
fn empty_groups(directory: &StateDir, record: &Record, globals: &Globals) -> Result<()> {
    let mut cgroup = Cgroup::open(&record.cgroup);
    // From here on nobody is on the way in: whose the groups are is told by who is in there.
    let _in_vain = cgroup.take_turn(Instant::now() + TURN)?;
    let first = record.init.as_ref().map(ProcessIdentity::open).transpose()?.flatten();
    if record.ends_with_first() && first.is_some() && !cgroup.is_frozen().unwrap_or(false) {
        // Nearly always the groups are empty then, and nobody else's record has to be read.
        end_first(first.as_ref(), Instant::now() + FIRST_DEADLINE)?;
    }
    let occupied = cgroup.is_occupied()?;
    let shared = occupied && is_shared(record, directory.id(), globals);
    // Journaled before its process was in any control group: whoever is there now is somebody else's.
    let survivors = first.is_some() || record.init.is_some() && !record.ends_with_first();
    end_processes(record, first.as_ref(), (occupied && !shared && survivors).then_some(&cgroup))?;
    if !shared {
        cgroup.destroy(Instant::now() + DEADLINE)?;
    }
    Ok(())
}

/// True when a living container was given the same control groups: they are its own by now, with all that is in there. So
/// are they one's that is being created, unless the first process still lives here: then its creation is about to fail.
pub fn is_shared(record: &Record, own: &ContainerId, globals: &Globals) -> bool {
    let lives = record.init.as_ref().is_some_and(ProcessIdentity::is_alive);
    is_given_to_another(&record.cgroup, own, globals, |status| {
        status.has_process() || status == Status::Creating && !lives
    })
}

fn is_given_to_another(
    paths: &SavedPaths,
    own: &ContainerId,
    globals: &Globals,
    counts: impl Fn(Status) -> bool,
) -> bool {
    let Ok(state) = globals.state() else { return false };
    let others = state.ids().unwrap_or_default();
    others.iter().filter(|id| *id != own).filter_map(|id| state.find(id).ok()).any(|directory| {
        directory.read().is_ok_and(|record| {
            record.cgroup.places.iter().any(|place| paths.places.contains(place))
                && counts(Status::of(&directory, &record))
        })
    })
}

/// The first process, and whatever is in `groups`.
fn end_processes(record: &Record, first: Option<&OwnedFd>, groups: Option<&Cgroup>) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    end_first(first, Instant::now())?;
    groups.map_or(Ok(()), |cgroup| cgroup.kill_all(deadline))?;
    if end_first(first, deadline)? {
        return Ok(());
    }
    Err(Error::new(
        Code::Timeout,
        format!("container {} did not die within {DEADLINE:?} of SIGKILL", record.id),
    )
    .hint("a process in uninterruptible sleep waits for a device or a file server; delete again later"))
}

/// Kills the first process; true when it is gone by `deadline`.
fn end_first(first: Option<&OwnedFd>, deadline: Instant) -> Result<bool> {
    let Some(pidfd) = first else { return Ok(true) };
    // Gone in this moment is as good.
    let _gone = hull_sys::process::pidfd_send_signal(pidfd.as_fd(), SIGKILL);
    let ended =
        hull_sys::poll::wait_readable(pidfd.as_fd(), Some(deadline)).context(|| "wait for the container")?;
    // Reaps it where it is a child of ours (run); elsewhere its parent does.
    let _not_ours = wait_until(pidfd.as_fd(), Instant::now());
    Ok(ended)
}

fn run_poststop(directory: &StateDir, record: &Record, globals: &Globals) {
    let hooks = match spec_of::hooks(directory) {
        Ok(hooks) => hooks,
        Err(error) => {
            globals.log.write(Level::Warning, &format!("poststop hooks are lost: {error}"));
            return;
        }
    };
    hooks::after_the_end(&hooks, &document::state(record, Status::Stopped), directory, &globals.log);
}

/// Nothing in the record can be believed: what the configuration and the id say about the place of the control groups is
/// what is left to go by.
pub fn destroy_damaged(directory: &StateDir, globals: &Globals) -> Result<()> {
    for mut cgroup in spec_of::likely_cgroups(directory, globals) {
        let counts = |status: Status| status != Status::Stopped;
        let _in_vain = cgroup.take_turn(Instant::now() + TURN)?;
        if is_given_to_another(&cgroup.saved_paths(), directory.id(), globals, counts) {
            continue;
        }
        cgroup.kill_all(Instant::now() + DEADLINE)?;
        cgroup.destroy(Instant::now() + DEADLINE)?;
    }
    Ok(())
}

/// Removes what is left of a container that `run` has seen end, unless somebody else has deleted it meanwhile.
pub fn after_run(id: &ContainerId, globals: &Globals) -> Result<()> {
    let directory = match globals.state()?.find(id).and_then(StateDir::locked) {
        Err(error) if error.code == Code::ContainerNotFound => return Ok(()),
        other => other?,
    };
    let record = directory.read()?;
    destroy(&directory, &record, globals)?;
    directory.remove()
}
