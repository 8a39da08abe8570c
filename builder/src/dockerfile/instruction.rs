//! One logical line becomes one instruction.

use super::ast::{Argument, CommandLine, Copy, Healthcheck, Instruction, Network, Run};
use super::diagnostic::{Diagnostic, did_you_mean};
use super::duration;
use super::expand::{Lexer, Quotes};
use super::flags::Flags;
use super::heredoc;
use super::lines::Logical;
use super::mount;
use super::words::{self, Json};

/// Every instruction's name.
pub(super) const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A line with what is needed to read it.
pub(super) struct Reader<'a> {
    pub(super) line: &'a Logical,
    pub(super) escape: char,
    /// Findings that are no errors.
    pub(super) warnings: Vec<Diagnostic>,
}

impl Reader<'_> {
    /// Reads any instruction but FROM.
    pub(super) fn instruction(&mut self) -> Result<Instruction, Diagnostic> {
        let upper = self.line.name.to_ascii_uppercase();
        let (flag_words, rest) = words::take_flags(&self.line.rest, self.escape);
        let mut flags = Flags::new(self.line.span, flag_words);
        let rest = rest.trim();
        let parsed = match upper.as_str() {
            "ADD" | "COPY" => self.copy(upper == "ADD", &mut flags, rest)?,
            "RUN" => self.run(&mut flags, rest)?,
            "HEALTHCHECK" => self.healthcheck(&mut flags, rest)?,
            _ => self.plain(&upper, if flags.is_empty() { rest } else { &self.line.rest })?,
        };
        if matches!(upper.as_str(), "ADD" | "COPY" | "RUN" | "HEALTHCHECK") {
            flags.finish()?;
        }
        Ok(parsed)
    }

    fn plain(&mut self, upper: &str, rest: &str) -> Result<Instruction, Diagnostic> {
        Ok(match upper {
            "CMD" => Instruction::Cmd(self.command(upper, rest)?),
            "ENTRYPOINT" => Instruction::Entrypoint(self.command(upper, rest)?),
            "ENV" => Instruction::Env(self.pairs(upper, rest)?),
            "LABEL" => Instruction::Label(self.pairs(upper, rest)?),
            "ARG" => Instruction::Arg(self.arguments(rest)?),
            "SHELL" => match words::json_list(rest) {
                Some(Json::Strings(list)) if !list.is_empty() => Instruction::Shell(list),
                _ => return Err(self.error("SHELL requires its arguments as a JSON list of strings")),
            },
            "EXPOSE" => Instruction::Expose(self.at_least_one(upper, words::blank_separated(rest))?),
            "VOLUME" => {
                let list = self.list(rest)?;
                if list.iter().any(|path| path.trim().is_empty()) {
                    return Err(self.error("a VOLUME can't be an empty string"));
                }
                Instruction::Volume(self.at_least_one(upper, list)?)
            }
            "USER" => Instruction::User(self.one(upper, rest)?),
            "WORKDIR" => Instruction::Workdir(self.one(upper, rest)?),
            "STOPSIGNAL" => Instruction::StopSignal(self.one(upper, rest)?),
            "MAINTAINER" => Instruction::Maintainer(self.one(upper, rest)?),
            "ONBUILD" => Instruction::OnBuild(self.trigger(rest)?),
            _ => {
                let text = format!("unknown instruction: {}", self.line.name);
                let hint = did_you_mean(&self.line.name, NAMES);
                return Err(self.error(text).at(&self.line.name).hint(hint));
            }
        })
    }

    fn error(&self, text: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.line.span, text)
    }

    fn one(&self, name: &str, rest: &str) -> Result<String, Diagnostic> {
        if rest.is_empty() {
            Err(self.error(format!("{name} requires exactly one argument")))
        } else {
            Ok(rest.into())
        }
    }

    fn at_least_one(&self, name: &str, list: Vec<String>) -> Result<Vec<String>, Diagnostic> {
        if list.is_empty() {
            Err(self.error(format!("{name} requires at least one argument")))
        } else {
            Ok(list)
        }
    }

    /// A JSON list, or words between blanks.
    fn list(&self, rest: &str) -> Result<Vec<String>, Diagnostic> {
        match words::json_list(rest) {
            Some(Json::Strings(list)) => Ok(list),
            Some(Json::Mixed) => Err(self.error("only strings are allowed in a JSON list")),
            None => Ok(words::blank_separated(rest)),
        }
    }

    fn command(&mut self, name: &str, rest: &str) -> Result<CommandLine, Diagnostic> {
        let list = words::json_list(rest);
        let nothing = matches!(&list, Some(Json::Strings(list)) if list.is_empty()) || rest.is_empty();
        match list {
            _ if nothing && name == "RUN" => Err(self.error("RUN requires at least one argument")),
            Some(Json::Strings(list)) => Ok(CommandLine::Exec(list)),
            Some(Json::Mixed) => Err(self.error("only strings are allowed in a JSON list")),
            None => {
                if name != "RUN" {
                    let text =
                        format!("a JSON list is recommended for {name}: a shell hides signals from it");
                    self.warnings.push(self.error(text).at(rest).rule("JSONArgsRecommended"));
                }
                Ok(CommandLine::Shell(rest.to_owned()))
            }
        }
    }

    fn pairs(&mut self, name: &str, rest: &str) -> Result<Vec<(String, String)>, Diagnostic> {
        let found = words::name_values(name, rest, self.escape)
            .map_err(|(word, message)| self.error(message).at(word))?;
        if found.pairs.is_empty() {
            return Err(self.error(format!("{name} requires at least one argument")));
        }
        if found.pairs.iter().any(|(key, _)| key.is_empty()) {
            return Err(self.error(format!("a name in {name} can't be empty")));
        }
        if found.legacy {
            let text = format!("\"{name} key=value\" should be used instead of the old \"{name} key value\"");
            self.warnings.push(self.error(text).rule("LegacyKeyValueFormat"));
        }
        Ok(found.pairs)
    }

    /// The arguments of ARG.
    pub(super) fn arguments(&self, rest: &str) -> Result<Vec<Argument>, Diagnostic> {
        let words = words::quoted_words(rest, self.escape);
        if words.is_empty() {
            return Err(self.error("ARG requires at least one argument"));
        }
        let read = |word: String| {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word, None),
            };
            if name.is_empty() {
                return Err(self.error("a name in ARG can't be empty"));
            }
            Ok(Argument { name, default })
        };
        words.into_iter().map(read).collect()
    }

    fn run(&mut self, flags: &mut Flags, rest: &str) -> Result<Instruction, Diagnostic> {
        let mut mounts = Vec::new();
        for value in flags.all("mount")? {
            let mount = mount::parse(&value).map_err(|e| self.error(e.message).at(e.option).hint(e.hint))?;
            mounts.push(mount);
        }
        let network = match flags.one("network")?.as_deref() {
            None | Some("default") => Network::Default,
            Some("none") => Network::None,
            Some("host") => Network::Host,
            Some(other) => {
                let hint = did_you_mean(other, ["default", "none", "host"]);
                return Err(self.error(format!("invalid network mode \"{other}\"")).at(other).hint(hint));
            }
        };
        let insecure = match flags.one("security")?.as_deref() {
            None | Some("sandbox") => false,
            Some("insecure") => true,
            Some(other) => {
                let hint = did_you_mean(other, ["sandbox", "insecure"]);
                return Err(self.error(format!("invalid security mode \"{other}\"")).at(other).hint(hint));
            }
        };
        let command = self.command("RUN", rest)?;
        let heredocs = self.line.heredocs.clone();
        Ok(Instruction::Run(Run { command, heredocs, mounts, network, insecure }))
    }

    fn copy(&mut self, add: bool, flags: &mut Flags, rest: &str) -> Result<Instruction, Diagnostic> {
        let name = if add { "ADD" } else { "COPY" };
        let mut list = self.list(rest)?;
        if list.len() < 2 {
            let text = match list.len() {
                0 => format!("{name} requires at least two arguments, but none were given"),
                _ => {
                    format!("{name} requires at least two arguments, but only one was given: no destination")
                }
            };
            return Err(self.error(text));
        }
        let destination = list.pop().unwrap_or_default();
        let is_heredoc =
            |word: &String| !self.line.heredocs.is_empty() && heredoc::parse(word, self.escape).is_some();
        list.retain(|word| !is_heredoc(word));
        let copy = Copy {
            add,
            sources: list,
            heredocs: self.line.heredocs.clone(),
            destination,
            from: if add { None } else { flags.one("from")? },
            chown: flags.one("chown")?,
            chmod: flags.one("chmod")?,
            link: flags.switch("link")?.unwrap_or(false),
            parents: !add && flags.switch("parents")?.unwrap_or(false),
            exclude: flags.all("exclude")?,
            checksum: if add { flags.one("checksum")? } else { None },
            keep_git_dir: add && flags.switch("keep-git-dir")?.unwrap_or(false),
            unpack: if add { flags.switch("unpack")? } else { None },
        };
        if let Some(from) = copy.from.as_ref().filter(|from| from.contains('$')) {
            return Err(self.error("--from doesn't expand variables: name a stage instead").at(from));
        }
        Ok(Instruction::Copy(Box::new(copy)))
    }

    fn healthcheck(&mut self, flags: &mut Flags, rest: &str) -> Result<Instruction, Diagnostic> {
        let mut time = |name: &str| match flags.one(name)? {
            None => Ok(0),
            Some(text) => duration::nanoseconds(&text)
                .filter(|ns| *ns == 0 || *ns >= 1_000_000)
                .ok_or_else(|| self.error(format!("--{name} must be 0 or at least 1ms, like 30s")).at(text)),
        };
        let (interval, timeout) = (time("interval")?, time("timeout")?);
        let (start_period, start_interval) = (time("start-period")?, time("start-interval")?);
        let retries = match flags.one("retries")? {
            None => 0,
            Some(text) => text
                .parse::<u32>()
                .ok()
                .filter(|count| *count <= i32::MAX as u32)
                .ok_or_else(|| self.error("--retries must be a number, 0 or more").at(text))?,
        };
        let (kind, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let command = match kind.to_ascii_uppercase().as_str() {
            "NONE" if !after.trim().is_empty() => {
                return Err(self.error("HEALTHCHECK NONE takes no arguments"));
            }
            "NONE" => None,
            "CMD" if after.trim().is_empty() => {
                return Err(self.error("missing command after HEALTHCHECK CMD"));
            }
            "CMD" => Some(match words::json_list(after) {
                Some(Json::Strings(list)) => CommandLine::Exec(list),
                Some(Json::Mixed) => return Err(self.error("only strings are allowed in a JSON list")),
                None => CommandLine::Shell(after.trim().to_owned()),
            }),
            "" => return Err(self.error("HEALTHCHECK requires at least one argument")),
            _ => {
                let hint = did_you_mean(kind, ["CMD", "NONE"]);
                return Err(self
                    .error(format!("unknown type \"{kind}\" in HEALTHCHECK"))
                    .at(kind)
                    .hint(hint));
            }
        };
        let check = Healthcheck { command, interval, timeout, start_period, start_interval, retries };
        Ok(Instruction::Healthcheck(check))
    }

    fn trigger(&self, rest: &str) -> Result<String, Diagnostic> {
        let name = rest.split_whitespace().next().unwrap_or_default();
        match name.to_ascii_uppercase().as_str() {
            "" => Err(self.error("ONBUILD requires at least one argument")),
            "ONBUILD" => Err(self.error("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
            upper @ ("FROM" | "MAINTAINER") => {
                Err(self.error(format!("{upper} isn't allowed as an ONBUILD trigger")))
            }
            upper if !NAMES.contains(&upper) => {
                let hint = did_you_mean(name, NAMES);
                Err(self.error(format!("unknown instruction: {name}")).at(name).hint(hint))
            }
            _ => {
                let bodies: String =
                    self.line.heredocs.iter().map(|h| format!("\n{}{}", h.raw(), h.name)).collect();
                Ok(format!("{rest}{bodies}"))
            }
        }
    }

    /// FROM: image, stage name, platform.
    pub(super) fn from(&mut self) -> Result<(String, Option<String>, Option<String>), Diagnostic> {
        let (flag_words, rest) = words::take_flags(&self.line.rest, self.escape);
        let mut flags = Flags::new(self.line.span, flag_words);
        let platform = flags.one("platform")?;
        flags.finish()?;
        let keep = Lexer { escape: self.escape, quotes: Quotes::Keep };
        let words = keep.split(rest).map_err(|e| self.error(e))?;
        let (image, name) = match words.as_slice() {
            [image] => (image, None),
            [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (image, Some(name)),
            _ => {
                return Err(self.error("FROM requires either one argument, or three: FROM <image> AS <name>"));
            }
        };
        let name = match name {
            None => None,
            Some(name) if is_stage_name(name) => Some(name.to_lowercase()),
            Some(name) => {
                let text = format!(
                    "invalid name for a stage: \"{name}\"; it begins with a letter and holds letters, digits, - _ ."
                );
                return Err(self.error(text).at(name));
            }
        };
        Ok((image.clone(), name, platform))
    }
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
