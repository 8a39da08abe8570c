//! Containers saved with CRIU and restored: what goes on from where it was, and what is left when it fails.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use hull_testkit::runtime::cgroup_dir;
use hull_testkit::{Bundle, Outcome, Runtime};
use serde_json::Value;

/// A stage for the bundle; the test is skipped where containers cannot be checkpointed.
macro_rules! stage {
    ($bundle:expr) => {{
        use hull_testkit::gate;
        hull_testkit::needs!(
            hull_testkit::runtime::ours(),
            gate::root(),
            gate::program("busybox"),
            gate::cgroups()
        );
        match gate::criu() {
            Ok(criu) => crate::Stage::new($bundle, criu),
            Err(why) => return gate::skipped(&why),
        }
    }};
}

mod exchange;
mod life;
mod memory;
mod options;
mod refusals;

/// Answers each line with its number.
const COUNTER: &str = "i=0; while read x; do i=$((i+1)); echo \"$i $x\"; done";

/// A runtime, a bundle and a place for images, with a CRIU that works.
struct Stage {
    runtime: Runtime,
    bundle: Bundle,
    criu: PathBuf,
    /// Who makes the control groups, as an option.
    manager: &'static [&'static str],
}

impl Stage {
    fn new(bundle: Bundle, criu: PathBuf) -> Self {
        Self { runtime: Runtime::under_test(), bundle, criu, manager: &[] }
    }

    /// The images of the next checkpoint.
    fn images(&self) -> String {
        self.beside("images")
    }

    fn beside(&self, name: &str) -> String {
        self.runtime.beside(name).display().to_string()
    }

    fn arguments<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        [self.manager, &["--criu", self.criu.to_str().expect("UTF-8")], rest].concat()
    }

    fn call(&self, rest: &[&str]) -> Outcome {
        self.runtime.call(&self.arguments(rest))
    }

    /// `COMMAND --detach OPTIONS... ID` with pipes for its input and output.
    fn with_pipes(&self, command: &str, options: &[&str], id: &str) -> Pipes {
        let bundle = self.bundle.path().to_str().expect("UTF-8");
        let log = self.beside("log");
        let front = self.arguments(&["--log", &log, command, "--detach", "--bundle", bundle]);
        Pipes::start(self.runtime.command(&[&front, options, &[id]].concat()), &log)
    }

    fn run(&self) -> Pipes {
        self.with_pipes("run", &[], &self.bundle.id)
    }

    fn checkpoint(&self, options: &[&str]) -> Outcome {
        let images = self.images();
        self.call(&[&["checkpoint", "--image-path", &images], options, &[self.bundle.id.as_str()]].concat())
    }

    fn restore(&self) -> Pipes {
        self.restore_with(&[])
    }

    fn restore_with(&self, options: &[&str]) -> Pipes {
        let images = self.images();
        self.with_pipes("restore", &[&["--image-path", &images], options].concat(), &self.bundle.id)
    }

    /// What is left of a checkpoint that failed, or was restored: CRIU wants an empty directory for the next.
    fn forget_images(&self) {
        fs::remove_dir_all(self.images()).expect("remove the images");
    }

    fn inside(&self, script: &str) -> String {
        self.call(&["exec", &self.bundle.id, "/bin/sh", "-c", script]).text().to_owned()
    }

    fn status(&self) -> String {
        self.state()["status"].as_str().unwrap_or_default().to_owned()
    }

    fn state(&self) -> Value {
        let state = self.call(&["state", &self.bundle.id]);
        serde_json::from_str(state.text()).expect("state prints JSON")
    }

    fn is_gone(&self) {
        self.call(&["state", &self.bundle.id]).failed(1, "does not exist");
        if self.manager.is_empty() {
            assert!(!cgroup_dir("memory", &self.bundle).exists(), "the control group stayed");
        }
        assert!(!self.runtime.state_dir().join(&self.bundle.id).exists(), "the state directory stayed");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Gone already, as most tests want it.
        let _ = self.call(&["delete", "--force", &self.bundle.id]);
    }
}

/// The outer ends of a container's streams.
struct Pipes {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Pipes {
    /// Starts a detached container by `command`, whose errors are in `log`.
    fn start(mut command: Command, log: &str) -> Self {
        let said = || fs::read_to_string(log).unwrap_or_default();
        Self::try_start(&mut command).unwrap_or_else(|| panic!("{command:?}: {}", said()))
    }

    fn try_start(command: &mut Command) -> Option<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the runtime");
        let pipes = Self {
            input: child.stdin.take().expect("a pipe"),
            output: BufReader::new(child.stdout.take().expect("a pipe")),
        };
        child.wait().expect("wait for the runtime").success().then_some(pipes)
    }

    fn told(&mut self, word: &str) {
        writeln!(self.input, "{word}").expect("write to the container");
    }

    fn answers(&mut self, answer: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("read from the container");
        assert_eq!(line.trim_end(), answer);
    }

    fn says(&mut self, word: &str, answer: &str) {
        self.told(word);
        self.answers(answer);
    }
}
