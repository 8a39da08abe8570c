//! Lexer: text becomes logical lines. Comments, continuations, parser directives and heredoc bodies end here.

use super::diagnostic::{Diagnostic, Span};
use super::heredoc::{self, Heredoc};

/// Longest Dockerfile read, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// Parser directives: the comments before anything else that steer the parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The character that escapes and continues lines: a backslash or a backtick.
    pub escape: char,
    /// The frontend image asked for: noted, never fetched.
    pub syntax: Option<String>,
    /// Lint settings: `skip=...;error=true`.
    pub check: Option<String>,
}

/// One instruction's text: continuations joined, comments taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logical {
    /// Where it stands, its heredocs included.
    pub span: Span,
    /// The instruction's name as written.
    pub name: String,
    /// Everything after the name, trimmed.
    pub rest: String,
    /// The bodies of its heredocs, in order.
    pub heredocs: Vec<Heredoc>,
    /// Whether an empty line stood inside a continuation.
    pub empty_continuation: bool,
    /// The comment on the line before it, without its mark.
    pub comment: Option<String>,
}

/// Splits a Dockerfile into its directives and logical lines.
pub fn split(source: &str) -> Result<(Directives, Vec<Logical>), Diagnostic> {
    let start = Span { first: 1, last: 1 };
    if source.len() > MAX_BYTES {
        return Err(Diagnostic::new(start, format!("a Dockerfile is at most {MAX_BYTES} bytes long")));
    }
    if let Some(at) = source.find('\0') {
        let line = source[..at].lines().count().max(1);
        return Err(Diagnostic::new(Span { first: line, last: line }, "the file holds a NUL byte"));
    }
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let lines: Vec<&str> = source.split_inclusive('\n').collect();
    let directives = read_directives(&lines)?;
    let mut cursor = Cursor { lines: &lines, next: 0, escape: directives.escape };
    let mut logical = Vec::new();
    while let Some(line) = cursor.next_logical()? {
        logical.push(line);
    }
    Ok((directives, logical))
}

fn read_directives(lines: &[&str]) -> Result<Directives, Diagnostic> {
    let mut directives = Directives { escape: '\\', syntax: None, check: None };
    let mut escape_seen = false;
    for (index, line) in lines.iter().enumerate() {
        let Some((name, value)) = directive(line) else { break };
        let span = Span { first: index + 1, last: index + 1 };
        let again =
            || Diagnostic::new(span, format!("only one {name} parser directive can be used")).at(&name);
        match name.as_str() {
            "escape" if escape_seen => return Err(again()),
            "syntax" if directives.syntax.is_some() => return Err(again()),
            "check" if directives.check.is_some() => return Err(again()),
            "escape" => {
                escape_seen = true;
                directives.escape = match value.as_str() {
                    "\\" => '\\',
                    "`" => '`',
                    _ => {
                        let text = format!("invalid escape token '{value}', must be ` or \\");
                        return Err(Diagnostic::new(span, text).at(value));
                    }
                };
            }
            "syntax" => directives.syntax = Some(value),
            "check" => directives.check = Some(value),
            // An unknown directive is a comment, and a comment ends the directives.
            _ => break,
        }
    }
    Ok(directives)
}

/// `# name = value`, the name in lower case.
fn directive(line: &str) -> Option<(String, String)> {
    let (name, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let name = name.trim();
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric());
    plain.then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
}

struct Cursor<'a> {
    lines: &'a [&'a str],
    next: usize,
    escape: char,
}

impl Cursor<'_> {
    fn next_logical(&mut self) -> Result<Option<Logical>, Diagnostic> {
        while self.next < self.lines.len() {
            let first = self.next + 1;
            if let Some((text, empty_continuation)) = self.joined() {
                let mut logical = self.logical(first, &text, empty_continuation)?;
                logical.comment = first.checked_sub(2).and_then(|before| comment(self.lines[before]));
                return Ok(Some(logical));
            }
        }
        Ok(None)
    }

    /// Takes one line and all that continue it; `None` when nothing but blanks and comments stood there.
    fn joined(&mut self) -> Option<(String, bool)> {
        let line = self.lines[self.next].trim_start();
        self.next += 1;
        if line.starts_with('#') {
            return None;
        }
        let (mut text, mut open) = self.strip_continuation(trim_newline(line));
        let mut empty = false;
        while open && self.next < self.lines.len() {
            let line = trim_newline(self.lines[self.next]);
            self.next += 1;
            if line.trim_start().starts_with('#') {
                continue;
            }
            if line.trim().is_empty() {
                empty = true;
                continue;
            }
            let (more, goes_on) = self.strip_continuation(line);
            text.push_str(&more);
            open = goes_on;
        }
        (!text.trim().is_empty()).then_some((text, empty))
    }

    /// The line without its continuation mark, and whether it had one.
    ///
    /// An escaped escape at the end continues nothing; blanks after the mark are forgiven.
    fn strip_continuation(&self, line: &str) -> (String, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.escape) {
            Some(head) if !head.ends_with(self.escape) => (head.to_owned(), true),
            _ => (line.to_owned(), false),
        }
    }

    fn logical(&mut self, first: usize, text: &str, empty_continuation: bool) -> Result<Logical, Diagnostic> {
        let text = text.trim();
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim().to_owned();
        let mut heredocs = heredoc::announced(name, &rest, self.escape);
        for heredoc in &mut heredocs {
            self.read_body(first, heredoc)?;
        }
        let span = Span { first, last: self.next };
        Ok(Logical { span, name: name.to_owned(), rest, heredocs, empty_continuation, comment: None })
    }

    fn read_body(&mut self, first: usize, heredoc: &mut Heredoc) -> Result<(), Diagnostic> {
        while self.next < self.lines.len() {
            let line = self.lines[self.next];
            self.next += 1;
            if heredoc.push(line) {
                return Ok(());
            }
        }
        let text = format!("unterminated heredoc: no line holds only `{}`", heredoc.name);
        Err(Diagnostic::new(Span { first, last: first }, text).at(&heredoc.name))
    }
}

/// The text of a comment line that is no directive.
fn comment(line: &str) -> Option<String> {
    let text = line.trim().strip_prefix('#')?.trim().to_owned();
    directive(line).is_none().then_some(text).filter(|text| !text.is_empty())
}

fn trim_newline(line: &str) -> &str {
    line.trim_end_matches(['\n', '\r'])
}
