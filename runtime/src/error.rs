//! The one error of the runtime: what failed, at which step, for which field, and what to try.

pub use crate::errno_text::errno_text;
use crate::step::Step;
use hull_cgroup::CgroupError;
use hull_plan::Refusal;
use hull_sys::SysError;
use serde::Serialize;
use std::fmt;

/// Result of anything in the runtime.
pub type Result<T> = std::result::Result<T, Error>;

/// Stable codes, for programs that read the JSON log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The command line is wrong.
    Usage,
    /// config.json is missing or unreadable.
    ConfigMissing,
    /// A field of the configuration is refused; nothing was done.
    ConfigInvalid,
    /// The id cannot be used as one.
    IdInvalid,
    /// A container with this id exists.
    ContainerExists,
    /// No container has this id.
    ContainerNotFound,
    /// The container is not in a state that allows the operation.
    ContainerState,
    /// The recorded state cannot be read.
    StateDamaged,
    /// A system call failed.
    Syscall,
    /// Control groups.
    Cgroup,
    /// A hook failed.
    Hook,
    /// The program was not found.
    ExecNotFound,
    /// The program may not be executed.
    ExecDenied,
    /// The terminal could not be set up or handed over.
    Console,
    /// Something did not answer in time.
    Timeout,
    /// The container's first process died before it was ready.
    InitDied,
    /// The container ran into its memory limit while it was being set up.
    OutOfMemory,
    /// CRIU is missing, does not work here, or failed.
    Criu,
    /// This host or build cannot do what is asked.
    Unsupported,
}

/// What went wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Error {
    /// Stable code.
    pub code: Code,
    /// The whole text, outermost context first.
    #[serde(skip)]
    pub message: String,
    /// JSON pointer into config.json.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Step of the flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// System call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall: Option<String>,
    /// Its errno.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// The path, program or name it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What to try, one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    /// An error with nothing but a code and a text.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            step: None,
            syscall: None,
            errno: None,
            object: None,
            hint: None,
        }
    }

    /// A failed system call, behind what it was for.
    pub fn sys(what: impl fmt::Display, cause: SysError) -> Self {
        let mut error = Self::new(Code::Syscall, format!("{what}: {}", errno_text(cause.errno)));
        error.syscall = Some(cause.call.to_owned());
        error.errno = Some(cause.errno);
        error
    }

    /// Names the field of config.json.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        let field = field.into();
        if !field.is_empty() {
            self.field = Some(field);
        }
        self
    }

    /// Names the step of the flow, unless one nearer to the cause already did.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.step.get_or_insert(step);
        self
    }

    /// Replaces the code.
    #[must_use]
    pub const fn code(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// Names the object.
    #[must_use]
    pub fn object(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Says what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert(hint.into());
        self
    }

    /// Puts a context in front of the text.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Adds what the host lacks to the message itself: below a manager nobody sees a hint.
    #[must_use]
    pub fn for_want_of(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{} ({what})", self.message);
        self
    }

    /// Says in runc's words that it came from the container's process, before its program ran.
    #[must_use]
    pub fn of_init(self) -> Self {
        self.within("unable to start container process: error during container init")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let text = if refusal.field.is_empty() {
            refusal.reason
        } else {
            format!("{} (config.json#{})", refusal.reason, refusal.field)
        };
        let mut error = Self::new(Code::ConfigInvalid, text).field(refusal.field);
        error.hint = refusal.hint;
        error
    }
}

impl From<CgroupError> for Error {
    fn from(error: CgroupError) -> Self {
        let mut out = Self::new(Code::Cgroup, error.to_string()).step(Step::Cgroup);
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            match inner.downcast_ref::<SysError>() {
                Some(call) => {
                    out.message = format!("{}: {}", out.message, errno_text(call.errno));
                    out.syscall = Some(call.call.to_owned());
                }
                None => out.message = format!("{}: {inner}", out.message),
            }
            cause = inner.source();
        }
        out.errno = error.errno();
        match remedy(&error) {
            Some(hint) => out.hint(hint),
            None => out,
        }
    }
}

/// What would give an ordinary user what it takes.
fn remedy(error: &CgroupError) -> Option<&'static str> {
    const GROUP: &str = "it takes a control group of the caller's own: --systemd-cgroup where the user has a manager \
                         (loginctl enable-linger USER) that is handed the controller (Delegate= of user@.service), or a \
                         directory whose files the caller may write";
    match error {
        CgroupError::Rootless { .. } | CgroupError::NotJoined { .. } | CgroupError::NoGroup { .. } => {
            Some(GROUP)
        }
        _ => None,
    }
}

/// Turns results of lower crates into ours, with what was being done.
pub trait Context<T> {
    /// Adds what was being done: a fragment that fits after "cannot".
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for hull_sys::Result<T> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| Error::sys(what(), cause))
    }
}

impl<T> Context<T> for hull_rooted::Result<T> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| match cause {
            hull_rooted::Error::Call { action, path, source } => {
                Error::sys(format!("{}: {action} {}", what(), path.display()), source)
                    .object(path.display().to_string())
            }
            other => Error::new(Code::Syscall, format!("{}: {other}", what())),
        })
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| {
            let errno = cause.raw_os_error();
            let text = errno.map_or_else(|| cause.to_string(), errno_text);
            let mut error = Error::new(Code::Syscall, format!("{}: {text}", what()));
            error.errno = errno;
            error
        })
    }
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Self {
        self.map_err(|error| error.within(what()))
    }
}
