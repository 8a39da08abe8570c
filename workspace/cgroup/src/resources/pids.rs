//! `pids`: -1 (any negative number, as in runc) is no limit; 0 forbids every
//! fork, which is what 1 says for a group with one process (and as runc writes it).

use oci_spec::runtime::LinuxPids;

use super::{Planner, Refusal};

pub(super) fn plan(pids: &LinuxPids, planner: &mut Planner<'_>) -> Result<(), Refusal> {
    let field = "pids/limit";
    let limit = pids.limit();
    // "No limit" is what a host without the controller does anyway.
    if limit < 0 && planner.facts.index_of("pids").is_none() {
        return Ok(());
    }
    let slot = planner.need("pids", field)?;
    let value = if limit < 0 { "max".to_owned() } else { limit.max(1).to_string() };
    planner.push(slot, "pids.max", value, field);
    Ok(())
}
