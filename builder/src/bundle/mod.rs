//! PURE: an image's configuration becomes a runtime's (image specification, conversion to OCI runtime configuration).

use std::collections::BTreeMap;

use hull_image::{ImageConfig, RunConfig};
use hull_seccomp::{Arch, default_profile};
use serde_json::{Value, json};

use crate::steps::accounts::User;

/// What a container may do unless told otherwise: the common fourteen.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const MASKED: [&str; 12] = [
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
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A bind mount of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    /// Where on the host.
    pub(crate) source: String,
    /// Where in the container.
    pub(crate) destination: String,
    /// No writing.
    pub(crate) read_only: bool,
}

/// What the command line says about a container.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    /// Instead of the image's entry point; an empty text takes it away.
    pub(crate) entrypoint: Option<String>,
    /// Instead of the image's command.
    pub(crate) command: Vec<String>,
    /// More environment, `KEY=VALUE`.
    pub(crate) env: Vec<String>,
    /// Instead of the image's working directory.
    pub(crate) workdir: Option<String>,
    /// A terminal.
    pub(crate) terminal: bool,
    /// No writing to the root.
    pub(crate) read_only: bool,
    /// Bytes of memory.
    pub(crate) memory: Option<i64>,
    /// Processors, in thousandths.
    pub(crate) milli_cpus: Option<u64>,
    /// Capabilities added, without `CAP_`.
    pub(crate) cap_add: Vec<String>,
    /// Capabilities taken away, without `CAP_`.
    pub(crate) cap_drop: Vec<String>,
    /// Mounts, in order.
    pub(crate) binds: Vec<Bind>,
    /// Host name.
    pub(crate) hostname: String,
    /// The host's network instead of one of its own.
    pub(crate) host_network: bool,
    /// Path of the cgroup; none where this user may make none.
    pub(crate) cgroup: Option<String>,
    /// Whether the container is in the user namespace of an ordinary user.
    pub(crate) rootless: bool,
    /// Whether there are other groups than that of root.
    pub(crate) has_groups: bool,
    /// More annotations.
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Default for Wishes {
    /// Nothing in particular, as root.
    fn default() -> Self {
        Self {
            entrypoint: None,
            command: Vec::new(),
            env: Vec::new(),
            workdir: None,
            terminal: false,
            read_only: false,
            memory: None,
            milli_cpus: None,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            binds: Vec::new(),
            hostname: String::new(),
            host_network: false,
            cgroup: None,
            rootless: false,
            has_groups: true,
            annotations: BTreeMap::new(),
        }
    }
}

/// The arguments of the process: entry point and command, of the image or of the wishes.
///
/// # Errors
/// Neither says what to run.
pub(crate) fn arguments(config: &RunConfig, wishes: &Wishes) -> Result<Vec<String>, String> {
    let own = config.entrypoint.clone().unwrap_or_default();
    let default = config.cmd.clone().unwrap_or_default();
    let (entrypoint, command) = match &wishes.entrypoint {
        // Another entry point takes the image's default arguments away.
        Some(text) => {
            (Some(text.clone()).filter(|text| !text.is_empty()).into_iter().collect(), wishes.command.clone())
        }
        None if wishes.command.is_empty() => (own, default),
        None => (own, wishes.command.clone()),
    };
    let all: Vec<String> = entrypoint.into_iter().chain(command).collect();
    match all.is_empty() {
        true => Err("the image has neither entry point nor command: say what to run".to_owned()),
        false => Ok(all),
    }
}

/// The whole `config.json` for a root file system in `root`.
///
/// # Errors
/// Nothing to run, or a capability that does not exist.
pub(crate) fn config(root: &str, image: &ImageConfig, user: &User, wishes: &Wishes) -> Result<Value, String> {
    let capabilities = capabilities(wishes)?;
    let mut namespaces = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    if !wishes.host_network {
        namespaces.push("network");
    }
    let namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
    let named: Vec<String> = capabilities.iter().map(|name| format!("CAP_{name}")).collect();
    let additional = if wishes.has_groups { groups(user) } else { Vec::new() };
    let workdir = wishes.workdir.clone().unwrap_or_else(|| image.config.working_dir.clone());
    let mut linux = json!({
        "namespaces": namespaces,
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
        "seccomp": seccomp(&capabilities),
    });
    if let Some(cgroup) = &wishes.cgroup {
        linux["cgroupsPath"] = json!(cgroup);
        linux["resources"] = resources(wishes);
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "hostname": wishes.hostname,
        "root": {"path": root, "readonly": wishes.read_only},
        "annotations": annotations(image, wishes),
        "process": {
            "terminal": wishes.terminal,
            "args": arguments(&image.config, wishes)?,
            "env": environment(&image.config, user, wishes),
            "cwd": if workdir.is_empty() { "/" } else { &workdir },
            "user": {"uid": user.uid, "gid": user.gid, "additionalGids": additional},
            "noNewPrivileges": false,
            "capabilities": {"bounding": named, "effective": named, "permitted": named},
        },
        "mounts": mounts(wishes),
        "linux": linux,
    }))
}

