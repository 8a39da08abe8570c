//! The systemd driver: a transient scope for the container, asked for over D-Bus.
//!
//! systemd makes a scope only around a process, so the unit is started when the container's first process is attached;
//! limits are given to systemd as properties and written to the files as well, which take what it does not know.

mod bus;
mod properties;
#[cfg(test)]
mod tests;
mod unit;
mod wire;

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) use properties::{as_kept, asked_for, limits};
use properties::{since, version};
pub use unit::Unit;
pub(crate) use wire::Property;

use self::bus::{Bus, Failed, Outcome};
use self::wire::{Argument, Message, Target};
use crate::error::{CgroupError, Result};

/// How long systemd may take for a unit.
const DEADLINE: Duration = Duration::from_secs(30);

const MANAGER: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

const PROPERTIES: Target = Target { interface: "org.freedesktop.DBus.Properties", ..MANAGER };

const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// The system's or a user's systemd.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    socket: PathBuf,
    /// How long it may take for one request: the connection, each answer, and the end of the job.
    patience: Duration,
}

impl Manager {
    /// The one of the system, or of the caller as a user.
    pub(crate) fn of(user: bool) -> Self {
        Self { socket: bus::address(user), patience: DEADLINE }
    }

    /// The manager's own control group: units of its are below.
    pub(crate) fn group(&self) -> Result<String> {
        let asked = || {
            let mut bus = self.connect()?;
            let what = [Argument::Text(MANAGER.interface), Argument::Text("ControlGroup")];
            bus.call(PROPERTIES, "Get", &what)
        };
        let found = asked().and_then(|answer| {
            let group = answer.texts.into_iter().next();
            group
                .filter(|group| group.starts_with('/'))
                .ok_or(Failed::Broken("systemd did not say where it is"))
        });
        found.map_err(|failed| CgroupError::UserManager { detail: detail(failed) })
    }

    /// Starts the unit around a process, and waits until it is there. What a failed unit of the same name left is
    /// forgotten first.
    pub(crate) fn start(&self, unit: &Unit, properties: &[Property]) -> Result<()> {
        let fail = |failed| explain("start", unit, failed);
        let mut bus = self.connect_for_jobs().map_err(fail)?;
        let properties = known_to(&mut bus, properties).map_err(fail)?;
        let arguments = [
            Argument::Text(&unit.name),
            Argument::Text("replace"),
            Argument::Properties(&properties),
            Argument::NoUnits,
        ];
        let started = match bus.call(MANAGER, "StartTransientUnit", &arguments) {
            Err(Failed::Refused(name, _)) if name == "org.freedesktop.systemd1.UnitExists" => {
                // One that runs stays, and the second try says so.
                let _ = bus.call(MANAGER, "ResetFailedUnit", &[Argument::Text(&unit.name)]);
                bus.call(MANAGER, "StartTransientUnit", &arguments)
            }
            other => other,
        };
        let outcome = started.and_then(|job| finished(&mut bus, &job));
        if let Err(Failed::Broken(_)) = &outcome {
            // The job may still be under way: no half-made scope is left.
            let _ = self.stop(unit);
        }
        outcome.map_err(fail)
    }

    /// Stops the unit if it is there, and forgets how it ended. One whose processes died badly stays known to systemd
    /// as failed, and its name taken, until then.
    pub(crate) fn stop(&self, unit: &Unit) -> Result<()> {
        let fail = |failed| explain("stop", unit, failed);
        let mut bus = self.connect_for_jobs().map_err(fail)?;
        let name = [Argument::Text(&unit.name)];
        let stopped = match bus.call(MANAGER, "StopUnit", &[name[0].clone(), Argument::Text("replace")]) {
            Err(Failed::Refused(name, _)) if name == NO_SUCH_UNIT => Ok(()),
            Err(failed) => Err(failed),
            Ok(job) => finished(&mut bus, &job),
        };
        // A unit that did not fail has nothing to forget, and is not known any more.
        let _ = bus.call(MANAGER, "ResetFailedUnit", &name);
        stopped.map_err(fail)
    }

    /// Has a user's systemd move a process into the unit: the user may not, where they have no group above them in
    /// common that is the user's (a login session and the user's own manager).
    pub(crate) fn attach(&self, unit: &Unit, pid: i32) -> Result<()> {
        let arguments = [Argument::Text(&unit.name), Argument::Text(""), Argument::Pid(pid.unsigned_abs())];
        let moved = self.connect().and_then(|mut bus| bus.call(MANAGER, "AttachProcessesToUnit", &arguments));
        moved.map(drop).map_err(|failed| explain("attach a process to", unit, failed))
    }

    /// Changes properties of the unit while it runs.
    pub(crate) fn change(&self, unit: &Unit, properties: &[Property]) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let changed = self.connect().and_then(|mut bus| {
            let properties = known_to(&mut bus, properties)?;
            let what = [Argument::Text(&unit.name), Argument::Flag(true), Argument::Properties(&properties)];
            bus.call(MANAGER, "SetUnitProperties", &what)
        });
        changed.map(drop).map_err(|failed| explain("change", unit, failed))
    }

    fn connect(&self) -> Outcome<Bus> {
        Bus::connect(&self.socket, Instant::now() + self.patience)
    }

    /// Connects, and has the ends of jobs told from now on: they may come before the answer that names the job.
    fn connect_for_jobs(&self) -> Outcome<Bus> {
        let mut bus = self.connect()?;
        bus.watch(MANAGER, "JobRemoved", "Subscribe")?;
        Ok(bus)
    }
}

/// The properties that this systemd knows: for one that it does not it would refuse the others, too, and the files take
/// every limit. It is asked for its version where that makes a difference.
fn known_to<'a>(bus: &mut Bus, properties: &'a [Property]) -> Outcome<Cow<'a, [Property]>> {
    if properties.iter().all(|property| since(property).is_none()) {
        return Ok(properties.into());
    }
    let what = [Argument::Text(MANAGER.interface), Argument::Text("Version")];
    let told = bus.call(PROPERTIES, "Get", &what)?.texts;
    let own = told.first().and_then(|text| version(text)).unwrap_or(u32::MAX);
    let known = properties.iter().filter(|property| since(property).is_none_or(|since| since <= own));
    Ok(known.cloned().collect())
}

/// Waits for the end of the job that an answer names.
fn finished(bus: &mut Bus, job: &Message) -> Outcome<()> {
    let job = job.texts.first().cloned().ok_or(Failed::Broken("systemd named no job"))?;
    // JobRemoved(number, job, unit, result)
    let end = bus.signal(|signal| signal.member == "JobRemoved" && signal.texts.first() == Some(&job))?;
    match end.texts.get(2).map(String::as_str) {
        Some("done" | "skipped") => Ok(()),
        result => Err(Failed::Refused("job".to_owned(), result.unwrap_or("without a result").to_owned())),
    }
}

fn explain(what: &'static str, unit: &Unit, failed: Failed) -> CgroupError {
    CgroupError::Systemd { what, unit: unit.name.clone(), detail: detail(failed) }
}

fn detail(failed: Failed) -> String {
    match failed {
        Failed::Unreachable(path, error) => {
            format!("connect to the bus {}: {error}", path.display())
        }
        Failed::Io(error) => error.to_string(),
        Failed::Broken(text) => text.to_owned(),
        Failed::Refused(name, text) => format!("{name}: {text}"),
    }
}
