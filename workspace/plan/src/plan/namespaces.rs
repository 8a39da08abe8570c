//! Namespaces: which, how a process gets into them, and their id maps.

use alloc::string::String;
use alloc::vec::Vec;
use serde::Serialize;

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
