//! Keys of steps, and what had to be read to make them.

use super::Execution;
use crate::cache::{Key, Part};
use crate::context::content::{self, Contents};
use crate::context::select::{self, Source, Wanted};
use crate::error::{Error, Result};
use crate::git::Repository;
use crate::graph::{Action, CopyAction, Input, MountSource, Root, RunAction, Step};
use crate::ids;
use crate::inputs::Opened;
use crate::snapshot::Layers;
use crate::steps::add::{self, Fetched};

/// What a step reads, opened and described while its key was made.
#[derive(Default)]
pub(super) struct Selected<'a> {
    pub(super) opened: Option<Opened<'a>>,
    pub(super) sources: Vec<Source>,
    pub(super) contents: Contents,
    /// What ADD fetched.
    pub(super) fetched: Vec<Fetched>,
    /// What ADD checks out: repositories and their commits.
    pub(super) repositories: Vec<(Repository, String)>,
}

impl<'a> Execution<'a> {
    /// The key of a step on top of `below`.
    pub(super) fn key(&self, step: &Step, below: &Layers) -> Result<(Key, Selected<'a>)> {
        let mut key = Key::new();
        key.part("epoch", format!("{:?}", self.settings.packing.epoch));
        key.part("compression", format!("{:?}", self.settings.packing.encoding));
        if let Some(ids) = ids::limited() {
            key.part("ids", ids);
        }
        let chain = below.chain().map_or_else(|| "nothing".to_owned(), |chain| chain.to_string());
        let selected = match &step.action {
            Action::Workdir(workdir) => {
                key.part("base", chain);
                key.part("workdir", &workdir.path);
                key.part("user", &workdir.user);
                Selected::default()
            }
            Action::Copy(copy) => {
                // A linked layer depends on what is below only for names of users.
                let named = copy
                    .chown
                    .as_ref()
                    .is_some_and(|owner| !owner.chars().all(|c| c.is_ascii_digit() || c == ':'));
                if !copy.link || named {
                    key.part("base", chain);
                }
                self.copy_key(&mut key, copy)?
            }
            Action::Run(run) => {
                key.part("base", chain);
                self.run_key(&mut key, run)?;
                Selected::default()
            }
        };
        Ok((key, selected))
    }

