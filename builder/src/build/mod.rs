//! The build, from the command line to the image: read, parse, resolve, carry out, describe, hand over.

mod bases;
mod call;
mod describe;
mod epoch;
mod options;
mod output;
mod report;
pub(crate) mod source;
mod verify;

use std::process::ExitCode;

use hull_image::Store;

use crate::cache::Cache;
use crate::commands::build::Arguments;
use crate::dockerfile;
use crate::dockerfile::ast::Dockerfile;
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::lint;
use crate::error::{Error, Result};
use crate::execute::{Execution, Settings};
use crate::graph::{self, Plan, Resolved};
use crate::host;
use crate::inputs::Inputs;
use crate::interrupt;
use crate::progress::{Event, Progress, Style};
use crate::registry;
use crate::snapshot::Layers;
use crate::steps::run::Runner;
use crate::workspace::Workspace;

use source::Source;

/// Builds as the command line says.
pub(crate) fn build(arguments: &Arguments) -> std::result::Result<ExitCode, Box<dyn std::error::Error>> {
    options::refuse_nonsense(arguments)?;
    options::registry(arguments)?;
    options::pull(arguments)?;
    output::check(arguments)?;
    describe::check(arguments)?;
    options::secrets(arguments)?;
    let text = source::read(arguments)?;
    let file = match dockerfile::parse(&text.dockerfile) {
        Ok(file) => file,
        Err(error) => return Ok(text.complain(&error)),
    };
    let arguments = match epoch::settle(arguments, &file, text.time) {
        Err(Error::Dockerfile(error)) => return Ok(text.complain(&error)),
        settled => &settled?,
    };
    if options::only_checks(arguments) {
        return check(arguments, &text, &file);
    }
    if let Some(call) = arguments.call.as_deref().filter(|call| *call != "build") {
        return Ok(call::tell(call, arguments, &file)?);
    }
    match whole_build(arguments, &text, &file) {
        Err(Error::Dockerfile(error)) => Ok(text.complain(&error)),
        Err(error) => Err(error.into()),
        Ok(code) => Ok(code),
    }
}

/// `--check`: the findings of the parser and of the resolver. No image is fetched for it.
fn check(
    arguments: &Arguments,
    text: &Source,
    file: &Dockerfile,
) -> std::result::Result<ExitCode, Box<dyn std::error::Error>> {
    let mut warnings = file.warnings.clone();
    if let Some(ignore) = text.ignore(arguments)? {
        let policy = lint::Policy::of(file);
        warnings
            .extend(lint::check_ignored(file, &ignore).into_iter().filter(|warning| policy.wants(warning)));
    }
    match resolve_offline(file, options::graph(arguments, epoch::epoch(arguments))?) {
        Ok(found) => warnings.extend(found),
        Err(error) => return Ok(text.complain(&error)),
    }
    warnings.sort_by_key(|warning| warning.span.first);
    text.warn(&warnings);
    println!("Check complete, {} warnings have been found!", warnings.len());
    Ok(ExitCode::from(u8::from(!warnings.is_empty())))
}

/// The resolver's findings, with the images that the store has; others may set anything.
fn resolve_offline(
    file: &Dockerfile,
    mut options: graph::Options,
) -> std::result::Result<Vec<Diagnostic>, Diagnostic> {
    let store = host::open_store().ok();
    let mut bases = graph::Bases::new();
    loop {
        let images = match graph::resolve(file, &options, &bases)? {
            Resolved::Plan(plan) => return Ok(plan.warnings),
            Resolved::NeedsImages(images) => images,
        };
        for (name, _) in images {
            let known = store.as_ref().and_then(|store| bases::stored(&options, store, &name));
            if known.is_none() {
                eprintln!(
                    "hull-build: notice: {name} is not in the store: variables that it may set are not checked"
                );
                options.unknown.insert(name.clone());
            }
            bases.insert(name, known.unwrap_or_else(|| graph::blank(&options.platform)));
        }
    }
}

