//! A program of the host's, run to its end: by a deadline, its output read and no more of it kept than is wanted.

use crate::error::{Code, Context, Error, Result};
use hull_sys::fd::{dup_onto, pipe};
use hull_sys::poll::{Until, wait_any};
use hull_sys::process::{
    CStrings, Child, CloneRequest, WaitStatus, execve, exit_now, kill_group, pidfd_send_signal, setsid,
    spawn, wait_until,
};
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;

/// Exit status of a child that could not execute the program.
const EXEC_FAILED: i32 = 127;

/// How long a killed program may take to be gone: one in uninterruptible sleep is left to whoever inherits it.
const KILLED_DEADLINE: Duration = Duration::from_secs(2);

/// What the child executes, made before the clone.
#[derive(Debug)]
pub struct Program {
    path: CString,
    argv: CStrings,
    envp: CStrings,
}

impl Program {
    /// The file at `path` with arguments, the name among them, and an environment.
    pub fn new<T: Into<Vec<u8>>>(
        path: T,
        args: impl IntoIterator<Item = T>,
        env: impl IntoIterator<Item = T>,
    ) -> Result<Self> {
        let text = |text: T| {
            CString::new(text).map_err(|_| {
                Error::new(Code::ConfigInvalid, "a text that is given to a program holds a NUL byte")
            })
        };
        Ok(Self {
            path: text(path)?,
            argv: CStrings::new(args.into_iter().map(text).collect::<Result<_>>()?),
            envp: CStrings::new(env.into_iter().map(text).collect::<Result<_>>()?),
        })
    }
}

/// How the program relates to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// In a session of its own, which is killed as a whole; both of its output streams are read.
    Apart,
    /// In our session, with our standard error.
    Beside,
}

/// One run.
#[derive(Debug)]
pub struct Errand<'a> {
    /// The program.
    pub program: &'a Program,
    /// What it finds on its standard input.
    pub input: &'a [u8],
    /// When it is killed.
    pub deadline: Instant,
    /// How many bytes of its output are kept; the rest is read and dropped.
    pub kept: usize,
    /// How it relates to ours.
    pub company: Company,
}

/// How it went.
#[derive(Debug)]
pub struct Ended {
    /// None: it was killed at the deadline.
    pub status: Option<WaitStatus>,
    /// The beginning of what it wrote.
    pub output: Vec<u8>,
}

impl Ended {
    /// Why the program was not executed, if that is how it ended.
    pub fn never_executed(&self) -> Option<String> {
        let told = self.status == Some(WaitStatus::Exited(EXEC_FAILED)) && self.output.starts_with(b"exec: ");
        told.then(|| String::from_utf8_lossy(&self.output).trim_end().to_owned())
    }
}

