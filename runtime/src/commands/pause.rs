//! `hull pause` and `hull resume`.

use super::find;
use crate::cli::ContainerOnly;
use crate::error::{Code, Error, Result};
use crate::globals::Globals;
use crate::state::Status;
use hull_cgroup::Cgroup;
use std::time::{Duration, Instant};

/// How long freezing and thawing may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Freezes all processes of a created or running container.
pub fn pause(options: &ContainerOnly, globals: &Globals) -> Result<u8> {
    let mut directory = find(&options.id, globals)?;
    directory.lock()?;
    let record = directory.read()?;
    match Status::of(&directory, &record) {
        Status::Running | Status::Created => {}
        status => {
            return Err(Error::new(
                Code::ContainerState,
                format!("container not running or created: {}", status.name()),
            ));
        }
    }
    Cgroup::open(&record.cgroup).freeze(Instant::now() + DEADLINE)?;
    Ok(0)
}

/// Lets a paused container run again.
pub fn resume(options: &ContainerOnly, globals: &Globals) -> Result<u8> {
    let mut directory = find(&options.id, globals)?;
    directory.lock()?;
    let record = directory.read()?;
    if Status::of(&directory, &record) != Status::Paused {
        return Err(Error::new(Code::ContainerState, "container not paused"));
    }
    Cgroup::open(&record.cgroup).thaw(Instant::now() + DEADLINE)?;
    Ok(0)
}
