//! `hull`, an OCI low-level runtime: creates and runs containers from bundles, as `runc` does.
//!
//! The process is single-threaded, always (it forks without executing), and nobody links it. Commands that enter a
//! container run from a sealed image of the program.
#![forbid(unsafe_code)]

mod activation;
mod arguments;
mod bundle;
mod checkpoint;
mod cli;
mod commands;
mod console;
mod conversation;
mod create;
mod criu;
mod destroy;
mod document;
mod enter;
mod errand;
mod errno_text;
mod error;
mod exe_seal;
mod files;
mod foreground;
mod gate;
mod globals;
mod groups;
mod hooks;
mod host;
mod host_mounts;
mod init;
mod join;
mod last_mile;
mod link;
mod log;
mod netlink;
mod network;
mod notify;
mod oom_kill;
mod oom_score;
mod output;
mod peer;
mod pid_file;
mod resctrl;
mod restore;
mod root;
mod seal;
mod spec_of;
mod state;
mod step;
mod streams;
mod sysctl;

use clap::{CommandFactory, FromArgMatches};
use cli::{Cli, Command};
use error::{Code, Context, Error, Result};
use globals::Globals;
use log::{Format, Log};
use std::ffi::OsString;
use std::process::ExitCode;

/// A command makes some thousand small values and ends: they cost no system call.
#[global_allocator]
static HEAP: hull_sys::heap::Heap = hull_sys::heap::Heap::new();

/// Exit status of `exec` when the runtime itself failed.
const EXEC_FAILURE: u8 = 255;

/// SIGCHLD (17) in a set of signals.
const SIGCHLD_BIT: u64 = 1 << 16;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match start(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::error_line(&error);
            ExitCode::from(1)
        }
    }
}

fn start(arguments: Vec<OsString>) -> Result<u8> {
    // Before anything is opened: a descriptor that lands on 0 to 2 would become the container's.
    hull_sys::fd::open_std_fds().context(|| "open standard streams")?;
    activation::take_stock();
    // A caller that ignores SIGCHLD passes that on, and then the kernel reaps our children before we have their status.
    hull_sys::signal::reset_ignored(SIGCHLD_BIT).context(|| "stop ignoring SIGCHLD")?;
    let sealed = exe_seal::is_sealed(&arguments);
    let plain = exe_seal::unmark(arguments.clone());
    if !sealed && looks_like_entering(&plain) {
        // The command itself decides, below, and reports the reason.
        let _tried_again = exe_seal::seal(&plain);
    }
    let name = program_name(plain.first());
    let grammar = command_line(&name);
    let words = arguments::normalise(text_arguments(&plain)?, &grammar);
    let matches = match grammar.try_get_matches_from(std::iter::once(name.clone()).chain(words)) {
        Ok(matches) => matches,
        Err(error) => return Ok(commands::usage::explain(&error, &name)),
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| Error::new(Code::Usage, error.to_string()))?;
    if cli.global.version {
        commands::version::print(&name);
        return Ok(0);
    }
    let Some(command) = cli.command else {
        commands::usage::print_help(&name);
        return Ok(0);
    };
    let globals = match Globals::from_options(&cli.global, name) {
        Ok(globals) => globals,
        Err(error) => {
            Log::open(None, Format::Text, false)?.error(&error);
            return Ok(1);
        }
    };
    let is_exec = matches!(command, Command::Exec(_));
    let ready = if !sealed && enters_a_container(&command) { exe_seal::seal(&plain) } else { Ok(()) };
    Ok(ready.and_then(|()| commands::run(command, &globals)).unwrap_or_else(|error| {
        globals.log.error(&error);
        if is_exec { EXEC_FAILURE } else { 1 }
    }))
}

/// A word of the line is the name of a command that enters a container: then only the sealed program parses the line. A
/// wrong guess costs time and no safety.
fn looks_like_entering(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).any(|argument| argument == "create" || argument == "run" || argument == "exec")
}

const fn enters_a_container(command: &Command) -> bool {
    matches!(command, Command::Create(_) | Command::Run(_) | Command::Exec(_))
}

/// The name the program was called by: a link called `runc` speaks as runc does.
fn program_name(first: Option<&OsString>) -> String {
    first
        .map(std::path::Path::new)
        .and_then(|path| path.file_name())
        .map_or_else(|| "hull".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn text_arguments(arguments: &[OsString]) -> Result<Vec<String>> {
    arguments
        .iter()
        .skip(1)
        .map(|argument| {
            argument.to_str().map(str::to_owned).ok_or_else(|| {
                Error::new(Code::Usage, format!("argument {} is not UTF-8", argument.to_string_lossy()))
            })
        })
        .collect()
}

/// Help that begins as runc's does; the rest is clap's.
fn help_of(name: &str) -> String {
    format!("NAME:\n   {name} - {{about}}\n\n{{usage-heading}} {{usage}}\n\n{{all-args}}")
}

/// The grammar, under the name the program was called by.
pub fn command_line(name: &str) -> clap::Command {
    Cli::command()
        .name(name.to_owned())
        .about("Open Container Initiative runtime")
        .help_template(help_of(name))
        .mut_subcommands(|command| {
            let help = help_of(&format!("{name} {}", command.get_name()));
            command.help_template(help)
        })
        // Wrappers put options of theirs before the manager's, and as with runc the last one counts.
        .args_override_self(true)
}
