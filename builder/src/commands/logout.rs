//! `logout`: forget a credential.

use std::process::ExitCode;

use clap::Args;

use super::Outcome;
use super::login::{normal, path};
use super::registry_options::RegistryArguments;
use crate::registry::AuthFile;

/// Arguments of `logout`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The registry
    #[arg(default_value = "docker.io")]
    server: String,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// Removes the credential from the file or the helper it names.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let server = normal(&arguments.server);
    let mut file = AuthFile::read(&path(&arguments.registry.options()?)?)?;
    match file.remove(server)? {
        true => println!("Removing login credentials for {server}"),
        false => println!("Not logged in to {server}"),
    }
    Ok(ExitCode::SUCCESS)
}
