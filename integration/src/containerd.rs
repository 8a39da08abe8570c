//! containerd with directories and a socket of its own, driven by `ctr`.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::leftovers::Cgroups;
use hull_testkit::{Outcome, Scratch, call, runtime};

use crate::daemon::Daemon;
use crate::podman::Podman;

/// The image's name.
pub const IMAGE: &str = "localhost/bb:latest";

/// A running containerd with one image.
#[derive(Debug)]
pub struct Containerd {
    // Dropped in this order: the daemon goes before its directories.
    daemon: Daemon,
    cgroups: Cgroups,
    place: Scratch,
}

impl Containerd {
    /// Starts the daemon and imports the image; podman packs it, as `ctr` takes no plain tarball.
    ///
    /// # Panics
    /// When either fails.
    #[must_use]
    pub fn start() -> Self {
        let place = Scratch::new("ctrd");
        let at = place.path().display();
        let settings = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = \"{at}/c.sock\"\n"
        );
        fs::write(place.join("config.toml"), settings).expect("write config.toml");
        let mut command = Command::new("containerd");
        command.arg("-c").arg(place.join("config.toml"));
        let daemon = Daemon::start(&mut command, &place.join("log"), &place.join("c.sock"));
        let containerd = Self { daemon, cgroups: Cgroups::new("ctr"), place };
        containerd.import();
        containerd
    }

    fn import(&self) {
        let archive = self.place.join("bb.oci.tar");
        let archive = archive.to_str().expect("UTF-8");
        Podman::start().call(&["save", "--format", "oci-archive", "-o", archive, IMAGE]).done();
        self.ctr(&["image", "import", "--index-name", "bb", archive]).done();
    }

    /// `ctr ARGUMENTS...`
    #[track_caller]
    pub fn ctr(&self, arguments: &[&str]) -> Outcome {
        call(self.command().args(arguments).stdin(Stdio::null()), Duration::from_secs(60))
    }

    /// `ctr run OPTIONS... IMAGE NAME ARGUMENTS...` with the runtime under test in the place of runc.
    #[track_caller]
    pub fn run(&self, options: &[&str], name: &str, arguments: &[&str]) -> Outcome {
        let program = runtime::under_test();
        let program = program.to_str().expect("UTF-8");
        self.ctr(&[&["run", "--runc-binary", program], options, &[IMAGE, name], arguments].concat())
    }

    /// The command line of `ctr run -t` for a shell.
    #[must_use]
    pub fn interactive_line(&self, name: &str) -> String {
        let program = runtime::under_test();
        let socket = self.place.join("c.sock");
        format!(
            "ctr -a {} -n {} run --rm -t --runc-binary {} {IMAGE} {name} /bin/sh",
            socket.display(),
            self.namespace(),
            program.display()
        )
    }

    /// The namespace of this instance; containerd puts its cgroups below a directory of this name.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.cgroups.name()
    }

    /// The daemon's process.
    #[must_use]
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.place.join("c.sock")).args(["-n", self.namespace()]);
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for name in self.ctr(&["task", "ls", "-q"]).stdout.lines() {
            let _ = self.ctr(&["task", "rm", "--force", name]);
        }
        for name in self.ctr(&["container", "ls", "-q"]).stdout.lines() {
            let _ = self.ctr(&["container", "rm", name]);
        }
    }
}
