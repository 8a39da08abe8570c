//! What a stage knows while its instructions are read: configuration, arguments, the root so far.

use hull_image::{Healthcheck, ImageConfig};

use super::arguments::{self, Globals};
use super::{Action, Made, Options, Root, Step, WorkdirAction};
use crate::dockerfile::ast::{Argument, CommandLine, Healthcheck as Probe, Instruction};
use crate::dockerfile::diagnostic::{Diagnostic, Span};
use crate::dockerfile::expand::Lexer;
use crate::pattern::path;

/// The search path of an image that sets none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage, done up to some instruction.
#[derive(Clone)]
pub(super) struct State {
    pub(super) root: Root,
    pub(super) base: Option<String>,
    pub(super) config: ImageConfig,
    pub(super) history: Vec<Made>,
    /// Declared arguments with their values, in order.
    pub(super) arguments: Vec<(String, Option<String>)>,
    /// Whether this stage set CMD.
    pub(super) cmd_set: bool,
}

/// What reading a stage's instructions needs beside the state.
pub(super) struct Reading<'a> {
    pub(super) options: &'a Options,
    pub(super) globals: &'a Globals,
    pub(super) lexer: Lexer,
    pub(super) stage: String,
    pub(super) steps: &'a mut Vec<Step>,
    pub(super) warnings: &'a mut Vec<Diagnostic>,
}

impl State {
    /// The beginning of a stage on `root`.
    pub(super) fn begin(root: Root, base: Option<String>, mut config: ImageConfig) -> Self {
        if config.config.env_value("PATH").is_none() {
            config.config.env.insert(0, format!("PATH={DEFAULT_PATH}"));
        }
        if root == Root::Scratch {
            config.config.working_dir = "/".into();
        }
        Self { root, base, config, history: Vec::new(), arguments: Vec::new(), cmd_set: false }
    }

    /// The value of a variable: ENV beats ARG.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let env = self.config.config.env_value(name).map(str::to_owned);
        env.or_else(|| self.arguments.iter().rev().find(|(known, _)| known == name)?.1.clone())
    }

    fn set_env(&mut self, name: &str, value: &str) {
        let env = &mut self.config.config.env;
        let entry = format!("{name}={value}");
        match env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
            Some(old) => *old = entry,
            None => env.push(entry),
        }
    }

    /// Notes an instruction that only changes settings.
    fn note(&mut self, by: String) {
        self.history.push(Made { by, step: None });
    }

    /// The shell of the shell form.
    pub(super) fn shell(&self) -> Vec<String> {
        self.config.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()])
    }
}

