//! The program: who it runs as, and under which limits.

use alloc::string::String;
use alloc::vec::Vec;
use serde::Serialize;

/// The container's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessPlan {
    /// A pseudo-terminal is wanted.
    pub terminal: bool,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container.
    pub gid: u32,
    /// Supplementary groups; the primary one is always there (R11).
    pub additional_gids: Vec<u32>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// At least one.
    pub args: Vec<String>,
    /// `NAME=value`, each name once, the last one wins, in the order of first appearance.
    pub env: Vec<String>,
    /// Absolute.
    pub cwd: String,
    /// Capabilities; none: the process keeps what the kernel gives.
    pub capabilities: Option<CapabilityPlan>,
    /// Each resource once.
    pub rlimits: Vec<Rlimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// AppArmor profile; the host has AppArmor.
    pub apparmor_profile: Option<String>,
    /// SELinux label; the host has SELinux.
    pub selinux_label: Option<String>,
    /// Written when given.
    pub oom_score_adj: Option<i32>,
    /// Value for ioprio_set(2): class << 13 | level.
    pub io_priority: Option<u16>,
    /// For sched_setattr(2).
    pub scheduler: Option<SchedulerPlan>,
    /// CPUs before and after the move into the control group (exec only), as bit masks of 64 CPUs a word.
    pub cpu_affinity_initial: Option<Vec<u64>>,
    /// CPUs after the move.
    pub cpu_affinity_final: Option<Vec<u64>>,
}

/// The five capability sets, bit N for capability number N; what the caller cannot grant is already gone. Printed as
/// lists of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapabilityPlan {
    /// Bounding.
    pub bounding: u64,
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
    /// Ambient, a subset of permitted and inheritable.
    pub ambient: u64,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rlimit {
    /// JSON pointer.
    pub field: String,
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Attributes for sched_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SchedulerPlan {
    /// `SCHED_*` number.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Real-time priority.
    pub priority: u32,
    /// Nanoseconds (`SCHED_DEADLINE`).
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// Arguments of set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryPolicyPlan {
    /// `MPOL_*` mode with its flags.
    pub mode: u32,
    /// Node mask, 64 nodes a word.
    pub nodes: Vec<u64>,
}
