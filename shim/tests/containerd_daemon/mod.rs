//! A containerd of a test's own that can be killed and started again, with the shim as built.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses a part of it; a failed unwrap fails the test

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_integration::podman::Podman;
use hull_testkit::call::eventually;
use hull_testkit::gate::{Gate, program, root};
use hull_testkit::leftovers::Cgroups;
use hull_testkit::place::build_dir;
use hull_testkit::{Outcome, Scratch, call, runtime};

/// The image that every test runs.
pub const IMAGE: &str = "localhost/bb:latest";
const LIMIT: Duration = Duration::from_secs(60);

/// What these tests need.
pub fn containerd() -> Gate {
    root().and(program("containerd")).and(program("ctr")).and(program("podman")).and(program("busybox"))
}

/// A containerd that can be killed and started again.
pub struct Manager {
    daemon: Option<Child>,
    cgroups: Cgroups,
    place: Scratch,
}

impl Manager {
    pub fn start() -> Self {
        let place = Scratch::new("ctrd");
        let at = place.path().display();
        let settings = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = \"{at}/c.sock\"\n"
        );
        fs::write(place.join("config.toml"), settings).unwrap();
        // Found on PATH: the shim as built, and the runtime under test by the name that the shim looks for.
        fs::create_dir(place.join("bin")).unwrap();
        let mut manager = Self { daemon: None, cgroups: Cgroups::new("shim"), place };
        manager.offer("hull", &runtime::under_test());
        manager.raise();
        manager.import(&Podman::start(), IMAGE);
        manager
    }

    /// Lets the daemon, and the shims and runtimes that it starts, find a program on PATH as `name`.
    pub fn offer(&self, name: &str, program: &Path) {
        std::os::unix::fs::symlink(program, self.place.join("bin").join(name)).unwrap();
    }

    fn import(&self, podman: &Podman, image: &str) {
        let archive = self.place.join("image.tar");
        // podman does not write over an archive.
        let _ = fs::remove_file(&archive);
        let archive = archive.to_str().unwrap();
        podman.call(&["save", "--format", "oci-archive", "-o", archive, image]).done();
        self.ctr(&["image", "import", "--index-name", "bb", archive]).done();
    }

    /// Imports the usual image with a second layer, which adds `/added`.
    pub fn import_layers(&self, image: &str) {
        let context = self.place.join("context");
        fs::create_dir(&context).unwrap();
        fs::write(context.join("added"), "from the second layer\n").unwrap();
        fs::write(context.join("Dockerfile"), format!("FROM {IMAGE}\nCOPY added /added\n")).unwrap();
        let podman = Podman::start();
        podman.call(&["build", "--pull-never", "-t", image, context.to_str().unwrap()]).done();
        self.import(&podman, image);
    }

    /// A command line of `ctr` for a terminal.
    pub fn line(&self, rest: &str) -> String {
        format!("ctr -a {} -n {} {rest}", self.place.join("c.sock").display(), self.cgroups.name())
    }

    pub fn raise(&mut self) {
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{}:{path}", self.place.join("bin").display(), build_dir().display());
        let log = fs::File::options().append(true).create(true).open(self.place.join("log")).unwrap();
        let child = Command::new("containerd")
            .arg("-c")
            .arg(self.place.join("config.toml"))
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(child);
        assert!(eventually(LIMIT, || self.ctr(&["version"]).code == 0), "containerd did not come up");
    }

    /// kill -9, as a crash.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    pub fn ctr(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.place.join("c.sock")).args(["-n", self.cgroups.name()]);
        call(command.args(words).stdin(Stdio::null()), LIMIT)
    }

    pub fn run(&self, options: &[&str], name: &str, words: &[&str]) -> Outcome {
        let fixed = ["run", "--runtime", "io.containerd.hull.v2"];
        self.ctr(&[&fixed, options, &[IMAGE, name], words].concat())
    }

    pub fn status(&self, name: &str) -> String {
        let listed = self.ctr(&["task", "ls"]).stdout;
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().last()).unwrap_or_default().to_owned()
    }

    /// Removes a task that has ended, with `code`, and its container.
    #[track_caller]
    pub fn remove_ended(&self, name: &str, code: u32) {
        let removed = self.ctr(&["task", "rm", name]);
        assert!(removed.stderr.contains(&format!("non-zero exit code {code}\"")), "{removed:?}");
        self.ctr(&["container", "rm", name]).done();
    }

    pub fn state_of(&self, name: &str) -> PathBuf {
        self.place.join("state/io.containerd.runtime.v2.task").join(self.cgroups.name()).join(name)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if self.daemon.is_none() {
            return;
        }
        for name in self.ctr(&["task", "ls", "-q"]).stdout.lines() {
            let _ = self.ctr(&["task", "rm", "--force", name]);
        }
        for name in self.ctr(&["container", "ls", "-q"]).stdout.lines() {
            let _ = self.ctr(&["container", "rm", name]);
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.place.join("log")).unwrap_or_default();
            eprintln!(
                "{}",
                log.lines().filter(|line| !line.contains("level=info")).collect::<Vec<_>>().join("\n")
            );
        }
    }
}