/// The primary group is one of the others too, or files that shut a group out would be open to it (CVE-2022-36109).
pub(crate) fn groups(user: &User) -> Vec<u32> {
    let mut groups = vec![user.gid];
    groups.extend(user.groups.iter().filter(|group| **group != user.gid));
    groups
}

fn capabilities(wishes: &Wishes) -> Result<Vec<String>, String> {
    let plain = |name: &String| name.to_uppercase().trim_start_matches("CAP_").to_owned();
    let dropped: Vec<String> = wishes.cap_drop.iter().map(plain).collect();
    let added: Vec<String> = wishes.cap_add.iter().map(plain).collect();
    let known: Vec<String> = oci_spec_names();
    if let Some(bad) = added.iter().chain(&dropped).find(|name| *name != "ALL" && !known.contains(name)) {
        return Err(format!("there is no capability {bad}"));
    }
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let mut held: Vec<String> = match (all(&added), all(&dropped)) {
        (true, _) => known,
        (false, true) => Vec::new(),
        (false, false) => CAPABILITIES.map(str::to_owned).to_vec(),
    };
    held.retain(|name| !dropped.contains(name));
    held.extend(added.into_iter().filter(|name| name != "ALL"));
    held.sort();
    held.dedup();
    Ok(held)
}

fn oci_spec_names() -> Vec<String> {
    // The names as the runtime specification has them, without their prefix.
    const ALL: &str = "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE \
        DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN \
        NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT \
        SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM";
    ALL.split_whitespace().map(str::to_owned).collect()
}

fn seccomp(capabilities: &[String]) -> Value {
    let native = match std::env::consts::ARCH {
        "aarch64" => Arch::Aarch64,
        _ => Arch::X86_64,
    };
    let holds = |capability: oci_spec::runtime::Capability| {
        let name = format!("{capability:?}").to_uppercase();
        capabilities.iter().any(|held| held.replace('_', "") == name.replace('_', ""))
    };
    serde_json::to_value(default_profile(holds, native)).expect("a profile can always be written")
}

/// The image's, the wishes', and what every process expects.
fn environment(config: &RunConfig, user: &User, wishes: &Wishes) -> Vec<String> {
    let mut env = config.env.clone();
    for wish in &wishes.env {
        let key = wish.split('=').next().unwrap_or_default();
        env.retain(|old| old.split('=').next() != Some(key));
        env.push(wish.clone());
    }
    let mut add = |key: &str, value: &str| {
        if !env.iter().any(|old| old.split('=').next() == Some(key)) {
            env.push(format!("{key}={value}"));
        }
    };
    add("PATH", PATH);
    add("HOSTNAME", &wishes.hostname);
    add("HOME", &user.home);
    if wishes.terminal {
        add("TERM", "xterm");
    }
    env
}

fn annotations(image: &ImageConfig, wishes: &Wishes) -> BTreeMap<String, String> {
    let key = |name: &str| format!("org.opencontainers.image.{name}");
    let mut found = BTreeMap::new();
    let ports: Vec<&str> = image.config.exposed_ports.keys().map(String::as_str).collect();
    for (name, value) in [
        ("os", Some(image.os.clone())),
        ("architecture", Some(image.architecture.clone())),
        ("variant", image.variant.clone()),
        ("author", image.author.clone()),
        ("created", image.created.clone()),
        ("stopSignal", image.config.stop_signal.clone()),
        ("exposedPorts", Some(ports.join(",")).filter(|text| !text.is_empty())),
    ] {
        found.extend(value.map(|value| (key(name), value)));
    }
    found.extend(image.config.labels.clone());
    found.extend(wishes.annotations.clone());
    found
}