impl Reading<'_> {
    /// Expands a word with the stage's variables; unknown ones are warned of.
    pub(super) fn word(&mut self, state: &State, span: Span, text: &str) -> Result<String, Diagnostic> {
        self.words(state, span, text).map(|expanded| expanded.0)
    }

    /// Expands a word; the text, and the text split at unquoted blanks.
    pub(super) fn words(
        &mut self,
        state: &State,
        span: Span,
        text: &str,
    ) -> Result<(String, Vec<String>), Diagnostic> {
        let lookup = |name: &str| state.variable(name);
        let expanded =
            arguments::expand(self.lexer, text, &lookup).map_err(|e| Diagnostic::new(span, e).at(text))?;
        let may_be_set = state.base.as_ref().is_some_and(|base| self.options.unknown.contains(base));
        for name in expanded.undefined.iter().filter(|_| !may_be_set) {
            let warning = Diagnostic::new(span, format!("usage of undefined variable '${name}'"));
            self.warnings.push(warning.at(format!("${name}")).rule("UndefinedVar"));
        }
        Ok((expanded.text, expanded.words))
    }

    /// Adds a step on top of the stage's root and to its history.
    pub(super) fn push_step(
        &mut self,
        state: &mut State,
        span: Span,
        by: String,
        text: String,
        action: Action,
    ) {
        let step =
            Step { stage: self.stage.clone(), number: (0, 0), span, text, root: state.root.clone(), action };
        self.steps.push(step);
        let id = self.steps.len() - 1;
        state.root = Root::Step(id);
        state.history.push(Made { by, step: Some(id) });
    }

    /// Reads one instruction that makes no files, or WORKDIR.
    pub(super) fn setting(
        &mut self,
        state: &mut State,
        span: Span,
        node: &Instruction,
    ) -> Result<(), Diagnostic> {
        match node {
            Instruction::Env(pairs) => self.env(state, span, pairs)?,
            Instruction::Label(pairs) => self.label(state, span, pairs)?,
            Instruction::Arg(list) => self.arg(state, span, list)?,
            Instruction::Cmd(command) => {
                state.config.config.cmd = Some(self.command(state, command));
                state.cmd_set = true;
                state.note(format!("CMD {}", json(&state.config.config.cmd)));
            }
            Instruction::Entrypoint(command) => {
                state.config.config.entrypoint = Some(self.command(state, command));
                if !state.cmd_set {
                    state.config.config.cmd = None;
                }
                state.note(format!("ENTRYPOINT {}", json(&state.config.config.entrypoint)));
            }
            Instruction::Shell(list) => {
                state.config.config.shell = Some(list.clone());
                state.note(format!("SHELL {}", json(&state.config.config.shell)));
            }
            Instruction::Expose(ports) => self.expose(state, span, ports)?,
            Instruction::User(user) => {
                let user = self.word(state, span, user)?;
                state.note(format!("USER {user}"));
                state.config.config.user = user;
            }
            Instruction::Workdir(directory) => self.workdir(state, span, directory)?,
            Instruction::Volume(list) => {
                let list =
                    list.iter().map(|item| self.word(state, span, item)).collect::<Result<Vec<_>, _>>()?;
                if list.iter().any(String::is_empty) {
                    return Err(Diagnostic::new(span, "a VOLUME can't be an empty string"));
                }
                state.note(format!("VOLUME {list:?}"));
                let volumes = &mut state.config.config.volumes;
                volumes.extend(list.into_iter().map(|path| (path, serde_json::json!({}))));
            }
            Instruction::StopSignal(signal) => self.stop_signal(state, span, signal)?,
            Instruction::Healthcheck(probe) => healthcheck(state, probe),
            Instruction::OnBuild(text) => {
                state.config.config.on_build.push(text.clone());
                state.note(format!("ONBUILD {text}"));
            }
            Instruction::Maintainer(who) => {
                state.config.author = Some(who.clone());
                state.note(format!("MAINTAINER {who}"));
            }
            Instruction::Run(_) | Instruction::Copy(_) => {}
        }
        Ok(())
    }

    fn command(&self, state: &State, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(list) => list.clone(),
            CommandLine::Shell(text) => [state.shell(), vec![text.clone()]].concat(),
        }
    }

    fn env(&mut self, state: &mut State, span: Span, pairs: &[(String, String)]) -> Result<(), Diagnostic> {
        // All values are expanded with what held before the instruction.
        let pairs = self.expanded_pairs(state, span, pairs)?;
        let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.iter().for_each(|(name, value)| state.set_env(name, value));
        state.note(format!("ENV {}", text.join(" ")));
        Ok(())
    }

    fn label(&mut self, state: &mut State, span: Span, pairs: &[(String, String)]) -> Result<(), Diagnostic> {
        let pairs = self.expanded_pairs(state, span, pairs)?;
        let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        state.note(format!("LABEL {}", text.join(" ")));
        state.config.config.labels.extend(pairs);
        Ok(())
    }

    fn expanded_pairs(
        &mut self,
        state: &State,
        span: Span,
        pairs: &[(String, String)],
    ) -> Result<Vec<(String, String)>, Diagnostic> {
        let both = pairs.iter().map(|(name, value)| {
            let name = self.word(state, span, name)?;
            match name.is_empty() {
                true => Err(Diagnostic::new(span, "a name can't be empty")),
                false => Ok((name, self.word(state, span, value)?)),
            }
        });
        both.collect()
    }

    fn arg(&mut self, state: &mut State, span: Span, list: &[Argument]) -> Result<(), Diagnostic> {
        let mut text = Vec::new();
        for argument in list {
            let name = self.word(state, span, &argument.name)?;
            let value = match (self.options.build_args.get(&name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.word(state, span, default)?),
                (None, None) => self.globals.get(&name),
            };
            text.push(match &argument.default {
                Some(_) => format!("{name}={}", value.clone().unwrap_or_default()),
                None => name.clone(),
            });
            // A declaration without any value still brings the one before it back.
            let value = value.or_else(|| state.arguments.iter().rev().find(|(n, _)| *n == name)?.1.clone());
            state.arguments.retain(|(known, _)| *known != name);
            state.arguments.push((name, value));
        }
        state.note(format!("ARG {}", text.join(" ")));
        Ok(())
    }

    fn expose(&mut self, state: &mut State, span: Span, ports: &[String]) -> Result<(), Diagnostic> {
        let mut all = Vec::new();
        for port in ports {
            all.extend(self.words(state, span, port)?.1);
        }
        state.note(format!("EXPOSE {}", all.join(" ")));
        for port in &all {
            let wrong = || Diagnostic::new(span, format!("invalid port \"{port}\"")).at(port);
            let exposed = ports_of(port).ok_or_else(wrong)?;
            state
                .config
                .config
                .exposed_ports
                .extend(exposed.into_iter().map(|port| (port, serde_json::json!({}))));
        }
        Ok(())
    }

    fn stop_signal(&mut self, state: &mut State, span: Span, signal: &str) -> Result<(), Diagnostic> {
        let signal = self.word(state, span, signal)?;
        let known = hull_sys::signal::signal_number(&signal).is_some_and(|number| (1..=64).contains(&number));
        if !known {
            return Err(Diagnostic::new(span, format!("invalid signal \"{signal}\"")).at(signal));
        }
        state.note(format!("STOPSIGNAL {signal}"));
        state.config.config.stop_signal = Some(signal);
        Ok(())
    }

    fn workdir(&mut self, state: &mut State, span: Span, directory: &str) -> Result<(), Diagnostic> {
        let wanted = self.word(state, span, directory)?;
        if wanted.is_empty() {
            return Err(Diagnostic::new(span, "WORKDIR requires exactly one argument"));
        }
        let absolute = path::absolute(&state.config.config.working_dir, &wanted);
        // An absolute path is kept as written, a relative one is joined and cleaned.
        state.config.config.working_dir = if wanted.starts_with('/') { wanted } else { absolute.clone() };
        let text = format!("WORKDIR {}", state.config.config.working_dir);
        if absolute == "/" {
            // There is nothing to make, and BuildKit makes no layer.
            state.note(text);
            return Ok(());
        }
        let action = WorkdirAction { path: absolute, user: state.config.config.user.clone() };
        self.push_step(state, span, text.clone(), text, Action::Workdir(action));
        Ok(())
    }
}

fn healthcheck(state: &mut State, probe: &Probe) {
    let test = match &probe.command {
        None => vec!["NONE".to_owned()],
        Some(CommandLine::Exec(list)) => [vec!["CMD".to_owned()], list.clone()].concat(),
        Some(CommandLine::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
    };
    let check = Healthcheck {
        test,
        interval: probe.interval,
        timeout: probe.timeout,
        start_period: probe.start_period,
        start_interval: probe.start_interval,
        retries: probe.retries.into(),
        ..Healthcheck::default()
    };
    state.note(format!("HEALTHCHECK {}", json(&check.test)));
    state.config.config.healthcheck = Some(check);
}

/// `8080`, `8080/udp`, `8000-8002/tcp` as Docker's keys.
fn ports_of(text: &str) -> Option<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    // An address or a host port in front is read and dropped.
    let range = range.rsplit(':').next().unwrap_or(range);
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let (low, high): (u16, u16) = (low.parse().ok()?, high.parse().ok()?);
    (low <= high).then(|| (low..=high).map(|port| format!("{port}/{protocol}")).collect())
}

fn json(value: &impl serde::Serialize) -> String {
    String::from_utf8(hull_image::canonical(value)).expect("JSON is UTF-8")
}
