//! Freezing and thawing a container: version 1's `freezer.state`, version 2's `cgroup.freeze`.
//!
//! A hybrid host freezes with the version 1 controller, where other programs look for it.

use std::time::Instant;

use crate::Layout;
use crate::cgroup::Cgroup;
use crate::error::{CgroupError, Result};
use crate::node::Node;
use crate::wait::wait_until;

impl Cgroup {
    /// Stops every process of the container. On failure all of them run again.
    ///
    /// # Errors
    /// The host cannot freeze, or a process does not stop before `deadline`.
    pub fn freeze(&self, deadline: Instant) -> Result<()> {
        let node = self.freezer()?;
        let undo = ThawOnDrop(node);
        if !wait_until(deadline, || freeze_step(node).map(|state| state == State::Frozen))? {
            let detail = " (a process does not stop; all were let run again)".to_owned();
            return Err(CgroupError::Late { what: "freeze", path: node.place.host_path(), detail });
        }
        std::mem::forget(undo);
        Ok(())
    }

    /// Lets every process of the container run again.
    ///
    /// # Errors
    /// The host cannot freeze, or the group is still frozen at `deadline` (by a group above it).
    pub fn thaw(&self, deadline: Instant) -> Result<()> {
        let node = self.freezer()?;
        thaw_step(node)?;
        if wait_until(deadline, || state(node).map(|state| state != State::Frozen))? {
            return Ok(());
        }
        let detail = " (a group above it is frozen)".to_owned();
        Err(CgroupError::Late { what: "thaw", path: node.place.host_path(), detail })
    }

    /// True when the container's processes are stopped, by whichever interface. A group that is gone is not frozen.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn is_frozen(&self) -> Result<bool> {
        for node in [self.v1("freezer"), self.v2()].into_iter().flatten() {
            if is_frozen_node(node)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The directory whose file freezes the container.
    pub(crate) fn freezer(&self) -> Result<&Node> {
        let node = match self.layout {
            Layout::V2 => self.v2(),
            Layout::V1 => self.v1("freezer"),
            Layout::Hybrid => self.v1("freezer").or_else(|| self.v2()),
        };
        let what = "freeze the container";
        node.ok_or(if self.has_no_group() {
            CgroupError::NoGroup { what }
        } else {
            CgroupError::Unsupported { what, controller: "freezer" }
        })
    }
}

/// Lets the processes run again when a freeze is given up or done with.
pub(crate) struct ThawOnDrop<'a>(pub &'a Node);

impl Drop for ThawOnDrop<'_> {
    fn drop(&mut self) {
        // The failure that ends the freeze is reported; a group that is gone needs no thaw.
        let _ = thaw_step(self.0);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Frozen,
    Freezing,
    Running,
}

/// Asks for the freeze again and says how far it got: on version 1 a process that was born meanwhile is only caught by
/// another write.
fn freeze_step(node: &Node) -> Result<State> {
    let (file, value) = if node.is_v2() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    node.put(file, value)?;
    state(node)
}

/// Takes the freeze back.
pub(crate) fn thaw_step(node: &Node) -> Result<()> {
    let (file, value) = if node.is_v2() { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
    node.put(file, value)
}

fn state(node: &Node) -> Result<State> {
    let file = if node.is_v2() { "cgroup.events" } else { "freezer.state" };
    let text = node.read(file)?.unwrap_or_default();
    Ok(
        match text.lines().find_map(|line| match line {
            "FROZEN" | "frozen 1" => Some(State::Frozen),
            "FREEZING" => Some(State::Freezing),
            _ => None,
        }) {
            Some(state) => state,
            None => State::Running,
        },
    )
}

/// True when processes in this directory are stopped, or about to be.
pub(crate) fn is_frozen_node(node: &Node) -> Result<bool> {
    let freezes = node.is_v2() || node.place.has("freezer");
    Ok(freezes && state(node)? != State::Running)
}
