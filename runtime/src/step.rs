//! The steps of `create`, `exec`, `checkpoint` and `restore`: what an error names. The order is about that of the flows;
//! theirs is the one of create.rs, init.rs, join.rs, checkpoint.rs and restore.rs.

use crate::error::Result;
use serde::Serialize;

macro_rules! steps {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// A step of a flow.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Step { $($(#[doc = $doc])* $name,)* }

        impl Step {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text),)*];
        }
    };
}

steps! {
    /// The bundle is read and planned.
    Plan = "plan",
    /// The state directory is reserved and the intent journaled.
    Reserve = "reserve",
    /// The start gate is made.
    Gate = "gate",
    /// Control groups are made and limits written.
    Cgroup = "cgroup",
    /// The profile is compiled.
    CompileSeccomp = "compile-seccomp",
    /// The process is cloned.
    Clone = "clone",
    /// Namespaces are joined and made.
    Enter = "enter",
    /// Id mappings are written.
    MapIds = "map-ids",
    /// Network interfaces are brought up or moved.
    Network = "network",
    /// The session keyring is made.
    Keyring = "keyring",
    /// The root file system is prepared.
    Root = "root",
    /// Mounts are done.
    Mounts = "mounts",
    /// Devices are made.
    Devices = "devices",
    /// prestart and createRuntime hooks, device policy.
    RuntimeHooks = "runtime-hooks",
    /// createContainer hooks.
    ContainerHooks = "container-hooks",
    /// Masked and read-only paths.
    Masks = "masks",
    /// The root is switched.
    Pivot = "pivot",
    /// The terminal is set up and handed over.
    Console = "console",
    /// Host and domain name.
    Names = "names",
    /// Kernel parameters.
    Sysctl = "sysctl",
    /// Limits, out-of-memory score, scheduling, personality.
    Limits = "limits",
    /// Security labels.
    Labels = "labels",
    /// Capabilities, user and groups.
    Identity = "identity",
    /// Working directory.
    Cwd = "cwd",
    /// The program is looked up.
    FindProgram = "find-program",
    /// The filter is loaded.
    Seccomp = "seccomp",
    /// startContainer hooks.
    StartHooks = "start-hooks",
    /// The program is executed.
    Exec = "exec",
    /// A container's processes are saved by CRIU.
    Checkpoint = "checkpoint",
    /// They are made again.
    Restore = "restore",
}

impl Step {
    /// The stable name.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The step with this number, as the link carries it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).map(|&(step, _)| step)
    }
}

impl Serialize for Step {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Runs one step of a flow; an error carries its name, unless a step nearer to the cause already gave its own.
pub fn at<T>(step: Step, action: impl FnOnce() -> Result<T>) -> Result<T> {
    action().map_err(|error| error.step(step))
}
