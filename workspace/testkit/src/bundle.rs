//! Bundles: a `config.json` made from code beside a root file system of its own.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::place::{Scratch, unique};
use crate::rootfs;

/// A bundle in a directory that goes away with it.
#[derive(Debug)]
pub struct Bundle {
    /// The configuration as it will be written; change it with [`Bundle::with`].
    pub config: Value,
    /// The name for the container; also the last part of its cgroup path.
    pub id: String,
    place: Scratch,
}

impl Bundle {
    /// A bundle with a busybox root file system and [`default_config`], running `arguments`.
    ///
    /// # Panics
    /// When its files cannot be written.
    #[must_use]
    pub fn new(arguments: &[&str]) -> Self {
        let bundle = Self::empty(arguments);
        rootfs::busybox(&bundle.root()).expect("make a busybox root file system");
        bundle
    }

    /// A bundle whose root file system is an existing directory, used as it is.
    #[must_use]
    pub fn on(root: &Path, arguments: &[&str]) -> Self {
        Self::empty(arguments).with(|config| config["root"]["path"] = json!(root))
    }

    /// A bundle with an empty root directory.
    ///
    /// # Panics
    /// When its files cannot be written.
    #[must_use]
    pub fn empty(arguments: &[&str]) -> Self {
        let id = unique("c");
        let config = default_config(&id, arguments);
        let bundle = Self { config, place: Scratch::new("bundle"), id };
        fs::create_dir(bundle.root()).expect("make the root directory of a bundle");
        bundle.write();
        bundle
    }

    /// Changes the configuration and writes it again.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self.write();
        self
    }

    /// Changes the configuration, with the container's name at hand, and writes it again.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn with_id(mut self, change: impl FnOnce(&str, &mut Value)) -> Self {
        change(&self.id, &mut self.config);
        self.write();
        self
    }

    /// Runs a POSIX shell script as the container's process.
    #[must_use]
    pub fn shell(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// The bundle's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// The bundle's own root file system.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.place.join("rootfs")
    }

    /// Writes raw bytes as `config.json`, for tests of input that is no configuration.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn raw_config(&self, bytes: &[u8]) {
        fs::write(self.place.join("config.json"), bytes).expect("write config.json");
    }

    fn write(&self) {
        self.raw_config(&serde_json::to_vec_pretty(&self.config).expect("a value is valid JSON"));
    }
}

/// A configuration as managers write it: six namespaces, the usual mounts, a few capabilities, no terminal.
///
/// It asks for nothing that needs `CAP_SYS_RESOURCE`.
#[must_use]
pub fn default_config(id: &str, arguments: &[&str]) -> Value {
    let capabilities = json!([
        "CAP_AUDIT_WRITE",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_CHOWN",
        "CAP_SETUID",
        "CAP_SETGID"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": arguments,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "testkit",
        "mounts": default_mounts(),
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "cgroup" }
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn default_mounts() -> Value {
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
          "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
    ])
}
