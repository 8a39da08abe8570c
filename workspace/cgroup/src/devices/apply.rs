//! Putting the device rules in force.

use std::os::fd::{AsFd, BorrowedFd};

use hull_sys::fs::OFlags;
use hull_sys::{SysError, bpf, io};

use super::DeviceRules;
use crate::cgroup::Cgroup;
use crate::error::{CgroupError, Result, is_permission};
use crate::hierarchies::open_below;
use crate::node::Node;

impl Cgroup {
    /// Sets the container's device rules for the first time: after its own device nodes are made and before any of
    /// its code runs. A rootless caller may not, and its processes cannot make device nodes anyway.
    ///
    /// # Errors
    /// The kernel refuses a rule; the host has neither version 1's `devices` nor a version 2 tree.
    pub fn apply_devices(&self, rules: &DeviceRules, rootless: bool) -> Result<()> {
        forgive(self.set_devices(rules, false), rootless)
    }

    /// Replaces the rules of a running container; what old and new ones allow is never denied in between.
    ///
    /// # Errors
    /// As [`Cgroup::apply_devices`].
    pub fn update_devices(&self, rules: &DeviceRules, rootless: bool) -> Result<()> {
        forgive(self.set_devices(rules, true), rootless)
    }

    fn set_devices(&self, rules: &DeviceRules, update: bool) -> Result<()> {
        match (self.v1("devices"), self.v2()) {
            (Some(node), _) => set_v1(node, rules, update),
            (None, Some(node)) => set_v2(node, rules),
            (None, None) => Err(CgroupError::Unsupported { what: "set device rules", controller: "devices" }),
        }
    }
}

fn forgive(outcome: Result<()>, rootless: bool) -> Result<()> {
    match outcome {
        Err(CgroupError::Devices { source, .. }) if rootless && is_permission(&source) => Ok(()),
        Err(CgroupError::Unsupported { .. }) if rootless => Ok(()),
        other => other,
    }
}

fn set_v1(node: &Node, rules: &DeviceRules, update: bool) -> Result<()> {
    let current = if update { node.read("devices.list")? } else { None };
    let writes = rules.policy().transition(current.as_deref());
    // One open for each run of writes to the same file.
    for run in writes.chunk_by(|a, b| a.0 == b.0) {
        let file = run[0].0;
        let Some(dir) = node.dir()? else { return Ok(()) };
        let opened = open_below(dir, file, OFlags::WRONLY).map_err(|source| failed(node, file, source))?;
        for (_, value) in run {
            let write = io::write(opened.as_fd(), value.as_bytes());
            write.map_err(|source| failed(node, &format!("write {value:?} to {file}"), source))?;
        }
    }
    Ok(())
}

/// Attaches the new program before the old one goes: both have to agree for a moment, so nothing is allowed that one
/// of them denies. A single old one is replaced in one step.
fn set_v2(node: &Node, rules: &DeviceRules) -> Result<()> {
    let Some(dir) = node.dir()? else { return Ok(()) };
    let fail = |what: &'static str| move |source| failed(node, what, source);
    let program = bpf::load_device_program(&rules.program()).map_err(fail("load the program"))?;
    let old = attached(dir).map_err(fail("list the programs"))?;
    let replaced = old.first().filter(|_| old.len() == 1);
    bpf::attach_device_program(dir, program.as_fd(), replaced.map(|old| old.as_fd()))
        .map_err(fail("attach the program"))?;
    if replaced.is_none() {
        for stale in &old {
            bpf::detach_device_program(dir, stale.as_fd()).map_err(fail("detach an old program"))?;
        }
    }
    Ok(())
}

fn attached(dir: BorrowedFd<'_>) -> std::result::Result<Vec<std::os::fd::OwnedFd>, SysError> {
    bpf::device_programs(dir)?.into_iter().map(bpf::program_by_id).collect()
}

fn failed(node: &Node, what: &str, source: SysError) -> CgroupError {
    CgroupError::Devices { path: node.place.host_path(), what: what.to_owned(), source }
}
