//! What later commands need of the configuration as it was at create.

use crate::error::Result;
use crate::globals::Globals;
use crate::state::StateDir;
use hull_plan::HookPlan;

/// The hooks.
pub fn hooks(directory: &StateDir) -> Result<HookPlan> {
    let loaded = hull_plan::load(&directory.config()?)?;
    Ok(hull_plan::plan_hooks(&loaded.spec)?)
}

/// The control groups that a container of this id and configuration would have been given.
pub fn likely_cgroups(directory: &StateDir, globals: &Globals) -> Vec<hull_cgroup::Cgroup> {
    let Ok(hierarchies) = hull_cgroup::Hierarchies::probe() else { return Vec::new() };
    let configured = directory.config().ok().and_then(|bytes| hull_plan::load(&bytes).ok());
    let path = configured
        .as_ref()
        .and_then(|loaded| loaded.spec.linux().as_ref())
        .and_then(|linux| linux.cgroups_path().as_ref())
        .and_then(|path| path.to_str());
    let spec = hull_cgroup::CgroupSpec {
        path,
        id: directory.id().as_str(),
        resources: None,
        rootless: hull_sys::identity::effective_uid() != 0,
        systemd: globals.systemd_cgroup,
    };
    hull_cgroup::plan(&spec, hierarchies.facts())
        .ok()
        .map(|plan| hull_cgroup::Cgroup::open(&hull_cgroup::Cgroup::planned_paths(&plan)))
        .into_iter()
        .collect()
}
