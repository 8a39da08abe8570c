//! `export`: a container's files as one archive.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use hull_layer::{Change, TarWriter, TimeRule, list, order, pack};

use super::{Outcome, containers};
use crate::host;

/// Arguments of `export`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name or id of the container
    container: String,
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the archive.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let place = containers::find(&store, &arguments.container)?;
    let root = place.view(&store)?;
    let sink: Box<dyn Write> = match &arguments.output {
        Some(path) => Box::new(File::create(path).map_err(|e| format!("create {}: {e}", path.display()))?),
        None if io::stdout().is_terminal() => {
            return Err("export: an archive is not for a terminal: use -o FILE or redirect".into());
        }
        None => Box::new(io::stdout().lock()),
    };
    let mut changes: Vec<Change> = list(root.as_fd())?.into_iter().map(Change::put).collect();
    changes.sort_by(order);
    let mut writer = TarWriter::new(BufWriter::new(sink), TimeRule::Keep);
    pack(&changes, root.as_fd(), &mut writer)?;
    writer.finish()?.flush()?;
    Ok(ExitCode::SUCCESS)
}
