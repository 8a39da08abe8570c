//! The commands of `hull-build`, one file each: arguments in, exit code out.

pub(crate) mod build;
mod change;
mod containers;
mod df;
mod fsck;
mod history;
pub(crate) mod host;
mod images;
mod import;
mod inspect;
mod load;
mod login;
mod logout;
mod prune;
mod pull;
mod push;
mod registry_options;
mod rmi;
pub(crate) mod save;
mod search;
mod table;
mod tag;
mod template;

use clap::Subcommand;

/// What a command returns: its exit code, or the error that ended it.
pub(crate) type Outcome = Result<std::process::ExitCode, Box<dyn std::error::Error>>;

/// The commands that work on images and containers.
#[derive(Subcommand)]
pub(crate) enum ImageCommand {
    /// Show what takes space
    Df(df::Arguments),
    /// Check the store
    Fsck(fsck::Arguments),
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
    /// Remove what nobody needs
    Prune(prune::Arguments),
    /// Take an image from a registry
    Pull(pull::Arguments),
    /// Send an image to a registry
    Push(push::Arguments),
    /// Remove images
    Rmi(rmi::Arguments),
    /// Write images as an archive
    Save(save::Arguments),
    /// Find repositories
    Search(search::Arguments),
    /// Give an image one more name
    Tag(tag::Arguments),
}

/// Runs one of them.
pub(crate) fn run(command: &ImageCommand) -> Outcome {
    match command {
        ImageCommand::Df(arguments) => df::run(arguments),
        ImageCommand::Fsck(arguments) => fsck::run(arguments),
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
        ImageCommand::Tag(arguments) => tag::run(arguments),
    }
}
