//! RUN: a command in a container of its own, on a snapshot of its own.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::accounts::Accounts;
use super::output::read_lines;
use super::sandbox::{Limits, Mount, Sandbox, Source};
use super::stubs::Stubs;
use super::sweep;
use crate::deadline;
use crate::dockerfile::ast::Network;
use crate::error::{Error, Result, chain};
use crate::graph::RunAction;
use crate::guard::Guard;
use crate::ids;
use crate::interrupt;
use crate::snapshot::Snapshot;
use crate::workspace::{self, Attached, Workspace};

/// Longest call of the runtime that ends a container.
const ENDING: Duration = Duration::from_secs(30);

/// What all RUNs of a build share.
pub(crate) struct Runner<'a> {
    pub(crate) workspace: &'a Workspace,
    /// The runtime program.
    pub(crate) runtime: PathBuf,
    pub(crate) limits: Limits,
    /// `--network=none`.
    pub(crate) no_network: bool,
    /// `--add-host`: name and address.
    pub(crate) hosts: Vec<(String, String)>,
    /// `--run-env`.
    pub(crate) env: Vec<(String, String)>,
    /// `--volume`: files and directories of the host.
    pub(crate) volumes: Vec<Volume>,
    /// `--cgroup-parent`.
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) seccomp: Option<serde_json::Value>,
    /// How many containers were made.
    pub(crate) count: AtomicU64,
    /// Who ends the containers if this process is killed; there from the first one on.
    pub(crate) guard: OnceLock<std::result::Result<Guard, String>>,
}

/// Something of the host that RUNs see.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    pub(crate) source: PathBuf,
    pub(crate) destination: String,
    pub(crate) read_only: bool,
}

/// A mount made for a step, with everything that must outlive it.
pub(crate) struct Prepared {
    pub(crate) mount: Mount,
    pub(crate) is_directory: bool,
    /// Mounts below, trees and locks: dropped in this order when the step is over.
    #[expect(dead_code, reason = "it is only there to be dropped")]
    pub(crate) keep: Vec<Box<dyn std::any::Any>>,
}

