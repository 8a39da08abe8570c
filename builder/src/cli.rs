//! The command line: one variant a command, each command in a file of its own.

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::Namespace;
use crate::error::{Error, chain};
use crate::host;
use crate::{commands, interrupt, rootless, signals, spelling};

/// Builds OCI images from Dockerfiles and keeps them, without a daemon.
#[derive(Parser)]
#[command(name = "hull-build", version, disable_help_subcommand = true)]
struct Cli {
    /// Directory of the store (HULL_ROOT; default /var/lib/hull, or below XDG_DATA_HOME)
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<std::path::PathBuf>,
    /// Unpack layers of this many bytes of files, however much they shrink (HULL_LAYER_LIMIT; default 16g, and 200 times)
    #[arg(long, global = true, value_name = "BYTES")]
    layer_limit: Option<String>,
    #[command(subcommand)]
    command: Named,
}

/// A command by its short name, or by the name it has in a group.
#[derive(Subcommand)]
enum Named {
    #[command(flatten)]
    Plain(Command),
    #[command(flatten)]
    Grouped(Box<commands::Group>),
}

/// What is to be done.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Check a Dockerfile and build it into an image
    Build(Box<commands::build::Arguments>),
    #[command(flatten)]
    Image(Box<commands::ImageCommand>),
}

impl Command {
    /// The user namespace that it needs.
    const fn namespace(&self) -> Namespace {
        match self {
            Self::Build(_) => Namespace::Own,
            Self::Image(command) => command.namespace(),
        }
    }

    /// What it ends with when it cannot even begin.
    const fn failure(&self) -> u8 {
        match self {
            Self::Build(_) => 1,
            Self::Image(command) => command.failure(),
        }
    }
}

impl Cli {
    /// Reads the process's arguments.
    fn read() -> Result<Self, clap::Error> {
        let matches = match spelling::as_docker(Self::command()).try_get_matches() {
            // The help shows flags as people write them, without a value.
            Err(error) if is_help(error.kind()) => Self::command().try_get_matches(),
            other => other,
        }?;
        Self::from_arg_matches(&matches)
    }
}

/// The code of a wrong command line: Docker's and podman's, by which callers of `run` and `exec` tell it from a program's 2.
const USAGE: u8 = 125;

/// Prints the help or the version that was asked for, or what is wrong with the command line.
fn told(usage: &clap::Error) -> ExitCode {
    // Where even this cannot be written, the code is all that is left to tell.
    let _ = usage.print();
    ExitCode::from(if usage.use_stderr() { USAGE } else { 0 })
}

const fn is_help(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand)
}

/// Parses the process's arguments, runs the command and prints its error chain once.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(usage) => return told(&usage),
    };
    let command = match cli.command {
        Named::Plain(command) => command,
        Named::Grouped(group) => group.plain(),
    };
    host::set_store_dir(cli.root);
    let limit = host::set_layer_limit(cli.layer_limit.as_deref());
    let carry_out = || match &command {
        Command::Build(arguments) => commands::build::run(arguments),
        Command::Image(command) => commands::run(command),
    };
    let inside = match (&command, command.namespace()) {
        (_, Namespace::None) => Ok(None),
        (_, Namespace::Shared) => rootless::shared::enter(&host::store_dir()),
        (Command::Build(_), Namespace::Own) => rootless::enter(),
        (Command::Image(_), Namespace::Own) => match rootless::enter() {
            // Nothing of images needs it: their layers are not unpacked then.
            Err(Error::NoNamespace(_)) => Ok(None),
            inside => inside,
        },
    };
    let outcome = match (limit, inside) {
        (Err(error), _) => Err(error.into()),
        (Ok(()), Ok(None)) => carry_out(),
        (Ok(()), Ok(Some(code))) => Ok(code),
        (Ok(()), Err(error)) => Err(error.into()),
    };
    if let Some(number) = interrupt::signal() {
        return ExitCode::from(signals::ended_by(number));
    }
    outcome.unwrap_or_else(|error| {
        let of_output = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if of_output == Some(std::io::ErrorKind::BrokenPipe) {
            // Whoever read the output has seen enough.
            return ExitCode::from(141);
        }
        // Where even this cannot be written, the code is all that is left to tell.
        let _ = writeln!(std::io::stderr(), "hull-build: {}", chain(error.as_ref()));
        ExitCode::from(command.failure())
    })
}
