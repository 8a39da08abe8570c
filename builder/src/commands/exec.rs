//! `exec`: one more process in a running container.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use clap::Args;
use hull_image::Store;
use hull_sys::memfd;
use serde_json::{Value, json};

use super::containers::{self, Place};
use super::run::{complaint, hold_exec, refusal_code};
use super::{Outcome, environment};
use crate::steps::accounts::Accounts;
use crate::{bundle, host, ids, signals};

type Failure = Box<dyn std::error::Error>;

/// Arguments of `exec`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Do not wait for the process
    #[arg(short, long)]
    detach: bool,
    /// KEY=VALUE, or KEY for the value of this process
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// File with one KEY=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// USER[:GROUP], names or numbers
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// Name or id of the container
    container: String,
    /// Command and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the process and ends with its code, or with Docker's where it cannot run.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let place = containers::find(&store, &arguments.container)?;
    let process = process(&store, arguments, &place)?;
    drop(store);
    let (told, log) = (Passing::new("process")?, Passing::new("log")?);
    told.fill(&serde_json::to_vec(&process)?)?;
    if arguments.detach && arguments.tty {
        return Ok(hold_exec(&place, &told.path(), &log.path())
            .map_or_else(|said| refused(&said), |()| ExitCode::SUCCESS));
    }
    let mut command = place.runtime(&["--log", &log.path(), "--log-format", "json", "exec", "--process"]);
    command.arg(told.path());
    if arguments.detach {
        // Nobody would read what it says; of an error the log tells.
        command.arg("--detach").stdout(Stdio::null()).stderr(Stdio::null());
    }
    command.arg(&place.container.id);
    if arguments.detach || !arguments.interactive && !arguments.tty {
        command.stdin(Stdio::null());
    }
    let signals = if arguments.detach { None } else { Some(signals::hold()?) };
    let child = match &signals {
        Some(signals) => signals.spawn(&mut command),
        None => command.spawn(),
    };
    let mut child = child.map_err(|e| format!("start {}: {e}", place.container.runtime.display()))?;
    signals.map_or(Ok(()), |signals| signals::pass_on(signals, &child))?;
    let status = child.wait()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    // What the process itself ends with is no complaint.
    let said = complaint(Path::new(&log.path())).filter(|_| code != 0);
    Ok(match said {
        Some(said) if arguments.detach => refused(&said),
        Some(said) => ExitCode::from(refusal_code(&said) as u8),
        None => ExitCode::from(code as u8),
    })
}

/// Tells what nobody has told yet.
fn refused(said: &str) -> ExitCode {
    eprintln!("hull-build: exec: {said}");
    ExitCode::from(refusal_code(said) as u8)
}

/// A file without a name, which the runtime opens by this process's descriptor: an environment may hold secrets, and on
/// the disk they would stay when this process is killed.
struct Passing(OwnedFd);

impl Passing {
    fn new(name: &str) -> Result<Self, Failure> {
        Ok(Self(memfd::sealed_memfd(name, false)?))
    }

    fn fill(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut file = File::from(self.0.try_clone()?);
        file.write_all(bytes)?;
        drop(file);
        Ok(memfd::seal_all(self.0.as_fd())?)
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// The container's own process, as far as the command line asks for nothing else.
fn process(store: &Store, arguments: &Arguments, place: &Place) -> Result<Value, Failure> {
    let config: Value = serde_json::from_slice(&fs::read(place.dir.join("config.json"))?)?;
    let mut process = config["process"].clone();
    process["args"] = json!(arguments.command);
    process["terminal"] = json!(arguments.tty);
    let mut env = Environment::of(&process["env"]);
    if let Some(wanted) = &arguments.user {
        let root = place.view(store)?;
        let accounts = Accounts::read(root.as_fd())?;
        let user = accounts.process_user(wanted)?;
        ids::are_there(&user)?;
        // A home that its image or its person chose stays; that of the user that the container runs as does not.
        let own = accounts.process_user(&process["user"]["uid"].to_string())?;
        if env.get("HOME") == Some(own.home.as_str()) {
            env.set(format!("HOME={}", user.home));
        }
        let groups = if ids::has_groups() { bundle::groups(&user) } else { Vec::new() };
        process["user"] = json!({"uid": user.uid, "gid": user.gid, "additionalGids": groups});
    }
    environment::read(&arguments.env_file, &arguments.env)?.into_iter().for_each(|entry| env.set(entry));
    if process["terminal"] == true && env.get("TERM").is_none() {
        env.set("TERM=xterm".to_owned());
    }
    process["env"] = json!(env.0);
    if let Some(workdir) = &arguments.workdir {
        process["cwd"] = json!(workdir);
    }
    Ok(process)
}

/// Variables, each once.
struct Environment(Vec<String>);

impl Environment {
    fn of(list: &Value) -> Self {
        Self(
            list.as_array()
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.as_str()?.to_owned()))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }

    fn set(&mut self, entry: String) {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        self.0.retain(|old| old.split('=').next() != Some(&name));
        self.0.push(entry);
    }
}
