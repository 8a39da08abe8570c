//! `hull events`: statistics and out-of-memory notifications, one JSON object a line.

use super::find;
use crate::cli::EventsOptions;
use crate::error::{Code, Context, Error, Result};
use crate::globals::Globals;
use crate::output;
use crate::state::Status;
use hull_cgroup::{Cgroup, Oom, Statistics};
use serde::Serialize;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

#[derive(Serialize)]
struct Event<'a> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Statistics>,
}

/// Prints the statistics once, or events until the container ends.
pub fn run(options: &EventsOptions, globals: &Globals) -> Result<u8> {
    let interval = duration(&options.interval)?;
    let directory = find(&options.id, globals)?;
    let record = directory.read()?;
    if !Status::of(&directory, &record).has_process() {
        return Err(Error::new(
            Code::ContainerState,
            format!("container with id {} is not running", record.id),
        ));
    }
    let cgroup = Cgroup::open(&record.cgroup);
    cgroup.require_group("tell statistics")?;
    if options.stats {
        print_statistics(&cgroup, &record.id)?;
        return Ok(0);
    }
    let init = record.init.as_ref().map(|init| init.open()).transpose()?.flatten();
    let Some(init) = init else { return Ok(0) };
    let mut oom = cgroup.oom_events()?;
    let mut next = Instant::now() + interval;
    loop {
        let mut watched = vec![init.as_fd()];
        watched.extend(oom.iter().map(AsFd::as_fd));
        match hull_sys::poll::wait_any_readable(&watched, Some(next)).context(|| "wait for events")? {
            Some(0) => return Ok(0),
            Some(_) => oom = take_oom(oom, &record.id)?,
            None => {
                print_statistics(&cgroup, &record.id)?;
                next += interval;
            }
        }
    }
}

/// A watch whose group is gone has nothing more to say.
fn take_oom(watch: Option<hull_cgroup::OomWatch>, id: &str) -> Result<Option<hull_cgroup::OomWatch>> {
    let Some(mut watch) = watch else { return Ok(None) };
    match watch.take()? {
        Oom::Gone => Ok(None),
        Oom::Nothing => Ok(Some(watch)),
        Oom::Happened => {
            print(&Event { r#type: "oom", id, data: None })?;
            Ok(Some(watch))
        }
    }
}

fn print_statistics(cgroup: &Cgroup, id: &str) -> Result<()> {
    let statistics = cgroup.statistics()?;
    print(&Event { r#type: "stats", id, data: Some(&statistics) })
}

fn print(event: &Event<'_>) -> Result<()> {
    output::line(serde_json::to_string(event).unwrap_or_default())
}

/// The longest duration of Go's, 292 years: a signed number of nanoseconds.
const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

/// A duration as Go writes it: `5s`, `100ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration> {
    let refused = || Error::new(Code::Usage, format!("invalid value {text:?} for --interval"));
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(refused)?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|letter: char| letter.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            // The sign of micro and the letter of that form.
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(refused()),
        };
        let number: f64 = number.parse().map_err(|_| refused())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| refused())?;
        total = total.checked_add(part).filter(|total| *total <= LONGEST).ok_or_else(refused)?;
        rest = after;
    }
    if total.is_zero() {
        return Err(Error::new(Code::Usage, "duration interval must be greater than 0"));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::duration;
    use std::time::Duration;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(duration("100ms").expect("100ms"), Duration::from_millis(100));
        assert_eq!(duration("1m30s").expect("1m30s"), Duration::from_secs(90));
        assert_eq!(duration("1us500ns").expect("1us500ns"), Duration::from_nanos(1500));
        for bad in ["", "0s", "5", "-1s", "5x", "2562048h", "2562047h2562047h", "5000000000000000h"] {
            assert!(duration(bad).is_err(), "{bad:?} was taken");
        }
    }
}
