//! The shim under a real containerd, with the runtime under test.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_integration::podman::Podman;
use hull_testkit::call::eventually;
use hull_testkit::gate::{Gate, program, root};
use hull_testkit::leftovers::Cgroups;
use hull_testkit::place::{build_dir, unique};
use hull_testkit::{Outcome, Scratch, call, needs, runtime};

const IMAGE: &str = "localhost/bb:latest";
const LIMIT: Duration = Duration::from_secs(60);

fn containerd() -> Gate {
    root().and(program("containerd")).and(program("ctr")).and(program("podman")).and(program("busybox"))
}

/// A containerd that can be killed and started again.
struct Manager {
    daemon: Option<Child>,
    cgroups: Cgroups,
    place: Scratch,
}

impl Manager {
    fn start() -> Self {
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
        std::os::unix::fs::symlink(runtime::under_test(), place.join("bin/hull")).unwrap();
        let mut manager = Self { daemon: None, cgroups: Cgroups::new("shim"), place };
        manager.raise();
        let archive = manager.place.join("bb.tar");
        let archive = archive.to_str().unwrap();
        Podman::start().call(&["save", "--format", "oci-archive", "-o", archive, IMAGE]).done();
        manager.ctr(&["image", "import", "--index-name", "bb", archive]).done();
        manager
    }

    fn raise(&mut self) {
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
    fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    fn ctr(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.place.join("c.sock")).args(["-n", self.cgroups.name()]);
        call(command.args(words).stdin(Stdio::null()), LIMIT)
    }

    fn run(&self, options: &[&str], name: &str, words: &[&str]) -> Outcome {
        let fixed = ["run", "--runtime", "io.containerd.hull.v2"];
        self.ctr(&[&fixed, options, &[IMAGE, name], words].concat())
    }

    fn status(&self, name: &str) -> String {
        let listed = self.ctr(&["task", "ls"]).stdout;
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().last()).unwrap_or_default().to_owned()
    }

    fn state_of(&self, name: &str) -> PathBuf {
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

#[test]
fn containers_run_and_are_driven_by_ctr() {
    needs!(containerd());
    let manager = Manager::start();
    let done = manager.run(&["--rm"], &unique("a"), &["sh", "-c", "echo hello; exit 7"]);
    assert_eq!((done.stdout.trim(), done.code), ("hello", 7));
    let name = unique("life");
    manager.run(&["-d"], &name, &["sleep", "1000"]).done();
    assert_eq!(manager.status(&name), "RUNNING");
    assert_eq!(manager.ctr(&["task", "exec", "--exec-id", "e", &name, "sh", "-c", "exit 9"]).code, 9);
    manager.ctr(&["task", "pause", &name]).done();
    assert_eq!(manager.status(&name), "PAUSED");
    manager.ctr(&["task", "resume", &name]).done();
    assert!(manager.ctr(&["task", "metrics", &name]).text().contains("memory.usage_in_bytes"));
    manager.ctr(&["task", "kill", "--signal", "SIGKILL", &name]).done();
    assert!(eventually(LIMIT, || manager.status(&name) == "STOPPED"));
    manager.ctr(&["task", "rm", &name]);
    manager.ctr(&["container", "rm", &name]).done();
    assert!(!manager.state_of(&name).exists());
}

#[test]
fn exit_code_survives_a_killed_containerd() {
    needs!(containerd());
    let mut manager = Manager::start();
    for round in 0..5 {
        let name = unique("survivor");
        let code = 40 + round;
        let script = format!("sleep 1; exit {code}");
        manager.run(&["-d", "--null-io"], &name, &["sh", "-c", &script]).done();
        manager.kill();
        std::thread::sleep(Duration::from_millis(1500));
        manager.raise();
        assert!(eventually(LIMIT, || manager.status(&name) == "STOPPED"), "round {round}");
        let removed = manager.ctr(&["task", "rm", &name]);
        assert!(
            removed.stderr.contains(&format!("non-zero exit code {code}\"")),
            "round {round}: {removed:?}"
        );
        manager.ctr(&["container", "rm", &name]).done();
    }
}
