//! Carries out the steps of a plan: each as soon as those it needs are done, none that the cache knows.

mod copy;
mod earlier;
mod finish;
mod keys;
mod mounts;
mod relay;
mod step;

use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, OnceLock};

use hull_image::{Announce, Store};

use crate::audit::Audit;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::graph::{Input, Plan, Root, StepId};
use crate::inputs::{Inputs, Opened};
use crate::interrupt;
use crate::pack::Packing;
use crate::progress::{Event, Events};
use crate::secrets::Granted;
use crate::snapshot::Layers;
use crate::steps::run::Runner;
use finish::Finished;

/// How steps are carried out.
pub(crate) struct Settings {
    pub(crate) packing: Packing,
    /// Stages that the cache doesn't count for; all with `no_cache`.
    pub(crate) no_cache_stages: BTreeSet<String>,
    pub(crate) no_cache: bool,
    pub(crate) explain: bool,
    /// Steps at once.
    pub(crate) jobs: usize,
    /// What `last keys` of this build are kept under.
    pub(crate) place: String,
    pub(crate) secrets: Granted,
    /// `--audit-secrets`.
    pub(crate) audit: Option<Audit>,
    /// Who is told of the image's large layers while they are written.
    pub(crate) announce: Option<Announce>,
}

/// One build being carried out.
pub(crate) struct Execution<'a> {
    pub(crate) store: &'a Store,
    pub(crate) cache: &'a Cache<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) inputs: &'a Inputs,
    pub(crate) runner: &'a Runner<'a>,
    pub(crate) settings: &'a Settings,
    pub(crate) events: &'a Events,
    /// What each step leaves.
    results: Vec<OnceLock<Layers>>,
    /// Which steps' layers others need as trees.
    trees: Vec<bool>,
    /// Which steps' layers the image has.
    of_image: Vec<bool>,
}

/// Which steps wait, run or are done.
struct Schedule {
    waiting: Vec<(StepId, BTreeSet<StepId>)>,
    running: usize,
    failure: Option<(StepId, Error)>,
}

impl<'a> Execution<'a> {
    pub(crate) fn new(
        (store, cache): (&'a Store, &'a Cache<'a>),
        plan: &'a Plan,
        inputs: &'a Inputs,
        runner: &'a Runner<'a>,
        settings: &'a Settings,
        events: &'a Events,
    ) -> Self {
        let results = plan.steps.iter().map(|_| OnceLock::new()).collect();
        let (trees, of_image) = (copy::needed_as_trees(plan), copy::of_image(plan));
        Self { store, cache, plan, inputs, runner, settings, events, results, trees, of_image }
    }

    /// The same with other settings, nothing done yet.
    pub(crate) fn once_more<'b>(&'b self, settings: &'b Settings) -> Execution<'b> {
        Execution::new((self.store, self.cache), self.plan, self.inputs, self.runner, settings, self.events)
    }

    /// What this build's last keys are kept under.
    pub(crate) fn place(&self) -> &str {
        &self.settings.place
    }

    /// What every step left.
    pub(crate) fn results(&self) -> Result<Vec<Layers>> {
        (0..self.plan.steps.len()).map(|id| self.layers(&Root::Step(id))).collect()
    }

    /// Carries everything out and gives the layers of the image; on failure, the step that failed first.
    pub(crate) fn run(&self) -> std::result::Result<Layers, (Option<StepId>, Error)> {
        self.events.send(Event::Planned { steps: self.plan.steps.len() });
        let waiting = self.plan.steps.iter().enumerate().rev().map(|(id, step)| (id, step.needs())).collect();
        let schedule = (Mutex::new(Schedule { waiting, running: 0, failure: None }), Condvar::new());
        let threads = self.settings.jobs.clamp(1, 64).min(self.plan.steps.len());
        let kept = std::thread::scope(|scope| {
            let (later, finished) = channel();
            let keeping = scope.spawn(|| finish::keep(self.cache, finished));
            for _ in 1..threads {
                let later = later.clone();
                let schedule = &schedule;
                scope.spawn(move || self.work(schedule, &later));
            }
            self.work(&schedule, &later);
            drop(later);
            keeping.join().expect("keeping doesn't panic")
        });
        let schedule = schedule.0.into_inner().expect("no thread panics with it");
        match (schedule.failure, kept) {
            (Some((id, error)), _) | (None, Err((id, error))) => Err((Some(id), error)),
            (None, Ok(())) => self.layers(&self.plan.root).map_err(|error| (None, error)),
        }
    }

    fn work(&self, (schedule, changed): &(Mutex<Schedule>, Condvar), later: &Sender<Finished<'a>>) {
        let mut guard = schedule.lock().expect("no thread panics with it");
        loop {
            if guard.failure.is_some() || guard.waiting.is_empty() {
                changed.notify_all();
                return;
            }
            let is_ready = |(_, needs): &(StepId, BTreeSet<StepId>)| {
                needs.iter().all(|id| self.results[*id].get().is_some())
            };
            let Some(index) = guard.waiting.iter().rposition(is_ready) else {
                guard = changed.wait(guard).expect("no thread panics with it");
                continue;
            };
            let (id, _) = guard.waiting.remove(index);
            guard.running += 1;
            drop(guard);
            let outcome = match interrupt::signal() {
                Some(_) => Err(Error::Cancelled),
                None => self.step(id, later),
            };
            guard = schedule.lock().expect("no thread panics with it");
            guard.running -= 1;
            match outcome {
                Ok(layers) => drop(self.results[id].set(layers)),
                Err(error) => {
                    self.events.send(Event::Failed { step: id, error: error.to_string() });
                    if guard.failure.is_none() {
                        guard.failure = Some((id, error));
                        interrupt::cancel();
                    }
                }
            }
            changed.notify_all();
        }
    }

    /// The layers of a root whose steps are done.
    pub(crate) fn layers(&self, root: &Root) -> Result<Layers> {
        match root {
            Root::Scratch => Ok(Layers::default()),
            Root::Image(name) => Ok(self.inputs.images[name].layers.clone()),
            Root::Step(id) => {
                self.results[*id].get().cloned().ok_or_else(|| Error::fact("a step is not done yet"))
            }
        }
    }

    /// Opens what files come from.
    pub(crate) fn open(&self, input: &Input) -> Result<Opened<'a>> {
        match input {
            Input::Context => {
                let context = self.inputs.context.as_ref();
                context.map(Opened::Directory).ok_or_else(|| Error::fact("there is no context to copy from"))
            }
            Input::Directory(name) => Ok(Opened::Directory(&self.inputs.directories[name])),
            Input::Root(root) => Opened::layers(self.store, &self.layers(root)?),
        }
    }
}
