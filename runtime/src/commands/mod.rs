//! One file per command.

mod check;
mod checkpoint;
mod create;
pub mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;
pub mod usage;
pub mod version;

use crate::cli::Command;
use crate::error::Result;
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
        Command::Checkpoint(options) => checkpoint::run(*options, globals),
        Command::Restore(options) => restore::run(*options, globals),
        Command::Spec(options) => spec::run(&options),
        Command::Check(options) => check::check(&options, globals),
        Command::Plan(options) => check::plan(&options, globals),
        Command::Ps(options) => ps::run(&options, globals),
        Command::Update(options) => update::run(&options, globals),
        Command::Events(options) => events::run(&options, globals),
        Command::Features => features::run(),
    }
}

/// The container that a command names.
pub fn find(id: &str, globals: &Globals) -> Result<StateDir> {
    globals.state()?.find(&ContainerId::parse(id)?)
}
