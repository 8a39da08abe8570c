//! The steps of making a container's directories.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hull_sys::SysError;
use hull_sys::fs::{Mode, OFlags, mkdirat};

use crate::error::{CgroupError, Result, is_permission};
use crate::hierarchies::{open_below, read_whole};
use crate::node::{Node, write_file};
use crate::turn::{self, Turn};
use crate::{CgroupPlan, Place, Version, freeze, processes};

/// What could not be done to a directory.
pub(crate) struct Failure {
    action: &'static str,
    source: SysError,
}

/// Makes and opens one directory; says whether it was there before. Every directory that is made is added to `made`
/// at once, so that a failure of the next step leaves nothing.
pub(crate) fn directory(
    place: &Place,
    root: &Rc<OwnedFd>,
    made: &mut Vec<String>,
) -> std::result::Result<(Node, bool), Failure> {
    let path = place.path.trim_start_matches('/');
    let fail = |action| move |source| Failure { action, source };
    let existed = match mkdir(root.as_fd(), path, made) {
        Err(error) if error.is(libc::ENOENT) => {
            let parents = path.match_indices('/').map(|(end, _)| &path[..end]);
            for parent in parents {
                mkdir(root.as_fd(), parent, made).map_err(fail("mkdir"))?;
            }
            mkdir(root.as_fd(), path, made).map_err(fail("mkdir"))?
        }
        other => other.map_err(fail("mkdir"))?,
    };
    let dir = open_below(root.as_fd(), path, OFlags::DIRECTORY | OFlags::RDONLY).map_err(fail("open"))?;
    Ok((Node::opened(place.clone(), root.clone(), Some(dir)), existed))
}

/// How long one maker waits for another one, or for a delete.
const TURN: Duration = Duration::from_secs(2);

/// As [`directory`], for the first one, whose lock is the turn of this maker (see `turn.rs`).
pub(crate) fn directory_in_turn(
    place: &Place,
    root: &Rc<OwnedFd>,
    made: &mut Vec<String>,
) -> std::result::Result<(Node, bool), Failure> {
    let fail = |source| Failure { action: "lock", source };
    let deadline = Instant::now() + TURN;
    // Each further round is a removal by somebody else.
    while Instant::now() < deadline {
        let (node, existed) = match directory(place, root, made) {
            Err(Failure { action: "open", source }) if source.is(libc::ENOENT) => continue,
            other => other?,
        };
        let Ok(Some(dir)) = node.dir() else { return Ok((node, existed)) };
        match turn::take(dir, (root.as_fd(), node.below_root()), deadline).map_err(fail)? {
            Turn::Removed => {}
            // In vain: who is in there is told by what comes next.
            Turn::Taken | Turn::Waiting => {
                // Another maker may have had a turn since it was made here: then it is that one's.
                let existed = existed || processes::below(&node, true).is_ok_and(|found| !found.is_empty());
                made.retain(|path| !existed || path != node.below_root());
                return Ok((node, existed));
            }
        }
    }
    // It is that one's by now, whoever made it.
    made.retain(|path| path != place.path.trim_start_matches('/'));
    Err(fail(SysError::new("flock", libc::EBUSY)))
}

