//! A container's control group: made from a plan, or opened again from what `state.json` kept.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{CgroupError, Result, is_permission};
use crate::node::Node;
use crate::{CgroupPlan, Hierarchies, Layout, Place, apply, destroy, enable, make};

/// How long a failed `create` tries to take its directories away again.
const UNDO_DEADLINE: Duration = Duration::from_secs(2);

/// The directories of a container; what `state.json` and the journal keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPaths {
    /// How the host is laid out.
    pub layout: Layout,
    /// One directory in each hierarchy.
    pub places: Vec<Place>,
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
}

impl Cgroup {
    /// The directories that [`Cgroup::make`] is going to make, for the journal.
    pub fn planned_paths(plan: &CgroupPlan) -> SavedPaths {
        SavedPaths { layout: plan.layout, places: plan.places.clone() }
    }

    /// Makes the directories in every hierarchy and writes the limits; no process is in there yet.
    ///
    /// # Errors
    /// A directory cannot be made, holds processes or is frozen; the kernel refuses a limit. What was made until
    /// then is removed. A rootless caller without permission, path and limits gets a group without directories.
    pub fn make(plan: &CgroupPlan, hierarchies: &Hierarchies) -> Result<Self> {
        let mut cgroup = Self {
            layout: plan.layout,
            nodes: Vec::with_capacity(plan.places.len()),
            made: Vec::new(),
            lenient: plan.rootless && !plan.explicit,
        };
        for (index, place) in plan.places.iter().enumerate() {
            let mut made = Vec::new();
            let found = make::directory(place, hierarchies.root(index), &mut made);
            cgroup.made.extend(made.into_iter().map(|path| (index, path)));
            let root = hierarchies.root(index);
            let (node, existed) = match found {
                Ok(found) => found,
                Err(failure) => match make::do_without(plan, index, failure, root) {
                    Ok(node) => (node, false),
                    Err(error) => {
                        // It may have been made and not opened: the way to it is needed to remove it.
                        cgroup.nodes.push(Node::opened(place.clone(), root.clone(), None));
                        return Err(error);
                    }
                },
            };
            cgroup.nodes.push(node);
            if existed {
                make::refuse_used(&cgroup.nodes[index])?;
            }
        }
        make::fill_cpusets(&cgroup.nodes)?;
        enable::controllers(plan.layout, &plan.enable, &plan.writes, &cgroup.nodes)?;
        apply::writes(&plan.writes, &cgroup.nodes)?;
        Ok(cgroup)
    }

    /// Opens the directories of an existing container, each one when it is first needed. Missing ones are no error.
    pub fn open(paths: &SavedPaths) -> Self {
        let nodes = paths.places.iter().cloned().map(Node::saved).collect();
        Self { layout: paths.layout, nodes, made: Vec::new(), lenient: false }
    }

    /// What `state.json` keeps: the directories that exist.
    pub fn saved_paths(&self) -> SavedPaths {
        let there = self.nodes.iter().filter(|node| matches!(node.dir(), Ok(Some(_))));
        SavedPaths { layout: self.layout, places: there.map(|node| node.place.clone()).collect() }
    }

    /// Leaves the directories in place when this value is dropped: the last step of a successful `create`.
    pub fn keep(&mut self) {
        self.made.clear();
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
        let text = pid.to_string();
        for node in self.nodes.iter_mut().filter(|node| wanted(node)) {
            let Some(dir) = node.dir()? else { continue };
            match crate::node::write_file(dir, PROCS, &text) {
                Ok(()) => {}
                Err(error) if self.lenient && is_permission(&error) => node.forget(),
                Err(source) => {
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
        let deadline = Instant::now() + UNDO_DEADLINE;
        for (index, path) in self.made.iter().rev() {
            // The error that brought us here is the one to report; what cannot be removed is in the journal.
            let _ = self.nodes.get(*index).map(|node| destroy::remove_one(node, path, deadline));
        }
    }
}
