//! A store of its own, a small image made of nothing but busybox, and calls of the program.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A scratch directory with a store in it.
pub struct Bed {
    pub dir: tempfile::TempDir,
}

impl Bed {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, with this bed's store, credentials and nothing else of the caller's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull-build"));
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display());
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.dir.path())
            .env("HULL_ROOT", self.path("store"));
        command.args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, and gives its output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Runs a command that must fail, and gives what it says.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            !output.status.success(),
            "{arguments:?} succeeded: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stderr).unwrap()
    }

    /// Imports an image with a few files; with busybox if this machine has a static one.
    pub fn image(&self, name: &str) -> String {
        let root = self.path("rootfs");
        if !root.exists() {
            for dir in ["bin", "etc", "tmp", "data"] {
                std::fs::create_dir_all(root.join(dir)).unwrap();
            }
            if Path::new("/bin/busybox").exists() {
                std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
                for applet in ["sh", "cat", "echo", "id", "sleep", "ls", "rm", "httpd"] {
                    std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
                }
            }
            std::fs::write(
                root.join("etc/passwd"),
                "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n",
            )
            .unwrap();
            std::fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\nextra:x:50:app\n").unwrap();
            std::fs::write(root.join("data/seed"), "seed").unwrap();
        }
        let archive = self.path("rootfs.tar");
        let made = Command::new("tar")
            .args(["--sort=name", "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(&root)
            .arg(".")
            .status();
        assert!(made.unwrap().success());
        let changes = ["-c", "CMD [\"sh\"]", "-c", "ENV A=1", "-c", "LABEL k=v", "-c", "VOLUME /data"];
        let mut arguments = vec!["import"];
        arguments.extend(changes);
        let archive = archive.display().to_string();
        arguments.extend([archive.as_str(), name]);
        self.ok(&arguments).trim().to_owned()
    }
}

/// The path of a program, or a line that says why its test is skipped.
pub fn program(name: &str) -> Option<PathBuf> {
    let dirs = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file());
    if found.is_none() {
        hull_testkit::gate::skipped(&format!("needs the program {name}"));
    }
    found
}

/// The runtime that containers are tried with, `HULL_TEST_RUNTIME` or this project's; none where no container can run.
pub fn runtime() -> Option<String> {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        hull_testkit::gate::skipped("needs root and busybox");
        return None;
    }
    Some(hull_testkit::runtime::under_test().display().to_string())
}
