//! COPY and ADD: sources, destination and flags with every variable expanded.

use super::resolve::{By, Names};
use super::stage::{Reading, State};
use super::{Action, CopyAction, Input};
use crate::dockerfile::ast::Copy;
use crate::dockerfile::diagnostic::{Diagnostic, Span};
use crate::dockerfile::expand::{Lexer, Quotes};
use crate::git::Repository;
use crate::pattern::path;

impl Reading<'_> {
    /// Reads a COPY or ADD and adds its step.
    pub(super) fn copy(
        &mut self,
        state: &mut State,
        span: Span,
        copy: &Copy,
        names: &Names<'_>,
    ) -> Result<(), Diagnostic> {
        let name = if copy.add { "ADD" } else { "COPY" };
        let mut word = |text: &String| self.word(state, span, text);
        let all = copy.sources.iter().map(&mut word).collect::<Result<Vec<_>, _>>()?;
        let wanted = word(&copy.destination)?;
        let chown = copy.chown.as_ref().map(&mut word).transpose()?;
        let chmod = copy.chmod.as_ref().map(&mut word).transpose()?;
        let checksum = copy.checksum.as_ref().map(&mut word).transpose()?;
        let exclude = copy.exclude.iter().map(&mut word).collect::<Result<Vec<_>, _>>()?;
        let mut inline = Vec::new();
        for heredoc in &copy.heredocs {
            if !path::is_name(&heredoc.name) {
                let text =
                    format!("a file can't be called \"{}\", as the heredoc of {name} says", heredoc.name);
                return Err(Diagnostic::new(span, text).at(&heredoc.name));
            }
            let body = heredoc.body();
            let body = if heredoc.expand { self.heredoc_body(state, span, &body)? } else { body };
            inline.push((heredoc.name.clone(), body));
        }
        let is_remote = |source: &&String| copy.add && is_url(source);
        let (repositories, urls): (Vec<String>, Vec<String>) =
            all.iter().filter(is_remote).cloned().partition(|url| Repository::is_meant(url));
        let sources: Vec<String> = all.iter().filter(|source| !is_remote(source)).cloned().collect();
        let destination = destination(&state.config.config.working_dir, &wanted);
        let many = all.len() + inline.len() > 1;
        if many && !destination.ends_with('/') {
            let text = format!("{name} with more than one source needs a destination that ends with /");
            return Err(Diagnostic::new(span, text).at(&copy.destination));
        }
        check_remote(span, checksum.as_deref(), &urls, &repositories)?;
        let input = names.input(copy.from.as_deref(), By::Copy, span)?;
        let text = describe(
            name,
            copy,
            &[all, inline.iter().map(|(n, _)| format!("<<{n}")).collect()].concat(),
            &wanted,
        );
        let action = CopyAction {
            add: copy.add,
            input,
            sources,
            inline,
            urls,
            repositories,
            keep_git_directory: copy.keep_git_dir,
            destination,
            chown,
            chmod,
            link: copy.link,
            parents: copy.parents,
            exclude,
            checksum,
            unpack: copy.unpack,
        };
        self.push_step(state, span, text.clone(), text, Action::Copy(Box::new(action)));
        Ok(())
    }

    /// FROM a directory: a copy of all of it.
    pub(super) fn directory(&mut self, state: &mut State, span: Span, name: &str) {
        let action = CopyAction {
            input: Input::Directory(name.to_owned()),
            sources: vec![".".to_owned()],
            ..CopyAction::plain()
        };
        let text = format!("COPY --from={name} . /");
        self.push_step(state, span, text.clone(), text, Action::Copy(Box::new(action)));
    }

    /// Variables in a heredoc: quotes are text, only `$` and a backslash mean something, whatever the escape directive says.
    fn heredoc_body(&mut self, state: &State, span: Span, body: &str) -> Result<String, Diagnostic> {
        let own = std::mem::replace(&mut self.lexer, Lexer { escape: '\\', quotes: Quotes::Text });
        let expanded = self.word(state, span, body);
        self.lexer = own;
        expanded
    }
}

/// Repositories must have names that mean one, and a checksum is for one thing that is fetched.
fn check_remote(
    span: Span,
    checksum: Option<&str>,
    urls: &[String],
    repositories: &[String],
) -> Result<(), Diagnostic> {
    for repository in repositories {
        Repository::parse(repository).map_err(|e| Diagnostic::new(span, e.to_string()))?;
    }
    let text = match (checksum, urls.len() + repositories.len()) {
        (None, _) | (Some(_), 1) => return Ok(()),
        (Some(_), 0) => "--checksum can only be used with a URL",
        (Some(_), _) => "--checksum can only be used with one URL",
    };
    Err(Diagnostic::new(span, text).at("--checksum"))
}

fn destination(workdir: &str, wanted: &str) -> String {
    let mut absolute = path::absolute(workdir, wanted);
    let directory = wanted.ends_with('/') || wanted == "." || wanted.ends_with("/.") || wanted == "..";
    if directory && !absolute.ends_with('/') {
        absolute.push('/');
    }
    absolute
}

fn is_url(source: &str) -> bool {
    let schemes = ["http://", "https://"];
    schemes.iter().any(|scheme| source.starts_with(scheme)) || Repository::is_meant(source)
}

fn describe(name: &str, copy: &Copy, sources: &[String], destination: &str) -> String {
    let mut words = vec![name.to_owned()];
    words.extend(copy.from.as_ref().map(|from| format!("--from={from}")));
    words.extend(copy.chown.as_ref().map(|owner| format!("--chown={owner}")));
    words.extend(copy.chmod.as_ref().map(|mode| format!("--chmod={mode}")));
    words.extend(copy.link.then(|| "--link".to_owned()));
    words.extend(copy.parents.then(|| "--parents".to_owned()));
    words.extend(copy.exclude.iter().map(|pattern| format!("--exclude={pattern}")));
    words.extend(sources.iter().cloned());
    words.push(destination.to_owned());
    words.join(" ")
}
