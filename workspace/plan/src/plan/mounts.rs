//! What becomes of the root file system: mounts and devices.

use super::namespaces::IdMaps;
use alloc::string::String;
use alloc::vec::Vec;
use serde::Serialize;

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
