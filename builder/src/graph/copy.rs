//! COPY and ADD: sources, destination and flags with every variable expanded.

use super::resolve::Names;
use super::stage::{Reading, State};
use super::{Action, CopyAction};
use crate::dockerfile::ast::Copy;
use crate::dockerfile::diagnostic::{Diagnostic, Span};
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
            let body = heredoc.body();
            let body = if heredoc.expand { self.heredoc_body(state, span, &body)? } else { body };
            inline.push((heredoc.name.clone(), body));
        }
        let is_remote = |source: &&String| copy.add && is_url(source);
        let urls: Vec<String> = all.iter().filter(is_remote).cloned().collect();
        let sources: Vec<String> = all.iter().filter(|source| !is_remote(source)).cloned().collect();
        let destination = destination(&state.config.config.working_dir, &wanted);
        let many = all.len() + inline.len() > 1;
        if many && !destination.ends_with('/') {
            let text = format!("{name} with more than one source needs a destination that ends with /");
            return Err(Diagnostic::new(span, text).at(&copy.destination));
        }
        if let Some(url) = urls.iter().find(|url| is_git(url)) {
            return Err(Diagnostic::new(span, "ADD of a git repository is not supported yet").at(url));
        }
        if checksum.is_some() && urls.is_empty() {
            return Err(Diagnostic::new(span, "--checksum can only be used with a URL").at("--checksum"));
        }
        if checksum.is_some() && urls.len() > 1 {
            return Err(Diagnostic::new(span, "--checksum can only be used with one URL").at("--checksum"));
        }
        let input = names.input(copy.from.as_deref(), span)?;
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

    /// Variables in a heredoc: quotes are text, only `$` and the escape mean something.
    fn heredoc_body(&mut self, state: &State, span: Span, body: &str) -> Result<String, Diagnostic> {
        // Inside double quotes only `"` would end the text: hide it behind the escape, as the lexer undoes that.
        let escape = self.lexer.escape;
        let quoted = format!("\"{}\"", body.replace('"', &format!("{escape}\"")));
        self.word(state, span, &quoted)
    }
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
    ["http://", "https://", "git://", "git@", "ssh://"].iter().any(|scheme| source.starts_with(scheme))
}

fn is_git(url: &str) -> bool {
    let plain = url.split('#').next().unwrap_or(url);
    !url.starts_with("http") || plain.ends_with(".git")
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
