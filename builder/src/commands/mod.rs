//! The commands of `hull-build`, one file each: arguments in, exit code out.

pub(crate) mod build;
mod change;
mod commit;
mod containers;
mod cp;
mod df;
mod diff;
mod environment;
mod exec;
mod export;
mod fsck;
mod grouped;
mod history;
mod images;
mod import;
mod inspect;
mod load;
mod login;
mod logout;
mod logs;
mod manifest;
mod network;
mod paused;
mod ports;
mod prune;
mod ps;
pub(crate) mod pull;
mod push;
mod record;
mod registry_options;
mod rm;
mod rmi;
mod run;
pub(crate) mod save;
mod search;
mod start;
mod stop;
pub(crate) mod table;
mod tag;
mod template;
mod unpack;
pub(crate) mod whole_file;

use clap::Subcommand;

pub(crate) use grouped::Group;

/// What a command returns: its exit code, or the error that ended it.
pub(crate) type Outcome = Result<std::process::ExitCode, Box<dyn std::error::Error>>;

/// What an ordinary user needs for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// None: it only reads files of their own.
    None,
    /// A user namespace of its own, to have the ids of layers.
    Own,
    /// Those that containers are in.
    Shared,
}

/// The commands that work on images and containers.
#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// What a monitor calls when its container has ended
    #[command(hide = true)]
    AfterExit(rm::AfterExit),
    /// Make an image of a container's changes
    Commit(commit::Arguments),
    /// Copy files between a container and the host
    Cp(cp::Arguments),
    /// Show what takes space
    Df(df::Arguments),
    /// Show what a container changed
    Diff(diff::Arguments),
    /// Run one more process in a container
    Exec(exec::Arguments),
    /// Write a container's files as an archive
    Export(export::Arguments),
    /// Check the store
    Fsck(fsck::Arguments),
    /// What a build starts to end its steps if it is killed
    #[command(hide = true)]
    GuardSteps(crate::guard::Arguments),
    /// Show how an image came to be
    History(history::Arguments),
    /// List images
    Images(images::Arguments),
    /// Make an image of an archive of files
    Import(import::Arguments),
    /// Show everything known of images
    Inspect(inspect::Arguments),
    /// Take images from an archive or directory
    Load(load::Arguments),
    /// Keep a credential for a registry
    Login(login::Arguments),
    /// Forget a credential
    Logout(logout::Arguments),
    /// Show what a detached container wrote
    Logs(logs::Arguments),
    /// Make and change indexes of several platforms
    #[command(alias = "imagetools")]
    Manifest(manifest::Arguments),
    /// What a runtime calls to connect a container
    #[command(hide = true)]
    NetworkHook(network::Arguments),
    /// Remove what nobody needs
    Prune(prune::Arguments),
    /// List containers
    Ps(ps::Arguments),
    /// Take an image from a registry
    Pull(pull::Arguments),
    /// Send an image to a registry
    Push(push::Arguments),
    /// Remove containers
    Rm(rm::Arguments),
    /// Remove images
    Rmi(rmi::Arguments),
    /// Run a container of an image
    Run(Box<run::Arguments>),
    /// Write images as an archive
    Save(save::Arguments),
    /// Find repositories
    Search(search::Arguments),
    /// Run ended containers again
    Start(start::Arguments),
    /// End containers
    Stop(stop::Arguments),
    /// Give an image one more name
    Tag(tag::Arguments),
    /// Make a bundle of an image
    Unpack(unpack::Arguments),
}

impl ImageCommand {
    /// The user namespace that the command needs: one of its own if it makes or removes unpacked layers, whose files may
    /// belong to others than the caller.
    pub(crate) const fn namespace(&self) -> Namespace {
        match self {
            Self::Fsck(_) | Self::Prune(_) | Self::Pull(_) | Self::Rmi(_) => Namespace::Own,
            Self::Commit(_) | Self::Cp(_) | Self::Diff(_) | Self::Exec(_) | Self::Export(_) => {
                Namespace::Shared
            }
            Self::Rm(_) | Self::Run(_) | Self::Start(_) | Self::Stop(_) => Namespace::Shared,
            _ => Namespace::None,
        }
    }

    /// What the command ends with when it cannot even begin.
    pub(crate) const fn failure(&self) -> u8 {
        // What a container's program ends with is told from this.
        if matches!(self, Self::Run(_)) { 125 } else { 1 }
    }
}

/// Runs one of them.
pub(crate) fn run(command: &ImageCommand) -> Outcome {
    match command {
        ImageCommand::Df(arguments) => df::run(arguments),
        ImageCommand::Fsck(arguments) => fsck::run(arguments),
        ImageCommand::GuardSteps(arguments) => crate::guard::run(arguments),
        ImageCommand::History(arguments) => history::run(arguments),
        ImageCommand::Images(arguments) => images::run(arguments),
        ImageCommand::Import(arguments) => import::run(arguments),
        ImageCommand::Inspect(arguments) => inspect::run(arguments),
        ImageCommand::Load(arguments) => load::run(arguments),
        ImageCommand::Prune(arguments) => prune::run(arguments),
        ImageCommand::Rmi(arguments) => rmi::run(arguments),
        ImageCommand::Save(arguments) => save::run(arguments),
        ImageCommand::Login(arguments) => login::run(arguments),
        ImageCommand::Logout(arguments) => logout::run(arguments),
        ImageCommand::Pull(arguments) => pull::run(arguments),
        ImageCommand::Push(arguments) => push::run(arguments),
        ImageCommand::Search(arguments) => search::run(arguments),
        ImageCommand::AfterExit(arguments) => rm::after_exit(arguments),
        ImageCommand::Commit(arguments) => commit::run(arguments),
        ImageCommand::Cp(arguments) => cp::run(arguments),
        ImageCommand::Diff(arguments) => diff::run(arguments),
        ImageCommand::Exec(arguments) => exec::run(arguments),
        ImageCommand::Export(arguments) => export::run(arguments),
        ImageCommand::Logs(arguments) => logs::run(arguments),
        ImageCommand::Manifest(arguments) => manifest::run(arguments),
        ImageCommand::NetworkHook(arguments) => network::run(arguments),
        ImageCommand::Ps(arguments) => ps::run(arguments),
        ImageCommand::Rm(arguments) => rm::run(arguments),
        ImageCommand::Run(arguments) => run::run(arguments),
        ImageCommand::Start(arguments) => start::run(arguments),
        ImageCommand::Stop(arguments) => stop::run(arguments),
        ImageCommand::Unpack(arguments) => unpack::run(arguments),
        ImageCommand::Tag(arguments) => tag::run(arguments),
    }
}
