//! `network` (version 1 only) and `rdma` (config-linux.md, "network", "rdma").

use std::collections::{BTreeMap, HashMap};

use oci_spec::runtime::{LinuxNetwork, LinuxRdma};

use super::{Planner, Refusal, Version, no_equivalent, refuse};
use crate::refusal::escape;

pub(super) fn plan(network: &LinuxNetwork, planner: &mut Planner<'_>) -> Result<(), Refusal> {
    let v1_only = |controller, field: &str, planner: &Planner<'_>| match planner.facts.index_of(controller) {
        None if planner.facts.hierarchies.iter().all(|h| h.version == Version::V2) => {
            Err(no_equivalent(field))
        }
        _ => Ok(()),
    };
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        let field = "network/classID";
        v1_only("net_cls", field, planner)?;
        let slot = planner.need("net_cls", field)?;
        planner.push(slot, "net_cls.classid", class, field);
    }
    for (index, priority) in network.priorities().iter().flatten().enumerate() {
        let field = format!("network/priorities/{index}");
        let name = priority.name();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(refuse(&format!("{field}/name"), format!("{name:?} is no interface name")));
        }
        v1_only("net_prio", &field, planner)?;
        let slot = planner.need("net_prio", &field)?;
        planner.push(slot, "net_prio.ifpriomap", format!("{name} {}", priority.priority()), &field);
    }
    Ok(())
}

/// Plans the `rdma` section, devices in the order of their names.
pub(super) fn plan_rdma(rdma: &HashMap<String, LinuxRdma>, planner: &mut Planner<'_>) -> Result<(), Refusal> {
    for (device, limits) in rdma.iter().collect::<BTreeMap<_, _>>() {
        let field = format!("rdma/{}", escape(device));
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(refuse(&field, format!("{device:?} is no device name")));
        }
        let values = [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())];
        let set: Vec<_> =
            values.iter().filter_map(|(key, value)| value.map(|value| format!("{key}={value}"))).collect();
        if set.is_empty() {
            return Err(refuse(&field, "neither hcaHandles nor hcaObjects is set"));
        }
        let slot = planner.need("rdma", &field)?;
        planner.push(slot, "rdma.max", format!("{device} {}", set.join(" ")), &field);
    }
    Ok(())
}
