//! What a Dockerfile says, before any variable is expanded.

use std::collections::BTreeMap;

use super::diagnostic::{Diagnostic, Span};
use super::heredoc::Heredoc;
use super::lines::Directives;
use super::mount::Mount;

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// What its first comments asked of the parser.
    pub directives: Directives,
    /// The ARGs before the first FROM.
    pub global_args: Vec<Located<Vec<Argument>>>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// Findings of the parser that are no errors.
    pub warnings: Vec<Diagnostic>,
    /// Comments right before an instruction, by its first line.
    pub comments: BTreeMap<usize, String>,
}

impl Dockerfile {
    /// What the comment before the instruction at `line` says of `name`: `# name description`.
    pub fn description(&self, line: usize, name: &str) -> Option<&str> {
        self.comments.get(&line)?.strip_prefix(name)?.strip_prefix(' ').map(str::trim)
    }
}

/// Something and the lines it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The lines.
    pub span: Span,
    /// The thing.
    pub node: T,
}

/// One FROM and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The lines of FROM.
    pub span: Span,
    /// The image or stage it begins with, unexpanded.
    pub from: String,
    /// The name given with AS, in lower case.
    pub name: Option<String>,
    /// The value of `--platform`, unexpanded.
    pub platform: Option<String>,
    /// The instructions after FROM.
    pub instructions: Vec<Located<Instruction>>,
}

/// One ARG: its name and its default, unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// The name.
    pub name: String,
    /// The default.
    pub default: Option<String>,
}

/// A command: a string for a shell, or words to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Run by the shell of the stage.
    Shell(String),
    /// Executed as it is.
    Exec(Vec<String>),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is run; for heredocs the words beside them.
    pub command: CommandLine,
    /// The bodies of its heredocs.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Network,
    /// `--security=insecure`: needs the entitlement from the command line.
    pub insecure: bool,
}

/// The network that a RUN sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// What the command line says.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's: needs the entitlement from the command line.
    Host,
}

/// COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// Whether it is ADD.
    pub add: bool,
    /// Sources, unexpanded; heredocs are not among them.
    pub sources: Vec<String>,
    /// Sources given as heredocs.
    pub heredocs: Vec<Heredoc>,
    /// Destination, unexpanded.
    pub destination: String,
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`, unexpanded.
    pub chown: Option<String>,
    /// `--chmod`, unexpanded.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
    /// `--checksum`, unexpanded.
    pub checksum: Option<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: bool,
    /// `--unpack`, when given.
    pub unpack: Option<bool>,
}

/// HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// The probe; `None` switches an inherited one off.
    pub command: Option<CommandLine>,
    /// Nanoseconds between probes; 0 is unset, as in the following three.
    pub interval: i64,
    /// Nanoseconds that one probe may take.
    pub timeout: i64,
    /// Nanoseconds at the start in which failures don't count.
    pub start_period: i64,
    /// Nanoseconds between probes in the start period.
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy; 0 is unset.
    pub retries: u32,
}

/// One instruction of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// RUN.
    Run(Run),
    /// COPY and ADD.
    Copy(Box<Copy>),
    /// ENV.
    Env(Vec<(String, String)>),
    /// LABEL.
    Label(Vec<(String, String)>),
    /// ARG.
    Arg(Vec<Argument>),
    /// CMD.
    Cmd(CommandLine),
    /// ENTRYPOINT.
    Entrypoint(CommandLine),
    /// SHELL.
    Shell(Vec<String>),
    /// EXPOSE.
    Expose(Vec<String>),
    /// USER.
    User(String),
    /// WORKDIR.
    Workdir(String),
    /// VOLUME.
    Volume(Vec<String>),
    /// STOPSIGNAL.
    StopSignal(String),
    /// HEALTHCHECK.
    Healthcheck(Healthcheck),
    /// ONBUILD: the text of the instruction it triggers.
    OnBuild(String),
    /// MAINTAINER.
    Maintainer(String),
}
