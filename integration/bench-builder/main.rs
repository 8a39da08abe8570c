//! Builds the same Dockerfiles with `hull-build` and buildah: wall time, processor time and peak memory of each.
//!
//! `just bench-builder [CASE...]`. Every case is built cold (nothing cached), warm (nothing changed, best of three) and
//! after an edit of one small file; all contexts are made here, none needs a network. Processor time is that of the
//! builder and of all that it started, RUN's own work included. Never run in CI: a number means something only on a
//! quiet machine.
#![forbid(unsafe_code)]

mod builder;
mod corpus;
#[expect(dead_code, reason = "the other comparison uses the rest")]
#[path = "../bench/measure.rs"]
mod measure;

use std::env;
use std::path::Path;
use std::process::ExitCode;

use builder::Builder;
use corpus::Case;
use hull_testkit::Scratch;
use measure::Cost;

/// What is done with each case.
const PHASES: [&str; 4] = ["cold", "warm", "edit", "push"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == measure::FLAG) {
        return measure::inside(&arguments[1..]);
    }
    let scratch = Scratch::new("bench-builder");
    let builders = builder::all(scratch.path());
    let registry = builder::Registry::start(scratch.path());
    corpus::base(scratch.path(), &builders);
    println!("{:14} {:5} {}", "case", "phase", builder::heading(&builders));
    let wanted = |case: &Case| arguments.is_empty() || arguments.iter().any(|name| name == case.name);
    for case in corpus::CASES.iter().filter(|case| wanted(case)) {
        let context = scratch.join(case.name);
        corpus::make(case, &context);
        let columns: Vec<_> =
            builders.iter().map(|builder| measure_case(builder, case, &context, registry.as_ref())).collect();
        for (at, phase) in PHASES.iter().enumerate() {
            let row: Vec<Option<Cost>> = columns.iter().map(|column| column[at]).collect();
            if row.iter().any(Option::is_some) {
                println!("{:14} {phase:5} {}", case.name, builder::line(&row));
            }
        }
        drop(std::fs::remove_dir_all(&context));
    }
    ExitCode::SUCCESS
}

/// The cost of each phase; none where the builder lacks a feature or fails.
fn measure_case(
    builder: &Builder,
    case: &Case,
    context: &Path,
    registry: Option<&builder::Registry>,
) -> [Option<Cost>; 4] {
    if case.only_hull && !builder.is_hull {
        return [None; 4];
    }
    let build = |cold: bool| told(measure::cost_within(&builder.build(case, context, cold), builder::LIMIT));
    let cold = build(true);
    let push = registry
        .filter(|_| case.pushed && cold.is_some())
        .and_then(|registry| told(measure::cost_within(&builder.push(case, registry), builder::LIMIT)));
    // The first build after `--no-cache` may fill the cache that the next ones use.
    let first = build(false);
    let warm = (0..3).filter_map(|_| build(false)).min_by_key(|cost| cost.cpu).or(first);
    corpus::edit(case, context);
    let edit = build(false);
    builder.forget();
    [cold, warm, edit, push]
}

fn told(outcome: Result<Cost, String>) -> Option<Cost> {
    outcome.inspect_err(|error| eprintln!("{}", error.chars().take(600).collect::<String>())).ok()
}
