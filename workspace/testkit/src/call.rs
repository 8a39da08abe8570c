//! Calls of programs with a deadline: none may hang a test run.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::place::Scratch;

/// How long a test waits for what has to happen: far longer than it takes, for machines that are busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a finished program left.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status as a shell shows it: the code, or 128 and the signal.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// The command line, for messages.
    pub shown: String,
}

impl Outcome {
    /// Returns the standard output without its last line end, and fails the test unless the program succeeded.
    ///
    /// # Panics
    /// When the exit status is not 0.
    #[track_caller]
    #[must_use = "an outcome that nobody looks at proves nothing: call `.done()` when the output does not matter"]
    pub fn text(&self) -> &str {
        self.done();
        self.stdout.trim_end_matches('\n')
    }

    /// Fails the test unless the program succeeded.
    ///
    /// # Panics
    /// When the exit status is not 0.
    #[track_caller]
    pub fn done(&self) {
        assert_eq!(self.code, 0, "{}\nstdout: {}\nstderr: {}", self.shown, self.stdout, self.stderr);
    }

    /// Fails the test unless the program ended with `code` and one of its outputs holds `text`.
    ///
    /// # Panics
    /// When either differs.
    #[track_caller]
    pub fn failed(&self, code: i32, text: &str) {
        let both = format!("{}\nstdout: {}\nstderr: {}", self.shown, self.stdout, self.stderr);
        assert_eq!(self.code, code, "exit status of {both}");
        assert!(
            self.stdout.contains(text) || self.stderr.contains(text),
            "no {text:?} in the output of {both}"
        );
    }
}

/// Runs a command to its end or kills it after `limit`; a killed one counts as 137.
///
/// The output goes through files: a detached container that keeps a pipe open would never end the reading.
///
/// # Panics
/// When the program cannot be started.
#[track_caller]
pub fn call(command: &mut Command, limit: Duration) -> Outcome {
    let place = Scratch::new("call");
    let (out, err) = (place.join("out"), place.join("err"));
    let shown = format!("{command:?}");
    let open = |path| File::create(path).expect("make a file for the output");
    command.stdout(open(&out)).stderr(open(&err));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
    let status = wait(&mut child, limit);
    let read = |path| String::from_utf8_lossy(&fs::read(path).expect("read the output")).into_owned();
    Outcome { code: shell_code(status), stdout: read(&out), stderr: read(&err), shown }
}

/// Standard input with nothing to read, for a runtime that may change the owner of what it is given (crun 1.8 does): the
/// null device is the host's.
///
/// # Panics
/// Without a descriptor to spare.
#[must_use]
pub fn nothing() -> Stdio {
    let (empty, _) = std::io::pipe().expect("make a pipe");
    empty.into()
}

/// Runs a command that reads nothing, with a limit of one minute.
#[track_caller]
pub fn quick(program: &str, arguments: &[&str]) -> Outcome {
    call(Command::new(program).args(arguments).stdin(Stdio::null()), Duration::from_secs(60))
}

fn wait(child: &mut std::process::Child, limit: Duration) -> ExitStatus {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("wait for a child of ours") {
            return status;
        }
        if Instant::now() > end {
            eprintln!("killed after {limit:?}: pid {}", child.id());
            child.kill().expect("kill a child of ours");
            return child.wait().expect("wait for a child of ours");
        }
        sleep(Duration::from_millis(2));
    }
}

/// The exit status as a shell shows it.
#[must_use]
pub fn shell_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Asks `holds` again and again until it says yes or `limit` is over; says which.
pub fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if holds() {
            return true;
        }
        sleep(Duration::from_millis(10));
    }
    holds()
}
