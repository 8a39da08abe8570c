//! From the tree to the graph: which stages are needed, which images, and in which order everything is read.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use hull_image::ImageConfig;

use super::arguments::{self, Globals};
use super::stage::{Reading, State};
use super::{Input, Options, Plan, Resolved, Root, Step, platform};
use crate::dockerfile;
use crate::dockerfile::ast::{Dockerfile, Instruction, Located, Stage};
use crate::dockerfile::diagnostic::{Diagnostic, Span, did_you_mean};
use crate::dockerfile::expand::Lexer;
use crate::dockerfile::lint::Policy;

/// Configurations of images, by the name that the Dockerfile uses.
pub(crate) type Bases = BTreeMap<String, ImageConfig>;

/// Resolves a Dockerfile, or tells which images' configurations that takes.
pub(crate) fn resolve(file: &Dockerfile, options: &Options, bases: &Bases) -> Result<Resolved, Diagnostic> {
    let file = &*with_given_stages(file, options);
    let target = target_index(file, options)?;
    let globals = Globals::read(file, options, &file.stages[target])?;
    let mut warnings = Vec::new();
    let froms = expand_froms(file, options, &globals, &mut warnings)?;
    warnings.extend(bad_defaults(file, options)?);
    let context = Context { file, options, bases, globals: &globals, froms: &froms };
    let needed = match context.needed_stages(target)? {
        Needed::Stages(stages) => stages,
        Needed::Images(images) => return Ok(Resolved::NeedsImages(images)),
    };
    let mut plan = context.plan(target, &needed)?;
    plan.warnings.append(&mut warnings);
    let policy = Policy::of(file);
    plan.warnings.retain(|warning| policy.wants(warning));
    Ok(Resolved::Plan(Box::new(plan)))
}

/// The file with each stage that a context of its name was given for made of that, and of nothing else.
fn with_given_stages<'a>(file: &'a Dockerfile, options: &Options) -> Cow<'a, Dockerfile> {
    let mut file = Cow::Borrowed(file);
    for index in 0..file.stages.len() {
        let name = file.stages[index].name.clone().filter(|name| options.has_context(name));
        if let Some(name) = name {
            let stage = &mut file.to_mut().stages[index];
            *stage = Stage { from: name, platform: None, instructions: Vec::new(), ..stage.clone() };
        }
    }
    file
}

/// FROMs that name nothing when no argument is given on the command line.
fn bad_defaults(file: &Dockerfile, options: &Options) -> Result<Vec<Diagnostic>, Diagnostic> {
    let plain = Options { build_args: BTreeMap::new(), ..options.clone() };
    let last = &file.stages[file.stages.len() - 1];
    let globals = Globals::read(file, &plain, last)?;
    let lexer = Lexer::new(file.directives.escape);
    let bad = |stage: &&Stage| {
        let expanded = arguments::expand(lexer, &stage.from, &|name: &str| globals.get(name));
        let is_name = |text: &str| {
            let stages = file.stages.iter().filter_map(|stage| stage.name.as_deref());
            stages.into_iter().any(|name| name == text.to_lowercase())
                || options.has_context(text)
                || text.parse::<hull_image::Reference>().is_ok()
        };
        stage.from.contains('$') && !expanded.is_ok_and(|expanded| is_name(&expanded.text))
    };
    let told = |stage: &Stage| {
        let text = format!("the defaults of the arguments in {} name no image", stage.from);
        Diagnostic::new(stage.span, text).at(&stage.from).rule("InvalidDefaultArgInFrom")
    };
    Ok(file.stages.iter().filter(bad).map(told).collect())
}

fn target_index(file: &Dockerfile, options: &Options) -> Result<usize, Diagnostic> {
    let last = file.stages.len() - 1;
    let Some(target) = &options.target else { return Ok(last) };
    let wanted = target.to_lowercase();
    let named = file.stages.iter().rposition(|stage| stage.name.as_deref() == Some(&wanted));
    let numbered = || wanted.parse::<usize>().ok().filter(|number| *number <= last);
    named.or_else(numbered).ok_or_else(|| {
        let names = file.stages.iter().filter_map(|stage| stage.name.as_deref());
        let text = format!("target stage \"{target}\" could not be found");
        Diagnostic::new(file.stages[last].span, text).hint(did_you_mean(&wanted, names))
    })
}

