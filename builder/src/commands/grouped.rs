//! Docker's longer names of the same commands: `image ls`, `container rm`, `system df`.

use clap::Subcommand;

use super::{
    ImageCommand, build, commit, cp, df, diff, exec, export, history, images, import, inspect, load, logs,
    manifest, prune, ps, pull, push, rm, rmi, run, save, start, stop, tag,
};
use crate::cli::Command;

/// The groups.
#[derive(Subcommand)]
pub(crate) enum Group {
    /// Commands on images
    #[command(subcommand)]
    Image(Box<OnImages>),
    /// Commands on containers
    #[command(subcommand)]
    Container(OnContainers),
    /// What takes space, and what nobody needs
    #[command(subcommand)]
    System(OnStore),
    /// Building and its cache
    #[command(subcommand, alias = "buildx")]
    Builder(OnBuilds),
}

/// `image ...`.
#[derive(Subcommand)]
pub(crate) enum OnImages {
    /// build
    Build(Box<build::Arguments>),
    /// history
    History(history::Arguments),
    /// import
    Import(import::Arguments),
    /// inspect
    Inspect(inspect::Arguments),
    /// load
    Load(load::Arguments),
    /// images
    #[command(alias = "list")]
    Ls(images::Arguments),
    /// prune
    Prune(prune::Arguments),
    /// pull
    Pull(pull::Arguments),
    /// push
    Push(push::Arguments),
    /// rmi
    #[command(alias = "remove")]
    Rm(rmi::Arguments),
    /// save
    Save(save::Arguments),
    /// tag
    Tag(tag::Arguments),
}

/// `container ...`.
#[derive(Subcommand)]
pub(crate) enum OnContainers {
    /// commit
    Commit(commit::Arguments),
    /// cp
    Cp(cp::Arguments),
    /// diff
    Diff(diff::Arguments),
    /// exec
    Exec(exec::Arguments),
    /// export
    Export(export::Arguments),
    /// logs
    Logs(logs::Arguments),
    /// ps
    #[command(alias = "list", alias = "ps")]
    Ls(ps::Arguments),
    /// rm
    #[command(alias = "remove")]
    Rm(rm::Arguments),
    /// run
    Run(Box<run::Arguments>),
    /// start
    Start(start::Arguments),
    /// stop
    Stop(stop::Arguments),
}

/// `system ...`.
#[derive(Subcommand)]
pub(crate) enum OnStore {
    /// df
    Df(df::Arguments),
    /// prune
    Prune(prune::Arguments),
}

/// `builder ...` and `buildx ...`.
#[derive(Subcommand)]
pub(crate) enum OnBuilds {
    /// build
    #[command(alias = "b")]
    Build(Box<build::Arguments>),
    /// df
    Du(df::Arguments),
    /// manifest
    Imagetools(Box<manifest::Arguments>),
    /// prune
    Prune(prune::Arguments),
}

impl Group {
    /// The command by its short name.
    pub(crate) fn plain(self) -> Command {
        match self {
            Self::Image(command) => command.plain(),
            Self::Container(command) => Command::Image(Box::new(command.plain())),
            Self::System(OnStore::Df(arguments)) => Command::Image(Box::new(ImageCommand::Df(arguments))),
            Self::System(OnStore::Prune(arguments)) => {
                Command::Image(Box::new(ImageCommand::Prune(arguments)))
            }
            Self::Builder(command) => command.plain(),
        }
    }
}

impl OnImages {
    fn plain(self) -> Command {
        Command::Image(Box::new(match self {
            Self::Build(arguments) => return Command::Build(arguments),
            Self::History(arguments) => ImageCommand::History(arguments),
            Self::Import(arguments) => ImageCommand::Import(arguments),
            Self::Inspect(arguments) => ImageCommand::Inspect(arguments),
            Self::Load(arguments) => ImageCommand::Load(arguments),
            Self::Ls(arguments) => ImageCommand::Images(arguments),
            Self::Prune(arguments) => ImageCommand::Prune(arguments),
            Self::Pull(arguments) => ImageCommand::Pull(arguments),
            Self::Push(arguments) => ImageCommand::Push(arguments),
            Self::Rm(arguments) => ImageCommand::Rmi(arguments),
            Self::Save(arguments) => ImageCommand::Save(arguments),
            Self::Tag(arguments) => ImageCommand::Tag(arguments),
        }))
    }
}

impl OnContainers {
    fn plain(self) -> ImageCommand {
        match self {
            Self::Commit(arguments) => ImageCommand::Commit(arguments),
            Self::Cp(arguments) => ImageCommand::Cp(arguments),
            Self::Diff(arguments) => ImageCommand::Diff(arguments),
            Self::Exec(arguments) => ImageCommand::Exec(arguments),
            Self::Export(arguments) => ImageCommand::Export(arguments),
            Self::Logs(arguments) => ImageCommand::Logs(arguments),
            Self::Ls(arguments) => ImageCommand::Ps(arguments),
            Self::Rm(arguments) => ImageCommand::Rm(arguments),
            Self::Run(arguments) => ImageCommand::Run(arguments),
            Self::Start(arguments) => ImageCommand::Start(arguments),
            Self::Stop(arguments) => ImageCommand::Stop(arguments),
        }
    }
}

impl OnBuilds {
    fn plain(self) -> Command {
        Command::Image(Box::new(match self {
            Self::Build(arguments) => return Command::Build(arguments),
            Self::Du(arguments) => ImageCommand::Df(arguments),
            Self::Imagetools(arguments) => ImageCommand::Manifest(*arguments),
            Self::Prune(arguments) => ImageCommand::Prune(arguments),
        }))
    }
}
