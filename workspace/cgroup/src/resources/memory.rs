//! `memory`: limits in bytes, -1 for none; `swap` counts memory and swap together (config-linux.md, "memory").

use oci_spec::runtime::LinuxMemory;

use super::{Planner, Refusal, Slot, Version, no_equivalent, refuse};

const UNLIMITED: i64 = -1;

pub(super) fn plan(
    memory: &LinuxMemory,
    current: Option<&LinuxMemory>,
    planner: &mut Planner<'_>,
) -> Result<(), Refusal> {
    let wanted = Wanted::read(memory)?;
    if wanted.asks_for_nothing() {
        return Ok(());
    }
    let slot = planner.need("memory", wanted.first_field())?;
    match slot.version {
        Version::V1 => {
            plan_v1(&wanted, slot, planner);
            Ok(())
        }
        Version::V2 => plan_v2(&wanted, current, slot, planner),
    }
}

/// The fields that are really set: zero means "leave it" as in runc.
struct Wanted {
    limit: Option<i64>,
    reservation: Option<i64>,
    swap: Option<i64>,
    kernel: Option<i64>,
    kernel_tcp: Option<i64>,
    swappiness: Option<u64>,
    keep_alive: Option<bool>,
    hierarchy: Option<bool>,
}

impl Wanted {
    fn read(memory: &LinuxMemory) -> Result<Self, Refusal> {
        Ok(Self {
            limit: bytes("memory/limit", memory.limit())?,
            reservation: bytes("memory/reservation", memory.reservation())?,
            swap: bytes("memory/swap", memory.swap())?,
            kernel: bytes("memory/kernel", memory.kernel())?,
            kernel_tcp: bytes("memory/kernelTCP", memory.kernel_tcp())?,
            swappiness: swappiness(memory.swappiness())?,
            keep_alive: memory.disable_oom_killer(),
            hierarchy: memory.use_hierarchy(),
        })
    }

    fn asks_for_nothing(&self) -> bool {
        let bytes = [self.limit, self.reservation, self.swap, self.kernel, self.kernel_tcp];
        bytes.iter().all(Option::is_none)
            && self.swappiness.is_none()
            && self.keep_alive != Some(true)
            && self.hierarchy != Some(true)
    }

    fn first_field(&self) -> &'static str {
        match self {
            Self { limit: Some(_), .. } => "memory/limit",
            Self { reservation: Some(_), .. } => "memory/reservation",
            Self { swap: Some(_), .. } => "memory/swap",
            Self { swappiness: Some(_), .. } => "memory/swappiness",
            Self { keep_alive: Some(true), .. } => "memory/disableOOMKiller",
            _ => "memory",
        }
    }
}

fn bytes(field: &str, value: Option<i64>) -> Result<Option<i64>, Refusal> {
    match value {
        Some(value) if value < UNLIMITED => {
            Err(refuse(field, format!("{value} is neither a number of bytes nor -1")))
        }
        other => Ok(other.filter(|value| *value != 0)),
    }
}

/// The largest number is how managers say "not set" (-1 in their own types).
fn swappiness(value: Option<u64>) -> Result<Option<u64>, Refusal> {
    match value.filter(|value| *value != u64::MAX) {
        Some(value) if value > 100 => Err(refuse("memory/swappiness", format!("{value} is not in 0..=100"))),
        other => Ok(other),
    }
}

