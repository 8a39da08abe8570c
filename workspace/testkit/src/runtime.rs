//! A runtime under test, driven by its command line only.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use serde_json::Value;

use crate::bundle::Bundle;
use crate::call::{Outcome, PATIENCE, call, eventually};
use crate::gate::Gate;
use crate::place::{self, Scratch};

/// No call of a runtime takes longer; one that does is killed and fails the test.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A program with the runtime command line, and a state directory of its own.
#[derive(Debug)]
pub struct Runtime {
    /// The program's path.
    pub program: PathBuf,
    place: Scratch,
}

impl Runtime {
    /// The runtime under test: `HULL_TEST_RUNTIME`, or the built `hull`.
    #[must_use]
    pub fn under_test() -> Self {
        Self::at(under_test())
    }

    /// Any runtime.
    #[must_use]
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), place: Scratch::new("state") }
    }

    /// The state directory (`--root`).
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.place.join("state")
    }

    /// A scratch path beside the state directory, for pid files, sockets and logs.
    #[must_use]
    pub fn beside(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// The command with its private `--root`, reading nothing.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.state_dir()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Calls the runtime.
    #[track_caller]
    pub fn call<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        call(&mut self.command(arguments), LIMIT)
    }

    /// Runs a bundle in the foreground to its end.
    #[track_caller]
    pub fn run(&self, bundle: &Bundle) -> Outcome {
        self.call(&[
            OsStr::new("run"),
            OsStr::new("--bundle"),
            bundle.path().as_os_str(),
            OsStr::new(&bundle.id),
        ])
    }

    /// The same as a shell is told it: for a test that needs a terminal, or other streams.
    #[must_use]
    pub fn run_line(&self, bundle: &Bundle) -> String {
        format!(
            "{} --root {} run --bundle {} {}",
            self.program.display(),
            self.state_dir().display(),
            bundle.path().display(),
            bundle.id
        )
    }

    /// The container of a bundle, by whomever it is made; it is deleted at the end of the test, whatever happens.
    #[must_use]
    pub const fn container<'a>(&'a self, bundle: &'a Bundle) -> Container<'a> {
        Container { runtime: self, bundle }
    }

    /// Creates a container that is deleted at the end of the test, whatever happens.
    ///
    /// # Panics
    /// When `create` fails.
    #[track_caller]
    #[must_use]
    pub fn create<'a>(&'a self, bundle: &'a Bundle) -> Container<'a> {
        let container = self.container(bundle);
        let arguments =
            [OsStr::new("create"), OsStr::new("--bundle"), bundle.path().as_os_str(), OsStr::new(&bundle.id)];
        self.call(&arguments).done();
        container
    }

    /// Creates and starts a container.
    ///
    /// # Panics
    /// When either fails.
    #[track_caller]
    #[must_use]
    pub fn start<'a>(&'a self, bundle: &'a Bundle) -> Container<'a> {
        let container = self.create(bundle);
        container.call("start", &[]).done();
        container
    }
}

/// A container that a test made.
#[derive(Debug)]
pub struct Container<'a> {
    runtime: &'a Runtime,
    bundle: &'a Bundle,
}

impl Container<'_> {
    /// Calls `COMMAND ID ARGUMENTS...`.
    #[track_caller]
    pub fn call(&self, command: &str, arguments: &[&str]) -> Outcome {
        self.runtime.call(&[&[command, &self.bundle.id], arguments].concat())
    }

    /// Calls `exec OPTIONS... ID ARGUMENTS...`.
    #[track_caller]
    pub fn exec(&self, options: &[&str], arguments: &[&str]) -> Outcome {
        self.runtime.call(&[&["exec"], options, &[&self.bundle.id], arguments].concat())
    }

    /// What `state` says, as JSON.
    ///
    /// # Panics
    /// When it fails or is no JSON.
    #[track_caller]
    #[must_use]
    pub fn state(&self) -> Value {
        serde_json::from_str(self.call("state", &[]).text()).expect("state prints JSON")
    }

    /// The `status` of `state`.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The host's id of the container's first process.
    ///
    /// # Panics
    /// When `state` has none.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("state has a pid")
    }

    /// Waits until `state` says `status`; false when that takes too long.
    #[must_use]
    pub fn becomes(&self, status: &str) -> bool {
        eventually(PATIENCE, || self.status() == status)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // The container may be gone already, which is what most tests want.
        let _ = call(&mut self.runtime.command(&["delete", "--force", &self.bundle.id]), LIMIT);
    }
}

/// The path of the runtime under test.
#[must_use]
pub fn under_test() -> PathBuf {
    env::var_os("HULL_TEST_RUNTIME").map_or_else(|| place::program("hull"), PathBuf::from)
}

/// The runtime under test is the one of this project, not a peer that proves a test.
///
/// # Errors
/// When it has another name.
pub fn ours() -> Gate {
    if under_test().file_name() == Some(OsStr::new("hull")) {
        Ok(())
    } else {
        Err("needs a feature of hull".into())
    }
}

/// The directory of a container's cgroup in the hierarchy of `controller`, for a bundle's default path; on pure version 2
/// there is one for all.
#[must_use]
pub fn cgroup_dir(controller: &str, bundle: &Bundle) -> PathBuf {
    let tree = Path::new("/sys/fs/cgroup");
    let hierarchy = if tree.join("cgroup.controllers").exists() { "" } else { controller };
    tree.join(hierarchy).join(&bundle.id)
}

/// Reads a small file without its last line end; empty when it is not there.
#[must_use]
pub fn peek(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}
