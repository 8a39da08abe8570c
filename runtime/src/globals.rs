//! What every command needs: the log, the state root, the options before the command.

use crate::cli::GlobalOptions;
use crate::error::{Code, Error, Result};
use crate::log::{Format, Log};
use crate::state::StateRoot;
use hull_cgroup::Manager;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The evaluated global options.
#[derive(Debug)]
pub struct Globals {
    /// Name the program was called by; messages and `--version` carry it.
    pub name: String,
    /// Where log lines go.
    pub log: Log,
    /// Where state is kept; none: nobody says where, which is no matter for commands without a container.
    state: Option<StateRoot>,
    /// `--root` was given.
    pub explicit_root: bool,
    /// `--systemd-cgroup`, `--cgroup-manager`.
    pub cgroup_manager: Manager,
    /// `--criu`; none: looked for in `PATH`.
    pub criu: Option<PathBuf>,
    /// `--rootless`; none: find out.
    pub rootless: Option<bool>,
}

impl Globals {
    /// Evaluates `options`.
    pub fn from_options(options: &GlobalOptions, name: String) -> Result<Self> {
        let format = Format::parse(&options.log_format)?;
        let log = Log::open(options.log.as_deref(), format, options.debug)?;
        let rootless = match options.rootless.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            "auto" | "" => None,
            other => {
                return Err(Error::new(Code::Usage, format!("invalid value {other:?} for --rootless"))
                    .hint("true, false or auto"));
            }
        };
        let given = options.root.as_ref().map(|root| {
            std::path::absolute(root)
                .map_err(|error| Error::new(Code::Usage, format!("--root {}: {error}", root.display())))
        });
        Ok(Self {
            name,
            log,
            state: given.transpose()?.or_else(default_root).map(StateRoot::new),
            explicit_root: options.root.is_some(),
            cgroup_manager: options.cgroup_manager()?,
            criu: options.criu.clone().filter(|path| !path.as_os_str().is_empty()),
            rootless,
        })
    }

    /// Where state is kept.
    pub fn state(&self) -> Result<&StateRoot> {
        self.state.as_ref().ok_or_else(|| {
            Error::new(Code::Usage, "there is no place for the state: XDG_RUNTIME_DIR is not set")
                .hint("set XDG_RUNTIME_DIR, or give --root")
        })
    }
}

/// /run/hull, or the user's runtime directory. Root of a user namespace whose /run is somebody else's (rootless podman
/// calls that way) is an ordinary user.
fn default_root() -> Option<PathBuf> {
    let owns_run = || std::fs::metadata("/run").is_ok_and(|run| run.uid() == 0);
    if hull_sys::identity::effective_uid() == 0 && owns_run() {
        return Some(PathBuf::from("/run/hull"));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty());
    runtime.map(|runtime| PathBuf::from(runtime).join("hull"))
}

impl GlobalOptions {
    /// runc's switch and crun's option of the same meaning; the option wins.
    fn cgroup_manager(&self) -> Result<Manager> {
        match self.cgroup_manager.as_str() {
            "" if self.systemd_cgroup => Ok(Manager::Systemd),
            "" | "cgroupfs" => Ok(Manager::Files),
            "systemd" => Ok(Manager::Systemd),
            "disabled" => Ok(Manager::Disabled),
            other => Err(Error::new(Code::Usage, format!("invalid value {other:?} for --cgroup-manager"))
                .hint("cgroupfs, systemd or disabled")),
        }
    }
}
