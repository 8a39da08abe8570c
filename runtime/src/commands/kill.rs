//! `hull kill`.

use super::find;
use crate::cli::KillOptions;
use crate::destroy;
use crate::error::{Code, Error, Result};
use crate::globals::Globals;
use crate::state::{Record, Status};
use hull_cgroup::Cgroup;
use hull_sys::signal::signal_number;
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;

/// How long thawing may take.
fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Sends a signal to the first process, or with `--all` to every one.
pub fn run(options: &KillOptions, globals: &Globals) -> Result<u8> {
    let directory = find(&options.id, globals)?;
    let record = directory.read()?;
    // Signal 0 only asks whether there is somebody (kill(2)).
    let number = if options.signal == "0" { Some(0) } else { signal_number(&options.signal) };
    let signal =
        number.ok_or_else(|| Error::new(Code::Usage, format!("unknown signal {:?}", options.signal)))?;
    let status = Status::of(&directory, &record);
    // After its end another container may have been given its groups: who is in there is that one's.
    let has_own_members = || -> Result<bool> {
        let are_own = || status.has_process() || !destroy::is_shared(&record, directory.id(), globals);
        Ok(has_members(&record)? && are_own())
    };
    if options.all {
        let nobody = !status.has_process() && !has_own_members()?;
        return if nobody { Ok(0) } else { signal_all(&record, signal, status) };
    }
    // Where the death of the first process ends no other, all of them are meant.
    if signal == SIGKILL && !record.ends_with_first() && has_own_members()? {
        return signal_all(&record, signal, status);
    }
    if !status.has_process() {
        return Err(not_running());
    }
    let delivered = match &record.init {
        Some(init) => init.signal(signal)?,
        None => false,
    };
    if !delivered {
        return Err(not_running());
    }
    if signal == SIGKILL && status == Status::Paused {
        // A frozen process dies only when it is thawed (v1).
        Cgroup::open(&record.cgroup).thaw(deadline())?;
    }
    Ok(0)
}

/// Without control groups nobody has members.
fn has_members(record: &Record) -> Result<bool> {
    let members = Cgroup::open(&record.cgroup).processes(true)?;
    Ok(!members.is_empty())
}

/// Works on a stopped container too: processes may be left where there is no pid namespace. A container without control
/// groups has one process that can be found.
fn signal_all(record: &Record, signal: i32, status: Status) -> Result<u8> {
    let cgroup = Cgroup::open(&record.cgroup);
    if status.has_process() && !has_members(record)? {
        let delivered = record.init.as_ref().map(|init| init.signal(signal)).transpose()?;
        return if delivered == Some(true) { Ok(0) } else { Err(not_running()) };
    }
    cgroup.signal_all(signal)?;
    // Also where the first process has ended: who is left in a frozen group dies only when it is thawed (v1).
    if signal == SIGKILL && cgroup.is_frozen()? {
        cgroup.thaw(deadline())?;
    }
    Ok(0)
}

fn not_running() -> Error {
    Error::new(Code::ContainerState, "container not running")
}
