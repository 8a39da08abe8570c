//! The object of `features` (features.md, features-linux.md): settled when the program is built, but for what the
//! caller asks the kernel.

use super::pretty;
use crate::capabilities::CAPABILITIES;
use crate::mounts::mount_options;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use serde::Serialize;

/// Lists that other parts of the program own.
#[derive(Debug, Clone, Default)]
pub struct FeatureLists {
    /// Seccomp; none: the program was built without it.
    pub seccomp: Option<SeccompLists>,
    /// Own facts, such as the version and whether checkpoints work.
    pub annotations: BTreeMap<String, String>,
    /// Keys, or prefixes ending in a dot, of annotations that change behaviour.
    pub unsafe_annotations: Vec<String>,
}

/// What the seccomp compiler knows.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompLists {
    /// `SCMP_ACT_*`.
    pub actions: Vec<String>,
    /// `SCMP_CMP_*`.
    pub operators: Vec<String>,
    /// `SCMP_ARCH_*`.
    pub archs: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_*` that are accepted.
    pub known_flags: Vec<String>,
    /// Those of them that this kernel has.
    pub supported_flags: Vec<String>,
}

/// The text of the features object, indented with four blanks.
pub fn features_document(lists: &FeatureLists) -> String {
    let enabled = Switch { enabled: true };
    let document = Document {
        oci_version_min: "1.0.0",
        oci_version_max: "1.3.0",
        hooks: ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        mount_options: mount_options(),
        linux: Linux {
            namespaces: ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            capabilities: CAPABILITIES.to_vec(),
            cgroup: Cgroup { v1: true, v2: true, systemd: true, systemd_user: true, rdma: true },
            seccomp: lists.seccomp.as_ref().map(|lists| Seccomp { enabled: true, lists }),
            apparmor: enabled,
            selinux: enabled,
            intel_rdt: IntelRdt { enabled: true, schemata: true, monitoring: true },
            memory_policy: MemoryPolicy {
                modes: crate::load::MEMORY_MODES.to_vec(),
                flags: crate::load::MEMORY_FLAGS.to_vec(),
            },
            mount_extensions: MountExtensions { idmap: enabled },
            net_devices: enabled,
        },
        annotations: &lists.annotations,
        potentially_unsafe_config_annotations: &lists.unsafe_annotations,
    };
    pretty(&document, b"    ")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: [&'static str; 6],
    mount_options: Vec<&'static str>,
    linux: Linux<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    /// Always there: an empty list says that there are none, a missing one that nobody knows.
    potentially_unsafe_config_annotations: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux<'a> {
    namespaces: [&'static str; 8],
    capabilities: Vec<&'static str>,
    cgroup: Cgroup,
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp: Option<Seccomp<'a>>,
    apparmor: Switch,
    selinux: Switch,
    intel_rdt: IntelRdt,
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Switch,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Serialize)]
struct Seccomp<'a> {
    enabled: bool,
    #[serde(flatten)]
    lists: &'a SeccompLists,
}

#[derive(Clone, Copy, Serialize)]
struct Switch {
    enabled: bool,
}

#[derive(Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Serialize)]
struct MemoryPolicy {
    modes: Vec<&'static str>,
    flags: Vec<&'static str>,
}

#[derive(Serialize)]
struct MountExtensions {
    idmap: Switch,
}
