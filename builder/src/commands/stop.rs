//! `stop`: ask containers to end, and make them.

use std::time::{Duration, Instant};

use clap::Args;

use super::Outcome;
use super::containers::{self, Place};
use crate::host;

/// How long a monitor may take to note how its container ended.
const NOTING: Duration = Duration::from_secs(5);

/// Arguments of `stop`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Names or ids
    #[arg(required = true)]
    containers: Vec<String>,
    /// Seconds before the container is killed
    #[arg(short, long, alias = "timeout", default_value_t = 10)]
    time: u64,
    /// Another signal than the image's
    #[arg(short, long)]
    signal: Option<String>,
}

/// Stops each one.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    Ok(containers::each("stop", &arguments.containers, |name| {
        let place = containers::find(&store, name)?;
        let signal = arguments.signal.as_deref().unwrap_or(&place.container.stop_signal);
        stop(&place, signal, Duration::from_secs(arguments.time))?;
        Ok(true)
    }))
}

/// Signals, waits, kills; an ended container is no error.
pub(crate) fn stop(
    place: &Place,
    signal: &str,
    patience: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    if !place.status()?.is_alive() {
        return Ok(());
    }
    let id = &place.container.id;
    let asked = place.ask(&["kill", id, signal])?;
    if !asked.status.success() && place.status()?.is_alive() {
        let said = String::from_utf8_lossy(&asked.stderr).trim().to_owned();
        return Err(format!("{} cannot be sent {signal}: {said}", place.container.name).into());
    }
    if wait(place, patience)? {
        until_noted(place);
        return Ok(());
    }
    let output = place.ask(&["kill", id, "KILL"])?;
    match wait(place, Duration::from_secs(10))? {
        true => {
            until_noted(place);
            Ok(())
        }
        false => Err(format!(
            "{} does not end: {}",
            place.container.name,
            String::from_utf8_lossy(&output.stderr).trim()
        )
        .into()),
    }
}

/// Waits for the exit code, so that who asks after a stop is told; a monitor that lives is about to note it.
fn until_noted(place: &Place) {
    let end = Instant::now() + NOTING;
    while place.exit_code().is_none() && place.has_monitor() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait(place: &Place, patience: Duration) -> Result<bool, Box<dyn std::error::Error>> {
    let end = Instant::now() + patience;
    loop {
        if !place.status()?.is_alive() {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