fn whole_build(arguments: &Arguments, text: &Source, file: &Dockerfile) -> Result<ExitCode> {
    Workspace::enter()?;
    interrupt::watch().map_err(Error::io("watch for", "signals"))?;
    // Nobody else may write to the store; what is handed over obeys the user's mask again.
    let mask = hull_sys::process::umask(0o022);
    let store = host::open_store()?;
    let cache = Cache::open(&store)?;
    let workspace = Workspace::make(&store)?;
    let epoch = epoch::epoch(arguments);
    let graph_options = options::graph(arguments, epoch)?;
    let (mut inputs, plan) = resolve(arguments, file, &graph_options, &store)?;
    text.warn_unless_quiet(arguments, &file.warnings, &plan.warnings);
    let findings = file.warnings.len() + plan.warnings.len();
    if findings > 0 && lint::Policy::of(file).error {
        let text = format!("the check directive makes errors of findings, of which there are {findings}");
        return Err(Error::fact(text));
    }
    source::open_directories(arguments, text, &cache, &mut inputs)?;
    let runner = options::runner(arguments, &workspace)?;
    let ahead = output::ahead(arguments);
    let settings = Settings {
        announce: ahead.as_ref().map(registry::Ahead::announce),
        ..options::settings(arguments, &text.place())?
    };
    let id = match carry_out(arguments, (&store, &cache), (&runner, &settings), text, &plan, &inputs)? {
        Ok(layers) => describe::describe(arguments, &store, &plan, &inputs, &layers, epoch)?,
        Err(code) => return Ok(code),
    };
    save_file_caches(&inputs);
    store.settle(hull_image::SETTLE_AFTER)?;
    hull_sys::process::umask(mask);
    output::hand_over(arguments, &store, &id, ahead.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

/// Resolves the graph, fetching the images that it turns out to need.
fn resolve(
    arguments: &Arguments,
    file: &Dockerfile,
    options: &graph::Options,
    store: &Store,
) -> Result<(Inputs, Plan)> {
    let mut inputs = Inputs::default();
    loop {
        let configs = inputs.images.iter().map(|(name, base)| (name.clone(), base.config.clone())).collect();
        match graph::resolve(file, options, &configs)? {
            Resolved::Plan(plan) => return Ok((inputs, *plan)),
            Resolved::NeedsImages(images) => {
                for (name, span) in images {
                    let base = bases::find(arguments, options, store, &name).map_err(|error| {
                        let hint = Some(
                            "names of images are looked up in the store: hull-build images lists them".into(),
                        );
                        Diagnostic::new(span, with_causes(&error)).at(&name).hint(hint)
                    })?;
                    inputs.images.insert(name, base);
                }
            }
        }
    }
}

/// Runs the steps and shows how they go; a failed step is told of here.
fn carry_out(
    arguments: &Arguments,
    (store, cache): (&Store, &Cache<'_>),
    (runner, settings): (&Runner<'_>, &Settings),
    text: &Source,
    plan: &Plan,
    inputs: &Inputs,
) -> Result<std::result::Result<Layers, ExitCode>> {
    let style = if arguments.quiet { Style::Quiet } else { arguments.progress };
    let (progress, events) = Progress::start(style);
    if arguments.explain && !plan.skipped.is_empty() {
        events.send(Event::Note(format!("stages that nothing needs: {}", plan.skipped.join(", "))));
    }
    if let (true, Some(context)) = (arguments.explain, &inputs.context) {
        report::dropped(&context.tree)?.into_iter().for_each(|line| events.send(Event::Note(line)));
    }
    let execution = Execution::new((store, cache), plan, inputs, runner, settings, &events);
    let mut outcome = execution.run();
    if let (Ok(_), true) = (&outcome, arguments.verify_reproducible) {
        events.send(Event::Note("once more, to compare".into()));
        outcome = again(arguments, &execution);
    }
    drop(execution);
    if let (true, Ok(layers)) = (arguments.explain, &outcome) {
        let lines = report::layers(store, cache, plan, layers)?;
        lines.into_iter().for_each(|line| events.send(Event::Note(line)));
    }
    drop(events);
    drop(progress);
    if let (Some(audit), Ok(layers)) = (&settings.audit, &outcome) {
        report::audit(audit, store, plan, layers)?;
    }
    match outcome {
        Ok(layers) => Ok(Ok(layers)),
        Err((None, error)) => Err(error),
        // Whoever ended the build needs not be shown where it was.
        Err((Some(_), Error::Cancelled)) => Ok(Err(ExitCode::FAILURE)),
        Err((Some(step), error)) => {
            let step = &plan.steps[step];
            let code = if let Error::Command { code } = &error { *code } else { 1 };
            let told =
                Diagnostic::new(step.span, format!("{}: {}", first_words(&step.text), with_causes(&error)));
            text.complain(&told.hint(what_to_try(&error).map(str::to_owned)));
            Ok(Err(ExitCode::from(u8::try_from(code.clamp(1, 255)).unwrap_or(1))))
        }
    }
}

/// Carries a plan out once more without the cache; different results are an error.
fn again(
    arguments: &Arguments,
    first: &Execution<'_>,
) -> std::result::Result<Layers, (Option<usize>, Error)> {
    let alone = |error| (None, error);
    let settings = Settings { no_cache: true, ..options::settings(arguments, first.place()).map_err(alone)? };
    let second = first.once_more(&settings);
    let layers = second.run()?;
    verify::compare(
        first.store,
        first.plan,
        &first.results().map_err(alone)?,
        &second.results().map_err(alone)?,
    )
    .map_err(alone)?;
    Ok(layers)
}

/// What a person can do about a command that failed, by its code as shells give it.
fn what_to_try(error: &Error) -> Option<&'static str> {
    let Error::Command { code } = error else { return None };
    Some(match code {
        126 => "126 means that the program may not be executed: chmod +x, or is it for another processor?",
        127 => "127 means that a program was not found: is it installed in this stage, and in PATH?",
        137 => "137 means that it was killed: by a lack of memory? --memory, and `dmesg` of the host, tell",
        _ => {
            "the steps before are kept: without this one, build -t NAME and run -it NAME sh show what it had"
        }
    })
}

/// What a step does, short; the excerpt below it has the whole.
fn first_words(text: &str) -> String {
    const MOST: usize = 6;
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.len() > MOST {
        true => format!("{} …", words[..MOST].join(" ")),
        false => words.join(" "),
    }
}

/// An error with all its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Losing a file cache costs time, not correctness.
fn save_file_caches(inputs: &Inputs) {
    for directory in inputs.context.iter().chain(inputs.directories.values()) {
        drop(directory.cache.save());
    }
}
