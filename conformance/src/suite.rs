//! What all cases of a run share: the runtime's command line, a place on a private tmpfs, facts about the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fs, io, process};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use crate::call::{call, silent};
use crate::cgroup::Layout;

/// The surroundings of a run.
#[derive(Debug)]
pub struct Suite {
    /// The runtime's program.
    pub runtime: PathBuf,
    /// What comes before each command, beside `--root`.
    pub arguments: Vec<String>,
    /// Name and version as the runtime tells them, e.g. `runc 1.1.5`.
    pub version: String,
    /// A directory on a tmpfs that only this run sees.
    pub place: PathBuf,
    /// How control groups are mounted.
    pub layout: Layout,
    /// What came of the plain container, once somebody has asked.
    plain: OnceLock<Option<String>>,
}

impl Suite {
    /// Prepares a run: this process gets a mount namespace of its own, so that nothing a runtime mounts stays on the
    /// machine, and a tmpfs in it with the probe program. No thread may have been started before.
    ///
    /// # Errors
    /// Whatever the kernel says; root is needed.
    pub fn prepare(runtime: &Path, arguments: &[String]) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let place = env::temp_dir().join(format!("oci-conformance-{}", process::id()));
        fs::create_dir_all(&place)?;
        mount("tmpfs", &place, "tmpfs", MountFlags::empty(), c"mode=755")?;
        fs::copy(env::current_exe()?, place.join("probe"))?;
        let version = version(runtime, arguments, &place);
        Ok(Self {
            runtime: runtime.into(),
            arguments: arguments.into(),
            version,
            layout: Layout::here(),
            place,
            plain: OnceLock::new(),
        })
    }

    /// The probe program outside of containers.
    #[must_use]
    pub fn probe(&self) -> PathBuf {
        self.place.join("probe")
    }

    /// The runtime's command line up to its command, with a state directory below `place`.
    #[must_use]
    pub fn command(&self, place: &Path) -> Command {
        let mut command = silent(&self.runtime);
        command.args(&self.arguments).arg("--root").arg(place.join("state"));
        command
    }

    /// What stands in the way of a plain container; asked by `find` the first time.
    pub fn plain(&self, find: impl FnOnce() -> Option<String>) -> Option<&str> {
        self.plain.get_or_init(find).as_deref()
    }

    /// Whether the runtime is told to make its control groups through systemd.
    #[must_use]
    pub fn systemd(&self) -> bool {
        self.arguments.iter().any(|word| word.contains("systemd"))
    }

    /// The configuration's path of a container's control group, in the form its manager wants.
    #[must_use]
    pub fn cgroups_path(&self, id: &str) -> String {
        if self.systemd() { format!("system.slice:conformance:{id}") } else { format!("/{id}") }
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        // What is left of the tmpfs goes with the namespace; its mount point is an empty directory of the machine.
        let _ = rustix::mount::unmount(&self.place, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.place);
    }
}

/// How long a runtime may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(20);

/// `runc version 1.1.5+ds1` and `runc 1.1.5` are both shown as `runc 1.1.5`.
fn version(runtime: &Path, arguments: &[String], place: &Path) -> String {
    let told = call(silent(runtime).args(arguments).arg("--version"), place, Instant::now() + PATIENCE);
    let text = told.map(|told| told.stdout).unwrap_or_default();
    let words: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    let words: Vec<&str> = words.into_iter().filter(|word| *word != "version").collect();
    let number = words.get(1).copied().unwrap_or_default().split('+').next().unwrap_or_default();
    let name = runtime.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{} {number}", words.first().map_or(name, |word| (*word).to_owned())).trim().to_owned()
}
