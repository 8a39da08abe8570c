//! Starting another program with exactly the descriptors it shall have.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hull_sys::errno::{EINVAL, ENOENT};
use hull_sys::process::{self, CStrings, Child};
use hull_sys::{Result, SysError, fd, signal};

use crate::background;

/// Descriptors that lie where others shall be are moved above this number first.
const PARKING: RawFd = 64;

/// A program to start.
#[derive(Debug)]
pub struct Program<'fd> {
    /// Absolute path of its file.
    pub path: PathBuf,
    /// Its arguments, the first being its name.
    pub args: Vec<String>,
    /// What its environment has beside ours.
    pub env: Vec<(String, String)>,
    /// Our variable in which it finds its own process id instead, which is known only once it runs.
    pub pid_variable: Option<&'static str>,
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
        let (env, fds) = (Vec::new(), Vec::new());
        Self { path, args, env, pid_variable: None, directory: None, fds, dies_with_us: true }
    }

    /// Lets it have `fd` under `number`.
    pub fn fd(mut self, fd: BorrowedFd<'fd>, number: RawFd) -> Self {
        self.fds.push((fd, number));
        self
    }

    /// Starts it in a session of its own, so that it and what it starts can be killed as a group.
    ///
    /// No memory is copied for it (vfork(2)): what it needs is prepared here, and the child makes system calls only.
    pub fn start(&self) -> Result<Child> {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(from_io)?;
        let places = self.places(null.as_fd());
        let parked = parked(&places)?;
        let path = c_string(self.path.as_os_str().as_bytes())?;
        let args = self.args.iter().map(|arg| c_string(arg.as_bytes())).collect::<Result<_>>()?;
        let (args, mut env) = (CStrings::new(args), self.environment()?);
        let directory =
            self.directory.as_ref().map(|dir| c_string(dir.as_os_str().as_bytes())).transpose()?;
        let parent = process::effective_pid();
        background::compete();
        process::spawn_program(|| {
            let mut failed = || -> Result<Infallible> {
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
                for ((source, number), parked) in places.iter().zip(&parked) {
                    fd::dup_onto(parked.as_ref().map_or(*source, AsFd::as_fd), *number)?;
                }
                env.set_number(process::effective_pid().as_raw());
                Err(process::execve(&path, &args, &env))
            };
            // Without a channel of its own the failure shows as the code a shell gives for it.
            match failed() {
                Err(error) if error.is(ENOENT) => process::exit_now(127),
                _ => process::exit_now(126),
            }
        })
    }

    /// What shall be under each number, `null` where 0, 1 or 2 has nothing else.
    fn places<'a>(&self, null: BorrowedFd<'a>) -> Vec<(BorrowedFd<'a>, RawFd)>
    where
        'fd: 'a,
    {
        let free = |number: &RawFd| self.fds.iter().all(|(_, taken)| taken != number);
        let nulls = [0, 1, 2].into_iter().filter(free).map(|number| (null, number));
        nulls.chain(self.fds.iter().copied()).collect()
    }

    fn environment(&self) -> Result<CStrings> {
        let own_pid = self.pid_variable.map(|name| format!("{name}="));
        let is_ours = |pair: &[u8]| {
            pair.starts_with(b"NOTIFY_SOCKET=")
                || own_pid.as_ref().is_some_and(|prefix| pair.starts_with(prefix.as_bytes()))
        };
        let own = own_environment().filter(|pair| !is_ours(pair));
        let more = self.env.iter().map(|(name, value)| format!("{name}={value}").into_bytes());
        let pairs = own.chain(more).map(|pair| c_string(&pair)).collect::<Result<_>>()?;
        Ok(match own_pid {
            Some(prefix) => CStrings::with_number(pairs, &prefix),
            None => CStrings::new(pairs),
        })
    }
}

/// Our own variables, of whatever bytes they are.
pub fn own_environment() -> impl Iterator<Item = Vec<u8>> {
    std::env::vars_os().map(|(name, value)| {
        let mut pair = name.into_vec();
        pair.push(b'=');
        pair.extend_from_slice(value.as_bytes());
        pair
    })
}

/// The words after the program's name; ids, flags and the paths that managers give are text.
pub fn own_words() -> std::result::Result<Vec<String>, String> {
    let text = |word: std::ffi::OsString| word.into_string().map_err(|word| format!("{word:?} is not UTF-8"));
    std::env::args_os().skip(1).map(text).collect()
}

/// For each place a copy of its descriptor out of the way of all places, if it lies among them.
fn parked(places: &[(BorrowedFd<'_>, RawFd)]) -> Result<Vec<Option<OwnedFd>>> {
    let highest = places.iter().map(|(_, number)| *number).max().unwrap_or(0);
    let lies_there = |source: &BorrowedFd<'_>| source.as_raw_fd() <= highest;
    places
        .iter()
        .map(|(source, _)| lies_there(source).then(|| fd::dup_above(*source, PARKING)).transpose())
        .collect()
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

/// True for a file that somebody may execute.
pub fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| SysError::new("execve", EINVAL))
}

fn from_io(error: std::io::Error) -> SysError {
    SysError::new("open", error.raw_os_error().unwrap_or(EINVAL))
}
