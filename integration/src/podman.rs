//! podman with directories of its own and the drop-in configuration of `docs/managers`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::leftovers::Cgroups;
use hull_testkit::{Outcome, Scratch, call, place};

use crate::image;

/// podman as a caller sees it; every container is removed at the end.
#[derive(Debug)]
pub struct Podman {
    place: Scratch,
    cgroups: Cgroups,
    /// The prefix of this instance's container names.
    pub name: String,
}

/// The image's name.
pub const IMAGE: &str = "localhost/bb:latest";

impl Podman {
    /// Makes the directories and imports the image.
    ///
    /// # Panics
    /// When the import fails.
    #[must_use]
    pub fn start() -> Self {
        let place = Scratch::new("podman");
        fs::write(place.join("containers.conf"), image::drop_in("podman.conf"))
            .expect("write containers.conf");
        let podman = Self { place, cgroups: Cgroups::new("podman"), name: place::unique("p") };
        let archive = image::tarball(&podman.place);
        podman.call(&["import", "-c", r#"CMD ["/bin/sh"]"#, archive.to_str().expect("UTF-8"), IMAGE]).done();
        podman
    }

    /// `podman ARGUMENTS...`
    #[track_caller]
    pub fn call(&self, arguments: &[&str]) -> Outcome {
        call(self.command().args(arguments).stdin(Stdio::null()), Duration::from_secs(90))
    }

    /// `podman ARGUMENTS...`, which finds programs in the directory of `program` first.
    ///
    /// # Panics
    /// When `program` lies in no directory.
    #[track_caller]
    pub fn call_beside(&self, program: &Path, arguments: &[&str]) -> Outcome {
        let directory = program.parent().expect("a program lies in a directory").display();
        let path = format!("{directory}:{}", std::env::var("PATH").unwrap_or_default());
        call(self.command().env("PATH", path).args(arguments).stdin(Stdio::null()), Duration::from_secs(90))
    }

    /// `podman run OPTIONS... IMAGE ARGUMENTS...`. The limits are given because a machine may refuse podman's own.
    #[track_caller]
    pub fn run(&self, options: &[&str], arguments: &[&str]) -> Outcome {
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--network", "none"];
        let parent = ["--cgroup-parent", &self.cgroups.path()];
        let parent = if options.contains(&"--cgroups=disabled") { &[][..] } else { &parent[..] };
        self.call(&[&["run"], &limits[..], parent, options, &[IMAGE], arguments].concat())
    }

    /// `podman run -d` under the instance's name.
    #[track_caller]
    pub fn detached(&self, options: &[&str], arguments: &[&str]) {
        self.run(&[&["-d", "--name", &self.name], options].concat(), arguments).done();
    }

    /// The command line of `run -it --rm` for a shell.
    #[must_use]
    pub fn interactive_line(&self) -> String {
        let command = self.command();
        let words = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
        let settings = self.place.join("containers.conf");
        format!(
            "CONTAINERS_CONF={} podman {} run -it --rm --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --network none --cgroup-parent {} {IMAGE} /bin/sh",
            settings.display(),
            words.join(" "),
            self.cgroups.path()
        )
    }

    /// A directory of this instance.
    #[must_use]
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.place.join("containers.conf"));
        for (option, value) in [("--root", "root"), ("--runroot", "runroot"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.place.join(value));
        }
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.call(&["rm", "--all", "--force", "--time", "0"]);
        let _ = self.call(&["rmi", "--all", "--force"]);
    }
}
