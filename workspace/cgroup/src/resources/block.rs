//! `blockIO`: weights and throttles (config-linux.md, "block io"; blkio-controller.rst; cgroup-v2.rst, "io").
//!
//! The weight belongs to the I/O scheduler in use: BFQ has its own file names, which are tried first.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::{Planner, Refusal, Slot, Version, no_equivalent, refuse};

const WEIGHT: std::ops::RangeInclusive<u16> = 10..=1000;

pub(super) fn plan(block: &LinuxBlockIo, planner: &mut Planner<'_>) -> Result<(), Refusal> {
    plan_weight(block, planner)?;
    plan_device_weights(block, planner)?;
    let throttles: [(_, &str, &str, &str); 4] = [
        (block.throttle_read_bps_device(), "throttleReadBpsDevice", "read_bps", "rbps"),
        (block.throttle_write_bps_device(), "throttleWriteBpsDevice", "write_bps", "wbps"),
        (block.throttle_read_iops_device(), "throttleReadIOPSDevice", "read_iops", "riops"),
        (block.throttle_write_iops_device(), "throttleWriteIOPSDevice", "write_iops", "wiops"),
    ];
    for (devices, name, v1, v2) in throttles {
        for (index, device) in devices.iter().flatten().enumerate() {
            plan_throttle(device, &format!("blockIO/{name}/{index}"), (v1, v2), planner)?;
        }
    }
    Ok(())
}

/// Version 2 calls the controller `io`, version 1 `blkio`.
fn slot(planner: &Planner<'_>, field: &str) -> Result<Slot<'static>, Refusal> {
    let name = if planner.facts.index_of("blkio").is_some() { "blkio" } else { "io" };
    planner.need(name, field)
}

fn in_range(weight: Option<u16>, field: &str) -> Result<Option<u16>, Refusal> {
    match weight.filter(|weight| *weight != 0) {
        Some(weight) if !WEIGHT.contains(&weight) => {
            Err(refuse(field, format!("{weight} is not in {}..={}", WEIGHT.start(), WEIGHT.end())))
        }
        other => Ok(other),
    }
}

fn plan_weight(block: &LinuxBlockIo, planner: &mut Planner<'_>) -> Result<(), Refusal> {
    let (field, leaf_field) = ("blockIO/weight", "blockIO/leafWeight");
    if let Some(weight) = in_range(block.weight(), field)? {
        let slot = slot(planner, field)?;
        let files = match slot.version {
            Version::V1 => pair(("blkio.bfq.weight", weight.into()), ("blkio.weight", weight.into())),
            Version::V2 => pair(("io.bfq.weight", weight.into()), ("io.weight", io_weight(weight))),
        };
        planner.push_first(slot, files, field);
    }
    if let Some(weight) = in_range(block.leaf_weight(), leaf_field)? {
        let slot = slot(planner, leaf_field)?;
        if slot.version == Version::V2 {
            return Err(no_equivalent(leaf_field));
        }
        planner.push(slot, "blkio.leaf_weight", weight, leaf_field);
    }
    Ok(())
}

fn pair(first: (&str, u64), second: (&str, u64)) -> Vec<(String, String)> {
    [first, second].map(|(file, value)| (file.to_owned(), value.to_string())).into()
}

/// Maps 10..=1000 to version 2's 1..=10000 in a straight line.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

fn plan_device_weights(block: &LinuxBlockIo, planner: &mut Planner<'_>) -> Result<(), Refusal> {
    for (index, device) in block.weight_device().iter().flatten().enumerate() {
        let field = format!("blockIO/weightDevice/{index}");
        let numbers = numbers(device.major(), device.minor(), &field)?;
        let weight = in_range(device.weight(), &format!("{field}/weight"))?;
        let leaf = in_range(device.leaf_weight(), &format!("{field}/leafWeight"))?;
        if weight.is_none() && leaf.is_none() {
            return Err(refuse(&field, "neither weight nor leafWeight is set"));
        }
        let slot = slot(planner, &field)?;
        if let Some(weight) = weight {
            let files: [(&str, u64); 2] = match slot.version {
                Version::V1 => {
                    [("blkio.bfq.weight_device", weight.into()), ("blkio.weight_device", weight.into())]
                }
                Version::V2 => [("io.bfq.weight", weight.into()), ("io.weight", io_weight(weight))],
            };
            let files = files.map(|(file, weight)| (file.to_owned(), format!("{numbers} {weight}")));
            planner.push_first(slot, files.into(), &format!("{field}/weight"));
        }
        if let Some(leaf) = leaf {
            let field = format!("{field}/leafWeight");
            if slot.version == Version::V2 {
                return Err(no_equivalent(&field));
            }
            planner.push(slot, "blkio.leaf_weight_device", format!("{numbers} {leaf}"), &field);
        }
    }
    Ok(())
}

fn plan_throttle(
    device: &LinuxThrottleDevice,
    field: &str,
    (v1, v2): (&str, &str),
    planner: &mut Planner<'_>,
) -> Result<(), Refusal> {
    let numbers = numbers(device.major(), device.minor(), field)?;
    let slot = slot(planner, field)?;
    match (slot.version, device.rate()) {
        (Version::V1, rate) => {
            planner.push(slot, &format!("blkio.throttle.{v1}_device"), format!("{numbers} {rate}"), field)
        }
        // Zero lifts a version 1 throttle; version 2 says so in words.
        (Version::V2, 0) => planner.push(slot, "io.max", format!("{numbers} {v2}=max"), field),
        (Version::V2, rate) => planner.push(slot, "io.max", format!("{numbers} {v2}={rate}"), field),
    };
    Ok(())
}

fn numbers(major: i64, minor: i64, field: &str) -> Result<String, Refusal> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(refuse(field, format!("{major}:{minor} is no device number"))),
    }
}
