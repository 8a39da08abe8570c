//! `cpu`: shares, quota, burst, real time, idle, and the sets of CPUs and memory nodes (config-linux.md, "cpu").

use oci_spec::runtime::LinuxCpu;

use super::{Planner, Refusal, Slot, Version, no_equivalent, refuse};

const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// Period in microseconds that the kernel starts a group with.
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn plan(
    cpu: &LinuxCpu,
    current: Option<&LinuxCpu>,
    planner: &mut Planner<'_>,
) -> Result<(), Refusal> {
    let wanted = Wanted::read(cpu)?;
    let Some(field) = wanted.first_field() else { return Ok(()) };
    let slot = planner.need("cpu", field)?;
    match slot.version {
        Version::V1 => plan_v1(&wanted, slot, planner),
        Version::V2 => plan_v2(&wanted, current, slot, planner),
    }
}

/// Plans `cpus` and `mems`.
pub(super) fn plan_sets(cpu: &LinuxCpu, planner: &mut Planner<'_>) -> Result<(), Refusal> {
    let sets = [("cpuset.cpus", cpu.cpus(), "cpu/cpus"), ("cpuset.mems", cpu.mems(), "cpu/mems")];
    for (file, list, field) in sets {
        let Some(list) = list.as_deref().map(str::trim).filter(|list| !list.is_empty()) else { continue };
        if !is_list(list) {
            return Err(refuse(field, format!("{list:?} is not a list like \"0-3,7\"")));
        }
        let slot = planner.need("cpuset", field)?;
        planner.push(slot, file, list, field);
    }
    Ok(())
}

/// The fields that are really set: zero means "leave it" as in runc.
struct Wanted {
    shares: Option<u64>,
    quota: Option<i64>,
    period: Option<u64>,
    burst: Option<u64>,
    realtime_runtime: Option<i64>,
    realtime_period: Option<u64>,
    idle: Option<i64>,
}

impl Wanted {
    fn read(cpu: &LinuxCpu) -> Result<Self, Refusal> {
        let wanted = Self {
            shares: cpu.shares().filter(|value| *value != 0),
            quota: cpu.quota().filter(|value| *value != 0),
            period: cpu.period().filter(|value| *value != 0),
            burst: cpu.burst(),
            realtime_runtime: cpu.realtime_runtime().filter(|value| *value != 0),
            realtime_period: cpu.realtime_period().filter(|value| *value != 0),
            idle: cpu.idle(),
        };
        if let Some(idle) = wanted.idle.filter(|idle| !matches!(idle, 0 | 1)) {
            return Err(refuse("cpu/idle", format!("{idle} is neither 0 nor 1")));
        }
        if let (Some(burst), Some(quota)) = (wanted.burst, wanted.quota)
            && quota > 0
            && burst > quota.unsigned_abs()
        {
            return Err(refuse("cpu/burst", format!("{burst} is above cpu/quota, {quota}")));
        }
        Ok(wanted)
    }

    fn first_field(&self) -> Option<&'static str> {
        let fields = [
            (self.shares.is_some(), "cpu/shares"),
            (self.quota.is_some(), "cpu/quota"),
            (self.period.is_some(), "cpu/period"),
            (self.burst.is_some(), "cpu/burst"),
            (self.realtime_runtime.is_some(), "cpu/realtimeRuntime"),
            (self.realtime_period.is_some(), "cpu/realtimePeriod"),
            (self.idle.is_some(), "cpu/idle"),
        ];
        fields.into_iter().find_map(|(set, field)| set.then_some(field))
    }
}

fn plan_v1(wanted: &Wanted, slot: Slot<'_>, planner: &mut Planner<'_>) -> Result<(), Refusal> {
    if let Some(shares) = wanted.shares.filter(|shares| !SHARES.contains(shares)) {
        let bound = if shares < *SHARES.start() { "minimum" } else { "maximum" };
        let limit = if shares < *SHARES.start() { SHARES.start() } else { SHARES.end() };
        return Err(refuse("cpu/shares", format!("the {bound} allowed cpu-shares is {limit}")));
    }
    // The order is the kernel's: shares of an idle group cannot be written; the weight must be set before it idles.
    if wanted.idle == Some(0) {
        planner.push(slot, "cpu.idle", 0, "cpu/idle").optional = true;
    }
    if let Some(shares) = wanted.shares {
        planner.push(slot, "cpu.shares", shares, "cpu/shares");
    }
    if let Some(period) = wanted.realtime_period {
        planner.push(slot, "cpu.rt_period_us", period, "cpu/realtimePeriod").retry = true;
    }
    if let Some(runtime) = wanted.realtime_runtime {
        planner.push(slot, "cpu.rt_runtime_us", runtime, "cpu/realtimeRuntime").retry = true;
    }
    if let Some(period) = wanted.period {
        planner.push(slot, "cpu.cfs_period_us", period, "cpu/period").retry = true;
    }
    if let Some(burst) = wanted.burst {
        planner.push(slot, "cpu.cfs_burst_us", burst, "cpu/burst").retry = true;
    }
    if let Some(quota) = wanted.quota {
        planner.push(slot, "cpu.cfs_quota_us", quota, "cpu/quota").retry = true;
    }
    if wanted.idle == Some(1) {
        planner.push(slot, "cpu.idle", 1, "cpu/idle");
    }
    Ok(())
}

fn plan_v2(
    wanted: &Wanted,
    current: Option<&LinuxCpu>,
    slot: Slot<'_>,
    planner: &mut Planner<'_>,
) -> Result<(), Refusal> {
    if wanted.realtime_runtime.is_some() {
        return Err(no_equivalent("cpu/realtimeRuntime"));
    }
    if wanted.realtime_period.is_some() {
        return Err(no_equivalent("cpu/realtimePeriod"));
    }
    if let Some(idle) = wanted.idle {
        planner.push(slot, "cpu.idle", idle, "cpu/idle").optional = idle == 0;
    }
    // The weight of an idle group is fixed (sched_group_set_shares gives EINVAL).
    if let Some(shares) = wanted.shares.filter(|_| wanted.idle != Some(1)) {
        planner.push(slot, "cpu.weight", weight_of(shares), "cpu/shares");
    }
    if let Some(burst) = wanted.burst {
        planner.push(slot, "cpu.max.burst", burst, "cpu/burst").retry = true;
    }
    if wanted.quota.is_some() || wanted.period.is_some() {
        let quota = wanted.quota.or(current.and_then(LinuxCpu::quota)).filter(|quota| *quota > 0);
        let period = wanted.period.or(current.and_then(LinuxCpu::period)).filter(|period| *period != 0);
        let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
        let field = if wanted.quota.is_some() { "cpu/quota" } else { "cpu/period" };
        let value = format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD));
        planner.push(slot, "cpu.max", value, field).retry = true;
    }
    Ok(())
}

/// Maps version 1 shares (2..=262144, default 1024) to a version 2 weight (1..=10000, default 100).
///
/// The curve is the one parabola in log2(shares) that meets log10(weight) at both ends and at the default: a straight
/// line between the ends would turn the default 1024 into 39.
pub(crate) fn weight_of(shares: u64) -> u64 {
    let log = (shares.clamp(*SHARES.start(), *SHARES.end()) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // The subtraction keeps exact points (1, 100, 10000) from being rounded up by the last bit of the float.
    (10f64.powf(exponent) - 1e-9).ceil() as u64
}

/// True for the kernel's list format (cpuset(7)): numbers and ascending ranges, separated by commas.
fn is_list(list: &str) -> bool {
    list.split(',').filter(|part| !part.is_empty()).all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u32>().ok()).flatten()
        };
        matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
    })
}
