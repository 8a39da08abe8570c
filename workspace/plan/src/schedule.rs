//! Scheduling of the processor, of input and output, and of memory nodes (config.md, linux process;
//! config-linux.md, memory policy).

use crate::cpu_list;
use crate::load::SCHEDULER_FLAGS;
use crate::plan::{MemoryPolicyPlan, SchedulerPlan};
use crate::refusal::Refusal;
use alloc::format;
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, Scheduler,
};

/// Value for ioprio_set(2): class << 13 | level.
pub(crate) fn io_priority(priority: &LinuxIOPriority, field: &str) -> Result<u16, Refusal> {
    let class: u16 = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u16::try_from(priority.priority()).ok().filter(|level| *level <= 7).ok_or_else(|| {
        let reason = format!("invalid ioPriority.priority: {} is not in 0..7", priority.priority());
        Refusal::new(format!("{field}/priority"), reason)
    })?;
    Ok(class << 13 | level)
}

/// Attributes for sched_setattr(2).
pub(crate) fn scheduler(
    scheduler: &Scheduler,
    field: &str,
    has_cpuset: bool,
) -> Result<SchedulerPlan, Refusal> {
    let policy = *scheduler.policy();
    let number = policy_number(policy)
        .ok_or_else(|| Refusal::new(format!("{field}/policy"), format!("no kernel implements {policy}")))?;
    let refuse = |name: &str, reason: &str| Err(Refusal::new(format!("{field}/{name}"), reason));
    let (fair, realtime, deadline) = (
        matches!(policy, LinuxSchedulerPolicy::SchedOther | LinuxSchedulerPolicy::SchedBatch),
        matches!(policy, LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr),
        policy == LinuxSchedulerPolicy::SchedDeadline,
    );
    let nice = scheduler.nice().unwrap_or(0);
    if fair && !(-20..=19).contains(&nice) {
        return refuse("nice", "invalid scheduler.nice: it is not in -20..19");
    }
    let priority = scheduler.priority().unwrap_or(0);
    if priority != 0 && !realtime {
        return refuse("priority", "scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR");
    }
    let Ok(priority) = u32::try_from(priority).map_err(drop) else {
        return refuse("priority", "the priority is below 0");
    };
    let times = [
        ("runtime", scheduler.runtime()),
        ("deadline", scheduler.deadline()),
        ("period", scheduler.period()),
    ];
    if let Some((name, _)) = times.iter().find(|(_, time)| !deadline && time.unwrap_or(0) != 0) {
        return refuse(
            name,
            "scheduler runtime, deadline and period can only be specified for SCHED_DEADLINE",
        );
    }
    if deadline && has_cpuset {
        // The kernel wants such a task to be free to run on every processor of its root domain.
        let refusal = Refusal::new(field, "process scheduler can't be used together with AllowedCPUs");
        return Err(refusal.hint("SCHED_DEADLINE and linux.resources.cpu.cpus exclude each other"));
    }
    Ok(SchedulerPlan {
        policy: number,
        flags: scheduler.flags().iter().flatten().fold(0, |flags, flag| flags | flag_bit(*flag)),
        nice,
        priority,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    })
}

/// `SCHED_*` numbers (linux/sched.h); the number of `SCHED_ISO` is reserved, nothing more.
fn policy_number(policy: LinuxSchedulerPolicy) -> Option<u32> {
    match policy {
        LinuxSchedulerPolicy::SchedOther => Some(0),
        LinuxSchedulerPolicy::SchedFifo => Some(1),
        LinuxSchedulerPolicy::SchedRr => Some(2),
        LinuxSchedulerPolicy::SchedBatch => Some(3),
        LinuxSchedulerPolicy::SchedIso => None,
        LinuxSchedulerPolicy::SchedIdle => Some(5),
        LinuxSchedulerPolicy::SchedDeadline => Some(6),
    }
}

fn flag_bit(flag: LinuxSchedulerFlag) -> u64 {
    let place = match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0,
        LinuxSchedulerFlag::SchedFlagReclaim => 1,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 2,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 3,
        LinuxSchedulerFlag::SchedFlagKeepParams => 4,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 5,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 6,
    };
    SCHEDULER_FLAGS[place].2
}

/// Arguments of set_mempolicy(2).
pub(crate) fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicyPlan, Refusal> {
    let field = "/linux/memoryPolicy";
    let list = policy.nodes().as_deref().unwrap_or_default();
    let nodes = cpu_list::parse(list).map_err(|reason| {
        Refusal::new(format!("{field}/nodes"), format!("invalid memory policy nodes {list:?}: {reason}"))
    })?;
    let count = cpu_list::count(&nodes);
    let (mode, wants) = mode_number(policy.mode());
    match wants {
        Nodes::None if count != 0 => {
            let reason = format!("invalid memory policy: mode requires 0 nodes but got {count}");
            return Err(Refusal::new(format!("{field}/nodes"), reason));
        }
        Nodes::Some if count == 0 => {
            return Err(Refusal::new(
                field,
                "invalid memory policy: mode requires at least one node but got 0",
            ));
        }
        _ => {}
    }
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| flags | mode_flag(*flag));
    if flags & STATIC_NODES != 0 && flags & RELATIVE_NODES != 0 {
        let reason = "invalid memory policy flag: static and relative nodes exclude each other";
        return Err(Refusal::new(format!("{field}/flags"), reason));
    }
    Ok(MemoryPolicyPlan { mode: mode | flags, nodes })
}

const STATIC_NODES: u32 = 1 << 15;
const RELATIVE_NODES: u32 = 1 << 14;
const NUMA_BALANCING: u32 = 1 << 13;

/// How many nodes a mode takes.
enum Nodes {
    None,
    Some,
    Any,
}

/// `MPOL_*` numbers (linux/mempolicy.h).
fn mode_number(mode: MemoryPolicyModeType) -> (u32, Nodes) {
    match mode {
        MemoryPolicyModeType::MpolDefault => (0, Nodes::None),
        MemoryPolicyModeType::MpolPreferred => (1, Nodes::Any),
        MemoryPolicyModeType::MpolBind => (2, Nodes::Some),
        MemoryPolicyModeType::MpolInterleave => (3, Nodes::Some),
        MemoryPolicyModeType::MpolLocal => (4, Nodes::None),
        MemoryPolicyModeType::MpolPreferredMany => (5, Nodes::Some),
        MemoryPolicyModeType::MpolWeightedInterleave => (6, Nodes::Some),
    }
}

fn mode_flag(flag: MemoryPolicyFlagType) -> u32 {
    match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => NUMA_BALANCING,
        MemoryPolicyFlagType::MpolFRelativeNodes => RELATIVE_NODES,
        MemoryPolicyFlagType::MpolFStaticNodes => STATIC_NODES,
    }
}
