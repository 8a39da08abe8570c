//! `hull start`.

use super::find;
use crate::cli::ContainerOnly;
use crate::destroy;
use crate::document;
use crate::error::{Code, Error, Result};
use crate::gate;
use crate::globals::Globals;
use crate::hooks;
use crate::notify::Listener;
use crate::spec_of;
use crate::state::{Record, StateDir, Status};
use crate::step::Step;
use hull_plan::HookPlan;
use hull_sys::process::Pid;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How long the program may take to be executed, beyond its hooks.
const DEADLINE: Duration = Duration::from_secs(30);

/// Opens the gate of a created container.
pub fn run(options: &ContainerOnly, globals: &Globals) -> Result<u8> {
    let mut directory = find(&options.id, globals)?;
    directory.lock()?;
    let record = directory.read()?;
    check(&directory, &record)?;
    let all_hooks = spec_of::hooks(&directory)?;
    let deadline = Instant::now() + DEADLINE + hooks::longest(&all_hooks.start_container);
    let notify = Listener::bind(&directory)?;
    gate::open(&directory, deadline).inspect_err(|error| {
        if error.step == Some(Step::StartHooks) {
            undo(&directory, &record, globals);
        }
    })?;
    finish(&directory, &record, &all_hooks, globals)?;
    // Others may change the container while the program gets ready.
    drop(directory);
    if let (Some(notify), Some(init)) = (notify, &record.init)
        && let Some(pidfd) = init.open()?
    {
        notify.wait(pidfd.as_fd(), Pid::from_raw(init.pid), globals);
    }
    Ok(0)
}

fn check(directory: &StateDir, record: &Record) -> Result<()> {
    let refused = |text: String| Err(Error::new(Code::ContainerState, text).object(record.id.clone()));
    match Status::of(directory, record) {
        Status::Created if record.has_process => Ok(()),
        Status::Created => Err(Error::new(Code::ContainerState, "the configuration has no process to start")
            .field("/process")
            .object(record.id.clone())),
        Status::Stopped => refused("cannot start a container that has stopped".into()),
        Status::Running => refused("cannot start an already running container".into()),
        status => refused(format!("cannot start a container in the {} state", status.name())),
    }
}

/// poststart hooks; one that fails ends the container.
pub fn finish(directory: &StateDir, record: &Record, all_hooks: &HookPlan, globals: &Globals) -> Result<()> {
    if all_hooks.poststart.is_empty() {
        return Ok(());
    }
    let state = document::state(record, Status::Running);
    let moment = hooks::Moment { kind: "poststart", state: &state, directory: Some(directory) };
    moment.run_all(&all_hooks.poststart).inspect_err(|_| undo(directory, record, globals))
}

/// A failing hook of the start destroys the container (runtime.md "Lifecycle", steps 7 and 12); its state stays for
/// `delete`.
fn undo(directory: &StateDir, record: &Record, globals: &Globals) {
    if let Err(error) = destroy::destroy(directory, record, globals) {
        globals.log.write(crate::log::Level::Warning, &error.message);
    }
}
