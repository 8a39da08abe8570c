//! `exec`: one more process in a running container.

use std::os::fd::AsFd;
use std::process::{ExitCode, Stdio};

use clap::Args;

use super::{Outcome, containers};
use crate::host;
use crate::steps::accounts::Accounts;

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
    /// KEY=VALUE
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
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

/// Runs the process and ends with its code.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let place = containers::find(&store, &arguments.container)?;
    let mut command = place.runtime(&["exec"]);
    if arguments.tty {
        command.arg("--tty");
    }
    if arguments.detach {
        command.arg("--detach");
    }
    for entry in &arguments.env {
        command.args(["--env", entry]);
    }
    if let Some(workdir) = &arguments.workdir {
        command.args(["--cwd", workdir]);
    }
    if let Some(user) = &arguments.user {
        let root = place.view(&store)?;
        let user = Accounts::read(root.as_fd())?.process_user(user)?;
        command.args(["--user", &format!("{}:{}", user.uid, user.gid)]);
    }
    drop(store);
    command.arg(&place.container.id).args(&arguments.command);
    if !arguments.interactive && !arguments.tty {
        command.stdin(Stdio::null());
    }
    let status = command.status().map_err(|e| format!("start {}: {e}", place.container.runtime.display()))?;
    Ok(ExitCode::from(status.code().unwrap_or(255) as u8))
}
