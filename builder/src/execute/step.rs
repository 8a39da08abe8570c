//! One step: its key, the cache's answer, and if there is none, the work.

use std::sync::mpsc::Sender;
use std::time::Duration;

use hull_image::{Announce, BlobWriter, Lock, Sealed};

use super::Execution;
use super::finish::Finished;
use super::keys::Selected;
use crate::cache::{Key, Record, reasons};
use crate::error::{Error, Result};
use crate::graph::{Action, CopyAction, RunAction, Step, StepId};
use crate::pack;
use crate::progress::Event;
use crate::snapshot::{Layers, Snapshot};
use crate::steps::copy::{Destination, Target};
use crate::steps::{add, workdir};

impl<'a> Execution<'a> {
    /// Does a step, or finds that it was done; gives the layers that it leaves.
    ///
    /// What was made goes to `later`, which publishes it while the next steps are done.
    pub(super) fn step(&self, id: StepId, later: &Sender<Finished<'a>>) -> Result<Layers> {
        let step = &self.plan.steps[id];
        let below = self.layers(&step.root)?;
        let (key, selected) = self.key(step, &below)?;
        let name = key.name();
        if let Some(record) = self.cached(step, &name) {
            self.events.send(Event::Cached { step: id, title: title(step) });
            return Ok(below.with(record.diff_id, record.blob));
        }
        self.events.send(Event::Started { step: id, title: title(step) });
        let place = format!("{} {} {}", self.settings.place, step.stage, step.number.0);
        if self.settings.explain {
            self.explain(id, step, &place, &key);
        }
        let lock = self.alone(id, &name)?;
        // While this build waited, another one may have done it.
        if let Some(record) = self.cached(step, &name) {
            self.events.send(Event::Done { step: id, bytes: record.size });
            return Ok(below.with(record.diff_id, record.blob));
        }
        let (record, blob) = self.carry_out(id, (&key, &place), &below, selected)?;
        self.events.send(Event::Done { step: id, bytes: record.size });
        let layers = below.with(record.diff_id.clone(), record.blob.clone());
        let finished = Finished { step: id, blob, record, name, place, key, lock };
        later.send(finished).map_err(|_| Error::fact("nobody keeps what steps make"))?;
        Ok(layers)
    }

    fn cached(&self, step: &Step, key: &str) -> Option<Record> {
        let off = self.settings.no_cache || self.settings.no_cache_stages.contains(&step.stage);
        if off { None } else { self.cache.find(key) }
    }

    fn explain(&self, id: StepId, step: &Step, place: &str, key: &Key) {
        let off = self.settings.no_cache || self.settings.no_cache_stages.contains(&step.stage);
        let lines = match off {
            true => vec!["the cache is switched off for this step".to_owned()],
            false => reasons(self.cache.last(place).as_ref(), key),
        };
        self.events.send(Event::Told { step: id, lines });
    }

    /// The lock of a key: of builds that run at once, one does the step.
    fn alone(&self, id: StepId, key: &str) -> Result<Lock> {
        let name = format!("step-{key}");
        let mut told = false;
        loop {
            if let Some(lock) = self.store.try_lock(&name)? {
                return Ok(lock);
            }
            if !std::mem::replace(&mut told, true) {
                let lines = vec!["another build is doing this step: waiting for it".to_owned()];
                self.events.send(Event::Told { step: id, lines });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn carry_out(
        &self,
        id: StepId,
        (key, place): (&Key, &str),
        below: &Layers,
        selected: Selected<'_>,
    ) -> Result<(Record, Sealed<'a>)> {
        let step = &self.plan.steps[id];
        match &step.action {
            Action::Workdir(action) => {
                let snapshot = Snapshot::writable(self.store, below)?;
                workdir::make(snapshot.root(), action)?;
                pack::commit(self.store, self.blob(id)?, snapshot, below, self.settings.packing)
            }
            Action::Copy(copy) if copy.add => self.add(id, copy, below, &selected),
            Action::Copy(copy) => self.copy(id, (copy, key), place, below, &selected),
            Action::Run(run) => self.run_command(id, run, below, selected),
        }
    }

    /// ADD writes into a mounted snapshot: only there archives find out what they meet.
    fn add(
        &self,
        id: StepId,
        copy: &CopyAction,
        below: &Layers,
        selected: &Selected<'_>,
    ) -> Result<(Record, Sealed<'a>)> {
        // An independent layer is written on nothing: whatever is below may change.
        let nothing = Layers::default();
        let base = if copy.link { &nothing } else { below };
        let snapshot = Snapshot::writable(self.store, base)?;
        let keeps_owners = selected.opened.as_ref().is_some_and(|opened| opened.tree().keeps_owners);
        let keep_times = self.settings.packing.epoch.is_none();
        let target = Target::of(Some(snapshot.root()), copy, keeps_owners, keep_times)?;
        let destination = Destination::new(snapshot.root(), target);
        if let Some(opened) = &selected.opened {
            add::copy(&destination, copy, opened.tree(), &selected.sources, &selected.contents)?;
        }
        for (name, content) in &copy.inline {
            destination.write_inline(name, content.as_bytes())?;
        }
        for fetched in &selected.fetched {
            add::place_fetched(&destination, copy, fetched)?;
        }
        for (repository, commit) in &selected.repositories {
            let place = self.store.temporary_path();
            let outcome = repository
                .check_out(commit, &place, copy.keep_git_directory, self.git_agent())
                .and_then(|found| add::place_directory(&destination, copy, &found.directory));
            // What stays behind is collected with the store's temporary files.
            drop(hull_image::remove(&place));
            outcome?;
        }
        pack::commit(self.store, self.blob(id)?, snapshot, base, self.settings.packing)
    }

    /// The blob that a step's layer goes into; of one that the image has, those who want to send it are told early.
    pub(super) fn blob(&self, id: StepId) -> Result<BlobWriter<'a>> {
        let mut blob = self.store.blob_writer()?;
        if let (Some(announce), true) = (&self.settings.announce, self.of_image[id]) {
            blob.announce(Announce::clone(announce));
        }
        Ok(blob)
    }

    fn run_command(
        &self,
        id: StepId,
        run: &RunAction,
        below: &Layers,
        selected: Selected<'_>,
    ) -> Result<(Record, Sealed<'a>)> {
        let snapshot = Snapshot::writable(self.store, below)?;
        let mounts = self.prepare_mounts(id, run, selected)?;
        let redact = mounts.secrets.clone();
        let mut lines = |line: String| {
            let line = redact.iter().fold(line, |line, secret| line.replace(secret, "*****"));
            if let Some(audit) = &self.settings.audit {
                audit.look(line.as_bytes(), &format!("the output of {}", self.plan.steps[id].text));
            }
            self.events.send(Event::Log { step: id, line });
        };
        self.runner.run(&snapshot, run, (mounts.prepared, mounts.env), &mut lines)?;
        pack::commit(self.store, self.blob(id)?, snapshot, below, self.settings.packing)
    }
}

/// The step as people read it.
fn title(step: &Step) -> String {
    let text: String = step.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let (number, count) = step.number;
    let cut = if text.chars().count() > 160 {
        format!("{}…", text.chars().take(160).collect::<String>())
    } else {
        text
    };
    format!("[{} {number}/{count}] {cut}", step.stage)
}

/// The error of a step that has no input it should have.
pub(super) fn missing_input() -> Error {
    Error::fact("a step lacks what it reads from")
}
