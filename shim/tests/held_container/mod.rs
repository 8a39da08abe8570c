//! A container under the monitor, which is driven by conmon's command line.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses a part of it; a failed unwrap fails the test

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use hull_testkit::call::eventually;
use hull_testkit::{Bundle, Outcome, Scratch, call, place, runtime};

use crate::task_client::LIMIT;

/// A container under a monitor that is driven as CRI-O and podman do it.
pub struct Held {
    pub bundle: Bundle,
    pub place: Scratch,
}

impl Held {
    /// Creates the container; `options` go to the monitor, whose log is the file `log` unless they name others.
    pub fn create(bundle: Bundle, options: &[&str]) -> Self {
        let held = Self { bundle, place: Scratch::new("held") };
        for name in ["exits", "persist"] {
            fs::create_dir(held.place.join(name)).unwrap();
        }
        let done = held.monitor(options);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(eventually(LIMIT, || held.read("sync").contains('\n')), "the caller is told nothing");
        held
    }

    pub fn monitor(&self, options: &[&str]) -> Outcome {
        let id = &self.bundle.id;
        let mut command = self.program("sync");
        command.args(["--api-version", "1", "-c", id, "-u", id, "-n", "name", "-b"]).arg(self.bundle.path());
        command.arg("-r").arg(runtime::under_test()).arg("--full-attach");
        let files =
            [("-p", "pid"), ("-P", "monitor.pid"), ("--exit-dir", "exits"), ("--persist-dir", "persist")];
        for (option, name) in files {
            command.arg(option).arg(self.place.join(name));
        }
        command.args(["--runtime-arg", "--root", "--runtime-arg"]).arg(self.place.join("state"));
        if !options.contains(&"-l") {
            command.arg("-l").arg(format!("k8s-file:{}", self.place.join("log").display()));
        }
        call(command.args(options).stdin(Stdio::null()), LIMIT)
    }

    /// The monitor with the pipe on which the caller is told something, which is a file here.
    fn program(&self, sync: &str) -> Command {
        let script = format!("exec 3>{sync}; export _OCI_SYNCPIPE=3; exec \"$@\"");
        let mut command = Command::new("sh");
        command
            .current_dir(self.place.path())
            .args(["-c", &script, "sh"])
            .arg(place::program("hull-monitor"));
        command
    }

    /// Creates a container as CRI-O does: the older form of the protocol, and a log that names no driver.
    pub fn create_for_cri_o(bundle: Bundle) -> Self {
        let held = Self { bundle, place: Scratch::new("held") };
        for name in ["exits", "persist", "sockets"] {
            fs::create_dir(held.place.join(name)).unwrap();
        }
        let mut command = held.program("sync");
        command.arg("-b").arg(held.bundle.path()).args(["-c", &held.bundle.id, "-u", &held.bundle.id]);
        let files = [
            ("--exit-dir", "exits"),
            ("-l", "log"),
            ("-P", "monitor.pid"),
            ("-p", "pid"),
            ("--persist-dir", "persist"),
            ("--socket-dir-path", "sockets"),
        ];
        for (option, name) in files {
            command.arg(option).arg(held.place.join(name));
        }
        command.arg("-r").arg(runtime::under_test()).arg("--runtime-arg").arg(held.root());
        command.args(["--log-level", "info", "-n", "k8s_c_p", "--syslog", "--log-size-max", "16384"]);
        call(command.stdin(Stdio::null()), LIMIT).done();
        assert!(eventually(LIMIT, || held.read("sync").contains('\n')), "the caller is told nothing");
        held
    }

    fn root(&self) -> String {
        format!("--root={}", self.place.join("state").display())
    }

    /// An exec as CRI-O makes one, without a bundle: what it is told, and the log.
    pub fn exec_for_cri_o(
        &self,
        name: &str,
        words: &[&str],
        options: &[&str],
    ) -> (serde_json::Value, String) {
        let mut process = self.bundle.config["process"].clone();
        process["args"] = serde_json::json!(words);
        process["terminal"] = options.contains(&"-t").into();
        let file = |kind: &str| self.place.join(format!("{name}.{kind}"));
        fs::write(file("json"), process.to_string()).unwrap();
        let mut command = self.program(&format!("{name}.sync"));
        command.args(["-c", &self.bundle.id, "-n", "k8s_c_p", "-r"]).arg(runtime::under_test());
        command.arg("-p").arg(file("pid")).args(["-e", "-l"]).arg(file("log"));
        command.arg("--socket-dir-path").arg(self.place.join("sockets")).args(["--log-level", "info"]);
        command.args(["--sync", "--log-global-size-max", "16777216"]).args(options);
        command.arg("--exec-process-spec").arg(file("json")).arg("--runtime-arg").arg(self.root());
        // How it ends tells nothing: what the caller is told does.
        call(command.stdin(Stdio::null()), LIMIT);
        let told = serde_json::from_str(&self.read(&format!("{name}.sync"))).unwrap();
        (told, self.read(&format!("{name}.log")))
    }

    pub fn runtime(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new(runtime::under_test());
        call(command.arg("--root").arg(self.place.join("state")).args(words), LIMIT)
    }

    pub fn start(&self) {
        self.runtime(&["start", &self.bundle.id]).done();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.join(name)).unwrap_or_default()
    }

    /// Waits for the exit file.
    #[track_caller]
    pub fn ends_with(&self, code: &str) {
        let file = format!("exits/{}", self.bundle.id);
        assert!(eventually(LIMIT, || !self.read(&file).is_empty()), "no exit file");
        assert_eq!(self.read(&file), code);
        assert_eq!(self.read("persist/exit"), code);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.runtime(&["delete", "--force", &self.bundle.id]);
        let pid = self.read("monitor.pid");
        eventually(LIMIT, || !Path::new(&format!("/proc/{}/exe", pid.trim())).exists());
    }
}

/// A monitor that runs `script` as its exit command, and the runtime on the same state.
pub struct Alone {
    pub bundle: Bundle,
}

impl Alone {
    pub fn monitor(&self, log: &str, script: &str) -> Command {
        let (dir, id) = (self.bundle.path(), &self.bundle.id);
        let mut command = Command::new(place::program("hull-monitor"));
        command.args(["--api-version", "1", "-c", id, "-u", id, "-n", id, "--full-attach", "-b"]).arg(dir);
        command.arg("-r").arg(runtime::under_test());
        command.arg("-p").arg(dir.join("pid")).arg("-P").arg(dir.join("monitor.pid")).args(["-l", log]);
        command.args(["--exit-command", "/bin/sh", "--exit-command-arg", "-c", "--exit-command-arg", script]);
        command.args(["--runtime-arg", "--root", "--runtime-arg"]).arg(dir.join("state"));
        command.stdin(Stdio::null());
        command
    }

    pub fn runtime(&self, words: &[&str]) -> Outcome {
        let mut command = Command::new(runtime::under_test());
        command.arg("--root").arg(self.bundle.path().join("state"));
        call(command.args(words).arg(&self.bundle.id), LIMIT)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.runtime(&["delete", "--force"]);
    }
}

/// The lines of a k8s-file log without their times, which are checked.
#[track_caller]
pub fn without_times(text: &str) -> Vec<&str> {
    text.lines()
        .map(|line| {
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.len() == 30 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
            rest
        })
        .collect()
}