/// Each stage's FROM with the global arguments expanded.
fn expand_froms(
    file: &Dockerfile,
    options: &Options,
    globals: &Globals,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Vec<String>, Diagnostic> {
    let lexer = Lexer::new(file.directives.escape);
    let lookup = |name: &str| globals.get(name);
    let expand = |stage: &Stage, text: &str| {
        arguments::expand(lexer, text, &lookup).map_err(|e| Diagnostic::new(stage.span, e).at(text))
    };
    let mut one = |stage: &Stage| {
        if let Some(text) = &stage.platform {
            let wanted = expand(stage, text)?.text;
            check_platform(stage, &wanted, &options.platform)?;
        }
        let from = expand(stage, &stage.from)?;
        if from.text.is_empty() {
            let text = format!("the base name ({}) should not be blank", stage.from);
            let hint = from
                .undefined
                .first()
                .map(|name| format!("ARG {name} needs a default or --build-arg {name}=..."));
            return Err(Diagnostic::new(stage.span, text).at(&stage.from).hint(hint));
        }
        for name in &from.undefined {
            let text = format!("FROM argument '{name}' is not declared");
            let known = file.global_args.iter().flat_map(|line| &line.node).map(|one| one.name.as_str());
            let warning = Diagnostic::new(stage.span, text).at(&stage.from).hint(did_you_mean(name, known));
            warnings.push(warning.rule("UndefinedArgInFrom"));
        }
        Ok(from.text)
    };
    file.stages.iter().map(&mut one).collect()
}

fn check_platform(stage: &Stage, wanted: &str, native: &str) -> Result<(), Diagnostic> {
    let (os, architecture, variant) = platform::parts(wanted);
    let (native_os, native_architecture, native_variant) = platform::parts(native);
    let architecture = match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let os_fits = os.is_empty() || os == native_os;
    let variant_fits =
        variant.is_empty() || variant == native_variant || (architecture == "arm64" && variant == "v8");
    if os_fits && architecture == native_architecture && variant_fits {
        return Ok(());
    }
    let text = format!("platform {wanted} can't be built here: only {native} can, there is no emulation");
    Err(Diagnostic::new(stage.span, text).at(wanted))
}

enum Needed {
    /// Each after those that it reads.
    Stages(Vec<usize>),
    Images(Vec<(String, Span)>),
}

struct Context<'a> {
    file: &'a Dockerfile,
    options: &'a Options,
    bases: &'a Bases,
    globals: &'a Globals,
    froms: &'a [String],
}

/// What the names in one stage mean.
pub(super) struct Names<'a> {
    context: &'a Context<'a>,
    stage: usize,
    roots: &'a BTreeMap<usize, State>,
}

/// What a name means.
enum Meaning {
    Scratch,
    Directory(String),
    Stage(usize),
    Image,
}

/// Where a stage's instructions name what they read from.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// FROM: a stage before this one, by its name.
    From,
    /// COPY --from: any stage, by its name or number; a number is nothing else.
    Copy,
    /// A mount's `from`: any stage, by its name or number.
    Mount,
}