impl Runner<'_> {
    /// Runs a command on a snapshot; `lines` gets its output.
    pub(crate) fn run(
        &self,
        snapshot: &Snapshot,
        run: &RunAction,
        (prepared, secret_env): (Vec<Prepared>, Vec<(String, String)>),
        lines: &mut dyn FnMut(String),
    ) -> Result<()> {
        let bundle = self.workspace.directory()?;
        let mut stubs = Stubs::default();
        let mut mounts = self.basic_mounts(&bundle, run)?;
        mounts.extend(prepared);
        let outcome = (|| {
            for path in ["/proc", "/dev", "/sys"] {
                stubs.ensure(snapshot.root(), path, true)?;
            }
            for Prepared { mount, is_directory, .. } in
                mounts.iter().filter(|one| !is_made_by_runtime(&one.mount))
            {
                stubs.ensure(snapshot.root(), &mount.destination, *is_directory)?;
            }
            let root = attach_root(snapshot, &bundle)?;
            let user = Accounts::read(snapshot.root())?.process_user(&run.user)?;
            ids::are_there(&user)?;
            super::place::directory(
                snapshot.root(),
                run.workdir.trim_matches('/').as_bytes(),
                super::place::New::of((0, 0)),
                &mut Vec::new(),
            )?;
            let number = self.count.fetch_add(1, Ordering::Relaxed);
            if number == 0 {
                sweep::control_groups(self.cgroup_parent.as_deref().unwrap_or(""));
            }
            let id = format!("{}{}-{number}", sweep::PREFIX, std::process::id());
            let cgroup = format!("{}/{id}", self.cgroup_parent.as_deref().unwrap_or(""));
            // An ordinary user has none to make others in, unless one is named.
            let may_limit = self.cgroup_parent.is_some() || !ids::in_user_namespace();
            let sandbox = Sandbox {
                root: &root.path().to_string_lossy(),
                args: &run.args,
                env: self.environment(run, &secret_env, &user.home),
                workdir: &run.workdir,
                user: &user,
                mounts: mounts.iter().map(|prepared| &prepared.mount).collect(),
                limits: &self.limits,
                own_network: self.no_network && run.network != Network::Host || run.network == Network::None,
                insecure: run.insecure,
                seccomp: self.seccomp.clone(),
                rootless: ids::in_user_namespace(),
                has_groups: ids::has_groups(),
                cgroup: may_limit.then_some(&*cgroup),
            };
            write_config(&bundle, &sandbox)?;
            self.execute(&bundle, &id, lines)
        })();
        let removed = stubs.remove();
        outcome.and(removed)
    }

    /// Name resolution, a heredoc's script and the volumes.
    fn basic_mounts(&self, bundle: &Path, run: &RunAction) -> Result<Vec<Prepared>> {
        let mut mounts = Vec::new();
        let mut file = |name: &str, destination: &str, content: &[u8], mode: u32| -> Result<()> {
            let path = bundle.join(name);
            fs::write(&path, content).map_err(Error::io("write", &path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
                .map_err(Error::io("open up", &path))?;
            let source = Source::Path(path.to_string_lossy().into_owned());
            let mount = Mount { destination: destination.to_owned(), source, read_only: true };
            mounts.push(Prepared { mount, is_directory: false, keep: Vec::new() });
            Ok(())
        };
        let has_network = !self.no_network && run.network != Network::None;
        let resolver =
            if has_network { fs::read("/etc/resolv.conf").unwrap_or_default() } else { Vec::new() };
        file("resolv.conf", "/etc/resolv.conf", &resolver, 0o644)?;
        let mut hosts =
            "127.0.0.1 localhost hull-build\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
        self.hosts.iter().for_each(|(name, address)| hosts.push_str(&format!("{address} {name}\n")));
        file("hosts", "/etc/hosts", hosts.as_bytes(), 0o644)?;
        if let Some((name, body)) = &run.script {
            file("script", &format!("/dev/pipes/{name}"), body.as_bytes(), 0o755)?;
        }
        for (index, volume) in self.volumes.iter().enumerate() {
            mounts.push(volume.prepare(&bundle.join(format!("volume{index}")))?);
        }
        Ok(mounts)
    }

    fn environment(&self, run: &RunAction, secret: &[(String, String)], home: &str) -> Vec<String> {
        let mut env: Vec<(&str, &str)> = Vec::new();
        let own = run.env.iter().chain(secret).map(|(name, value)| (name.as_str(), value.as_str()));
        let hidden =
            run.hidden_env.iter().chain(&self.env).map(|(name, value)| (name.as_str(), value.as_str()));
        env.extend(own);
        // What the image sets itself wins.
        for (name, value) in hidden.chain([("HOME", home), ("PATH", crate::graph::DEFAULT_PATH)]) {
            if !env.iter().any(|(known, _)| *known == name) {
                env.push((name, value));
            }
        }
        env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn execute(&self, bundle: &Path, id: &str, lines: &mut dyn FnMut(String)) -> Result<()> {
        let (output, input) = std::io::pipe().map_err(Error::io("make a pipe", ""))?;
        let errors = input.try_clone().map_err(Error::io("make a pipe", ""))?;
        let log = bundle.join("runtime.log");
        let mut command = self.command();
        command.args(["--log", &log.to_string_lossy(), "--log-format", "json"]);
        command.args(["run", "--bundle", &bundle.to_string_lossy(), id]);
        command.stdin(Stdio::null()).stdout(input).stderr(errors);
        let _guarded = self.guard()?.watch(id, output.as_fd())?;
        let _registered = interrupt::register(id, self.kill(id))?;
        let spawned = command.spawn();
        // The command holds the pipe's ends for writing: without it the reader sees the end.
        drop(command);
        let mut child = spawned.map_err(Error::io("start the runtime", &self.runtime))?;
        let told = read_lines(output, lines);
        if told.is_err() {
            // The guard could still read: the command would wait for that.
            drop(deadline::status(&mut self.kill(id), Instant::now() + ENDING));
        }
        let status = child.wait().map_err(Error::io("wait for the runtime", &self.runtime))?;
        self.delete(id);
        told?;
        if interrupt::is_cancelled() {
            return Err(Error::Cancelled);
        }
        match status.code() {
            Some(0) => Ok(()),
            code => Err(runtime_error(&log).unwrap_or(Error::Command { code: code.unwrap_or(128) })),
        }
    }

    fn guard(&self) -> Result<&Guard> {
        let start = || Guard::start(&self.runtime, self.workspace.path()).map_err(|error| chain(&error));
        self.guard.get_or_init(start).as_ref().map_err(Error::fact)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.runtime);
        command.env_clear().env("PATH", crate::graph::DEFAULT_PATH);
        command.args(["--root", &self.workspace.state().to_string_lossy()]);
        command
    }

    /// Takes the container away where the runtime, killed perhaps, left it.
    fn delete(&self, id: &str) {
        if !self.workspace.state().join(id).exists() {
            return;
        }
        let mut command = self.command();
        command
            .args(["delete", "--force", id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // What it leaves is told of by nobody here: the state goes with the workspace.
        drop(deadline::status(&mut command, Instant::now() + ENDING));
    }

    fn kill(&self, id: &str) -> Command {
        let mut command = self.command();
        command.args(["kill", id, "KILL"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Volume {
    fn prepare(&self, at: &Path) -> Result<Prepared> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open(&self.source, flags, rustix::fs::Mode::empty())
            .map_err(|e| Error::io("open volume", &self.source)(e.into()))?;
        let is_directory = super::place::is_directory(&super::place::stat(&fd, b"volume")?);
        let attached = workspace::attach(fd.as_fd(), is_directory, at)?;
        let source = Source::Path(at.to_string_lossy().into_owned());
        let mount = Mount { destination: self.destination.clone(), source, read_only: self.read_only };
        Ok(Prepared { mount, is_directory, keep: vec![Box::new(attached)] })
    }
}

/// Below these the runtime itself makes what it mounts on.
fn is_made_by_runtime(mount: &Mount) -> bool {
    ["/proc/", "/dev/", "/sys/"].iter().any(|prefix| mount.destination.starts_with(prefix))
}

fn attach_root(snapshot: &Snapshot, bundle: &Path) -> Result<Attached> {
    workspace::attach(snapshot.root(), true, &bundle.join("rootfs"))
}

fn write_config(bundle: &Path, sandbox: &Sandbox<'_>) -> Result<()> {
    let path = bundle.join("config.json");
    let mut file = fs::File::create_new(&path).map_err(Error::io("create", &path))?;
    file.write_all(sandbox.config().to_string().as_bytes()).map_err(Error::io("write", &path))
}

/// An ordinary user without a range of ids, or with a short one, has none for the image's user.
/// What the runtime itself complained of, if it did.
fn runtime_error(log: &Path) -> Option<Error> {
    let text = fs::read_to_string(log).ok()?;
    let message = text.lines().filter_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_error = entry["level"].as_str() == Some("error");
        is_error.then(|| entry["msg"].as_str().map(str::to_owned)).flatten()
    });
    message.collect::<Vec<_>>().pop().map(|message| Error::fact(format!("the runtime failed: {message}")))
}
