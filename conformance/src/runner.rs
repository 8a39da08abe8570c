//! Runs cases, several at once, each in a place of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bundle::probe;
use crate::cases::{Case, case};
use crate::interrupt;
use crate::lab::Lab;
use crate::options::Options;
use crate::peers::known;
use crate::requirement::{Level, Requirement, reasons};
use crate::suite::Suite;
use crate::verdict::Stop;

/// How a requirement came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The runtime does it.
    Passed,
    /// It could not be shown here: why.
    Skipped(String),
    /// The runtime does not do it.
    Failed {
        /// What the specification asks for.
        expected: String,
        /// What was seen.
        seen: String,
    },
}

/// The outcome of one requirement.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was asked.
    pub requirement: Requirement,
    /// How it came out.
    pub verdict: Verdict,
    /// Why the specification is on the suite's side, where this runtime is known to fail.
    pub known: Option<&'static str>,
    /// Whether a failure was announced by `--todo`.
    pub todo: bool,
    /// How long it took.
    pub time: Duration,
}

impl Outcome {
    /// Whether it is a failure that counts: one of an optional requirement, or an announced one, does not.
    #[must_use]
    pub fn counts(&self) -> bool {
        matches!(self.verdict, Verdict::Failed { .. }) && !self.todo && self.requirement.level != Level::May
    }
}

/// The requirements that the options ask for and that have a case or a reason.
#[must_use]
pub fn chosen(options: &Options) -> Vec<Requirement> {
    let levels: Vec<Level> = options.level.iter().filter_map(|level| Level::parse(level)).collect();
    let wanted = |row: &Requirement| {
        let text =
            |filter: &String| row.text.contains(filter.as_str()) || row.section.contains(filter.as_str());
        let filters = &options.filter;
        (levels.is_empty() || levels.contains(&row.level))
            && (filters.is_empty() || filters.iter().any(|filter| filter == row.id || text(filter)))
            && (case(row.id).is_some() || reasons().iter().any(|(id, _)| *id == row.id))
    };
    crate::requirement::all().into_iter().filter(wanted).collect()
}

/// Runs the chosen requirements and returns their outcomes in the table's order.
///
/// # Panics
/// When a case panics, which none may.
#[must_use]
pub fn run(suite: &Suite, options: &Options) -> Vec<Outcome> {
    let rows = chosen(options);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while interrupt::asked().is_none()
                    && let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let outcome = outcome(suite, options, *row);
                    done.lock().expect("no case panics").push(outcome);
                }
            });
        }
    });
    let place = |outcome: &Outcome| rows.iter().position(|row| row.id == outcome.requirement.id);
    let mut done = done.into_inner().expect("no case panics");
    done.sort_by_key(place);
    done
}

fn outcome(suite: &Suite, options: &Options, requirement: Requirement) -> Outcome {
    let begin = Instant::now();
    let verdict = match case(requirement.id) {
        Some(case) => judge(suite, requirement.id, case, Duration::from_secs(options.deadline)),
        None => Verdict::Skipped(reason(requirement.id)),
    };
    let failed = matches!(verdict, Verdict::Failed { .. });
    Outcome {
        requirement,
        verdict,
        known: if failed { known(requirement.id, &suite.version) } else { None },
        todo: options.todo.iter().any(|id| id == requirement.id),
        time: begin.elapsed(),
    }
}

fn judge(suite: &Suite, id: &str, case: Case, limit: Duration) -> Verdict {
    let found = Lab::new(suite, id, limit).map_err(Stop::from).and_then(|lab| case(&lab));
    match found {
        Ok(()) => match suite.plain(|| in_the_way_of_all(suite, limit)) {
            None => Verdict::Passed,
            Some(seen) => Verdict::Failed {
                expected: "a plain container is made and started, or the errors of others tell nothing"
                    .into(),
                seen: seen.to_owned(),
            },
        },
        Err(Stop::Skip(why)) => Verdict::Skipped(why),
        Err(Stop::Fail { expected, seen }) => {
            Verdict::Failed { expected: steady(suite, id, &expected), seen: steady(suite, id, &seen) }
        }
        Err(Stop::Broken(why)) => Verdict::Failed { expected: "the suite can go on".into(), seen: why },
    }
}

/// Why there cannot be a plain container: a runtime that refuses everything, for whatever reason, refuses what it has to as
/// well.
fn in_the_way_of_all(suite: &Suite, limit: Duration) -> Option<String> {
    const NAME: &str = "plain";
    let tried = Lab::new(suite, NAME, limit).map_err(Stop::from).and_then(|lab| {
        let bundle = lab.bundle(|config| probe(config, &["exit", "0"]))?;
        lab.create(&bundle)?;
        lab.pid(&bundle)?;
        lab.call(&["start", &bundle.id])?.done("start")
    });
    match tried {
        Ok(()) => None,
        Err(Stop::Skip(why) | Stop::Broken(why)) => Some(why),
        Err(Stop::Fail { expected, seen }) => {
            Some(steady(suite, NAME, &format!("not what was expected, {expected}: {seen}")))
        }
    }
}

/// Longest text of a verdict, in bytes.
const LONGEST: usize = 4 << 10;

/// Takes out what differs from run to run: the case's place, the number in names, the time of log lines; and cuts what
/// nobody would read.
fn steady(suite: &Suite, id: &str, text: &str) -> String {
    let cut = (0..=text.len().min(LONGEST)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let rest = text.len() - cut;
    let text = &text[..cut];
    let place = suite.place.join(id).display().to_string();
    let text = text.replace(&format!("--root {place}/state "), "").replace(&place, "");
    let text = text.replace(&format!("-{}-", std::process::id()), "-");
    let mut parts = text.split("time=\"");
    let first = parts.next().unwrap_or_default().to_owned();
    let steady = parts.fold(first, |all, part| all + part.split_once("\" ").map_or("", |(_, rest)| rest));
    if rest == 0 { steady } else { format!("{steady} ... ({rest} bytes more)") }
}

fn reason(id: &str) -> String {
    let found = reasons().into_iter().find(|(of, _)| *of == id);
    found.map_or_else(String::new, |(_, why)| why.to_owned())
}
