//! A container's control group: made from a plan, or opened again from what `state.json` kept.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{CgroupError, Result, is_permission};
use crate::node::Node;
use crate::{CgroupPlan, Hierarchies, Layout, Place, Unit, apply, destroy, enable, make, systemd};

/// How long a failed `create` tries to take its directories away again.
const UNDO_DEADLINE: Duration = Duration::from_secs(2);

/// The directories of a container; what `state.json` and the journal keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPaths {
    /// How the host is laid out.
    pub layout: Layout,
    /// One directory in each hierarchy.
    pub places: Vec<Place>,
    /// The systemd unit that they belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
}

/// A container's control group. One that was made is removed on drop until [`Cgroup::keep`] is called.
#[derive(Debug)]
pub struct Cgroup {
    pub(crate) layout: Layout,
    pub(crate) nodes: Vec<Node>,
    /// Directories that this value made: (hierarchy, path below the mount point), parents before children.
    made: Vec<(usize, String)>,
    /// A directory that may not be entered is done without (a rootless caller that asked for nothing).
    lenient: bool,
    /// The systemd unit that the directories belong to.
    pub(crate) unit: Option<Unit>,
    /// What is done when the first process is attached: systemd makes no scope without one.
    pub(crate) pending: Option<Pending>,
    /// This value started the unit, and stops it when it is dropped.
    started: bool,
}

/// What it takes to make the directories later.
#[derive(Debug)]
pub(crate) struct Pending {
    plan: CgroupPlan,
    roots: Vec<Rc<OwnedFd>>,
}

impl Cgroup {
    /// The directories that [`Cgroup::make`] is going to make, for the journal.
    pub fn planned_paths(plan: &CgroupPlan) -> SavedPaths {
        SavedPaths { layout: plan.layout, places: plan.places.clone(), unit: plan.unit.clone() }
    }

    /// Makes the directories in every hierarchy and writes the limits; no process is in there yet.
    ///
    /// # Errors
    /// A directory cannot be made, holds processes or is frozen; the kernel refuses a limit. What was made until
    /// then is removed. A rootless caller without permission, path and limits gets a group without directories.
    /// With systemd everything but the plan waits for [`Cgroup::attach`].
    pub fn make(plan: &CgroupPlan, hierarchies: &Hierarchies) -> Result<Self> {
        let roots: Vec<_> = (0..plan.places.len()).map(|index| hierarchies.root(index).clone()).collect();
        let mut cgroup = Self {
            layout: plan.layout,
            nodes: Vec::with_capacity(plan.places.len()),
            made: Vec::new(),
            lenient: plan.rootless && !plan.explicit && plan.unit.is_none(),
            unit: plan.unit.clone(),
            pending: None,
            started: false,
        };
        match plan.unit {
            Some(_) => {
                make::refuse_used_places(plan, &roots)?;
                cgroup.pending = Some(Pending { plan: plan.clone(), roots });
            }
            None => cgroup.fill(plan, &roots)?,
        }
        Ok(cgroup)
    }

    /// Makes or opens every directory, and writes the limits.
    fn fill(&mut self, plan: &CgroupPlan, roots: &[Rc<OwnedFd>]) -> Result<()> {
        for (index, (place, root)) in plan.places.iter().zip(roots).enumerate() {
            let mut made = Vec::new();
            // What is systemd's has a process in it already, and is nobody else's.
            let first = plan.unit.is_none() && self.nodes.iter().all(|node| matches!(node.dir(), Ok(None)));
            let find = if first { make::directory_in_turn } else { make::directory };
            let found = find(place, root, &mut made);
            self.made.extend(made.into_iter().map(|path| (index, path)));
            let (node, existed) = match found {
                Ok(found) => found,
                Err(failure) => match make::do_without(plan, index, failure, root) {
                    Ok(node) => (node, false),
                    Err(error) => {
                        // It may have been made and not opened: the way to it is needed to remove it.
                        self.nodes.push(Node::opened(place.clone(), root.clone(), None));
                        return Err(error);
                    }
                },
            };
            self.nodes.push(node);
            match &plan.unit {
                None if existed => make::refuse_used(&self.nodes[index])?,
                Some(unit) if !existed && plan.layout == Layout::V2 => return Err(unit.elsewhere(place)),
                _ => make::refuse_frozen_from_above(&self.nodes[index])?,
            }
        }
        make::fill_cpusets(&self.nodes)?;
        // What is above a unit's directory is systemd's: it hands down what was asked for.
        let layout = if plan.unit.is_some() { Layout::Hybrid } else { plan.layout };
        enable::controllers(layout, &plan.enable, &plan.writes, &self.nodes)?;
        match &plan.unit {
            Some(_) => apply::writes(&systemd::as_kept(plan.writes.clone()), &self.nodes),
            None => apply::writes(&plan.writes, &self.nodes),
        }
    }

    /// Has systemd make the unit around the first process, then does what was put off.
    fn start_unit(&mut self, pid: i32, pending: &Pending) -> Result<()> {
        let Pending { plan, roots } = pending;
        let Some(unit) = &plan.unit else { return Ok(()) };
        systemd::Manager::of(unit.user)
            .start(unit, &unit.properties(&plan.id, pid, plan.layout, &plan.writes, &plan.properties))?;
        self.started = true;
        self.fill(plan, roots)
    }

