//! `hull check` and `hull plan`: the planner's answer, nothing carried out.

use crate::bundle::Bundle;
use crate::cli::BundleOptions;
use crate::create::{hierarchies, plan_cgroup};
use crate::error::{Code, Error, Result};
use crate::globals::Globals;
use crate::host;
use crate::log::Level;
use crate::output;
use crate::seal::Seal;
use crate::state::ContainerId;
use hull_plan::{HostFacts, Plan};
use std::path::Path;

/// Says whether the configuration can be carried out here.
pub fn check(options: &BundleOptions, globals: &Globals) -> Result<u8> {
    let (plan, facts) = planned(options, globals)?;
    Seal::compile(&plan)?;
    let hierarchies = hierarchies(&facts, globals)?;
    // Any id will do: it is only a part of the path.
    plan_cgroup(&ContainerId::parse("check")?, &plan, &facts, globals, &hierarchies)?;
    output::line("config.json can be carried out here").map(|()| 0)
}

/// Prints the plan.
pub fn plan(options: &BundleOptions, globals: &Globals) -> Result<u8> {
    let (plan, _) = planned(options, globals)?;
    let text = serde_json::to_string_pretty(&plan)
        .map_err(|error| Error::new(Code::Unsupported, format!("print the plan: {error}")))?;
    output::line(text).map(|()| 0)
}

fn planned(options: &BundleOptions, globals: &Globals) -> Result<(Plan, HostFacts)> {
    let bundle = Bundle::open(options.bundle.as_deref().unwrap_or(Path::new(".")))?;
    let loaded = hull_plan::load(&bundle.config)?;
    let facts = host::probe(&bundle.path, globals.rootless)?;
    let plan = Plan::build(&loaded.spec, &facts)?;
    for warning in loaded.warnings.iter().chain(&plan.warnings) {
        globals.log.write(Level::Warning, &format!("{} (config.json#{})", warning.text, warning.field));
    }
    Ok((plan, facts))
}
