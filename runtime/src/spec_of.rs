//! What later commands need of the configuration as it was at create.

use crate::error::{Code, Context, Error, Result};
use crate::globals::Globals;
use crate::state::StateDir;
use hull_cgroup::Manager;
use hull_plan::HookPlan;
use oci_spec::runtime::LinuxResources;
use serde_json::Value;
use std::collections::BTreeMap;

/// The hooks.
pub fn hooks(directory: &StateDir) -> Result<HookPlan> {
    let loaded = hull_plan::load(&directory.config()?)?;
    Ok(hull_plan::plan_hooks(&loaded.spec)?)
}

/// The control groups that a container of this id and configuration would have been given.
pub fn likely_cgroups(directory: &StateDir, globals: &Globals) -> Vec<hull_cgroup::Cgroup> {
    let Ok(mut hierarchies) = hull_cgroup::Hierarchies::probe() else { return Vec::new() };
    let rootless = hull_sys::identity::effective_uid() != 0;
    if rootless && globals.cgroup_manager == Manager::Systemd && hierarchies.ask_user_manager().is_err() {
        return Vec::new();
    }
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
        rootless,
        manager: globals.cgroup_manager,
        annotations: &BTreeMap::new(),
    };
    hull_cgroup::plan(&spec, hierarchies.facts())
        .ok()
        .map(|plan| hull_cgroup::Cgroup::open(&hull_cgroup::Cgroup::planned_paths(&plan)))
        .into_iter()
        .collect()
}

/// Changed limits are kept beside the configuration.
const RESOURCES: &str = "resources.json";

/// The limits in force: those of the last update, else the configured ones.
pub fn resources(directory: &StateDir) -> Result<LinuxResources> {
    match std::fs::read(directory.path().join(RESOURCES)) {
        Ok(bytes) => {
            return serde_json::from_slice(&bytes).map_err(|error| {
                Error::new(Code::StateDamaged, format!("read the limits in force: {error}"))
            });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        // The configured ones may be long out of date.
        Err(error) => return Err(error).context(|| "read the limits in force"),
    }
    let loaded = hull_plan::load(&directory.config()?)?;
    let linux = loaded.spec.linux().as_ref();
    Ok(linux.and_then(|linux| linux.resources().clone()).unwrap_or_default())
}

/// Keeps `current` with the members of `new` in their place.
pub fn keep_resources(directory: &StateDir, current: &LinuxResources, new: &LinuxResources) -> Result<()> {
    let value = |resources: &LinuxResources| {
        serde_json::to_value(resources)
            .map_err(|error| Error::new(Code::StateDamaged, format!("keep the limits in force: {error}")))
    };
    let mut merged = value(current)?;
    merge(&mut merged, value(new)?);
    directory.replace(RESOURCES, merged.to_string().as_bytes())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        // Nothing is said: 0 is how managers that fill in whole documents leave a value.
        (_, Value::Null) => {}
        (_, Value::Number(number)) if number.as_u64() == Some(0) => {}
        (into, value) => *into = value,
    }
}

#[cfg(test)]
mod tests {
    use super::merge;
    use serde_json::json;

    #[test]
    fn what_an_update_does_not_name_or_leaves_stays() {
        let mut kept = json!({ "memory": { "limit": 4096, "swap": 8192 }, "cpu": { "quota": 5 } });
        merge(
            &mut kept,
            json!({ "memory": { "limit": 0, "swap": -1 }, "cpu": null, "pids": { "limit": 7 } }),
        );
        let expected = json!({
            "memory": { "limit": 4096, "swap": -1 }, "cpu": { "quota": 5 }, "pids": { "limit": 7 }
        });
        assert_eq!(kept, expected);
    }
}
