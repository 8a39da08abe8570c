//! Starting another program with exactly the descriptors it shall have.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hull_sys::process::{self, CStrings, Child, CloneRequest};
use hull_sys::{Result, SysError, fd, signal};

/// Descriptors are moved out of the way above this number before they are put in their places.
const PARKING: RawFd = 64;
/// `errno` values that need a name here.
const EINVAL: i32 = 22;
const ENOENT: i32 = 2;

/// A program to start.
#[derive(Debug)]
pub struct Program<'fd> {
    /// Absolute path of its file.
    pub path: PathBuf,
    /// Its arguments, the first being its name.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Its working directory, ours if none.
    pub directory: Option<PathBuf>,
    /// Its descriptors by number; of 0, 1 and 2 those that are not named read or write `/dev/null`.
    pub fds: Vec<(BorrowedFd<'fd>, RawFd)>,
    /// It is killed when this process ends.
    pub dies_with_us: bool,
}

impl<'fd> Program<'fd> {
    /// A program with our environment but for `NOTIFY_SOCKET`, which is ours alone.
    pub fn new(path: PathBuf, args: Vec<String>) -> Self {
        let env = std::env::vars().filter(|(name, _)| name != "NOTIFY_SOCKET").collect();
        Self { path, args, env, directory: None, fds: Vec::new(), dies_with_us: true }
    }

    /// Lets it have `fd` under `number`.
    pub fn fd(mut self, fd: BorrowedFd<'fd>, number: RawFd) -> Self {
        self.fds.push((fd, number));
        self
    }

    /// Starts it in a session of its own, so that it and what it starts can be killed as a group.
    pub fn start(&self) -> Result<Child> {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(from_io)?;
        let parked: Vec<(OwnedFd, RawFd)> = [0, 1, 2]
            .into_iter()
            .filter(|number| self.fds.iter().all(|(_, taken)| taken != number))
            .map(|number| (null.as_fd(), number))
            .chain(self.fds.iter().copied())
            .map(|(source, number)| Ok((fd::dup_above(source, PARKING)?, number)))
            .collect::<Result<_>>()?;
        let path = c_string(self.path.as_os_str().as_bytes())?;
        let args = self.args.iter().map(|arg| c_string(arg.as_bytes())).collect::<Result<_>>()?;
        let env =
            self.env.iter().map(|(k, v)| c_string(format!("{k}={v}").as_bytes())).collect::<Result<_>>()?;
        let (args, env) = (CStrings::new(args), CStrings::new(env));
        let directory =
            self.directory.as_ref().map(|dir| c_string(dir.as_os_str().as_bytes())).transpose()?;
        let parent = process::effective_pid();
        process::spawn(&CloneRequest::default(), || {
            let failed = || -> Result<Infallible> {
                signal::reset_dispositions()?;
                signal::unblock_all()?;
                process::setsid()?;
                if self.dies_with_us {
                    process::set_parent_death_signal(9)?;
                    if process::parent_pid() != parent {
                        process::exit_now(137);
                    }
                }
                if let Some(directory) = &directory {
                    hull_sys::fs::chdir(directory.as_c_str())?;
                }
                // Whatever our own caller left open is not the program's.
                fd::mark_cloexec_from(3)?;
                for (source, number) in &parked {
                    fd::dup_onto(source.as_fd(), *number)?;
                }
                Err(process::execve(&path, &args, &env))
            };
            // Without a channel of its own the failure shows as the code a shell gives for it.
            match failed() {
                Err(error) if error.is(ENOENT) => process::exit_now(127),
                _ => process::exit_now(126),
            }
        })
    }
}

/// Finds `name` as a shell would: as it is when it has a slash, else in the directories of PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name));
    }
    let path = std::env::var("PATH").unwrap_or_default();
    // Some managers start the shim without PATH.
    let path =
        if path.is_empty() { "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" } else { &path };
    path.split(':').map(|dir| Path::new(dir).join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| SysError::new("execve", EINVAL))
}

fn from_io(error: std::io::Error) -> SysError {
    SysError::new("open", error.raw_os_error().unwrap_or(EINVAL))
}
