//! Findings that are no errors: the rules of `--check`, under the names that Docker's build checks gave them.

use super::ast::{Dockerfile, Instruction, Located, Stage};
use super::diagnostic::{Diagnostic, Span};
use super::lines::Logical;
use crate::pattern::ignore::Ignore;
use crate::pattern::path;

/// What the `check` directive asks for: `skip=RULE,...;error=true;experimental=RULE,...`, where `all` is every rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    skip: Vec<String>,
    experimental: Vec<String>,
    /// Whether a finding fails the build.
    pub error: bool,
}

/// Rules that only those have who ask for them.
const EXPERIMENTAL: [&str; 1] = ["InvalidDefinitionDescription"];

impl Policy {
    /// Reads the directive of a file; what it says beyond the known is passed over.
    pub fn of(file: &Dockerfile) -> Self {
        let mut policy = Self::default();
        for part in file.directives.check.iter().flat_map(|text| text.split(';')) {
            let Some((name, value)) = part.split_once('=') else { continue };
            let list = || value.split(',').map(|rule| rule.trim().to_lowercase()).collect();
            match name.trim() {
                "skip" => policy.skip = list(),
                "experimental" => policy.experimental = list(),
                "error" => policy.error = value.trim() == "true",
                _ => {}
            }
        }
        policy
    }

    /// Whether a finding is to be told.
    pub fn wants(&self, finding: &Diagnostic) -> bool {
        let Some(rule) = finding.rule else { return true };
        let has = |list: &[String]| list.iter().any(|name| name == "all" || *name == rule.to_lowercase());
        !has(&self.skip) && (!EXPERIMENTAL.contains(&rule) || has(&self.experimental))
    }
}

/// Rules about how lines are written.
pub(super) fn check_lines(lines: &[Logical]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for line in lines.iter().filter(|line| line.empty_continuation) {
        found
            .push(Diagnostic::new(line.span, "empty line inside a continuation").rule("NoEmptyContinuation"));
    }
    let is_lower = |name: &str| name == name.to_lowercase();
    let mostly_lower = lines.iter().filter(|line| is_lower(&line.name)).count() * 2 > lines.len();
    for line in lines {
        let wanted = if mostly_lower { line.name.to_lowercase() } else { line.name.to_uppercase() };
        if line.name != wanted {
            let text = format!("{} should be written {wanted}, like the rest of the file", line.name);
            found.push(Diagnostic::new(line.span, text).at(&line.name).rule("ConsistentInstructionCasing"));
        }
        found.extend(from_casing(line));
    }
    found
}

fn from_casing(line: &Logical) -> Option<Diagnostic> {
    if !line.name.eq_ignore_ascii_case("from") {
        return None;
    }
    let words: Vec<&str> = line.rest.split_whitespace().collect();
    let at = words.iter().position(|word| word.eq_ignore_ascii_case("as"))?;
    if let Some(name) = words.get(at + 1).filter(|name| name.chars().any(char::is_uppercase)) {
        let text = format!("the stage name \"{name}\" should be in lower case");
        return Some(Diagnostic::new(line.span, text).at(*name).rule("StageNameCasing"));
    }
    let is_upper = |word: &str| word.starts_with(char::is_uppercase);
    (is_upper(words[at]) != is_upper(&line.name)).then(|| {
        let text = format!("the casing of {} and {} differs", line.name, words[at]);
        Diagnostic::new(line.span, text).at(words[at]).rule("FromAsCasing")
    })
}

/// Rules about what the file says.
pub(super) fn check_file(file: &Dockerfile) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for argument in &file.global_args {
        found.extend(description(file, argument.span, argument.node.iter().map(|one| one.name.as_str())));
    }
    for (index, stage) in file.stages.iter().enumerate() {
        found.extend(description(file, stage.span, stage.name.as_deref().into_iter()));
        found.extend(stage_name(stage, &file.stages[..index]));
        found.extend(stage_platform(stage));
        found.extend(repeated(stage));
        let mut absolute = false;
        for instruction in &stage.instructions {
            if let Instruction::Arg(list) = &instruction.node {
                found.extend(description(file, instruction.span, list.iter().map(|one| one.name.as_str())));
            }
            found.extend(one_instruction(instruction, &mut absolute, &stage.from));
        }
    }
    found
}

/// A comment right before a stage or an argument is its description and begins with its name.
fn description<'a>(
    file: &Dockerfile,
    span: Span,
    mut names: impl Iterator<Item = &'a str>,
) -> Option<Diagnostic> {
    file.comments.get(&span.first)?;
    let first = names.next()?;
    let described =
        std::iter::once(first).chain(names).any(|name| file.description(span.first, name).is_some());
    (!described).then(|| {
        let text = format!("the comment before it should be a description: # {first} <description>");
        Diagnostic::new(span, text).rule("InvalidDefinitionDescription")
    })
}

