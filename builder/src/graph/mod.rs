//! PURE: a parsed Dockerfile, the command line's arguments and the configurations of its bases become a graph of steps.
//!
//! Every variable is expanded here, every name resolved, every refusal made: what comes after only carries out.

mod arguments;
mod copy;
mod platform;
mod resolve;
mod run;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use hull_image::ImageConfig;

use crate::dockerfile::diagnostic::{Diagnostic, Span};
use crate::dockerfile::mount::Sharing;

pub(crate) use arguments::{EPOCH, own_epoch};
pub(crate) use platform::native_platform;
pub(crate) use resolve::{Bases, blank, resolve};
pub(crate) use stage::DEFAULT_PATH;

/// What the command line says about the build's meaning.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// `--build-arg`.
    pub(crate) build_args: BTreeMap<String, String>,
    /// `--target`; the last stage without one.
    pub(crate) target: Option<String>,
    /// `os/arch[/variant]` that is built for, and on.
    pub(crate) platform: String,
    /// Names of directories given as `--build-context`.
    pub(crate) directories: BTreeSet<String>,
    /// Images given as `--build-context`, by name: `oci-layout://...`, or a reference.
    pub(crate) images: BTreeMap<String, String>,
    /// `--label`.
    pub(crate) labels: Vec<(String, String)>,
    /// The build's time: seconds since 1970.
    pub(crate) epoch: u64,
    /// Whether RUN --security=insecure is granted.
    pub(crate) allow_insecure: bool,
    /// Whether RUN --network=host is granted.
    pub(crate) allow_host_network: bool,
    /// `--unsetenv`.
    pub(crate) unset_env: Vec<String>,
    /// `--unsetlabel`.
    pub(crate) unset_labels: Vec<String>,
    /// Images of which nothing is known, when a file is only checked: they may set any variable.
    pub(crate) unknown: BTreeSet<String>,
}

impl Options {
    /// The image that was given for a name of the Dockerfile.
    pub(crate) fn named_image(&self, name: &str) -> Option<&str> {
        self.images.get(&context_name(name)).map(String::as_str)
    }

    /// The name of the directory that was given for a name of the Dockerfile.
    fn named_directory(&self, name: &str) -> Option<String> {
        Some(context_name(name)).filter(|name| self.directories.contains(name))
    }

    fn has_context(&self, name: &str) -> bool {
        self.named_image(name).is_some() || self.named_directory(name).is_some()
    }
}

/// A context's name as BuildKit compares it: as people write an image's, without `:latest`, in any case.
pub(crate) fn context_name(name: &str) -> String {
    let lower = name.to_lowercase();
    let image = lower.parse::<hull_image::Reference>().ok().filter(|image| image.digest.is_none());
    let familiar = image.map_or(lower, |image| image.familiar());
    familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
}

/// Number of a step.
pub(crate) type StepId = usize;

/// A root file system that a step begins with or reads from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Root {
    /// Nothing.
    Scratch,
    /// An image, by the name the Dockerfile calls it.
    Image(String),
    /// What a step leaves.
    Step(StepId),
}

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// The build's context.
    Context,
    /// A directory given by name on the command line.
    Directory(String),
    /// A root file system.
    Root(Root),
}

/// One step that makes a layer.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// Its stage, for people: the name or the number.
    pub(crate) stage: String,
    /// Its number within the stage and how many there are.
    pub(crate) number: (usize, usize),
    /// Where it stands.
    pub(crate) span: Span,
    /// The instruction as people read it, variables expanded.
    pub(crate) text: String,
    /// What it begins with.
    pub(crate) root: Root,
    /// What it does.
    pub(crate) action: Action,
}

/// What a step does.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Runs a command.
    Run(Box<RunAction>),
    /// Copies files.
    Copy(Box<CopyAction>),
    /// Makes a directory.
    Workdir(WorkdirAction),
}

/// WORKDIR.
#[derive(Debug, Clone)]
pub(crate) struct WorkdirAction {
    /// Absolute path.
    pub(crate) path: String,
    /// Owner of what is made, as in USER.
    pub(crate) user: String,
}

/// RUN.
#[derive(Debug, Clone)]
pub(crate) struct RunAction {
    /// Program and arguments.
    pub(crate) args: Vec<String>,
    /// A heredoc that is itself the program: its name and text.
    pub(crate) script: Option<(String, String)>,
    /// Variables that belong to the step's meaning.
    pub(crate) env: Vec<(String, String)>,
    /// Variables that don't: proxies.
    pub(crate) hidden_env: Vec<(String, String)>,
    /// Working directory.
    pub(crate) workdir: String,
    /// As in USER.
    pub(crate) user: String,
    /// Mounts, in order.
    pub(crate) mounts: Vec<MountAction>,
    /// The network.
    pub(crate) network: crate::dockerfile::ast::Network,
    /// Whether the sandbox is off.
    pub(crate) insecure: bool,
}

