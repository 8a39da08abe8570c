//! `hull delete`: works after any interruption of any other command.

use super::find;
use crate::cli::DeleteOptions;
use crate::destroy;
use crate::error::{Code, Error, Result};
use crate::globals::Globals;
use crate::hooks;
use crate::log::Level;
use crate::state::{StateDir, Status};
use std::time::{Duration, Instant};

/// Deletes a stopped (or created) container, or with `--force` any.
pub fn run(options: &DeleteOptions, globals: &Globals) -> Result<u8> {
    let lock = if options.force { lock_by_force } else { StateDir::locked };
    let directory = match find(&options.id, globals).and_then(lock) {
        Err(error) if options.force && matches!(error.code, Code::ContainerNotFound) => return Ok(0),
        other => other?,
    };
    let record = match directory.read() {
        Ok(record) => record,
        // Of the container nothing else is left: its directory goes, and with it the name is free again.
        Err(error) if matches!(error.code, Code::ContainerNotFound) => {
            directory.remove()?;
            return if options.force { Ok(0) } else { Err(error) };
        }
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

/// How long another command may take before the container is killed under its hands.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long it is looked for hooks that hang, one after another: the lock is not waited for longer.
const HOOKS_DEADLINE: Duration = Duration::from_secs(8);

/// Takes the lock. Some commands hold it for as long as somebody else pleases: a checkpoint whose memory nobody fetches
/// comes to its end with the first process, and so does a hook that hangs in there; one of the host's is ended by itself.
fn lock_by_force(directory: StateDir) -> Result<StateDir> {
    await_others(&directory, PATIENCE, || ());
    if directory.is_being_changed() {
        if let Some(init) = directory.read().ok().and_then(|record| record.init) {
            init.signal(SIGKILL)?;
        }
        await_others(&directory, HOOKS_DEADLINE, || hooks::end_by_force(&directory));
    }
    directory.locked()
}

/// Waits until no other command changes the container.
fn await_others(directory: &StateDir, patience: Duration, meanwhile: impl Fn()) {
    let deadline = Instant::now() + patience;
    while directory.is_being_changed() && Instant::now() < deadline {
        meanwhile();
        std::thread::sleep(Duration::from_millis(5));
    }
}

const SIGKILL: i32 = 9;
