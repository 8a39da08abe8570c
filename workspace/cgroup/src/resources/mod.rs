//! `LinuxResources` to an ordered list of writes: pure, one module per section (config-linux.md, "control groups").
//!
//! As in runc, a zero or absent value of most fields means "leave it"; `pids.limit: 0` means that nothing may be forked.

mod block;
mod cpu;
mod hugepage;
mod memory;
mod network;
mod pids;
mod unified;

use oci_spec::runtime::LinuxResources;

use crate::{Facts, Refusal, Version};

/// One value for one file of one of the container's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Index of the hierarchy in [`Facts::hierarchies`], which is the index in [`crate::CgroupPlan::places`].
    pub place: usize,
    /// Controller the file belongs to; consecutive writes of one controller form a group.
    pub controller: String,
    /// File and value; the first file that exists is written.
    pub files: Vec<(String, String)>,
    /// JSON pointer of the field that asks for it.
    pub field: String,
    /// EINVAL may come from the order alone (a new quota does not fit the old period): try once more after the
    /// group's other writes.
    pub retry: bool,
    /// A kernel that lacks the file, or has given up the setting, is no error.
    pub optional: bool,
}

/// Lists the writes that `new` asks for, in the order in which they are carried out. `current` is what is in force
/// already (all unset for a new container): some version 2 values can only be computed from both.
///
/// # Errors
/// The first field that is out of range, that the host has no controller for, or that has no equivalent there.
pub fn writes_of(
    new: &LinuxResources,
    current: &LinuxResources,
    facts: &Facts,
) -> Result<Vec<Write>, Refusal> {
    let mut planner = Planner { facts, writes: Vec::new() };
    if let Some(memory) = new.memory() {
        memory::plan(memory, current.memory().as_ref(), &mut planner)?;
    }
    if let Some(cpu) = new.cpu() {
        cpu::plan(cpu, current.cpu().as_ref(), &mut planner)?;
        cpu::plan_sets(cpu, &mut planner)?;
    }
    if let Some(pids) = new.pids() {
        pids::plan(pids, &mut planner)?;
    }
    if let Some(block) = new.block_io() {
        block::plan(block, &mut planner)?;
    }
    for (index, limit) in new.hugepage_limits().iter().flatten().enumerate() {
        hugepage::plan(index, limit, &mut planner)?;
    }
    if let Some(network) = new.network() {
        network::plan(network, &mut planner)?;
    }
    if let Some(rdma) = new.rdma() {
        network::plan_rdma(rdma, &mut planner)?;
    }
    if let Some(unified) = new.unified() {
        unified::plan(unified, &mut planner)?;
    }
    Ok(planner.writes)
}

/// Says what of `new` cannot be carried out beside the rest of it and is left out.
pub(crate) fn left_out(new: &LinuxResources, facts: &Facts) -> Option<&'static str> {
    let v2 = facts.index_of("cpu").is_some_and(|place| facts.hierarchies[place].version == Version::V2);
    let shares =
        new.cpu().as_ref().is_some_and(|cpu| v2 && cpu.idle() == Some(1) && cpu.shares().unwrap_or(0) != 0);
    let weight = new.unified().as_ref().is_some_and(unified::leaves_out_weight);
    (shares || weight).then_some("unable to apply both cpu.idle and cpu.weight: an idle group has no weight")
}

/// Collects writes, and knows which hierarchy has which controller.
struct Planner<'a> {
    facts: &'a Facts,
    writes: Vec<Write>,
}

/// A controller that the host has.
#[derive(Clone, Copy)]
struct Slot<'a> {
    place: usize,
    version: Version,
    controller: &'a str,
}

impl Planner<'_> {
    /// Finds the controller that `field` needs.
    fn need<'a>(&self, controller: &'a str, field: &str) -> Result<Slot<'a>, Refusal> {
        match self.facts.index_of(controller) {
            Some(place) => Ok(Slot { place, version: self.facts.hierarchies[place].version, controller }),
            None => Err(refuse(
                field,
                format!(
                    "the host has no cgroup controller {controller:?} (cgroup_no_v1=, cgroup_disable= on the \
                     kernel's command line and the mounts below /sys/fs/cgroup decide that)"
                ),
            )),
        }
    }

    /// Adds the write of `value` to `file`.
    fn push(&mut self, slot: Slot<'_>, file: &str, value: impl ToString, field: &str) -> &mut Write {
        self.push_first(slot, vec![(file.to_owned(), value.to_string())], field)
    }

    /// Adds the write to the first of `files` that exists.
    fn push_first(&mut self, slot: Slot<'_>, files: Vec<(String, String)>, field: &str) -> &mut Write {
        let write = Write {
            place: slot.place,
            controller: slot.controller.to_owned(),
            files,
            field: pointer(field),
            retry: false,
            optional: false,
        };
        self.writes.push(write);
        self.writes.last_mut().expect("one was pushed on the line above")
    }
}

fn pointer(field: &str) -> String {
    format!("/linux/resources/{field}")
}

fn refuse(field: &str, reason: impl Into<String>) -> Refusal {
    Refusal::new(pointer(field), reason)
}

/// Refuses a value that version 2 has no equivalent for.
fn no_equivalent(field: &str) -> Refusal {
    refuse(field, "cgroup version 2 has no equivalent")
}

#[cfg(test)]
mod tests;