    fn copy_key(&self, key: &mut Key, copy: &CopyAction) -> Result<Selected<'a>> {
        key.part("instruction", if copy.add { "ADD" } else { "COPY" });
        key.part("destination", &copy.destination);
        key.part("chown", format!("{:?}", copy.chown));
        key.part("chmod", format!("{:?}", copy.chmod));
        key.part("link", copy.link.to_string());
        key.part("unpack", format!("{:?}", copy.unpack));
        for (name, content) in &copy.inline {
            key.part(format!("heredoc {name}"), content);
        }
        let mut selected = Selected::default();
        if !copy.sources.is_empty() {
            let wanted = Wanted { sources: &copy.sources, exclude: &copy.exclude, parents: copy.parents };
            selected = self.select(key, "file", &copy.input, &wanted)?;
        }
        for url in &copy.urls {
            let fetched = add::fetch(self.store, url, copy.checksum.as_deref())?;
            key.part(format!("url {url}"), fetched.identity());
            selected.fetched.push(fetched);
        }
        for text in &copy.repositories {
            let repository = Repository::parse(text)?;
            let commit = repository.resolve(self.git_agent())?;
            if let Some(wanted) = copy.checksum.as_ref().filter(|wanted| !commit.starts_with(&***wanted)) {
                return Err(Error::fact(format!("the commit of {repository} is {commit}, not {wanted}")));
            }
            key.part(format!("repository {repository}"), format!("{commit} {}", copy.keep_git_directory));
            selected.repositories.push((repository, commit));
        }
        Ok(selected)
    }

    /// The agent that git may ask: the default one of the command line.
    pub(super) fn git_agent(&self) -> Option<&std::path::Path> {
        self.settings.secrets.agents.get("default").map(std::path::PathBuf::as_path)
    }

    /// Selects files and puts their description into the key.
    fn select(&self, key: &mut Key, label: &str, input: &Input, wanted: &Wanted<'_>) -> Result<Selected<'a>> {
        let mut selected = self.describe(input, wanted)?;
        key.take_parts(label, std::mem::take(&mut selected.contents.lines));
        Ok(selected)
    }

    /// What is at the path that a mount shows, line for line.
    pub(super) fn shown(&self, input: &Input, path: &str) -> Result<Vec<Part>> {
        if *input == Input::Root(Root::Scratch) {
            return Ok(Vec::new());
        }
        let source = [path.to_owned()];
        let wanted = Wanted { sources: &source, exclude: &[], parents: false };
        let memo = self.memo(input, &wanted)?;
        match memo.and_then(|memo| self.cache.selection(&memo)) {
            Some(lines) => Ok(lines),
            None => Ok(self.describe(input, &wanted)?.contents.lines),
        }
    }

    fn describe(&self, input: &Input, wanted: &Wanted<'_>) -> Result<Selected<'a>> {
        let memo = self.memo(input, wanted)?;
        let opened = self.open(input)?;
        let sources = select::select(opened.tree(), wanted)?;
        let contents = content::describe(opened.tree(), &sources, opened.cache())?;
        if let Some(memo) = memo {
            self.cache.keep_selection(&memo, &contents.lines)?;
        }
        Ok(Selected { opened: Some(opened), sources, contents, ..Selected::default() })
    }

    /// Under which name a selection is remembered: layers never change, so neither does what is selected of them.
    fn memo(&self, input: &Input, wanted: &Wanted<'_>) -> Result<Option<Key>> {
        let Input::Root(root) = input else { return Ok(None) };
        let Some(chain) = self.layers(root)?.chain() else { return Ok(None) };
        let mut memo = Key::new();
        memo.part("chain", chain.to_string());
        if let Some(ids) = ids::limited() {
            memo.part("ids", ids);
        }
        memo.part("parents", wanted.parents.to_string());
        wanted.sources.iter().for_each(|source| memo.part("source", source));
        wanted.exclude.iter().for_each(|pattern| memo.part("exclude", pattern));
        Ok(Some(memo))
    }

    fn run_key(&self, key: &mut Key, run: &RunAction) -> Result<()> {
        for (index, argument) in run.args.iter().enumerate() {
            key.part(format!("argument {index}"), argument);
        }
        if let Some((name, body)) = &run.script {
            key.part(format!("script {name}"), body);
        }
        for (name, value) in &run.env {
            key.part(format!("env {name}"), value);
        }
        key.part("workdir", &run.workdir);
        key.part("user", &run.user);
        key.part("network", format!("{:?}", run.network));
        key.part("insecure", run.insecure.to_string());
        key.part("capabilities", self.runner.limits.capabilities.join(" "));
        key.part("no network", self.runner.no_network.to_string());
        // As in BuildKit: names of added hosts count, their addresses don't.
        for (name, _) in &self.runner.hosts {
            key.part("host", name);
        }
        for (name, soft, hard) in &self.runner.limits.ulimits {
            key.part(format!("ulimit {name}"), format!("{soft} {hard}"));
        }
        if let Some(size) = self.runner.limits.shm_size {
            key.part("shared memory", size.to_string());
        }
        for volume in &self.runner.volumes {
            key.part(format!("volume {}", volume.destination), volume.read_only.to_string());
        }
        for mount in &run.mounts {
            self.mount_key(key, &mount.target, &mount.kind)?;
        }
        Ok(())
    }

    /// A mount counts by its declaration; of files that are bound, or that a cache begins with, the content counts too.
    fn mount_key(&self, key: &mut Key, target: &str, kind: &MountSource) -> Result<()> {
        let label = format!("mount {target}");
        match kind {
            MountSource::Bind { input, path, writable } => {
                key.part(&label, format!("bind {path} {writable}"));
                key.take_parts(&label, self.shown(input, path)?);
            }
            MountSource::Cache { id, sharing, writable, seed, mode, owner } => {
                key.part(&label, format!("cache {id} {sharing:?} {writable} {mode:o} {owner:?}"));
                if let Some((input, path)) = seed {
                    key.take_parts(&label, self.shown(input, path)?);
                }
            }
            MountSource::Tmpfs { size } => key.part(label, format!("tmpfs {size:?}")),
            MountSource::Secret { id, file, env, mode, owner, .. } => {
                key.part(label, format!("secret {id} {file} {env:?} {mode:o} {owner:?}"));
            }
            MountSource::Ssh { id, mode, owner, .. } => {
                key.part(label, format!("ssh {id} {mode:o} {owner:?}"))
            }
        }
        Ok(())
    }
}
