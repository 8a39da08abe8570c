//! Changing the limits of a container that runs.

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use crate::cgroup::Cgroup;
use crate::error::{CgroupError, Result};
use crate::node::Node;
use crate::resources::left_out;
use crate::{DeviceRules, Facts, Layout, Write, apply, enable, systemd, writes_of};

impl Cgroup {
    /// Writes what `new` sets, and leaves the rest. `current` is what was asked for so far: some version 2 values
    /// need both, and take what the kernel tells before what was asked for.
    /// Device rules, if there are any, replace the old ones. Returns what was left out, and why.
    ///
    /// # Errors
    /// A value is refused before anything is written, by [`CgroupError::Refused`] or [`CgroupError::BelowUsage`];
    /// or the kernel or systemd refuses one, and those written before it are taken back, but for limits of devices.
    pub fn update(
        &self,
        new: &LinuxResources,
        current: &LinuxResources,
        rootless: bool,
    ) -> Result<Option<&'static str>> {
        let facts = self.facts()?;
        let current = &self.in_force(current)?;
        let written = writes_of(new, current, &facts);
        // An ordinary user's are left out at create as well.
        let has_rules = !rootless && new.devices().as_ref().is_some_and(|rules| !rules.is_empty());
        if has_rules || !written.as_ref().is_ok_and(Vec::is_empty) {
            // Not for want of a controller of the host's.
            self.require_group("change limits")?;
        }
        let mut writes = written?;
        let v1_devices = self.v1("devices").is_some();
        let rules = new.devices().as_deref().map(|rules| DeviceRules::read(rules, v1_devices)).transpose()?;
        if let Some(memory) =
            new.memory().as_ref().filter(|memory| memory.check_before_update() == Some(true))
        {
            self.refuse_below_usage(memory)?;
        }
        let before = apply::values(&writes, &self.nodes);
        if let Some(unit) = &self.unit {
            // A bus that does not answer is waited for once: nothing is written yet.
            systemd::Manager::of(unit.user).change(unit, &systemd::limits(&writes, current))?;
            writes = systemd::as_kept(writes);
        }
        let done = self
            .write_limits(&writes)
            .and_then(|()| rules.map_or(Ok(()), |rules| self.update_devices(&rules, rootless)));
        if done.is_err() {
            self.take_back(&before, current);
        }
        done.map(|()| left_out(new, &facts))
    }

    fn write_limits(&self, writes: &[Write]) -> Result<()> {
        // What the container was made without is only enabled where a limit needs it.
        enable::controllers(Layout::Hybrid, &[], writes, &self.nodes)?;
        apply::writes(writes, &self.nodes)
    }

    /// Puts the limits back as they were: callers take an update that failed for one that changed nothing. The refusal is
    /// the error to report, whatever comes of this.
    fn take_back(&self, before: &[Write], current: &LinuxResources) {
        if let Some(unit) = &self.unit {
            let _ = systemd::Manager::of(unit.user).change(unit, &systemd::limits(before, current));
        }
        apply::put_back(before, &self.nodes);
    }

    /// The hierarchies as this container knows them, by their index in its directories.
    fn facts(&self) -> Result<Facts> {
        let mut facts = Facts::of_places(self.nodes.iter().map(|node| &node.place));
        if let Some(node) = self.v2() {
            let root = crate::hierarchies::read_whole(node.root()?, "cgroup.controllers");
            facts.set_v2_controllers(&root.unwrap_or_default());
        }
        Ok(facts)
    }

    /// `current` with the limits that new values are computed from as the kernel has them: in whichever words they were
    /// asked for (`unified`), and by whoever set them.
    fn in_force(&self, current: &LinuxResources) -> Result<LinuxResources> {
        let mut found = current.clone();
        if let Some((quota, period)) = self.bandwidth()? {
            let mut cpu = found.cpu().clone().unwrap_or_default();
            // A word, or -1, is no quota.
            cpu.set_quota(quota.parse().ok().filter(|quota| *quota > 0));
            cpu.set_period(period.parse().ok());
            found.set_cpu(Some(cpu));
        }
        if let Some(limit) = read(self.v2(), "memory.max")? {
            let mut memory = found.memory().unwrap_or_default();
            memory.set_limit(limit.trim().parse().ok());
            found.set_memory(Some(memory));
        }
        Ok(found)
    }

    /// Quota and period of the processors.
    fn bandwidth(&self) -> Result<Option<(String, String)>> {
        let v1 = self.v1("cpu");
        if let (Some(quota), Some(period)) = (read(v1, "cpu.cfs_quota_us")?, read(v1, "cpu.cfs_period_us")?) {
            return Ok(Some((quota.trim().to_owned(), period.trim().to_owned())));
        }
        let both = read(self.v2(), "cpu.max")?;
        let split =
            |both: String| both.trim().split_once(' ').map(|(quota, period)| (quota.into(), period.into()));
        Ok(both.and_then(split))
    }

    /// `checkBeforeUpdate`: a limit below what is in use would start the out-of-memory killer.
    fn refuse_below_usage(&self, memory: &LinuxMemory) -> Result<()> {
        // In the reference runtime's order: where both are too low, the larger one is named.
        let limits = [("memory+swap", memory.swap(), V1_SWAP_USAGE), ("memory", memory.limit(), V1_USAGE)];
        for (what, limit, v1_file) in limits {
            let Some(limit) = limit.filter(|limit| *limit > 0) else { continue };
            let text = match (self.v1("memory"), self.v2()) {
                (Some(node), _) => node.read(v1_file)?,
                (None, Some(node)) => node.read("memory.current")?,
                (None, None) => None,
            };
            let usage = text.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
            if limit.unsigned_abs() < usage {
                return Err(CgroupError::BelowUsage { what, limit, usage });
            }
        }
        Ok(())
    }
}

fn read(node: Option<&Node>, file: &str) -> Result<Option<String>> {
    node.map_or(Ok(None), |node| node.read(file))
}

const V1_USAGE: &str = "memory.usage_in_bytes";
const V1_SWAP_USAGE: &str = "memory.memsw.usage_in_bytes";
