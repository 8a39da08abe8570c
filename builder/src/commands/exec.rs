//! `exec`: one more process in a running container.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use clap::Args;
use hull_image::Store;
use serde_json::{Value, json};

use super::containers::{self, Place};
use super::run::{complaint, refusal_code};
use super::{Outcome, environment};
use crate::steps::accounts::Accounts;
use crate::{bundle, host};

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
    let [told, log] = ["json", "log"].map(|end| place.dir.join(format!("exec-{}.{end}", std::process::id())));
    fs::write(&told, serde_json::to_vec(&process)?).map_err(|e| format!("write {}: {e}", told.display()))?;
    let log_path = log.display().to_string();
    let mut command = place.runtime(&["--log", &log_path, "--log-format", "json", "exec", "--process"]);
    command.arg(&told);
    if arguments.detach {
        command.arg("--detach");
    }
    command.arg(&place.container.id);
    if !arguments.interactive && !arguments.tty {
        command.stdin(Stdio::null());
    }
    let status = command.status();
    let said = complaint(&log);
    for path in [&told, &log] {
        // They go with the container's directory at the latest.
        let _ = fs::remove_file(path);
    }
    let status = status.map_err(|e| format!("start {}: {e}", place.container.runtime.display()))?;
    let code = status.code().unwrap_or(255);
    // What the process itself ends with is no complaint.
    let code = said.filter(|_| code != 0).map_or(code, |said| refusal_code(&said));
    Ok(ExitCode::from(code as u8))
}

/// The container's own process, as far as the command line asks for nothing else.
fn process(store: &Store, arguments: &Arguments, place: &Place) -> Result<Value, Failure> {
    let config: Value = serde_json::from_slice(&fs::read(place.dir.join("config.json"))?)?;
    let mut process = config["process"].clone();
    process["args"] = json!(arguments.command);
    // Nobody would be at the other end of a terminal.
    process["terminal"] = json!(arguments.tty && !arguments.detach);
    let mut env = Environment::of(&process["env"]);
    if let Some(wanted) = &arguments.user {
        let root = place.view(store)?;
        let accounts = Accounts::read(root.as_fd())?;
        let user = accounts.process_user(wanted)?;
        // A home that its image or its person chose stays; that of the user that the container runs as does not.
        let own = accounts.process_user(&process["user"]["uid"].to_string())?;
        if env.get("HOME") == Some(own.home.as_str()) {
            env.set(format!("HOME={}", user.home));
        }
        process["user"] = json!({"uid": user.uid, "gid": user.gid, "additionalGids": bundle::groups(&user)});
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
