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
    /// Check a Dockerfile and build it into an image
    Build(Box<build::Arguments>),
    /// Show how an image came to be
    History(history::Arguments),
    /// Make an image of an archive of files
    Import(import::Arguments),
    /// Show everything known of images
    Inspect(inspect::Arguments),
    /// Take images from an archive or directory
    Load(load::Arguments),
    /// List images
    #[command(alias = "list")]
    Ls(images::Arguments),
    /// Remove what nobody needs
    Prune(prune::Arguments),
    /// Take an image from a registry
    Pull(pull::Arguments),
    /// Send an image to a registry
    Push(push::Arguments),
    /// Remove images
    #[command(alias = "remove")]
    Rm(rmi::Arguments),
    /// Write images as an archive
    Save(save::Arguments),
    /// Give an image one more name
    Tag(tag::Arguments),
}

/// `container ...`.
#[derive(Subcommand)]
pub(crate) enum OnContainers {
    /// Make an image of a container's changes
    Commit(commit::Arguments),
    /// Copy files between a container and the host
    Cp(cp::Arguments),
    /// Show what a container changed
    Diff(diff::Arguments),
    /// Run one more process in a container
    Exec(exec::Arguments),
    /// Write a container's files as an archive
    Export(export::Arguments),
    /// Show what a detached container wrote
    Logs(logs::Arguments),
    /// List containers
    #[command(alias = "list", alias = "ps")]
    Ls(ps::Arguments),
    /// Remove containers
    #[command(alias = "remove")]
    Rm(rm::Arguments),
    /// Run a container of an image
    Run(Box<run::Arguments>),
    /// Run ended containers again
    Start(start::Arguments),
    /// End containers
    Stop(stop::Arguments),
}

/// `system ...`.
#[derive(Subcommand)]
pub(crate) enum OnStore {
    /// Show what takes space
    Df(df::Arguments),
    /// Remove what nobody needs
    Prune(prune::Arguments),
}

/// `builder ...` and `buildx ...`.
#[derive(Subcommand)]
pub(crate) enum OnBuilds {
    /// Check a Dockerfile and build it into an image
    #[command(alias = "b")]
    Build(Box<build::Arguments>),
    /// Show what takes space
    Du(df::Arguments),
    /// Make and change indexes of several platforms
    Imagetools(Box<manifest::Arguments>),
    /// Remove what nobody needs
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
