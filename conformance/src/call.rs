//! Calls of programs with a deadline.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::verdict::{Finding, fail};

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    /// The exit status as a shell shows it; `None` when it had to be killed at the deadline.
    pub code: Option<i32>,
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
            None => "no end before the deadline".to_owned(),
        };
        let last: Vec<&str> = self.stderr.lines().rev().take(3).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        format!("{} -> {end}; {}", self.shown, last.join(" / "))
    }
}

/// Runs a command to its end, or kills it at `end`. Its output goes through files in `place`: a detached process that
/// keeps a pipe open would never end the reading.
///
/// # Errors
/// When the program cannot be started.
pub fn call(command: &mut Command, place: &Path, end: Instant) -> Finding<Output> {
    let (out, err) = (place.join("stdout"), place.join("stderr"));
    let shown = shown(command);
    let mut child = command.stdout(File::create(&out)?).stderr(File::create(&err)?).spawn()?;
    let code = wait(&mut child, end)?;
    let read = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Output { code, stdout: read(&out)?, stderr: read(&err)?, shown })
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

fn wait(child: &mut Child, end: Instant) -> Finding<Option<i32>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(shell_code(status)));
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        sleep(Duration::from_millis(1));
    }
}

fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
