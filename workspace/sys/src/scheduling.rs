//! Scheduler, I/O priority, processor affinity, memory policy.

use crate::Result;
use crate::process::Pid;
use crate::raw::{check, check_unit};

/// `struct sched_attr` of sched_setattr(2) without its size field.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
    /// Utilisation clamp, 0 to 1024, with `SCHED_FLAG_UTIL_CLAMP_MIN`.
    pub utilisation_min: u32,
    /// Utilisation clamp, 0 to 1024, with `SCHED_FLAG_UTIL_CLAMP_MAX`.
    pub utilisation_max: u32,
}

#[repr(C)]
#[derive(Default)]
struct RawAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    utilisation_min: u32,
    utilisation_max: u32,
}

/// Sets the scheduler of the thread `pid`; 0 is the caller.
pub fn set_scheduler(pid: Pid, attributes: &SchedulerAttributes) -> Result<()> {
    let raw = RawAttributes {
        size: size_of::<RawAttributes>() as u32,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
        utilisation_min: attributes.utilisation_min,
        utilisation_max: attributes.utilisation_max,
    };
    // SAFETY: the structure says its own size and outlives the call.
    let returned = unsafe { libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), &raw const raw, 0) };
    check_unit("sched_setattr", returned)
}

/// The scheduler of the thread `pid`; 0 is the caller.
pub fn get_scheduler(pid: Pid) -> Result<SchedulerAttributes> {
    let mut raw = RawAttributes::default();
    let size = size_of::<RawAttributes>();
    // SAFETY: the kernel writes no more than the size we give.
    let returned = unsafe { libc::syscall(libc::SYS_sched_getattr, pid.as_raw(), &raw mut raw, size, 0) };
    check_unit("sched_getattr", returned)?;
    Ok(SchedulerAttributes {
        policy: raw.policy,
        flags: raw.flags,
        nice: raw.nice,
        priority: raw.priority,
        runtime: raw.runtime,
        deadline: raw.deadline,
        period: raw.period,
        utilisation_min: raw.utilisation_min,
        utilisation_max: raw.utilisation_max,
    })
}

const IOPRIO_WHO_PROCESS: u32 = 1;

/// Sets the I/O priority of the thread `who` (0: the caller): class shifted left by 13, and level (ioprio_set(2)).
pub fn set_io_priority(who: Pid, value: u32) -> Result<()> {
    // SAFETY: three numbers, no memory.
    let returned = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, who.as_raw(), value) };
    check_unit("ioprio_set", returned)
}

/// The I/O priority of the thread `who`; 0 is the caller.
pub fn get_io_priority(who: Pid) -> Result<u32> {
    // SAFETY: two numbers, no memory.
    let returned = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, who.as_raw()) };
    Ok(check("ioprio_get", returned)? as u32)
}

/// Sets the processors that the thread `pid` (0: the caller) may run on: bit N of the words is processor N.
pub fn set_affinity(pid: Pid, mask: &[u64]) -> Result<()> {
    // SAFETY: the pointer is to as many bytes as we say.
    let returned =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid.as_raw(), size_of_val(mask), mask.as_ptr()) };
    check_unit("sched_setaffinity", returned)
}

/// The processors that the thread `pid` may run on, as for [`set_affinity`].
pub fn get_affinity(pid: Pid) -> Result<Vec<u64>> {
    // Room for 8192 processors, the most a kernel is built for.
    let mut mask = vec![0u64; 128];
    let size = size_of_val(mask.as_slice());
    // SAFETY: the kernel writes no more than the size we give.
    let returned =
        unsafe { libc::syscall(libc::SYS_sched_getaffinity, pid.as_raw(), size, mask.as_mut_ptr()) };
    let written = check("sched_getaffinity", returned)? as usize;
    mask.truncate(written.div_ceil(size_of::<u64>()));
    Ok(mask)
}

/// Sets the caller's NUMA policy: `MPOL_*` with its flags, the nodes as bits, and how many bits count
/// (set_mempolicy(2)).
pub fn set_memory_policy(mode: u32, nodes: &[u64], maxnode: u64) -> Result<()> {
    let fits = maxnode <= nodes.len() as u64 * 64 + 1;
    let maxnode = if fits { maxnode } else { nodes.len() as u64 * 64 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `maxnode - 1` bits, which the words have.
    let returned = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, maxnode) };
    check_unit("set_mempolicy", returned)
}
