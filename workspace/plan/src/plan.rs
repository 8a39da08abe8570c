//! The plan: what the flows of the runtime carry out, with no decision left in it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::Serialize;

mod mounts;
mod namespaces;
mod process;

pub use mounts::{
    Attributes, DeviceKind, DevicePlan, MountIdMap, MountPlan, MountSource, Propagation, PropagationPlan,
    RootPlan,
};
pub use namespaces::{EntryScript, IdMap, IdMaps, JoinNamespace, NamespaceKind, NamespaceSet, TimeOffset};
pub use process::{CapabilityPlan, MemoryPolicyPlan, ProcessPlan, Rlimit, SchedulerPlan};

/// What the planner has to know of the host; the runtime probes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostFacts {
    /// Effective uid of the caller is not 0, or the caller sits in a user namespace without the full id range.
    pub rootless: bool,
    /// The caller is inside a user namespace that is not the initial one.
    pub in_user_namespace: bool,
    /// Effective uid and gid of the caller.
    pub uid: u32,
    /// Effective gid of the caller.
    pub gid: u32,
    /// Capabilities in the caller's bounding set, bit N for capability number N.
    pub bounding: u64,
    /// Highest capability number that the kernel knows (`cap_last_cap`).
    pub last_capability: u8,
    /// AppArmor is enabled (`/sys/module/apparmor/parameters/enabled`).
    pub apparmor: bool,
    /// SELinux is active (selinuxfs is mounted).
    pub selinux: bool,
    /// A resctrl file system is mounted.
    pub resctrl: bool,
    /// The host has pure cgroup v2.
    pub cgroup_v2: bool,
    /// Absolute path of the bundle directory.
    pub bundle: String,
}

/// Everything that create and start carry out.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// Namespaces: what is joined, what is new, in which order.
    pub entry: EntryScript,
    /// The root file system.
    pub root: RootPlan,
    /// Mounts in the listed order.
    pub mounts: Vec<MountPlan>,
    /// Devices: the configured ones, then the default ones that are not configured; empty when /dev is a bind mount
    /// of the host's (no node is forced into that).
    pub devices: Vec<DevicePlan>,
    /// /dev/fd, /dev/stdin, ... and ptmx are made (false when /dev is bind mounted from the host).
    pub default_dev_links: bool,
    /// Paths that become unreadable, absolute.
    pub masked_paths: Vec<String>,
    /// Paths that become read-only, absolute.
    pub readonly_paths: Vec<String>,
    /// Kernel parameters, in the order of their keys.
    pub sysctl: Vec<Sysctl>,
    /// Host name of a new UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name of a new UTS namespace.
    pub domainname: Option<String>,
    /// The program; none: create works, start is refused.
    pub process: Option<ProcessPlan>,
    /// Hooks of all kinds.
    pub hooks: HookPlan,
    /// Limits for the control group, as configured; hull-cgroup plans them.
    pub resources: Option<oci_spec::runtime::LinuxResources>,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<String>,
    /// The profile, as configured; hull-seccomp compiles it.
    pub seccomp: Option<oci_spec::runtime::LinuxSeccomp>,
    /// Argument of personality(2), with `ADDR_NO_RANDOMIZE` never set by us.
    pub personality: Option<u64>,
    /// NUMA policy of the process.
    pub memory_policy: Option<MemoryPolicyPlan>,
    /// Host interfaces that move into the network namespace.
    pub net_devices: Vec<NetDevice>,
    /// Resource director class, as configured.
    pub intel_rdt: Option<oci_spec::runtime::LinuxIntelRdt>,
    /// SELinux context of the mounts.
    pub mount_label: Option<String>,
    /// Annotations, unchanged.
    pub annotations: BTreeMap<String, String>,
    /// What the user should know; none of it changes the outcome.
    pub warnings: Vec<Warning>,
}

/// Something the user should know that does not stop the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// JSON pointer of the field.
    pub field: String,
    /// What is the matter.
    pub text: String,
}

/// A kernel parameter below /proc/sys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sysctl {
    /// JSON pointer.
    pub field: String,
    /// Path below /proc/sys, checked: no empty, `.` or `..` component.
    pub path: String,
    /// Value to be written.
    pub value: String,
}

/// A host network interface for the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetDevice {
    /// JSON pointer.
    pub field: String,
    /// Name outside.
    pub host: String,
    /// Name inside, possibly a template with `%d`.
    pub name: String,
}

/// All hooks, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct HookPlan {
    /// Deprecated kind, runs before `create_runtime`.
    pub prestart: Vec<Hook>,
    /// Runtime's namespaces, before the root is switched.
    pub create_runtime: Vec<Hook>,
    /// Container's namespaces, before the root is switched.
    pub create_container: Vec<Hook>,
    /// Container's namespaces, before the program.
    pub start_container: Vec<Hook>,
    /// Runtime's namespaces, after the program was started.
    pub poststart: Vec<Hook>,
    /// Runtime's namespaces, after destruction.
    pub poststop: Vec<Hook>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// JSON pointer, such as `/hooks/prestart/0`.
    pub field: String,
    /// Absolute path of the program.
    pub path: String,
    /// The whole argv; empty: the path alone.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<String>,
    /// Seconds; none: the runtime's default deadline (R17).
    pub timeout_seconds: Option<u32>,
}
