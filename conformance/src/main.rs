//! `hull-conformance --runtime PATH`: tests any OCI runtime by its command line.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use clap::Parser;
use hull_conformance::options::Options;
use hull_conformance::requirement::Level;
use hull_conformance::suite::Suite;
use hull_conformance::{cases, format, interrupt, probe, requirement, runner, table};

fn main() -> ExitCode {
    if probe::called() {
        let words: Vec<String> = env::args().skip(1).collect();
        return probe::main(&words);
    }
    let options = Options::parse();
    if let Some(level) = options.level.iter().find(|level| Level::parse(level).is_none()) {
        return usage(&format!("no such level: {level}"));
    }
    match (&options.runtime, options.table.is_empty(), options.list) {
        (_, false, _) => tabulate(&options),
        (_, _, true) => list(&options),
        (Some(runtime), ..) => test(runtime, &options),
        _ => usage("--runtime PATH is missing"),
    }
}

fn test(runtime: &Path, options: &Options) -> ExitCode {
    let Some(runtime) = find(runtime) else {
        return usage(&format!("no runtime at {}", runtime.display()));
    };
    if let Err(error) = rustix::fs::access(&runtime, rustix::fs::Access::EXEC_OK) {
        return usage(&format!("cannot execute {}: {error}", runtime.display()));
    }
    if !rustix::process::geteuid().is_root() {
        return usage("the suite makes containers, mounts and control groups: run it as root");
    }
    if let Some(id) = options.todo.iter().find(|id| requirement::all().iter().all(|row| row.id != **id)) {
        return usage(&format!("no such requirement: {id}"));
    }
    if runner::chosen(options).is_empty() {
        return usage("no requirement fits the filter");
    }
    let signals = match interrupt::hold() {
        Ok(signals) => signals,
        Err(error) => return usage(&format!("cannot hold signals: {error}")),
    };
    let suite = match Suite::prepare(&runtime, &options.runtime_arg) {
        Ok(suite) => suite,
        Err(error) => return usage(&format!("cannot prepare a run: {error}")),
    };
    // Not before: the suite enters its mount namespace as a single thread.
    interrupt::watch(signals);
    let outcomes = runner::run(&suite, options);
    if let Some(signal) = interrupt::asked() {
        eprintln!("hull-conformance: interrupted by signal {signal}");
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    print!("{}", format::write(options.format, &suite, &outcomes));
    ExitCode::from(u8::from(outcomes.iter().any(runner::Outcome::counts)))
}

/// A path as it is, a bare name by PATH.
fn find(runtime: &Path) -> Option<std::path::PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let bare = runtime.components().count() == 1;
    let named = env::split_paths(&path).map(|directory| directory.join(runtime)).filter(|_| bare);
    let found = named.chain([runtime.to_path_buf()]).find(|file| file.is_file())?;
    fs::canonicalize(&found).ok().map(|real| if real.file_name() == found.file_name() { real } else { found })
}

fn list(options: &Options) -> ExitCode {
    for row in runner::chosen(options) {
        let case = if cases::case(row.id).is_some() { "case" } else { "reason" };
        println!("{}\t{}\t{}\t{}\t{}", row.id, row.level, case, row.section, row.text);
    }
    ExitCode::SUCCESS
}

fn tabulate(options: &Options) -> ExitCode {
    let read = |path| {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    };
    let mut documents = Vec::new();
    for path in &options.table {
        match read(path) {
            Ok(document) => documents.push(document),
            Err(error) => return usage(&format!("{}: {error}", path.display())),
        }
    }
    print!("{}", table::markdown(&requirement::all(), &documents));
    ExitCode::SUCCESS
}

fn usage(why: &str) -> ExitCode {
    eprintln!("hull-conformance: {why}");
    ExitCode::from(2)
}
