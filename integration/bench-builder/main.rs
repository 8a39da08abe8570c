//! Builds the same Dockerfiles with `hull-build` and buildah: wall time, processor time and peak memory of each.
//!
//! `just bench-builder [--alone] [CASE...]`, `--alone` without buildah. Every case is built cold (nothing cached), warm
//! (nothing changed, best of three) and after an edit of one small file, the largest one pushed, too, after and while it
//! is built. The case `unpack` is an image of 890 MB that becomes files, beside tar and gzip. All contexts are made here,
//! none needs a network. Processor time is that of the builder and of all that it started, RUN's own work included. Never
//! run in CI: a number means something only on a quiet machine.
#![forbid(unsafe_code)]

mod builder;
mod corpus;
#[expect(dead_code, reason = "the other comparison uses the rest")]
#[path = "../bench/measure.rs"]
mod measure;
mod unpack;

use std::env;
use std::path::Path;
use std::process::{Command, ExitCode};

use builder::{Builder, Registry};
use corpus::Case;
use hull_testkit::Scratch;
use measure::Cost;

/// What is done with each case; `both` is a cold build and its push as one.
const PHASES: [&str; 5] = ["cold", "warm", "edit", "push", "both"];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == measure::FLAG) {
        return measure::inside(&arguments[1..]);
    }
    let (flags, names): (Vec<_>, Vec<_>) = arguments.into_iter().partition(|word| word == "--alone");
    let scratch = Scratch::new("bench-builder");
    let builders = builder::all(scratch.path(), flags.is_empty());
    corpus::base(scratch.path(), &builders);
    println!("{:14} {:5} {}", "case", "phase", builder::heading(&builders));
    // First of all, as file systems make new files slowly while they remember many that were just removed.
    if names.is_empty() || names.iter().any(|name| name == unpack::NAME) {
        unpack::compare(scratch.path(), &builders);
    }
    let wanted = |case: &Case| names.is_empty() || names.iter().any(|name| name == case.name);
    for case in corpus::CASES.iter().filter(|case| wanted(case)) {
        let context = scratch.join(case.name);
        corpus::make(case, &context);
        let columns: Vec<_> =
            builders.iter().map(|builder| measure_case(builder, case, &context, scratch.path())).collect();
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
fn measure_case(builder: &Builder, case: &Case, context: &Path, scratch: &Path) -> [Option<Cost>; 5] {
    if case.only_hull && !builder.is_hull {
        return [None; 5];
    }
    let build = |cold: bool| measured(&builder.build(case, context, cold));
    let cold = build(true);
    // Each time a registry that has nothing yet.
    let pushed = |command: fn(&Builder, &Case, &Path, &Registry) -> Command| {
        let registry = Registry::start(scratch).filter(|_| case.pushed && cold.is_some())?;
        let cost = measured(&command(builder, case, context, &registry));
        eprintln!(
            "{} {}: the registry took {:.1} s of processor time",
            builder.name,
            case.name,
            registry.cpu()
        );
        cost
    };
    let push = pushed(|builder, case, _, registry| builder.push(case, registry));
    // No builder may know the files from before.
    corpus::renew(context);
    let both = pushed(Builder::build_and_push);
    // The first build after `--no-cache` may fill the cache that the next ones use.
    let first = build(false);
    let warm = (0..3).filter_map(|_| build(false)).min_by_key(|cost| cost.cpu).or(first);
    corpus::edit(case, context);
    let edit = build(false);
    builder.forget();
    [cold, warm, edit, push, both]
}

/// The cost of a command; what was written before is on the disk, so that nobody waits for what others wrote.
fn measured(command: &Command) -> Option<Cost> {
    nix::unistd::sync();
    told(measure::cost_within(command, builder::LIMIT))
}

fn told(outcome: Result<Cost, String>) -> Option<Cost> {
    outcome.inspect_err(|error| eprintln!("{}", error.chars().take(600).collect::<String>())).ok()
}
