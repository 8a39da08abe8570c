//! dockerd with directories, a socket and a network namespace of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::leftovers::Cgroups;
use hull_testkit::{Outcome, Scratch, call, gate};

use crate::daemon::Daemon;
use crate::image;

/// A running dockerd with one image, `bb`; it has a bridge and address translation in its own network namespace.
#[derive(Debug)]
pub struct Docker {
    // Dropped in this order: the daemon goes before its directories.
    _daemon: Daemon,
    _cgroups: Cgroups,
    place: Scratch,
    client: PathBuf,
}

impl Docker {
    /// Starts the daemon with the drop-in configuration and imports the image.
    ///
    /// # Panics
    /// When either fails.
    #[must_use]
    pub fn start() -> Self {
        Self::start_beside(&[])
    }

    /// The same, with other programs found before those of PATH: `(name, file)`.
    ///
    /// # Panics
    /// When either fails.
    #[must_use]
    pub fn start_beside(programs: &[(&str, PathBuf)]) -> Self {
        let place = Scratch::new("dockerd");
        fs::write(place.join("daemon.json"), image::drop_in("docker-daemon.json"))
            .expect("write daemon.json");
        let cgroups = Cgroups::new("docker");
        let first = place.join("first");
        fs::create_dir(&first).expect("make a directory of programs");
        for (name, file) in programs {
            std::os::unix::fs::symlink(file, first.join(name)).expect("name a program");
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = daemon_command(&place, &cgroups);
        command.env("PATH", format!("{}:{path}", first.display()));
        let daemon = Daemon::start(&mut command, &place.join("log"), &place.join("d.sock"));
        let client = gate::find("docker").expect("the client is installed");
        let docker = Self { _daemon: daemon, _cgroups: cgroups, place, client };
        assert!(eventually(PATIENCE, || docker.call(&["version"]).code == 0), "dockerd does not answer");
        let archive = image::tarball(&docker.place);
        docker.call(&["import", "-c", r#"CMD ["sh"]"#, archive.to_str().expect("UTF-8"), "bb"]).done();
        docker
    }

    /// `docker ARGUMENTS...`
    #[track_caller]
    pub fn call(&self, arguments: &[&str]) -> Outcome {
        call(self.command().args(arguments).stdin(Stdio::null()), Duration::from_secs(90))
    }

    /// `docker run OPTIONS... bb ARGUMENTS...`
    #[track_caller]
    pub fn run(&self, options: &[&str], arguments: &[&str]) -> Outcome {
        self.call(&[&["run"], options, &["bb"], arguments].concat())
    }

    /// Runs a program in the daemon's network namespace, where its published ports are.
    #[track_caller]
    pub fn beside(&self, arguments: &[&str]) -> Outcome {
        call(self.beside_command().args(arguments).stdin(Stdio::null()), Duration::from_secs(60))
    }

    /// The same for a program that is to go on; it is yet to be named.
    #[must_use]
    pub fn beside_command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.daemon_pid(), "-n", "--"]);
        command
    }

    /// `GET` or `POST` on the REST socket; the outcome's last line is the status code.
    #[track_caller]
    pub fn rest(&self, method: &str, path: &str) -> Outcome {
        let mut command = Command::new("curl");
        command.args(["-sS", "-X", method, "-w", "\n%{http_code}", "--max-time", "30", "--unix-socket"]);
        command.arg(self.place.join("d.sock")).arg(format!("http://docker{path}"));
        call(&mut command, Duration::from_secs(120))
    }

    /// A command of the client, for calls that need their own streams.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.client);
        command.env("DOCKER_HOST", format!("unix://{}", self.place.join("d.sock").display()));
        command.env("DOCKER_CONFIG", self.place.join("client"));
        command
    }

    /// The client's command line with `arguments`, for a terminal.
    #[must_use]
    pub fn line(&self, arguments: &str) -> String {
        format!(
            "DOCKER_HOST=unix://{} {} {arguments}",
            self.place.join("d.sock").display(),
            self.client.display()
        )
    }

    /// A scratch path of this instance.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    fn daemon_pid(&self) -> String {
        fs::read_to_string(self.place.join("d.pid")).expect("dockerd writes its pid file").trim().to_owned()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let all = self.call(&["ps", "-aq"]).stdout;
        for id in all.lines() {
            let _ = self.call(&["rm", "-f", id]);
        }
    }
}

/// The daemon in mount and network namespaces of its own, so that the host's rules and mounts stay as they are.
fn daemon_command(place: &Scratch, cgroups: &Cgroups) -> Command {
    let script = "ip link set lo up; echo 1 >/proc/sys/net/ipv4/ip_forward; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private", "sh", "-c", script, "sh", "dockerd"]);
    for (option, name) in
        [("--data-root", "root"), ("--exec-root", "exec"), ("-p", "d.pid"), ("--config-file", "daemon.json")]
    {
        command.arg(option).arg(place.join(name));
    }
    command.arg("-H").arg(format!("unix://{}", place.join("d.sock").display()));
    command.args(["--cgroup-parent", &cgroups.path()]);
    command.args(["--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs"]);
    command.args(["--iptables=true", "--ip6tables=false", "--bip", "10.201.0.1/24"]);
    command
}
