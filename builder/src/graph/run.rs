//! RUN: the command as it will be executed, its environment, its mounts.

use super::resolve::{By, Names};
use super::stage::{Reading, State};
use super::{Action, EPOCH, MountAction, MountSource, RunAction, arguments};
use crate::dockerfile::ast::{CommandLine, Network, Run};
use crate::dockerfile::diagnostic::{Diagnostic, Span};
use crate::dockerfile::heredoc;
use crate::dockerfile::mount::{Mount, MountKind};
use crate::pattern::path;

impl Reading<'_> {
    /// Reads a RUN and adds its step.
    pub(super) fn run(
        &mut self,
        state: &mut State,
        span: Span,
        run: &Run,
        names: &Names<'_>,
    ) -> Result<(), Diagnostic> {
        self.check_entitlements(span, run)?;
        let (args, script) = self.program(state, run);
        if let Some((name, _)) = script.as_ref().filter(|(name, _)| !path::is_name(name)) {
            let text = format!("a program can't be called \"{name}\", as the heredoc says");
            return Err(Diagnostic::new(span, text).at(name));
        }
        let env = self.run_env(state);
        let mounts = run
            .mounts
            .iter()
            .map(|mount| self.mount(state, span, mount, names))
            .collect::<Result<Vec<_>, _>>()?;
        let workdir = match state.config.config.working_dir.as_str() {
            "" => "/".to_owned(),
            directory => path::clean(directory),
        };
        let shown = match (&run.command, &script) {
            (CommandLine::Shell(text), _) => text.clone(),
            (CommandLine::Exec(list), _) => format!("{list:?}"),
        };
        let by = self.history_line(state, &args, script.as_ref());
        let action = RunAction {
            args,
            script,
            env,
            hidden_env: arguments::proxies(self.options),
            workdir,
            user: state.config.config.user.clone(),
            mounts,
            network: run.network,
            insecure: run.insecure,
        };
        self.push_step(state, span, by, format!("RUN {shown}"), Action::Run(Box::new(action)));
        Ok(())
    }

    fn check_entitlements(&self, span: Span, run: &Run) -> Result<(), Diagnostic> {
        let refuse = |what: &str, word: &str| {
            let hint = Some(format!("the person who builds may grant it with --allow {what}"));
            Err(Diagnostic::new(span, format!("{what} is not allowed")).at(word).hint(hint))
        };
        if run.insecure && !self.options.allow_insecure {
            return refuse("security.insecure", "--security");
        }
        if run.network == Network::Host && !self.options.allow_host_network {
            return refuse("network.host", "--network");
        }
        Ok(())
    }

    /// The words to execute; a heredoc that is a script of its own comes beside them.
    fn program(&self, state: &State, run: &Run) -> (Vec<String>, Option<(String, String)>) {
        let text = match &run.command {
            CommandLine::Exec(list) => return (list.clone(), None),
            CommandLine::Shell(text) => text,
        };
        let mut whole = text.clone();
        if let [only] = run.heredocs.as_slice() {
            let alone = heredoc::parse(text.trim(), self.lexer.escape).is_some();
            if alone && only.body().starts_with("#!") {
                let script = format!("/dev/pipes/{}", only.name);
                return (vec![script], Some((only.name.clone(), only.body())));
            }
            if alone {
                return ([state.shell(), vec![only.body()]].concat(), None);
            }
        }
        for heredoc in &run.heredocs {
            whole.push_str(&format!("\n{}{}", heredoc.raw(), heredoc.name));
        }
        ([state.shell(), vec![whole]].concat(), None)
    }

    /// ENV, then the ARGs that ENV doesn't hide, then the build's time.
    fn run_env(&self, state: &State) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = Vec::new();
        for entry in &state.config.config.env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            env.retain(|(known, _)| known != name);
            env.push((name.to_owned(), value.to_owned()));
        }
        for (name, value) in &state.arguments {
            if let (Some(value), false) = (value, env.iter().any(|(known, _)| known == name)) {
                env.push((name.clone(), value.clone()));
            }
        }
        if !env.iter().any(|(name, _)| name == EPOCH) {
            env.push((EPOCH.into(), self.options.epoch.to_string()));
        }
        env
    }

    fn history_line(&self, state: &State, args: &[String], script: Option<&(String, String)>) -> String {
        let used: Vec<String> = state
            .arguments
            .iter()
            .filter(|(name, _)| !arguments::is_proxy(name) && state.config.config.env_value(name).is_none())
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
            .collect();
        let command = match script {
            Some((name, body)) => format!("<<{name}\n{body}{name}"),
            None => args.join(" "),
        };
        match used.len() {
            0 => format!("RUN {command}"),
            count => format!("RUN |{count} {} {command}", used.join(" ")),
        }
    }

    /// A mount whose options are all read.
    fn completed(&mut self, state: &State, span: Span, mount: &Mount) -> Result<Mount, Diagnostic> {
        let mut mount = mount.clone();
        for option in std::mem::take(&mut mount.open) {
            let expanded = self.word(state, span, &option)?;
            mount.complete(&expanded).map_err(|text| Diagnostic::new(span, text).at(&option))?;
        }
        Ok(mount)
    }

    fn mount(
        &mut self,
        state: &State,
        span: Span,
        mount: &Mount,
        names: &Names<'_>,
    ) -> Result<MountAction, Diagnostic> {
        let mount = self.completed(state, span, mount)?;
        let mut word = |text: &Option<String>| -> Result<Option<String>, Diagnostic> {
            text.as_ref().map(|text| self.word(state, span, text)).transpose()
        };
        let (target, source, id) = (word(&mount.target)?, word(&mount.source)?, word(&mount.id)?);
        let within = source.clone().unwrap_or_else(|| "/".into());
        let place = |path: &str| path::absolute(&state.config.config.working_dir, path);
        let input = || names.input(mount.from.as_deref(), By::Mount, span);
        let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let needed = |target: Option<&String>| {
            let target = target.map(|target| place(target));
            target
                .filter(|target| target != "/")
                .ok_or_else(|| Diagnostic::new(span, "a mount's target can't be the root").at("--mount"))
        };
        let (target, kind) = match mount.kind {
            MountKind::Bind => {
                let writable = mount.writable.unwrap_or(false);
                (needed(target.as_ref())?, MountSource::Bind { input: input()?, path: within, writable })
            }
            MountKind::Cache => {
                let target = needed(target.as_ref())?;
                let seed = match mount.from {
                    Some(_) => Some((input()?, within)),
                    None => None,
                };
                let id = id.unwrap_or_else(|| target.clone());
                let (sharing, mode) = (mount.sharing, mount.mode.unwrap_or(0o755));
                let writable = mount.writable.unwrap_or(true);
                (target, MountSource::Cache { id, sharing, writable, seed, mode, owner })
            }
            MountKind::Tmpfs => (needed(target.as_ref())?, MountSource::Tmpfs { size: mount.size }),
            MountKind::Secret => {
                let last = |text: &String| text.rsplit('/').next().unwrap_or_default().to_owned();
                let id = id.or(source).or_else(|| target.as_ref().map(last)).unwrap_or_default();
                let file = mount.env.is_none() || target.is_some();
                let target =
                    target.map_or_else(|| format!("/run/secrets/{}", last(&id)), |target| place(&target));
                let (env, required, mode) = (mount.env.clone(), mount.required, mount.mode.unwrap_or(0o400));
                (target, MountSource::Secret { id, file, env, required, mode, owner })
            }
            MountKind::Ssh => {
                let id = id.unwrap_or_else(|| "default".into());
                let target =
                    target.map_or_else(|| "/run/buildkit/ssh_agent.0".into(), |target| place(&target));
                let (required, mode) = (mount.required, mount.mode.unwrap_or(0o600));
                (target, MountSource::Ssh { id, required, mode, owner })
            }
        };
        Ok(MountAction { target, kind })
    }
}
