//! One file per command.

mod check;
mod create;
mod delete;
mod exec;
mod kill;
mod list;
mod pause;
mod run;
mod spec;
mod start;
mod state;
pub mod usage;
pub mod version;

use crate::cli::Command;
use crate::error::{Code, Error, Result};
use crate::globals::Globals;
use crate::state::{ContainerId, StateDir};

/// Runs `command`; the result is the exit status.
pub fn run(command: Command, globals: &Globals) -> Result<u8> {
    match command {
        Command::Create(options) => create::run(options, globals),
        Command::Start(options) => start::run(&options, globals),
        Command::Run(options) => run::run(options, globals),
        Command::State(options) => state::run(&options, globals),
        Command::Kill(options) => kill::run(&options, globals),
        Command::Delete(options) => delete::run(&options, globals),
        Command::Exec(options) => exec::run(*options, globals),
        Command::List(options) => list::run(&options, globals),
        Command::Pause(options) => pause::pause(&options, globals),
        Command::Resume(options) => pause::resume(&options, globals),
        Command::Spec(options) => spec::run(&options),
        Command::Check(options) => check::check(&options, globals),
        Command::Plan(options) => check::plan(&options, globals),
        Command::Ps(_) | Command::Update(_) | Command::Events(_) | Command::Features => {
            Err(Error::new(Code::Unsupported, "this build does not have the command yet"))
        }
    }
}

/// The container that a command names.
pub fn find(id: &str, globals: &Globals) -> Result<StateDir> {
    globals.state.find(&ContainerId::parse(id)?)
}