impl Errand<'_> {
    /// Runs the program.
    pub fn run(&self) -> Result<Ended> {
        self.run_known(|_| ())
    }

    /// Runs the program, and tells which process it is.
    pub fn run_known(&self, know: impl FnOnce(&Child)) -> Result<Ended> {
        let (input_read, input_write) = pipe().context(|| "make a pipe")?;
        let (output_read, output_write) = pipe().context(|| "make a pipe")?;
        let child = spawn(&CloneRequest::default(), || self.execute(&input_read, &output_write))
            .context(|| "start the program")?;
        drop((input_read, output_write));
        let mut running = Running { child, company: self.company, ended: false };
        know(&running.child);
        let mut pipes = Pipes::new(input_write, self.input, output_read)?;
        let output = self.talk(&mut pipes, &running)?;
        let status = running.finish(self.deadline)?;
        // Closed sooner, they would end who still writes at the deadline, before it is looked at whether they ended.
        drop(pipes);
        Ok(Ended { status, output })
    }

    fn execute(&self, input: &OwnedFd, output: &OwnedFd) -> Infallible {
        let program = self.program;
        let error = match self.prepare(input, output) {
            Ok(()) => execve(&program.path, &program.argv, &program.envp),
            Err(error) => error,
        };
        let path = program.path.to_string_lossy();
        let text = format!("exec: {path}: {}\n", crate::error::errno_text(error.errno));
        // The exit status alone tells it when the pipe is gone.
        let _unread = hull_sys::io::write_all(output.as_fd(), text.as_bytes());
        exit_now(EXEC_FAILED)
    }

    fn prepare(&self, input: &OwnedFd, output: &OwnedFd) -> hull_sys::Result<()> {
        dup_onto(input.as_fd(), 0)?;
        dup_onto(output.as_fd(), 1)?;
        if self.company == Company::Apart {
            setsid()?;
            dup_onto(output.as_fd(), 2)?;
        }
        // R7: a program outside gets 0 to 2 only.
        hull_sys::fd::mark_cloexec_from(3)?;
        hull_sys::signal::reset_dispositions()?;
        hull_sys::signal::unblock_all().map(drop)
    }

    /// Hands the input over and reads the output, whichever the program does first. It is listened to until it ends: a
    /// process that it left behind may hold both pipes open for ever.
    fn talk(&self, pipes: &mut Pipes<'_>, running: &Running) -> Result<Vec<u8>> {
        let mut kept = Vec::new();
        while Instant::now() < self.deadline {
            pipes.input = pipes.input.take().map_or(Ok(None), feed)?;
            pipes.output = pipes.output.take().map_or(Ok(None), |output| self.drain(output, &mut kept))?;
            let Pipes { input, output } = &*pipes;
            if input.is_none() && output.is_none() {
                break;
            }
            let output_fd = output.iter().map(|output| (output.as_fd(), Until::Readable));
            let input_fd = input.iter().map(|(input, _)| (input.as_fd(), Until::Writable));
            let end = (running.child.pidfd.as_fd(), Until::Readable);
            let watched: Vec<_> = output_fd.chain([end]).chain(input_fd).collect();
            let first = wait_any(&watched, Some(self.deadline)).context(|| "wait for the program")?;
            let has_ended = first == Some(usize::from(output.is_some()));
            if has_ended {
                break;
            }
        }
        Ok(kept)
    }

    /// Reads what is there, up to a page; nothing is left of an output at its end.
    fn drain(&self, mut output: File, kept: &mut Vec<u8>) -> Result<Option<File>> {
        let mut buffer = [0; 4096];
        match output.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                let room = self.kept.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context(|| "read from the program"),
        }
        Ok(Some(output))
    }
}

/// What is left of the pipes to and from the program.
struct Pipes<'a> {
    /// With what is not written yet; None once there is nothing to write, or nobody to read it.
    input: Option<(File, &'a [u8])>,
    /// None at its end.
    output: Option<File>,
}

impl<'a> Pipes<'a> {
    fn new(input: OwnedFd, bytes: &'a [u8], output: OwnedFd) -> Result<Self> {
        for pipe in [&input, &output] {
            hull_sys::fd::set_nonblocking(pipe.as_fd(), true).context(|| "prepare the program's streams")?;
        }
        Ok(Self { input: Some((File::from(input), bytes)), output: Some(File::from(output)) })
    }
}

/// Writes what fits; nothing is left where all of it is written, or where the program does not read it, which is no error.
fn feed((mut input, mut bytes): (File, &[u8])) -> Result<Option<(File, &[u8])>> {
    while !bytes.is_empty() {
        match input.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some((input, bytes))),
            Err(error) => return Err(error).context(|| "write to the program"),
        }
    }
    Ok(None)
}

/// Killed when it is dropped before its end.
struct Running {
    child: Child,
    company: Company,
    ended: bool,
}

impl Running {
    fn finish(&mut self, deadline: Instant) -> Result<Option<WaitStatus>> {
        let status = wait_until(self.child.pidfd.as_fd(), deadline).context(|| "wait for the program")?;
        self.ended = status.is_some();
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Gone already, or killed now: both are what is wanted.
        let _gone = match self.company {
            Company::Apart => kill_group(self.child.pid, SIGKILL),
            Company::Beside => pidfd_send_signal(self.child.pidfd.as_fd(), SIGKILL),
        };
        let _reaped = wait_until(self.child.pidfd.as_fd(), Instant::now() + KILLED_DEADLINE);
    }
}

/// Where programs are looked for when the caller has no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first executable `name` in the absolute directories of `PATH`.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.to_str().is_some_and(|path| crate::files::may_execute(path) == Ok(true)))
}

/// Our own environment, as `NAME=VALUE`.
pub fn own_environment() -> impl Iterator<Item = Vec<u8>> {
    std::env::vars_os().map(|(name, value): (OsString, OsString)| entry(name, value))
}

/// One variable in the form that a program gets it in.
pub fn entry(name: OsString, value: OsString) -> Vec<u8> {
    [name.into_vec(), vec![b'='], value.into_vec()].concat()
}