    /// Opens the directories of an existing container, each one when it is first needed. Missing ones are no error.
    pub fn open(paths: &SavedPaths) -> Self {
        let nodes = paths.places.iter().cloned().map(Node::saved).collect();
        Self {
            layout: paths.layout,
            nodes,
            made: Vec::new(),
            lenient: false,
            unit: paths.unit.clone(),
            pending: None,
            started: false,
        }
    }

    /// What `state.json` keeps: the directories that exist, or that systemd is going to make.
    pub fn saved_paths(&self) -> SavedPaths {
        if let Some(pending) = &self.pending {
            return Self::planned_paths(&pending.plan);
        }
        let there = self.nodes.iter().filter(|node| matches!(node.dir(), Ok(Some(_))));
        let places = there.map(|node| node.place.clone()).collect();
        SavedPaths { layout: self.layout, places, unit: self.unit.clone() }
    }

    /// Leaves the directories in place when this value is dropped, and gives the turn back: the last step of a successful
    /// `create`, when the container's process is in there.
    pub fn keep(&mut self) {
        self.give_turn_back();
        self.made.clear();
        self.started = false;
    }

    /// Takes away what this value made, as dropping it does.
    ///
    /// # Errors
    /// What could not be taken away: processes are in there that it did not bring. Whoever has the journal finds it.
    pub fn undo(&mut self) -> Result<()> {
        let stopped = self.unit.as_ref().filter(|_| self.started);
        let stopped = stopped.map_or(Ok(()), |unit| systemd::Manager::of(unit.user).stop(unit));
        // systemd drops a unit without a process by itself.
        let mut done = stopped.or_else(|error| if self.is_occupied()? { Err(error) } else { Ok(()) });
        self.started = false;
        let deadline = Instant::now() + UNDO_DEADLINE;
        for (index, path) in std::mem::take(&mut self.made).iter().rev() {
            let Some(node) = self.nodes.get(*index) else { continue };
            if path == node.below_root() {
                done = done.and(destroy::remove_one(node, path, deadline));
            } else {
                // What has something in it by now is not this container's alone.
                let _others = destroy::remove_empty(node, path);
            }
        }
        done
    }

    /// Puts a process into every hierarchy.
    ///
    /// # Errors
    /// The process is gone, the kernel refuses, or a directory was removed.
    pub fn attach(&mut self, pid: i32) -> Result<()> {
        self.attach_where(pid, |_| true)
    }

    /// Puts a process that enters by the [`crate::Door`] into the version 2 hierarchy, where it was not born in it.
    ///
    /// # Errors
    /// As [`Cgroup::attach`].
    pub fn attach_v2(&mut self, pid: i32) -> Result<()> {
        self.attach_where(pid, Node::is_v2)
    }

    fn attach_where(&mut self, pid: i32, wanted: impl Fn(&Node) -> bool) -> Result<()> {
        if let Some(pending) = self.pending.take() {
            self.start_unit(pid, &pending)?;
        }
        let text = pid.to_string();
        let users = self.unit.as_ref().filter(|unit| unit.user);
        for node in self.nodes.iter_mut().filter(|node| wanted(node)) {
            let Some(dir) = node.dir()? else { continue };
            match (crate::node::write_file(dir, PROCS, &text), users) {
                (Ok(()), _) => {}
                (Err(error), _) if self.lenient && is_permission(&error) => node.forget(),
                (Err(error), Some(unit)) if is_permission(&error) && node.is_v2() => {
                    systemd::Manager::of(unit.user).attach(unit, pid)?
                }
                (Err(source), _) => {
                    let (path, hint) = (node.path_of(PROCS), make::attach_hint(&source));
                    return Err(CgroupError::Attach { pid, path, hint, source });
                }
            }
        }
        Ok(())
    }

    /// The version 2 directory, for `CLONE_INTO_CGROUP`.
    pub fn v2_fd(&self) -> Option<BorrowedFd<'_>> {
        self.nodes.iter().find(|node| node.is_v2())?.dir().ok().flatten()
    }

    /// Refuses what only a control group of the container's own can answer.
    ///
    /// # Errors
    /// [`CgroupError::NoGroup`].
    pub fn require_group(&self, what: &'static str) -> Result<()> {
        if self.has_no_group() { Err(CgroupError::NoGroup { what }) } else { Ok(()) }
    }

    /// No directory was made for the container, or all of them are gone.
    pub(crate) fn has_no_group(&self) -> bool {
        self.nodes.iter().all(|node| matches!(node.dir(), Ok(None)))
    }

    /// The version 2 directory, where there is one.
    pub(crate) fn v2(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.is_v2() && matches!(node.dir(), Ok(Some(_))))
    }

    /// The directory in the version 1 hierarchy of `controller`, where there is one.
    pub(crate) fn v1(&self, controller: &str) -> Option<&Node> {
        let mut nodes = self.nodes.iter().filter(|node| !node.is_v2() && node.place.has(controller));
        nodes.find(|node| matches!(node.dir(), Ok(Some(_))))
    }

    /// The directory that is looked at for the container's processes: where they can be frozen, else any.
    pub(crate) fn main(&self) -> Option<&Node> {
        let preferred = match self.layout {
            Layout::V2 => self.v2(),
            Layout::V1 | Layout::Hybrid => self.v1("freezer"),
        };
        preferred.or_else(|| self.nodes.iter().find(|node| matches!(node.dir(), Ok(Some(_)))))
    }
}

/// The file that lists, and takes, processes.
pub(crate) const PROCS: &str = "cgroup.procs";

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The error that brought us here is the one to report.
        let _stays = self.undo();
    }
}
