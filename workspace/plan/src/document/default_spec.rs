//! The configuration that `spec` writes: member for member the one of the peers, because managers and people edit it
//! by the path of its members.
//!
//! `ociVersion` is 1.0.2: the document uses nothing newer, and older runtimes refuse what they do not know
//! (docs/decisions/0021-oci-version.md).

use super::pretty;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use serde::Serialize;

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The text of a new `config.json`, indented with tabs.
///
/// `rootless` is the caller's uid and gid when the container shall run without privileges. On pure cgroup v2 the
/// container gets a cgroup namespace as well.
pub fn default_spec(rootless: Option<(u32, u32)>, cgroup_v2: bool) -> String {
    let linux = Linux {
        uid_mappings: rootless.map(|(uid, _)| [Mapping { container_id: 0, host_id: uid, size: 1 }]),
        gid_mappings: rootless.map(|(_, gid)| [Mapping { container_id: 0, host_id: gid, size: 1 }]),
        resources: rootless
            .is_none()
            .then_some(Resources { devices: [Rule { allow: false, access: "rwm" }] }),
        namespaces: namespaces(rootless.is_some(), cgroup_v2),
        masked_paths: MASKED,
        readonly_paths: READONLY,
    };
    let document = Document {
        oci_version: "1.0.2",
        process: Process {
            terminal: true,
            user: User { uid: 0, gid: 0 },
            args: ["sh"],
            env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            cwd: "/",
            capabilities: Sets { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
            rlimits: [Rlimit { kind: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
            no_new_privileges: true,
        },
        root: Root { path: "rootfs", readonly: true },
        hostname: "hull",
        mounts: mounts(rootless.is_some()),
        linux,
    };
    pretty(&document, b"\t")
}

fn namespaces(rootless: bool, cgroup_v2: bool) -> Vec<Namespace> {
    let network = (!rootless).then_some("network");
    let kinds = ["pid"].into_iter().chain(network).chain(["ipc", "uts", "mount"]);
    let kinds = kinds.chain(cgroup_v2.then_some("cgroup")).chain(rootless.then_some("user"));
    kinds.map(|kind| Namespace { kind }).collect()
}

fn mounts(rootless: bool) -> Vec<Mount> {
    let mount = |destination, kind, source, options| Mount { destination, kind, source, options };
    // The id of the tty group is not mapped without privileges, and sysfs cannot be mounted without a network
    // namespace of its own.
    let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    terminals.extend((!rootless).then_some("gid=5"));
    let sysfs = if rootless {
        mount("/sys", "none", "/sys", vec!["rbind", "nosuid", "noexec", "nodev", "ro"])
    } else {
        mount("/sys", "sysfs", "sysfs", vec!["nosuid", "noexec", "nodev", "ro"])
    };
    vec![
        mount("/proc", "proc", "proc", vec![]),
        mount("/dev", "tmpfs", "tmpfs", vec!["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", terminals),
        mount("/dev/shm", "tmpfs", "shm", vec!["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", vec!["nosuid", "noexec", "nodev"]),
        sysfs,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", vec!["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    oci_version: &'static str,
    process: Process,
    root: Root,
    hostname: &'static str,
    mounts: Vec<Mount>,
    linux: Linux,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    terminal: bool,
    user: User,
    args: [&'static str; 1],
    env: [&'static str; 2],
    cwd: &'static str,
    capabilities: Sets,
    rlimits: [Rlimit; 1],
    no_new_privileges: bool,
}

#[derive(Serialize)]
struct User {
    uid: u32,
    gid: u32,
}

/// No ambient set: without an inheritable one it only makes a warning.
#[derive(Serialize)]
struct Sets {
    bounding: [&'static str; 3],
    effective: [&'static str; 3],
    permitted: [&'static str; 3],
}

#[derive(Serialize)]
struct Rlimit {
    #[serde(rename = "type")]
    kind: &'static str,
    hard: u64,
    soft: u64,
}

#[derive(Serialize)]
struct Root {
    path: &'static str,
    readonly: bool,
}

#[derive(Serialize)]
struct Mount {
    destination: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    source: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid_mappings: Option<[Mapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid_mappings: Option<[Mapping; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources>,
    namespaces: Vec<Namespace>,
    masked_paths: [&'static str; 10],
    readonly_paths: [&'static str; 5],
}

#[derive(Serialize)]
struct Mapping {
    #[serde(rename = "containerID")]
    container_id: u32,
    #[serde(rename = "hostID")]
    host_id: u32,
    size: u32,
}

#[derive(Serialize)]
struct Resources {
    devices: [Rule; 1],
}

#[derive(Serialize)]
struct Rule {
    allow: bool,
    access: &'static str,
}

#[derive(Serialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: &'static str,
}
