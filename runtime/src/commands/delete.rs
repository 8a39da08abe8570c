//! `hull delete`: works after any interruption of any other command.

use super::find;
use crate::cli::DeleteOptions;
use crate::destroy;
use crate::error::{Code, Error, Result};
use crate::globals::Globals;
use crate::log::Level;
use crate::state::{StateDir, Status};

/// Deletes a stopped (or created) container, or with `--force` any.
pub fn run(options: &DeleteOptions, globals: &Globals) -> Result<u8> {
    let directory = match find(&options.id, globals).and_then(StateDir::locked) {
        Err(error) if options.force && matches!(error.code, Code::ContainerNotFound) => return Ok(0),
        other => other?,
    };
    let record = match directory.read() {
        Ok(record) => record,
        Err(error) if options.force => {
            globals.log.write(Level::Warning, &error.message);
            destroy::destroy_damaged(&directory, globals)?;
            directory.remove()?;
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    let status = Status::of(&directory, &record);
    let stops_by_itself = matches!(status, Status::Stopped | Status::Created);
    if !stops_by_itself && !options.force {
        return Err(Error::new(
            Code::ContainerState,
            format!("cannot delete container {} that is not stopped: {}", record.id, status.name()),
        )
        .hint("kill it first, or delete with --force"));
    }
    destroy::destroy(&directory, &record, globals)?;
    directory.remove()?;
    Ok(0)
}
