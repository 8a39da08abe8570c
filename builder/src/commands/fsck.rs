//! `fsck`: check the store.

use std::process::ExitCode;

use clap::Args;

use super::Outcome;
use crate::host;

/// Arguments of `fsck`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Move damaged blobs out of the way and remove doubtful layers
    #[arg(long)]
    repair: bool,
}

/// Prints what is wrong; exit code 1 when anything is.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut store = host::open_store()?;
    let findings = store.check()?;
    findings.iter().for_each(|finding| println!("{finding}"));
    println!("{} problems", findings.len());
    if arguments.repair && !findings.is_empty() {
        store.alone(|store| store.repair(&findings))?;
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
