//! PURE: the configuration that a RUN's container gets. Every field is generated here, nothing is passed through.

use serde_json::{Value, json};

/// What a process in a build step may do: the usual set less net_raw, mknod and audit_write.
const CAPABILITIES: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
];
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Most processes of a step.
const PIDS: i64 = 4096;

/// One mount of the step: everything typed, options of our own making.
pub(crate) struct Mount {
    pub(crate) destination: String,
    pub(crate) source: Source,
    pub(crate) read_only: bool,
}

/// What is mounted.
pub(crate) enum Source {
    /// A path in the private workspace.
    Path(String),
    /// Memory.
    Tmpfs { size: Option<u64> },
}

/// Limits of a step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    pub(crate) memory: Option<i64>,
    pub(crate) memory_swap: Option<i64>,
    pub(crate) cpu_shares: Option<u64>,
    pub(crate) cpu_quota: Option<i64>,
    pub(crate) cpu_period: Option<u64>,
    pub(crate) cpuset_cpus: Option<String>,
    pub(crate) cpuset_mems: Option<String>,
    /// Name without RLIMIT_, soft, hard.
    pub(crate) ulimits: Vec<(String, u64, u64)>,
    pub(crate) shm_size: Option<u64>,
    pub(crate) capabilities: Vec<String>,
}

/// A step's container.
pub(crate) struct Sandbox<'a> {
    pub(crate) root: &'a str,
    pub(crate) args: &'a [String],
    pub(crate) env: Vec<String>,
    pub(crate) workdir: &'a str,
    pub(crate) user: &'a super::accounts::User,
    pub(crate) mounts: Vec<&'a Mount>,
    pub(crate) limits: &'a Limits,
    pub(crate) own_network: bool,
    pub(crate) insecure: bool,
    pub(crate) seccomp: Option<Value>,
    /// Whether the builder itself is in a user namespace.
    pub(crate) rootless: bool,
    /// Whether other groups than that of root can be had.
    pub(crate) has_groups: bool,
    /// Below which cgroup; none where this user may make none.
    pub(crate) cgroup: Option<&'a str>,
}

/// The capabilities of every step: the default ones and those of the command line.
pub(crate) fn capabilities(limits: &Limits) -> Vec<String> {
    let mut all: Vec<String> = CAPABILITIES.iter().map(ToString::to_string).collect();
    all.extend(limits.capabilities.iter().filter(|name| !CAPABILITIES.contains(&name.as_str())).cloned());
    all
}

impl Sandbox<'_> {
    /// The container's `config.json`.
    pub(crate) fn config(&self) -> Value {
        let mut namespaces: Vec<Value> =
            ["pid", "ipc", "uts", "mount", "cgroup"].iter().map(|kind| json!({"type": kind})).collect();
        if self.own_network {
            namespaces.push(json!({"type": "network"}));
        }
        let mut linux = json!({
            "namespaces": namespaces,
        });
        if let Some(cgroup) = self.cgroup {
            linux["cgroupsPath"] = json!(cgroup);
            linux["resources"] = self.resources();
        }
        if !self.insecure {
            linux["maskedPaths"] = json!(MASKED);
            linux["readonlyPaths"] = json!(READ_ONLY);
            if let Some(seccomp) = &self.seccomp {
                linux["seccomp"] = seccomp.clone();
            }
        }
        json!({
            "ociVersion": "1.0.2",
            "hostname": "hull-build",
            "root": {"path": self.root, "readonly": false},
            "process": self.process(),
            "mounts": self.all_mounts(),
            "linux": linux,
        })
    }

    fn process(&self) -> Value {
        let capabilities: Vec<String> = match self.insecure {
            true => ALL.iter().map(|name| format!("CAP_{name}")).collect(),
            false => capabilities(self.limits),
        };
        let rlimits: Vec<Value> = self
            .limits
            .ulimits
            .iter()
            .map(|(name, soft, hard)| json!({"type": format!("RLIMIT_{}", name.to_uppercase()), "soft": soft, "hard": hard}))
            .collect();
        json!({
            "terminal": false,
            "args": self.args,
            "env": self.env,
            "cwd": self.workdir,
            "noNewPrivileges": false,
            "user": {
                "uid": self.user.uid,
                "gid": self.user.gid,
                "additionalGids": if self.has_groups { &self.user.groups[..] } else { &[] },
                "umask": 0o022,
            },
            // Inheritable and ambient stay empty.
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": rlimits,
        })
    }

    fn resources(&self) -> Value {
        let limits = self.limits;
        let mut resources = json!({
            "pids": {"limit": PIDS},
            "devices": [{"allow": self.insecure, "access": "rwm"}],
        });
        let mut memory = serde_json::Map::new();
        memory.extend(limits.memory.map(|bytes| ("limit".into(), bytes.into())));
        memory.extend(limits.memory_swap.map(|bytes| ("swap".into(), bytes.into())));
        let mut cpu = serde_json::Map::new();
        cpu.extend(limits.cpu_shares.map(|shares| ("shares".into(), shares.into())));
        cpu.extend(limits.cpu_quota.map(|quota| ("quota".into(), quota.into())));
        cpu.extend(limits.cpu_period.map(|period| ("period".into(), period.into())));
        cpu.extend(limits.cpuset_cpus.clone().map(|cpus| ("cpus".into(), cpus.into())));
        cpu.extend(limits.cpuset_mems.clone().map(|mems| ("mems".into(), mems.into())));
        for (name, map) in [("memory", memory), ("cpu", cpu)] {
            if !map.is_empty() {
                resources[name] = map.into();
            }
        }
        resources
    }

    fn all_mounts(&self) -> Vec<Value> {
        let mount = |kind: &str, at: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
        let shm = format!("size={}", self.limits.shm_size.unwrap_or(64 << 20));
        let sys: &[&str] =
            if self.insecure { &["nosuid", "noexec", "nodev"] } else { &["nosuid", "noexec", "nodev", "ro"] };
        let terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
        // Without a range of ids there is no group tty.
        let terminals = &terminals[..if self.has_groups { 6 } else { 5 }];
        let mut all = vec![
            mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("devpts", "/dev/pts", terminals),
            mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
            mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        ];
        if self.rootless && !self.own_network {
            // sysfs shows a network: only who owns that may mount it, and the host's is not this user's.
            // Below it are more mounts, control groups that this user may change among them: they are read-only, too.
            all.push(json!({"destination": "/sys", "type": "bind", "source": "/sys",
                "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rro"]}));
        } else {
            all.push(mount("sysfs", "/sys", sys));
        }
        if self.cgroup.is_some() {
            all.push(mount("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
        }
        all.extend(self.mounts.iter().map(|mount| mount.json()));
        all
    }
}

impl Mount {
    fn json(&self) -> Value {
        let read_only = if self.read_only { "ro" } else { "rw" };
        match &self.source {
            Source::Path(path) => json!({
                "destination": self.destination, "type": "bind", "source": path,
                "options": ["bind", "private", "nosuid", "nodev", read_only],
            }),
            Source::Tmpfs { size } => {
                let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "mode=1777".to_owned()];
                options.extend(size.map(|size| format!("size={size}")));
                json!({"destination": self.destination, "type": "tmpfs", "source": "tmpfs", "options": options})
            }
        }
    }
}

/// Every capability of this kernel series, for `--security=insecure`.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