fn mounts(wishes: &Wishes) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", if wishes.has_groups { &terminals } else { &terminals[..5] }),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    mounts.push(match wishes.rootless && wishes.host_network {
        // sysfs shows a network: only who owns that may mount it, and the host's is not this user's.
        // Below it are more mounts, control groups that this user may change among them: they are read-only, too.
        true => json!({"destination": "/sys", "type": "bind", "source": "/sys",
            "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rro"]}),
        false => mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    });
    if wishes.cgroup.is_some() {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
    }
    for bind in &wishes.binds {
        let mode = if bind.read_only { "ro" } else { "rw" };
        mounts.push(json!({
            "destination": bind.destination, "type": "bind", "source": bind.source,
            "options": ["rbind", "rprivate", mode],
        }));
    }
    mounts
}

fn resources(wishes: &Wishes) -> Value {
    let mut resources = json!({"devices": [{"allow": false, "access": "rwm"}]});
    if let Some(limit) = wishes.memory {
        resources["memory"] = json!({"limit": limit});
    }
    if let Some(milli) = wishes.milli_cpus {
        resources["cpu"] = json!({"quota": milli * 100, "period": 100_000});
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        let mut image =
            ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
        image.config.entrypoint = Some(vec!["/e".into()]);
        image.config.cmd = Some(vec!["c".into()]);
        image.config.env = vec!["A=1".into(), "B=2".into()];
        image.config.labels.insert("org.opencontainers.image.author".into(), "label".into());
        image.author = Some("field".into());
        image
    }

    fn user() -> User {
        User { uid: 7, gid: 8, groups: vec![9], home: "/h".into() }
    }

    #[test]
    fn entry_point_and_command_are_replaced_as_docker_does() {
        let config = image().config;
        for (entrypoint, command, expected) in [
            (None, vec![], vec!["/e", "c"]),
            (None, vec!["x", "y"], vec!["/e", "x", "y"]),
            (Some("/n"), vec![], vec!["/n"]),
            (Some("/n"), vec!["x"], vec!["/n", "x"]),
            (Some(""), vec!["x"], vec!["x"]),
        ] {
            let command = command.into_iter().map(str::to_owned).collect();
            let wishes = Wishes { entrypoint: entrypoint.map(str::to_owned), command, ..Wishes::default() };
            assert_eq!(arguments(&config, &wishes).unwrap(), expected);
        }
        assert!(arguments(&RunConfig::default(), &Wishes::default()).is_err());
    }

    #[test]
    fn fields_become_annotations_and_labels_override_them() {
        let config = config("rootfs", &image(), &user(), &Wishes::default()).unwrap();
        assert_eq!(config["annotations"]["org.opencontainers.image.os"], "linux");
        assert_eq!(config["annotations"]["org.opencontainers.image.author"], "label");
        assert_eq!(config["process"]["user"], json!({"uid": 7, "gid": 8, "additionalGids": [8, 9]}));
        assert_eq!(config["process"]["cwd"], "/");
    }

    #[test]
    fn environment_is_completed_but_never_overruled() {
        let wishes = Wishes {
            env: vec!["A=9".into(), "HOME=/mine".into()],
            hostname: "n".into(),
            ..Wishes::default()
        };
        let env = environment(&image().config, &user(), &wishes);
        assert_eq!(env, ["B=2", "A=9", "HOME=/mine", &format!("PATH={PATH}"), "HOSTNAME=n"]);
    }

    #[test]
    fn capabilities_are_the_fourteen_plus_and_minus_wishes() {
        let held = |add: &[&str], drop: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            capabilities(&Wishes { cap_add: list(add), cap_drop: list(drop), ..Wishes::default() })
        };
        assert_eq!(held(&[], &[]).unwrap().len(), 14);
        assert_eq!(held(&["cap_sys_admin"], &["NET_RAW"]).unwrap().len(), 14);
        assert_eq!(held(&["CHOWN"], &["ALL"]).unwrap(), ["CHOWN"]);
        assert_eq!(held(&["ALL"], &[]).unwrap().len(), 41);
        assert!(held(&["NOPE"], &[]).is_err());
    }

    #[test]
    fn nothing_inheritable_and_a_filter_that_denies_by_default() {
        let wishes = Wishes { cgroup: Some("/g".into()), ..Wishes::default() };
        let config = config("rootfs", &image(), &user(), &wishes).unwrap();
        assert_eq!(config["process"]["capabilities"].get("inheritable"), None);
        assert_eq!(config["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(config["linux"]["resources"]["devices"][0]["allow"], false);
    }

    #[test]
    fn a_capability_opens_its_calls_in_the_filter() {
        let calls = |names: &[&str]| {
            let held: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            seccomp(&held)["syscalls"].to_string()
        };
        assert!(calls(&["SYS_ADMIN"]).contains("\"mount\"") && !calls(&["CHOWN"]).contains("\"mount\""));
    }
}