/// The kernel refuses a limit above memory+swap with EINVAL: whichever of the two has to be written first, trying
/// the limit, then memory+swap, then the limit again gets there without reading anything.
fn plan_v1(wanted: &Wanted, slot: Slot<'_>, planner: &mut Planner<'_>) {
    if wanted.hierarchy == Some(true) {
        planner.push(slot, "memory.use_hierarchy", 1, "memory/useHierarchy").optional = true;
    }
    if let Some(limit) = wanted.limit {
        planner.push(slot, "memory.limit_in_bytes", limit, "memory/limit").retry = true;
    }
    if let Some(swap) = wanted.swap {
        planner.push(slot, "memory.memsw.limit_in_bytes", swap, "memory/swap");
    } else if wanted.limit == Some(UNLIMITED) {
        // Memory without a limit below a limit of memory+swap is not possible.
        planner.push(slot, "memory.memsw.limit_in_bytes", UNLIMITED, "memory/limit").optional = true;
    }
    if let Some(reservation) = wanted.reservation {
        planner.push(slot, "memory.soft_limit_in_bytes", reservation, "memory/reservation");
    }
    if let Some(kernel) = wanted.kernel {
        planner.push(slot, "memory.kmem.limit_in_bytes", kernel, "memory/kernel").optional = true;
    }
    if let Some(kernel_tcp) = wanted.kernel_tcp {
        planner.push(slot, "memory.kmem.tcp.limit_in_bytes", kernel_tcp, "memory/kernelTCP").optional = true;
    }
    if let Some(swappiness) = wanted.swappiness {
        planner.push(slot, "memory.swappiness", swappiness, "memory/swappiness");
    }
    if wanted.keep_alive == Some(true) {
        planner.push(slot, "memory.oom_control", 1, "memory/disableOOMKiller");
    }
}

fn plan_v2(
    wanted: &Wanted,
    current: Option<&LinuxMemory>,
    slot: Slot<'_>,
    planner: &mut Planner<'_>,
) -> Result<(), Refusal> {
    if wanted.swappiness.is_some() {
        return Err(no_equivalent("memory/swappiness"));
    }
    if wanted.keep_alive == Some(true) {
        return Err(no_equivalent("memory/disableOOMKiller"));
    }
    // Swap first: the other way round the old swap allowance would be there below the new memory limit.
    if let Some(swap) = swap_only(wanted, current)? {
        // Without the file there is no swap, or the kernel does not count it: nothing is lost for who asked for all of it,
        // and who asked for none has it where there is none. Where there is some it cannot be withheld (as with runc).
        let optional = swap == UNLIMITED || swap == 0;
        planner.push(slot, "memory.swap.max", max_or(swap), "memory/swap").optional = optional;
    }
    if let Some(limit) = wanted.limit {
        planner.push(slot, "memory.max", max_or(limit), "memory/limit");
    }
    if let Some(reservation) = wanted.reservation {
        planner.push(slot, "memory.low", max_or(reservation), "memory/reservation");
    }
    Ok(())
}

/// Version 2 limits swap alone, the configuration both together: what one of the two numbers becomes hangs on the other.
fn swap_only(wanted: &Wanted, current: Option<&LinuxMemory>) -> Result<Option<i64>, Refusal> {
    if wanted.limit == Some(UNLIMITED) && wanted.swap.is_none() {
        return Ok(Some(UNLIMITED));
    }
    let in_force = |get: fn(&LinuxMemory) -> Option<i64>| current.and_then(get).filter(|value| *value != 0);
    let limit = wanted.limit.or_else(|| in_force(LinuxMemory::limit));
    let swap = wanted.swap.or_else(|| wanted.limit.and(in_force(LinuxMemory::swap)));
    match (swap, limit) {
        (None, _) => Ok(None),
        (Some(UNLIMITED), _) => Ok(Some(UNLIMITED)),
        (Some(_), None | Some(UNLIMITED)) => Err(refuse(
            "memory/swap",
            "a limit of memory and swap together needs a limit of memory on cgroup version 2",
        )),
        (Some(swap), Some(limit)) if swap < limit && wanted.swap.is_none() => Err(refuse(
            "memory/limit",
            format!("{limit} is above memory/swap, {swap}, which counts memory too"),
        )),
        (Some(swap), Some(limit)) if swap < limit => {
            Err(refuse("memory/swap", format!("{swap} counts memory too and is below memory/limit, {limit}")))
        }
        (Some(swap), Some(limit)) => Ok(Some(swap - limit)),
    }
}

fn max_or(value: i64) -> String {
    if value == UNLIMITED { "max".to_owned() } else { value.to_string() }
}