/// Makes a directory if it is missing; true when it was there.
fn mkdir(root: BorrowedFd<'_>, path: &str, made: &mut Vec<String>) -> std::result::Result<bool, SysError> {
    match mkdirat(root, path, Mode::from_raw_mode(0o755)) {
        Ok(()) => {
            made.push(path.to_owned());
            Ok(false)
        }
        Err(error) if error.is(libc::EEXIST) => Ok(true),
        // A directory that may not be made in a read-only place may still exist.
        Err(error) if error.is(libc::EROFS) && open_below(root, path, OFlags::PATH).is_ok() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Decides what a directory that could not be made means: a rootless caller that asked for nothing in that hierarchy
/// does without it. Limits of version 1 hierarchies are missed later, when they are written.
pub(crate) fn do_without(
    plan: &CgroupPlan,
    index: usize,
    failure: Failure,
    root: &Rc<OwnedFd>,
) -> Result<Node> {
    let place = &plan.places[index];
    let (action, path, source) = (failure.action, place.host_path(), failure.source);
    let denied = plan.rootless && !plan.explicit && is_permission(&source);
    let limited = plan.writes.iter().any(|write| write.place == index);
    match (denied, place.version) {
        (true, Version::V2) if limited => Err(CgroupError::Rootless { action, path, source }),
        (true, _) => Ok(Node::opened(place.clone(), root.clone(), None)),
        (false, _) => Err(CgroupError::Apply { action, path, hint: busy_hint(action), source }),
    }
}

fn busy_hint(action: &str) -> String {
    let hint = if action == "lock" { " (another container is being made or deleted there)" } else { "" };
    hint.to_owned()
}

/// Refuses a directory that was there before and is in use: its processes would share the limits, be killed with the
/// container, and a frozen one would stop the container's first process before its first step.
pub(crate) fn refuse_used(node: &Node) -> Result<()> {
    refuse_frozen(node)?;
    match processes::below(node, true)?.len() {
        0 => Ok(()),
        count => Err(CgroupError::NotEmpty { count, path: node.place.host_path() }),
    }
}

/// Refuses a directory that is new and frozen, as it is below a frozen one.
pub(crate) fn refuse_frozen_from_above(node: &Node) -> Result<()> {
    // A hierarchy's root cannot be frozen, and directly below it no time is spent on the question.
    if node.below_root().contains('/') { refuse_frozen(node) } else { Ok(()) }
}

fn refuse_frozen(node: &Node) -> Result<()> {
    match freeze::is_frozen_node(node)? {
        true => Err(CgroupError::Frozen { path: node.place.host_path() }),
        false => Ok(()),
    }
}

/// Refuses directories of the plan that are in use already, where systemd is going to make them: it would put the first
/// process into a frozen one, which then never answers.
pub(crate) fn refuse_used_places(plan: &CgroupPlan, roots: &[Rc<OwnedFd>]) -> Result<()> {
    for (place, root) in plan.places.iter().zip(roots) {
        let path = place.path.trim_start_matches('/');
        // None yet, as it should be; one out of reach is systemd's to judge.
        let Ok(dir) = open_below(root.as_fd(), path, OFlags::DIRECTORY | OFlags::RDONLY) else { continue };
        refuse_used(&Node::opened(place.clone(), root.clone(), Some(dir)))?;
    }
    Ok(())
}

/// Fills in `cpus` and `mems` on version 1: a new group has none, and takes no process until it does (cpuset(7)).
pub(crate) fn fill_cpusets(nodes: &[Node]) -> Result<()> {
    for node in nodes.iter().filter(|node| !node.is_v2() && node.place.has("cpuset")) {
        if node.dir()?.is_none() {
            continue;
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            filled(node.root()?, node.below_root(), file).map_err(|source| CgroupError::Apply {
                action: "fill in",
                path: node.path_of(file),
                hint: String::new(),
                source,
            })?;
        }
    }
    Ok(())
}

/// Reads a set, which a group that has none takes over from its parent first. Parents that are out of reach are the
/// kernel's to judge.
fn filled(root: BorrowedFd<'_>, path: &str, file: &str) -> std::result::Result<String, SysError> {
    let dir =
        if path.is_empty() { None } else { Some(open_below(root, path, OFlags::PATH | OFlags::DIRECTORY)?) };
    let dir = dir.as_ref().map_or(root, |dir| dir.as_fd());
    let own = read_whole(dir, file)?;
    if !own.trim().is_empty() || path.is_empty() {
        return Ok(own.trim().to_owned());
    }
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let inherited = filled(root, parent, file)?;
    if !inherited.is_empty() {
        write_file(dir, file, &inherited)?;
    }
    Ok(inherited)
}

/// What may help when a process is not taken.
pub(crate) fn attach_hint(error: &SysError) -> String {
    match error.errno {
        libc::EOPNOTSUPP => " (the group or its parent is threaded; a container needs a domain group)",
        libc::EBUSY => " (the group hands controllers to groups below it, so it may hold no process)",
        libc::ENOSPC => " (cpuset.cpus or cpuset.mems of the group is empty)",
        libc::EACCES | libc::EPERM => {
            " (the caller must be able to write cgroup.procs of the group and of the nearest common parent)"
        }
        _ => "",
    }
    .to_owned()
}
