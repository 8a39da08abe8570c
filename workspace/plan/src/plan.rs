//! The plan: what the flows of the runtime carry out, with no decision left in it.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::Serialize;

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

/// Kinds of namespaces, each with its name in the configuration and in `/proc/PID/ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// User and group ids, capabilities.
    User,
    /// Process ids.
    Pid,
    /// Mounts.
    Mount,
    /// Network stack.
    Network,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Root of the visible control groups.
    Cgroup,
    /// Offsets of the monotonic and boot-time clocks.
    Time,
}

impl NamespaceKind {
    /// All kinds.
    pub const ALL: [Self; 8] =
        [Self::User, Self::Pid, Self::Mount, Self::Network, Self::Ipc, Self::Uts, Self::Cgroup, Self::Time];

    /// The `CLONE_NEW*` flag (clone(2), namespaces(7)).
    pub const fn clone_flag(self) -> u64 {
        match self {
            Self::User => 0x1000_0000,
            Self::Pid => 0x2000_0000,
            Self::Mount => 0x0002_0000,
            Self::Network => 0x4000_0000,
            Self::Ipc => 0x0800_0000,
            Self::Uts => 0x0400_0000,
            Self::Cgroup => 0x0200_0000,
            Self::Time => 0x0000_0080,
        }
    }

    /// File name in `/proc/PID/ns`.
    pub const fn proc_name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Mount => "mnt",
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }
}

/// A set of namespace kinds, as the union of their `CLONE_NEW*` flags; printed as a list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamespaceSet(pub u64);

impl NamespaceSet {
    /// True when `kind` is in the set.
    pub const fn has(self, kind: NamespaceKind) -> bool {
        self.0 & kind.clone_flag() != 0
    }

    /// The set with `kind` in it.
    #[must_use]
    pub const fn with(self, kind: NamespaceKind) -> Self {
        Self(self.0 | kind.clone_flag())
    }

    /// The set without `kind`.
    #[must_use]
    pub const fn without(self, kind: NamespaceKind) -> Self {
        Self(self.0 & !kind.clone_flag())
    }
}

/// How a process gets into its namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EntryScript {
    /// Joined by path: the user namespace first, then the others in the kernel's order, the pid namespace last.
    pub join: Vec<JoinNamespace>,
    /// Made anew.
    pub create: NamespaceSet,
    /// Written by the parent after the clone; only with a new user namespace.
    pub id_maps: Option<IdMaps>,
    /// Written before the first process enters; only with a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
}

impl EntryScript {
    /// True when `kind` is joined by path.
    pub fn joins(&self, kind: NamespaceKind) -> bool {
        self.join.iter().any(|join| join.kind == kind)
    }

    /// True when the process does not share `kind` with the runtime.
    pub fn has_own(&self, kind: NamespaceKind) -> bool {
        self.create.has(kind) || self.joins(kind)
    }
}

/// A namespace joined by path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JoinNamespace {
    /// Which kind it has to be.
    pub kind: NamespaceKind,
    /// Absolute path, looked up in the runtime's mount namespace.
    pub path: String,
    /// JSON pointer of the entry.
    pub field: String,
}

/// Id mappings of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct IdMaps {
    /// For `uid_map`.
    pub uid: Vec<IdMap>,
    /// For `gid_map`.
    pub gid: Vec<IdMap>,
}

/// One range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// An offset of one clock of a time namespace (time_namespaces(7)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nanoseconds: u32,
}

/// Mount propagation (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// `MS_SHARED`.
    Shared,
    /// `MS_SLAVE`.
    Slave,
    /// `MS_PRIVATE`.
    Private,
    /// `MS_UNBINDABLE`.
    Unbindable,
}

impl Propagation {
    /// The `MS_*` flag, which mount_setattr(2) takes as well.
    pub const fn flag(self) -> u64 {
        match self {
            Self::Shared => 1 << 20,
            Self::Slave => 1 << 19,
            Self::Private => 1 << 18,
            Self::Unbindable => 1 << 17,
        }
    }
}

/// A propagation, for one mount or for the tree below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PropagationPlan {
    /// Which one.
    pub kind: Propagation,
    /// For the whole tree.
    pub recursive: bool,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootPlan {
    /// Absolute path outside.
    pub path: String,
    /// Read-only after everything is set up.
    pub readonly: bool,
    /// `linux.rootfsPropagation`; none: `rslave` as the peers do.
    pub propagation: Option<PropagationPlan>,
}

/// `MOUNT_ATTR_*` flags that are set and cleared (mount_setattr(2)); printed as lists of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Set these.
    pub set: u64,
    /// Clear these first. For atime this is `MOUNT_ATTR__ATIME` whenever `set` has an atime value.
    pub clear: u64,
}

/// One entry of `mounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountPlan {
    /// JSON pointer, such as `/mounts/3`.
    pub field: String,
    /// Absolute path in the container, lexically clean.
    pub target: String,
    /// What is mounted.
    pub source: MountSource,
    /// Attributes of the mount itself.
    pub attributes: Attributes,
    /// Attributes of the whole tree (`rro`, `rnosuid`, ...), applied with `AT_RECURSIVE`.
    pub recursive_attributes: Attributes,
    /// Propagation options, in the listed order.
    pub propagation: Vec<PropagationPlan>,
    /// The tmpfs starts with what lies below it.
    pub copy_up: bool,
    /// Id mapping of the mount.
    pub id_map: Option<MountIdMap>,
    /// Unmodified options, for messages.
    pub options: Vec<String>,
}

/// What a mount entry puts at its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum MountSource {
    /// A file or directory of the host, absolute.
    Bind {
        /// Absolute path outside.
        path: String,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A new file system by fsopen(2).
    Filesystem {
        /// Name as the kernel lists it.
        kind: String,
        /// `source` of the entry.
        source: Option<String>,
        /// Superblock flags and data for fsconfig(2), in order: flags have no value.
        options: Vec<(String, Option<String>)>,
    },
    /// The container's own control groups.
    Cgroup,
    /// `remount` of what already lies at the target.
    Remount {
        /// Superblock flags and data for fsconfig(2), when the remount is not a bind remount.
        options: Vec<(String, Option<String>)>,
        /// Only the attributes of the mount change.
        bind: bool,
    },
    /// Only the propagation or attributes of what already lies at the target change.
    ChangeOnly,
}

/// Id mapping of one mount (mount_setattr(2), MOUNT_ATTR_IDMAP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountIdMap {
    /// For the whole tree (`ridmap`).
    pub recursive: bool,
    /// The mapping; none: that of the container's user namespace.
    pub maps: Option<IdMaps>,
}

/// Kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum DeviceKind {
    /// Character device.
    Character,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// A node in the container's /dev (or anywhere).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DevicePlan {
    /// JSON pointer; empty for the default devices.
    pub field: String,
    /// Absolute path in the container.
    pub path: String,
    /// Kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner, in the container.
    pub uid: u32,
    /// Group, in the container.
    pub gid: u32,
    /// Bind the host's node: mknod is impossible in a user namespace.
    pub bind: bool,
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
