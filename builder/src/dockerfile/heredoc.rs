//! Heredocs: `<<EOF`, `<<-EOF` (leading tabs go), `<<"EOF"` (nothing is expanded), `3<<EOF` (another fd).

use super::expand::{Lexer, Quotes};

/// One heredoc of RUN, COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, which is also the file's name in COPY.
    pub name: String,
    /// The body: every line with its newline, tabs still there.
    raw: String,
    /// `<<-`: leading tabs of every line go.
    pub chomp: bool,
    /// Whether variables are expanded in it: the word was not quoted.
    pub expand: bool,
}

impl Heredoc {
    /// Takes the next line of the file; true when it was the end mark.
    pub(super) fn push(&mut self, line: &str) -> bool {
        let bare = line.trim_end_matches(['\n', '\r']);
        let bare = if self.chomp { bare.trim_start_matches('\t') } else { bare };
        if bare == self.name {
            return true;
        }
        self.raw.push_str(line);
        false
    }

    /// The body as the file's writer meant it: tabs dropped for `<<-`.
    pub fn body(&self) -> String {
        if !self.chomp {
            return self.raw.clone();
        }
        self.raw.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// The body as it stands in the file, for a shell that drops the tabs itself.
    pub fn raw(&self) -> &str {
        &self.raw
    }
}

/// The heredocs that a line of instruction `name` announces, bodies still empty.
pub(super) fn announced(name: &str, rest: &str, escape: char) -> Vec<Heredoc> {
    let (name, rest) = match name.to_ascii_uppercase().as_str() {
        "ONBUILD" => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        _ => (name, rest),
    };
    if !matches!(name.to_ascii_uppercase().as_str(), "RUN" | "COPY" | "ADD") || is_json_list(rest) {
        return Vec::new();
    }
    let keep = Lexer { escape, quotes: Quotes::Keep };
    let Ok(words) = keep.split(rest) else { return Vec::new() };
    words.iter().filter_map(|word| parse(word, escape)).collect()
}

fn is_json_list(rest: &str) -> bool {
    super::words::json_list(super::words::skip_flags(rest)).is_some()
}

/// Reads one word as a heredoc's announcement; `None` when it is an ordinary word.
pub fn parse(word: &str, escape: char) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, mark) = match rest.strip_prefix('-') {
        Some(mark) => (true, mark),
        None => (false, rest),
    };
    if mark.is_empty() || mark.contains('<') {
        return None;
    }
    // What follows the mark is a command's: the shell gets all of it.
    if (Lexer { escape, quotes: Quotes::Keep }).split(mark).ok()?.len() != 1 {
        return None;
    }
    let quoted = mark.contains(['"', '\'']) || mark.contains(escape);
    let name = Lexer { escape, quotes: Quotes::Drop }.plain(mark).ok()?;
    (!name.is_empty()).then_some(Heredoc { name, raw: String::new(), chomp, expand: !quoted })
}
