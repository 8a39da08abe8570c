//! What can go wrong while a control group is made or used. Where managers match on runc's words, the words are the
//! same.

use hull_sys::SysError;

use crate::Refusal;

/// Result of an operation on a container's control group.
pub type Result<T> = std::result::Result<T, CgroupError>;

/// A control group operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The host's hierarchies could not be read.
    #[error("find the cgroup hierarchies: {what}")]
    Probe {
        /// The file or step.
        what: String,
        /// The kernel's answer.
        #[source]
        source: SysError,
    },
    /// A directory or file is not on a cgroup file system of the expected version.
    #[error("{path} is not on a cgroup file system")]
    NotCgroup {
        /// Path on the host.
        path: String,
    },
    /// The directories could not be made or entered.
    #[error("unable to apply cgroup configuration: {action} {path}{hint}")]
    Apply {
        /// What was tried: `mkdir`, `open`, `write`.
        action: &'static str,
        /// Path on the host.
        path: String,
        /// What may help, with its own separator; may be empty.
        hint: String,
        /// The kernel's answer.
        #[source]
        source: SysError,
    },
    /// A rootless caller asked for limits or a path, and has no permission.
    #[error(
        "unable to apply cgroup configuration: rootless needs no limits + no cgrouppath when no permission is granted \
         for cgroups: {action} {path}"
    )]
    Rootless {
        /// What was tried.
        action: &'static str,
        /// Path on the host.
        path: String,
        /// The kernel's answer.
        #[source]
        source: SysError,
    },
    /// A limit was asked for in a hierarchy that could not be joined.
    #[error("cannot set {controller} limit: container could not join or create cgroup ({field})")]
    NotJoined {
        /// The controller.
        controller: String,
        /// JSON pointer of the limit.
        field: String,
    },
    /// The kernel did not take a limit.
    #[error(transparent)]
    Limit(Box<RefusedLimit>),
    /// A value of an update is impossible; nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// `checkBeforeUpdate`: the new limit is below what is in use.
    #[error("rejecting {what} limit {limit} < usage {usage}")]
    BelowUsage {
        /// `memory` or `memory+swap`.
        what: &'static str,
        /// Bytes asked for.
        limit: i64,
        /// Bytes in use.
        usage: u64,
    },
    /// Processes are in the directory already.
    #[error("container's cgroup is not empty: {count} process(es) found in {path}")]
    NotEmpty {
        /// How many.
        count: usize,
        /// Path on the host.
        path: String,
    },
    /// The directory is frozen: a process that joins would hang.
    #[error("container's cgroup unexpectedly frozen: {path}")]
    Frozen {
        /// Path on the host.
        path: String,
    },
    /// A process could not be put into a directory.
    #[error("error adding pid {pid} to cgroups {path}{hint}")]
    Attach {
        /// The process.
        pid: i32,
        /// Path on the host.
        path: String,
        /// What may help, with its own separator; may be empty.
        hint: String,
        /// The kernel's answer.
        #[source]
        source: SysError,
    },
    /// `exec --cgroup` named a directory outside of the container's.
    #[error("bad sub cgroup path: {path}")]
    BadSubPath {
        /// As given.
        path: String,
    },
    /// `exec --cgroup` named a controller that the container has no directory for.
    #[error("unknown controller {controller} in sub cgroup path")]
    UnknownController {
        /// As given.
        controller: String,
    },
    /// Reading or writing one of the container's files failed.
    #[error("{action} {path}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// Path on the host.
        path: String,
        /// The kernel's answer.
        #[source]
        source: SysError,
    },
    /// An ordinary user's container may run without a group of its own, and so does one that asked for none.
    #[error("{what}: the container has no control group of its own")]
    NoGroup {
        /// What was asked for.
        what: &'static str,
    },
    /// The host offers no way to do it.
    #[error("{what}: no {controller} controller")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// The controller it takes.
        controller: &'static str,
    },
    /// The deadline passed.
    #[error("{what} {path}: not done in time{detail}")]
    Late {
        /// What was under way.
        what: &'static str,
        /// Path on the host.
        path: String,
        /// Which processes stand in the way, with its own separator; may be empty.
        detail: String,
    },
    /// systemd did not do what was asked.
    #[error("unable to apply cgroup configuration: {what} unit {unit}: {detail}")]
    Systemd {
        /// `start`, `stop`, `change` and others.
        what: &'static str,
        /// Name of the unit.
        unit: String,
        /// Its answer, or what is wrong with the bus.
        detail: String,
    },
    /// The caller has no systemd user manager that can be asked.
    #[error(
        "ask the user's systemd for a control group: {detail} (a session of this user is needed, or loginctl \
         enable-linger; XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS say where the bus is)"
    )]
    UserManager {
        /// Its answer, or what is wrong with the bus.
        detail: String,
    },
    /// The kernel did not take the device rules.
    #[error("set device rules of {path}: {what}")]
    Devices {
        /// Path on the host.
        path: String,
        /// The step.
        what: String,
        /// The kernel's answer.
        #[source]
        source: SysError,
    },
}

/// A limit that the kernel did not take.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {controller} limit: write {value:?} to {file} for {field}{hint}")]
pub struct RefusedLimit {
    /// The controller.
    pub controller: String,
    /// Path of the file on the host.
    pub file: String,
    /// What was written.
    pub value: String,
    /// JSON pointer of the limit.
    pub field: String,
    /// What may help, with its own separator; may be empty.
    pub hint: String,
    /// The kernel's answer.
    #[source]
    pub source: SysError,
}

impl CgroupError {
    /// The kernel's error number, where a system call is the cause.
    pub fn errno(&self) -> Option<i32> {
        let cause = std::error::Error::source(self)?;
        cause.downcast_ref::<SysError>().map(|error| error.errno)
    }
}

/// True for the answers that mean "you may not": a read-only mount, no permission, not the owner.
pub(crate) fn is_permission(error: &SysError) -> bool {
    [libc::EACCES, libc::EPERM, libc::EROFS].contains(&error.errno)
}