/// COPY and ADD of what the ignore file leaves out.
pub(crate) fn check_ignored(file: &Dockerfile, ignore: &Ignore) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
        let Instruction::Copy(copy) = &instruction.node else { continue };
        for source in copy.sources.iter().filter(|_| copy.from.is_none()) {
            let plain = path::relative(source);
            let verdict = ignore.judge_path(&plain);
            let Some(rule) = verdict.rule.filter(|_| verdict.ignored && !source.contains("://")) else {
                continue;
            };
            if !ignore.must_enter(&plain) {
                let text = format!(
                    "\"{source}\" is left out by the ignore file (line {}: {})",
                    rule.line, rule.text
                );
                found.push(Diagnostic::new(instruction.span, text).at(source).rule("CopyIgnoredFile"));
            }
        }
    }
    found
}

fn stage_name(stage: &Stage, before: &[Stage]) -> Option<Diagnostic> {
    let name = stage.name.as_deref()?;
    if matches!(name, "scratch" | "context") {
        let text = format!("\"{name}\" is reserved and shouldn't name a stage");
        return Some(Diagnostic::new(stage.span, text).at(name).rule("ReservedStageName"));
    }
    before.iter().any(|other| other.name.as_deref() == Some(name)).then(|| {
        Diagnostic::new(stage.span, format!("two stages are named \"{name}\""))
            .at(name)
            .rule("DuplicateStageName")
    })
}

fn stage_platform(stage: &Stage) -> Option<Diagnostic> {
    let platform = stage.platform.as_deref()?;
    let (text, rule) = match platform {
        "$TARGETPLATFORM" | "${TARGETPLATFORM}" => {
            ("--platform=$TARGETPLATFORM is what FROM does anyway", "RedundantTargetPlatform")
        }
        constant if !constant.contains('$') => (
            "--platform shouldn't be a constant: the stage can't be built for others",
            "FromPlatformFlagConstDisallowed",
        ),
        _ => return None,
    };
    Some(Diagnostic::new(stage.span, text).at(platform).rule(rule))
}

/// Instructions of which only the last one counts.
fn repeated(stage: &Stage) -> Vec<Diagnostic> {
    let kind = |node: &Instruction| match node {
        Instruction::Cmd(_) => Some("CMD"),
        Instruction::Entrypoint(_) => Some("ENTRYPOINT"),
        Instruction::Healthcheck(_) => Some("HEALTHCHECK"),
        _ => None,
    };
    let mut found = Vec::new();
    for name in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
        let all: Vec<_> = stage.instructions.iter().filter(|i| kind(&i.node) == Some(name)).collect();
        for extra in all.iter().rev().skip(1) {
            let text = format!("several {name} instructions in one stage: only the last one counts");
            found.push(Diagnostic::new(extra.span, text).at(name).rule("MultipleInstructionsDisallowed"));
        }
    }
    found
}

fn one_instruction(at: &Located<Instruction>, absolute: &mut bool, from: &str) -> Option<Diagnostic> {
    match &at.node {
        Instruction::Maintainer(_) => {
            let text = "MAINTAINER is deprecated: use LABEL org.opencontainers.image.authors";
            Some(Diagnostic::new(at.span, text).rule("MaintainerDeprecated"))
        }
        Instruction::Workdir(path) => {
            let relative = !path.starts_with(['/', '$', '"']);
            let first = relative && !*absolute && from != "scratch";
            *absolute |= !relative;
            first.then(|| {
                let text =
                    format!("the relative WORKDIR \"{path}\" depends on the base image's working directory");
                Diagnostic::new(at.span, text).at(path).rule("WorkdirRelativePath")
            })
        }
        Instruction::Arg(arguments) => secret_name(at, arguments.iter().map(|a| a.name.as_str()), "ARG"),
        Instruction::Env(pairs) => secret_name(at, pairs.iter().map(|(name, _)| name.as_str()), "ENV"),
        Instruction::Expose(ports) => ports.iter().find_map(|port| expose(at, port)),
        _ => None,
    }
}

fn expose(at: &Located<Instruction>, port: &str) -> Option<Diagnostic> {
    let protocol = port.split_once('/').map_or("", |(_, protocol)| protocol);
    if protocol.chars().any(char::is_uppercase) {
        let text = format!("the protocol in \"{port}\" should be in lower case");
        return Some(Diagnostic::new(at.span, text).at(port).rule("ExposeProtoCasing"));
    }
    (port.contains(':') && !port.contains('$')).then(|| {
        let text = format!("EXPOSE takes ports, not addresses or host ports: \"{port}\"");
        Diagnostic::new(at.span, text).at(port).rule("ExposeInvalidFormat")
    })
}

fn secret_name<'a>(
    at: &Located<Instruction>,
    names: impl Iterator<Item = &'a str>,
    instruction: &str,
) -> Option<Diagnostic> {
    const SECRET: [&str; 9] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret"];
    let is_secret = |name: &&str| {
        let lower = name.to_lowercase();
        let mut words = lower.split('_');
        let public = lower.split('_').any(|word| word == "public");
        !public && words.any(|word| SECRET.contains(&word) || word == "token")
    };
    let mut names = names;
    names.find(is_secret).map(|name| {
        let text = format!("don't put secrets in {instruction}: \"{name}\" ends up in the image's history");
        Diagnostic::new(at.span, text).at(name).rule("SecretsUsedInArgOrEnv")
    })
}
