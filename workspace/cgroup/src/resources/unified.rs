//! `unified`: each key is a file of the version 2 directory and is written as it is, known or not (config-linux.md,
//! "unified").
//!
//! On a hybrid host the keys of controllers that live in the version 2 tree are possible, others are refused; on a
//! version 1 host all are.

use std::collections::{BTreeMap, HashMap};

use super::{Planner, Refusal, Slot, refuse};
use crate::refusal::escape;

/// Files that move, stop or kill processes when written.
const ACTS: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze"];

pub(super) fn plan(unified: &HashMap<String, String>, planner: &mut Planner<'_>) -> Result<(), Refusal> {
    let idle = is_idle(unified);
    for (file, value) in
        unified.iter().filter(|(file, _)| !(idle && is_weight(file))).collect::<BTreeMap<_, _>>()
    {
        let field = format!("unified/{}", escape(file));
        let Some((controller, rest)) = file.split_once('.') else {
            return Err(refuse(&field, "is not a file name of the form CONTROLLER.NAME"));
        };
        if controller.is_empty() || rest.is_empty() || file.contains(['/', '\0']) {
            return Err(refuse(&field, "is not a file name of the form CONTROLLER.NAME"));
        }
        if ACTS.contains(&file.as_str()) {
            return Err(refuse(&field, "acts on processes and is no limit"));
        }
        let Some(place) = planner.facts.v2() else {
            return Err(refuse(&field, "cannot use unified on cgroup v1"));
        };
        let known = &planner.facts.hierarchies[place].controllers;
        if controller != "cgroup" && !known.iter().any(|name| name == controller) {
            return Err(refuse(&field, unavailable(controller, planner)));
        }
        // Values of several lines are several writes: the kernel reads one setting per write.
        for line in value.lines().filter(|line| !line.trim().is_empty()) {
            planner.push(Slot { place, version: super::Version::V2, controller }, file, line, &field);
        }
    }
    Ok(())
}

/// The group idles: it has no weight then, and the kernel refuses one.
fn is_idle(unified: &HashMap<String, String>) -> bool {
    unified.get("cpu.idle").is_some_and(|value| value.trim() == "1")
}

fn is_weight(file: &str) -> bool {
    ["cpu.weight", "cpu.weight.nice"].contains(&file)
}

/// True when a weight is left out for the group's idling.
pub(super) fn leaves_out_weight(unified: &HashMap<String, String>) -> bool {
    is_idle(unified) && unified.keys().any(|file| is_weight(file))
}

fn unavailable(controller: &str, planner: &Planner<'_>) -> String {
    match planner.facts.index_of(controller) {
        Some(_) => format!("controller {controller:?} is in a cgroup v1 hierarchy on this host"),
        None => format!("controller {controller:?} is not available"),
    }
}
