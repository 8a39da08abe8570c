//! Bundles whose root file system is the probe program and a few directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A bundle in a directory of a case.
#[derive(Debug)]
pub struct Bundle {
    /// The name for its container.
    pub id: String,
    /// The bundle's directory.
    pub path: PathBuf,
    /// The configuration as it was written last.
    pub config: Value,
}

impl Bundle {
    /// Makes a bundle in `path` and hands its configuration to `change` before it is written.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn make(
        path: PathBuf,
        id: String,
        probe: &Path,
        cgroup: &str,
        change: impl FnOnce(&mut Value),
    ) -> io::Result<Self> {
        let root = path.join("rootfs");
        for directory in ["dev", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::hard_link(probe, root.join("probe"))?;
        let mut bundle = Self { config: configuration(cgroup), id, path };
        change(&mut bundle.config);
        bundle.write()?;
        Ok(bundle)
    }

    /// Writes the configuration again.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&self) -> io::Result<()> {
        fs::write(self.path.join("config.json"), self.config.to_string())
    }

    /// A path below the container's root, as the host sees it.
    #[must_use]
    pub fn inside(&self, path: &str) -> PathBuf {
        self.path.join("rootfs").join(path.trim_start_matches('/'))
    }
}

/// A configuration as managers write it: six namespaces, the usual mounts, a few capabilities, no terminal. It carries
/// version 1.0.2, which every runtime in use accepts, and asks for nothing that needs `CAP_SYS_RESOURCE`.
fn configuration(cgroup: &str) -> Value {
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/probe", "report"],
            "env": ["PATH=/bin:/usr/bin"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs" },
        "hostname": "conformance",
        "mounts": mounts(),
        "linux": {
            "cgroupsPath": cgroup,
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }
            ]
        }
    })
}

fn mounts() -> Value {
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] }
    ])
}

/// Makes the container's process the probe with these words; actions are parted by `+`.
pub fn probe(config: &mut Value, words: &[&str]) {
    let all: Vec<&str> = std::iter::once("/probe").chain(words.iter().copied()).collect();
    config["process"]["args"] = json!(all);
}

/// Adds an entry to a list of the configuration; `pointer` is a JSON pointer, and a list that is missing is made when its
/// parent is there.
pub fn push(config: &mut Value, pointer: &str, entry: Value) {
    if config.pointer(pointer).is_none() {
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        if let Some(parent) = config.pointer_mut(parent) {
            parent[name] = json!([]);
        }
    }
    if let Some(list) = config.pointer_mut(pointer).and_then(Value::as_array_mut) {
        list.push(entry);
    }
}

/// Adds a mount.
pub fn mount(config: &mut Value, destination: &str, kind: &str, source: &str, options: &[&str]) {
    let entry = json!({ "destination": destination, "type": kind, "source": source, "options": options });
    push(config, "/mounts", entry);
}
