//! `rm`: remove containers.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Outcome, containers, stop};
use crate::host;

/// Arguments of `rm`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
    /// Kill running ones, and say nothing of missing ones
    #[arg(short, long)]
    force: bool,
    /// Accepted: volumes without a name always go with their container
    #[arg(short, long)]
    volumes: bool,
}

/// Removes each one.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    Ok(containers::each("rm", &arguments.containers, |name| {
        let place = match containers::find(&store, name) {
            Err(_) if arguments.force => return Ok(false),
            other => other?,
        };
        if place.status()?.is_alive() {
            if !arguments.force {
                return Err("it is running: stop it, or use --force".into());
            }
            stop::stop(&place, "KILL", Duration::from_secs(10))?;
        }
        place.remove(&store)?;
        Ok(true)
    }))
}

/// Arguments of what a monitor calls when its container has ended.
#[derive(Args)]
pub(crate) struct AfterExit {
    /// Id of the container
    container: String,
    /// Which of its runs has ended
    #[arg(default_value_t = 0)]
    run: u32,
}

/// Deletes the runtime's state, unmounts, and removes the container if that was asked for.
pub(crate) fn after_exit(arguments: &AfterExit) -> Outcome {
    let store = host::open_store()?;
    let Ok(mut place) = containers::find(&store, &arguments.container) else {
        // Somebody was quicker to remove it.
        return Ok(ExitCode::SUCCESS);
    };
    place.container.run = arguments.run;
    place.clean_up(&store)?;
    Ok(ExitCode::SUCCESS)
}