/// One mount of a RUN.
#[derive(Debug, Clone)]
pub(crate) struct MountAction {
    /// Absolute path.
    pub(crate) target: String,
    /// What is mounted.
    pub(crate) kind: MountSource,
}

/// What a mount shows.
#[derive(Debug, Clone)]
pub(crate) enum MountSource {
    /// Files; with `writable` writes go to a layer that is thrown away.
    Bind { input: Input, path: String, writable: bool },
    /// A kept directory; a new one begins as a copy of `seed`.
    Cache {
        id: String,
        sharing: Sharing,
        writable: bool,
        seed: Option<(Input, String)>,
        mode: u32,
        owner: (u32, u32),
    },
    /// Memory.
    Tmpfs { size: Option<u64> },
    /// A secret as a file, a variable, or both.
    Secret { id: String, file: bool, env: Option<String>, required: bool, mode: u32, owner: (u32, u32) },
    /// An agent's socket.
    Ssh { id: String, required: bool, mode: u32, owner: (u32, u32) },
}

/// COPY or ADD.
#[derive(Debug, Clone)]
pub(crate) struct CopyAction {
    /// Whether it is ADD.
    pub(crate) add: bool,
    /// Where the paths are.
    pub(crate) input: Input,
    /// Paths or patterns below the input.
    pub(crate) sources: Vec<String>,
    /// Files given in the Dockerfile: name and content.
    pub(crate) inline: Vec<(String, String)>,
    /// What ADD fetches.
    pub(crate) urls: Vec<String>,
    /// The repositories that ADD checks out.
    pub(crate) repositories: Vec<String>,
    /// Whether a repository's `.git` stays.
    pub(crate) keep_git_directory: bool,
    /// Absolute path; a trailing slash says directory.
    pub(crate) destination: String,
    /// `user[:group]`.
    pub(crate) chown: Option<String>,
    /// Octal or symbolic.
    pub(crate) chmod: Option<String>,
    /// Whether the layer doesn't depend on what is below.
    pub(crate) link: bool,
    /// Whether the sources' parents are kept.
    pub(crate) parents: bool,
    /// What is left out.
    pub(crate) exclude: Vec<String>,
    /// The digest that a fetched file must have.
    pub(crate) checksum: Option<String>,
    /// Whether archives are unpacked, when said.
    pub(crate) unpack: Option<bool>,
}

/// One entry of the image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// The instruction.
    pub(crate) by: String,
    /// The step that makes its layer; `None` for settings.
    pub(crate) step: Option<StepId>,
}

/// The whole build.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Steps, each after those it needs.
    pub(crate) steps: Vec<Step>,
    /// What the image's root is.
    pub(crate) root: Root,
    /// The image that the target stage comes from in the end.
    pub(crate) base: Option<String>,
    /// The configuration, without layers and history.
    pub(crate) config: ImageConfig,
    /// What is added to the base's history.
    pub(crate) history: Vec<Made>,
    /// Findings that are no errors.
    pub(crate) warnings: Vec<Diagnostic>,
    /// Stages left out, as nothing needs them.
    pub(crate) skipped: Vec<String>,
}

/// What resolving comes to.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// The plan.
    Plan(Box<Plan>),
    /// These images' configurations are needed first, each with the lines that name it.
    NeedsImages(Vec<(String, Span)>),
}

impl CopyAction {
    /// A copy of everything to the root, as it is.
    pub(crate) fn plain() -> Self {
        Self {
            add: false,
            input: Input::Context,
            sources: Vec::new(),
            inline: Vec::new(),
            urls: Vec::new(),
            repositories: Vec::new(),
            keep_git_directory: false,
            destination: "/".into(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            checksum: None,
            unpack: None,
        }
    }
}

impl Step {
    /// Every root and directory that it reads, its own root first.
    pub(crate) fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::Root(self.root.clone())];
        match &self.action {
            Action::Workdir(_) => {}
            Action::Copy(copy) if copy.sources.is_empty() => {}
            Action::Copy(copy) => inputs.push(copy.input.clone()),
            Action::Run(run) => inputs.extend(run.mounts.iter().filter_map(|mount| match &mount.kind {
                MountSource::Bind { input, .. } => Some(input.clone()),
                MountSource::Cache { seed, .. } => seed.as_ref().map(|(input, _)| input.clone()),
                _ => None,
            })),
        }
        inputs
    }

    /// The steps that must be done before it.
    pub(crate) fn needs(&self) -> BTreeSet<StepId> {
        let step = |input: &Input| match input {
            Input::Root(Root::Step(id)) => Some(*id),
            _ => None,
        };
        self.inputs().iter().filter_map(step).collect()
    }
}
