//! Calls of programs with a deadline.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt;
use crate::verdict::{Finding, Stop, fail};

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    /// The exit status as a shell shows it; `None` when it had to be killed.
    pub code: Option<i32>,
    /// Why it was killed.
    why: &'static str,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// The command line, for messages.
    pub shown: String,
}

impl Output {
    /// Whether the program ended with status 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Ends the case unless the program succeeded; `expected` is what was asked of it.
    ///
    /// # Errors
    /// A failure with the command and its error output.
    pub fn done(&self, expected: &str) -> Finding {
        if self.succeeded() { Ok(()) } else { fail(format!("{expected} succeeds"), self.told()) }
    }

    /// Ends the case unless the program gave an error of its own accord.
    ///
    /// # Errors
    /// A failure with the command.
    pub fn refused(&self, expected: &str) -> Finding {
        match self.code {
            Some(code) if code != 0 => Ok(()),
            _ => fail(format!("an error for {expected}"), self.told()),
        }
    }

    /// How it ended, in one line.
    #[must_use]
    pub fn told(&self) -> String {
        let end = match self.code {
            Some(code) => format!("exit status {code}"),
            None => self.why.to_owned(),
        };
        let last: Vec<&str> = self.stderr.lines().rev().take(3).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        format!("{} -> {end}; {}", self.shown, last.join(" / "))
    }
}

/// What a program may write to one of its streams, in bytes: far more than any answer, and little enough for memory.
const LONGEST: u64 = 16 << 20;

/// Runs a command to its end, or kills it at `end`, when it writes without end, or when somebody asks for the end of the run.
/// Its output goes through files in `place`: a detached process that keeps a pipe open would never end the reading.
///
/// # Errors
/// When the program cannot be started; when somebody asked for the end before.
pub fn call(command: &mut Command, place: &Path, end: Instant) -> Finding<Output> {
    match interrupt::asked() {
        Some(_) => Err(Stop::Broken(INTERRUPTED.to_owned())),
        None => carry_out(command, place, end, true),
    }
}

/// The same for what clears up: it is not cut short.
///
/// # Errors
/// When the program cannot be started.
pub fn clear_up(command: &mut Command, place: &Path, end: Instant) -> Finding<Output> {
    carry_out(command, place, end, false)
}

const INTERRUPTED: &str = "no end before the run was interrupted";

fn carry_out(command: &mut Command, place: &Path, end: Instant, heeds: bool) -> Finding<Output> {
    let paths = [place.join("stdout"), place.join("stderr")];
    let shown = shown(command);
    let [out, err] = [File::create(&paths[0])?, File::create(&paths[1])?];
    // A group of its own: what a script has started has to end with it.
    let mut child = command.process_group(0).stdout(out).stderr(err).spawn()?;
    let flooded = || paths.iter().any(|path| fs::metadata(path).is_ok_and(|file| file.len() > LONGEST));
    let enough = || match () {
        () if Instant::now() > end => Some("no end before the deadline"),
        () if flooded() => Some("no end of its output"),
        () if heeds && interrupt::asked().is_some() => Some(INTERRUPTED),
        () => None,
    };
    let (code, why) = match wait(&mut child, enough)? {
        Ok(code) => (Some(code), ""),
        Err(why) => (None, why),
    };
    let [stdout, stderr] = [read(&paths[0])?, read(&paths[1])?];
    Ok(Output { code, why, stdout, stderr, shown })
}

fn read(path: &Path) -> Finding<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A command that finds nothing to read. It is given no null device: a runtime that changes the owner of a container's
/// streams (crun 1.8 does) would take the host's away from root.
#[must_use]
pub fn silent(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    // Without a descriptor to spare the call itself fails as well.
    command.stdin(std::io::pipe().map_or_else(|_| Stdio::null(), |(empty, _)| empty.into()));
    command
}

fn shown(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    let all: Vec<String> = std::iter::once(name.to_string_lossy().into_owned()).chain(words).collect();
    all.join(" ")
}

/// The exit status, or what of `enough` made it be killed.
fn wait(child: &mut Child, enough: impl Fn() -> Option<&'static str>) -> Finding<Result<i32, &'static str>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ok(shell_code(status)));
        }
        if let Some(why) = enough() {
            if kill_process_group(Pid::from_child(child), Signal::KILL).is_err() {
                // It has left its group.
                child.kill()?;
            }
            child.wait()?;
            return Ok(Err(why));
        }
        sleep(Duration::from_millis(1));
    }
}

fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
