//! The builders that are compared, each with a store of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_testkit::call::eventually;
use hull_testkit::{call, gate, place};

use crate::corpus::Case;
use crate::measure::Cost;

/// Longest that one build may take.
pub const LIMIT: Duration = Duration::from_secs(600);

/// A builder.
pub struct Builder {
    /// How the table calls it.
    pub name: &'static str,
    /// Whether it is this project's.
    pub is_hull: bool,
    program: PathBuf,
    /// Its store, which it has for itself.
    store: PathBuf,
}

/// hull-build, and with `peers` buildah where it is installed.
pub fn all(scratch: &Path, peers: bool) -> Vec<Builder> {
    let hull = Builder {
        name: "hull",
        is_hull: true,
        program: std::env::var_os("HULL_BUILD").map_or_else(|| place::program("hull-build"), PathBuf::from),
        store: scratch.join("store-hull"),
    };
    let buildah = gate::find("buildah").filter(|_| peers).map(|program| Builder {
        name: "buildah",
        is_hull: false,
        program,
        store: scratch.join("store-buildah"),
    });
    [Some(hull), buildah].into_iter().flatten().collect()
}

impl Builder {
    /// The command with the store named; through `env`, as the measuring process passes only words on.
    pub fn command(&self) -> Command {
        let mut command = Command::new("/usr/bin/env");
        let store = self.store.display();
        if self.is_hull {
            let runtime = std::env::var_os("HULL").map_or_else(|| place::program("hull"), PathBuf::from);
            command.arg(format!("HULL_ROOT={store}"));
            command.arg(format!("HULL_BUILD_RUNTIME={}", runtime.display())).arg(&self.program);
        } else {
            command.arg("BUILDAH_ISOLATION=chroot").arg(&self.program);
            command.args(["--storage-driver", "overlay", "--root"]).arg(&self.store);
            command.arg("--runroot").arg(self.store.with_extension("run"));
        }
        command
    }

    /// The same builder with another store.
    pub fn with_store(&self, store: PathBuf) -> Self {
        Self { name: self.name, is_hull: self.is_hull, program: self.program.clone(), store }
    }

    /// The call that loads an archive.
    pub fn loading(&self, archive: &Path) -> Command {
        let mut command = self.command();
        if self.is_hull {
            command.arg("load").arg("-i").arg(archive);
        } else {
            command.args(["pull", "-q"]).arg(format!("docker-archive:{}", archive.display()));
        }
        command
    }

    /// Loads an archive under a name.
    pub fn load(&self, archive: &Path, name: &str) {
        let loaded = call(&mut self.loading(archive), LIMIT);
        loaded.done();
        if !self.is_hull {
            call(self.command().args(["tag", loaded.text(), &format!("localhost/{name}")]), LIMIT).done();
        }
    }

    /// Builds a case.
    pub fn build(&self, case: &Case, context: &Path, cold: bool) -> Command {
        self.build_as(case.name, case, context, cold)
    }

    fn build_as(&self, name: &str, case: &Case, context: &Path, cold: bool) -> Command {
        let mut command = self.command();
        command.args(["build", "-q", "-t", name]).args(case.arguments);
        match (self.is_hull, cold) {
            (true, true) => drop(command.arg("--no-cache")),
            (false, true) => drop(command.args(["--layers", "--no-cache", "--jobs", "8"])),
            (false, false) => drop(command.args(["--layers", "--jobs", "8"])),
            (true, false) => {}
        }
        command.arg(context);
        command
    }

    /// Builds a case cold and pushes it; one command, or two by a shell.
    pub fn build_and_push(&self, case: &Case, context: &Path, registry: &Registry) -> Command {
        if self.is_hull {
            let mut build = self.build_as(&self.pushed_name(case, registry), case, context, true);
            build.arg("--push");
            return build;
        }
        let build = self.build(case, context, true);
        let words = |command: &Command| {
            let all = std::iter::once(command.get_program()).chain(command.get_args());
            all.map(|word| format!("'{}' ", word.display())).collect::<String>()
        };
        let mut both = Command::new("/bin/sh");
        both.arg("-ec").arg(format!("{}\n{}", words(&build), words(&self.push(case, registry))));
        both
    }

    fn pushed_name(&self, case: &Case, registry: &Registry) -> String {
        format!("{}/{}/{}:1", registry.address, self.name, case.name)
    }

    /// Pushes what was built of a case.
    pub fn push(&self, case: &Case, registry: &Registry) -> Command {
        let mut command = self.command();
        let name = self.pushed_name(case, registry);
        if self.is_hull {
            let mut tag = self.command();
            call(tag.args(["tag", case.name, &name]), LIMIT).done();
            command.args(["push", "-q", &name]);
        } else {
            command.args(["push", "-q", "--tls-verify=false", case.name, &format!("docker://{name}")]);
        }
        command
    }

    /// Frees the space of what was built; the base stays.
    pub fn forget(&self) {
        let mut command = self.command();
        match self.is_hull {
            true => drop(command.args(["prune", "-f"])),
            false => drop(command.args(["rmi", "--prune", "-f"])),
        }
        drop(command.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

/// Debian's registry on loopback, with a store of its own that goes with it.
pub struct Registry {
    /// host:port
    pub address: String,
    process: Child,
    root: PathBuf,
}

impl Registry {
    /// Starts it; none where it is not installed.
    pub fn start(scratch: &Path) -> Option<Self> {
        let program = gate::find("docker-registry")?;
        let address = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.to_string();
        let config = scratch.join("registry.yml");
        let root = scratch.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {address}}}\n",
            root.display()
        );
        fs::write(&config, text).ok()?;
        let mut command = Command::new(program);
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().ok()?;
        let registry = Self { address, process, root };
        eventually(Duration::from_secs(10), || TcpStream::connect(&registry.address).is_ok())
            .then_some(registry)
    }

    /// The processor time that it took so far, in seconds.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        // User and system time: the fields 14 and 15, in hundredths of a second.
        fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It ends with this program at the latest; nothing is lost with it.
        drop(self.process.kill());
        drop(self.process.wait());
        drop(fs::remove_dir_all(&self.root));
    }
}

/// The head of the columns.
pub fn heading(builders: &[Builder]) -> String {
    let columns =
        builders.iter().map(|builder| format!("{:>32}", format!("{}: wall s, CPU s, MiB", builder.name)));
    columns.chain([format!("{:>20}", "hull/it: wall, CPU")]).collect()
}

/// One row: what each builder took, and this project's as a fraction of the other's.
pub fn line(row: &[Option<Cost>]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "kilobytes of a process fit")]
    let cell = |cost: &Option<Cost>| {
        let text = cost.map_or_else(
            || "-".into(),
            |cost| {
                let (wall, cpu) = (cost.wall.as_secs_f64(), cost.cpu.as_secs_f64());
                format!("{wall:.3} {cpu:.3} {:.0}", cost.peak as f64 / 1024.0)
            },
        );
        format!("{text:>32}")
    };
    let ratio = |of: fn(&Cost) -> f64| {
        let (own, other) = (row.first()?.as_ref()?, row.get(1)?.as_ref()?);
        Some(of(own) / of(other))
    };
    let ratios = ratio(|cost| cost.wall.as_secs_f64())
        .zip(ratio(|cost| cost.cpu.as_secs_f64()))
        .map_or_else(|| "-".into(), |(wall, cpu)| format!("{wall:.3} {cpu:.3}"));
    row.iter().map(cell).chain([format!("{ratios:>20}")]).collect()
}