impl Context<'_> {
    /// Stages come first, then contexts that were given by name, then images.
    fn meaning(&self, name: &str, stage: usize, by: By) -> Meaning {
        if let Some(directory) = self.options.named_directory(name) {
            return Meaning::Directory(directory);
        }
        let lower = name.to_lowercase();
        let stages = &self.file.stages;
        let seen = if matches!(by, By::From) { &stages[..stage] } else { &stages[..] };
        let named = seen.iter().rposition(|other| other.name.as_deref() == Some(&lower));
        let numbered = || name.parse().ok().filter(|index| !matches!(by, By::From) && *index < stages.len());
        match named.or_else(numbered) {
            Some(index) => Meaning::Stage(index),
            None if name == "scratch" && self.options.named_image(name).is_none() => Meaning::Scratch,
            None => Meaning::Image,
        }
    }

    /// What the stage begins with.
    fn base(&self, stage: usize) -> Meaning {
        self.meaning(&self.froms[stage], stage, By::From)
    }

    /// Names that a stage's instructions read from, with their lines; triggers of its base included.
    fn references(&self, stage: usize) -> Result<Vec<(String, Span, By)>, Diagnostic> {
        let own = self.file.stages[stage].instructions.iter().cloned();
        let triggers = self.triggers(stage)?;
        let mut found = vec![(self.froms[stage].clone(), self.file.stages[stage].span, By::From)];
        for Located { span, node } in triggers.into_iter().chain(own) {
            match node {
                Instruction::Copy(copy) => {
                    let from = copy.from.map(|from| self.known_number(from, span)).transpose()?;
                    found.extend(from.map(|from| (from, span, By::Copy)));
                }
                Instruction::Run(run) => {
                    let froms = run.mounts.into_iter().filter_map(|mount| mount.from);
                    found.extend(froms.map(|from| (from, span, By::Mount)));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// A number is a stage's or an error, never an image.
    fn known_number(&self, from: String, span: Span) -> Result<String, Diagnostic> {
        let stages = self.file.stages.len();
        match from.parse::<usize>() {
            Ok(index) if index >= stages => {
                let text = format!("there is no stage {index}: the last one is {}", stages - 1);
                Err(Diagnostic::new(span, text).at(from))
            }
            _ => Ok(from),
        }
    }

    /// The ONBUILD instructions of a stage's base, an image or another stage, placed on its FROM line.
    fn triggers(&self, stage: usize) -> Result<Vec<Located<Instruction>>, Diagnostic> {
        let span = self.file.stages[stage].span;
        let of_stage = |index: usize| {
            let lines = self.file.stages[index].instructions.iter();
            let triggers = lines.filter_map(|line| match &line.node {
                Instruction::OnBuild(text) => Some(text.clone()),
                _ => None,
            });
            triggers.collect()
        };
        let of_image = |config: &ImageConfig| config.config.on_build.clone();
        let texts: Vec<String> = match self.base(stage) {
            Meaning::Image => self.bases.get(&self.froms[stage]).map(of_image).unwrap_or_default(),
            Meaning::Stage(index) => of_stage(index),
            _ => Vec::new(),
        };
        let read = |text: &String| {
            let node = dockerfile::parse_trigger(text).map_err(|error| {
                let text = format!("ONBUILD trigger of the base \"{text}\": {}", error.message);
                Diagnostic::new(span, text).hint(error.hint)
            })?;
            Ok(Located { span, node })
        };
        texts.iter().map(read).collect()
    }

    /// Every stage that the target can't do without, or the images that must be known to tell.
    fn needed_stages(&self, target: usize) -> Result<Needed, Diagnostic> {
        let mut reads: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut images = BTreeMap::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if reads.contains_key(&index) {
                continue;
            }
            let mut others = BTreeSet::new();
            for (name, span, by) in self.references(index)? {
                match self.meaning(&name, index, by) {
                    Meaning::Stage(other) => drop(others.insert(other)),
                    Meaning::Image if !self.bases.contains_key(&name) => {
                        images.entry(name).or_insert(span);
                    }
                    _ => {}
                }
            }
            open.extend(&others);
            reads.insert(index, others);
        }
        match images.is_empty() {
            true => Ok(Needed::Stages(self.ordered(reads)?)),
            false => Ok(Needed::Images(images.into_iter().collect())),
        }
    }

    /// Stages as they stand in the file, but each after those that it reads.
    fn ordered(&self, mut reads: BTreeMap<usize, BTreeSet<usize>>) -> Result<Vec<usize>, Diagnostic> {
        let mut order = Vec::new();
        while !reads.is_empty() {
            let ready = reads.iter().find(|(_, others)| others.iter().all(|other| order.contains(other)));
            let Some((&next, _)) = ready else {
                let names: Vec<String> = reads.keys().map(|index| self.stage_name(*index)).collect();
                let first = reads.keys().next().expect("there are some");
                let text = format!("circular dependency among the stages {}", names.join(", "));
                return Err(Diagnostic::new(self.file.stages[*first].span, text));
            };
            reads.remove(&next);
            order.push(next);
        }
        Ok(order)
    }

    fn plan(&self, target: usize, needed: &[usize]) -> Result<Plan, Diagnostic> {
        let mut steps = Vec::new();
        let mut warnings = Vec::new();
        let mut states: BTreeMap<usize, State> = BTreeMap::new();
        for index in needed {
            let state = self.stage(*index, &states, &mut steps, &mut warnings)?;
            states.insert(*index, state);
        }
        let mut state = states.remove(&target).expect("the target is needed");
        let run = &mut state.config.config;
        run.labels.extend(self.options.labels.iter().cloned());
        run.labels.retain(|name, _| !self.options.unset_labels.contains(name));
        run.env.retain(|e| !self.options.unset_env.iter().any(|name| e.split('=').next() == Some(name)));
        number(&mut steps);
        let is_skipped = |index: &usize| !needed.contains(index);
        let skipped =
            (0..self.file.stages.len()).filter(is_skipped).map(|index| self.stage_name(index)).collect();
        let State { root, base, config, history, .. } = state;
        Ok(Plan { steps, root, base, config, history, warnings, skipped })
    }

    fn stage_name(&self, index: usize) -> String {
        self.file.stages[index].name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }

    fn stage(
        &self,
        index: usize,
        states: &BTreeMap<usize, State>,
        steps: &mut Vec<Step>,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<State, Diagnostic> {
        let stage = &self.file.stages[index];
        let names = Names { context: self, stage: index, roots: states };
        let mut state = self.begin(index, states)?;
        warnings.extend(self.other_platform(index, &state.config));
        let lexer = Lexer::new(self.file.directives.escape);
        let name = self.stage_name(index);
        let mut reading =
            Reading { options: self.options, globals: self.globals, lexer, stage: name, steps, warnings };
        if let Meaning::Directory(name) = self.base(index) {
            reading.directory(&mut state, stage.span, &name);
        }
        let triggers = self.triggers(index)?;
        state.config.config.on_build.clear();
        for Located { span, node } in triggers.iter().chain(&stage.instructions) {
            match node {
                Instruction::Run(run) => reading.run(&mut state, *span, run, &names)?,
                Instruction::Copy(copy) => reading.copy(&mut state, *span, copy, &names)?,
                other => reading.setting(&mut state, *span, other)?,
            }
        }
        Ok(state)
    }

    fn begin(&self, index: usize, states: &BTreeMap<usize, State>) -> Result<State, Diagnostic> {
        let from = &self.froms[index];
        match self.base(index) {
            Meaning::Stage(other) => {
                let mut state = states[&other].clone();
                state.cmd_set = false;
                Ok(state)
            }
            Meaning::Scratch => Ok(State::begin(Root::Scratch, None, blank(&self.options.platform))),
            Meaning::Image => {
                let config = self.bases[from].clone();
                Ok(State::begin(Root::Image(from.clone()), Some(from.clone()), config))
            }
            // Its files come by a COPY of their own.
            Meaning::Directory(_) => Ok(State::begin(Root::Scratch, None, blank(&self.options.platform))),
        }
    }

    /// A base for another machine than the one that is built for.
    fn other_platform(&self, index: usize, config: &ImageConfig) -> Option<Diagnostic> {
        let from = &self.froms[index];
        let Meaning::Image = self.base(index) else { return None };
        let (os, architecture, _) = platform::parts(&self.options.platform);
        (config.os != os || config.architecture != architecture).then(|| {
            let text = format!(
                "the base image {from} is for {}/{}, expected {os}/{architecture}",
                config.os, config.architecture
            );
            Diagnostic::new(self.file.stages[index].span, text).at(from).rule("InvalidBaseImagePlatform")
        })
    }
}

/// The configuration of an image for this platform that has nothing.
pub(crate) fn blank(platform: &str) -> ImageConfig {
    let (os, architecture, variant) = platform::parts(platform);
    ImageConfig {
        os: os.into(),
        architecture: architecture.into(),
        variant: (!variant.is_empty()).then(|| variant.into()),
        ..ImageConfig::default()
    }
}

impl Names<'_> {
    /// What `--from` or a mount's `from` means; the context without one.
    pub(super) fn input(&self, from: Option<&str>, by: By, span: Span) -> Result<Input, Diagnostic> {
        let Some(name) = from else { return Ok(Input::Context) };
        match self.context.meaning(name, self.stage, by) {
            Meaning::Directory(name) => Ok(Input::Directory(name)),
            Meaning::Scratch => Ok(Input::Root(Root::Scratch)),
            Meaning::Image => Ok(Input::Root(Root::Image(name.to_owned()))),
            Meaning::Stage(index) => match self.roots.get(&index) {
                Some(state) => Ok(Input::Root(state.root.clone())),
                None => {
                    Err(Diagnostic::new(span, format!("the stage \"{name}\" can't be read from here"))
                        .at(name))
                }
            },
        }
    }
}

/// Gives each step its number within its stage.
fn number(steps: &mut [Step]) {
    let mut totals: BTreeMap<String, usize> = BTreeMap::new();
    for step in steps.iter_mut() {
        let count = totals.entry(step.stage.clone()).or_default();
        *count += 1;
        step.number.0 = *count;
    }
    for step in steps {
        step.number.1 = totals[&step.stage];
    }
}
