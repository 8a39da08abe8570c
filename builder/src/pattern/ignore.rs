//! `.dockerignore` and `--exclude`: rules in order, the last that fits wins, `!` brings back.

use std::collections::HashMap;

use super::glob::{BadPattern, Glob};
use super::path;

/// One rule with where it came from.
pub(crate) struct Rule {
    /// The text as written.
    pub(crate) text: String,
    /// Its line, counted from 1.
    pub(crate) line: usize,
    brings_back: bool,
    glob: Glob,
}

/// Rules in order.
#[derive(Default)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
    /// The rules that can fit a path by its last byte, which tells most apart.
    by_last_byte: HashMap<u8, Vec<usize>>,
    /// Those that can fit a path that ends with any other byte.
    of_any_end: Vec<usize>,
}

/// Which rules fit a directory: what lies below inherits it.
#[derive(Clone)]
pub(crate) struct Inherited {
    fits: Vec<bool>,
    /// The last of them.
    last: Option<usize>,
}

/// What the rules say of one path.
pub(crate) struct Verdict<'a> {
    /// Whether it is left out.
    pub(crate) ignored: bool,
    /// The rule that decided.
    pub(crate) rule: Option<&'a Rule>,
    /// For a directory: what to pass to its entries.
    pub(crate) inherited: Inherited,
}

impl Ignore {
    /// Reads the text of an ignore file.
    pub(crate) fn parse(text: &str) -> Result<Self, BadPattern> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        Self::from_lines(lines.map(|(index, line)| (index + 1, line)))
    }

    /// The rules of `--exclude` flags.
    pub(crate) fn from_patterns<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Self, BadPattern> {
        Self::from_lines(patterns.enumerate().map(|(index, text)| (index + 1, text)))
    }

    fn from_lines<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Self, BadPattern> {
        let mut rules = Vec::new();
        for (line, text) in lines {
            let trimmed = text.trim();
            let (brings_back, pattern) = match trimmed.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, trimmed),
            };
            if brings_back && pattern.is_empty() {
                return Err(BadPattern::Lone(line));
            }
            let cleaned = path::clean(pattern);
            let pattern = cleaned.trim_start_matches('/');
            if trimmed.is_empty() || pattern.is_empty() || pattern == "." {
                continue;
            }
            rules.push(Rule { text: trimmed.to_owned(), line, brings_back, glob: Glob::new(pattern, true)? });
        }
        Ok(Self::indexed(rules))
    }

    fn indexed(rules: Vec<Rule>) -> Self {
        let ends: Vec<Option<u8>> = rules.iter().map(|rule| rule.glob.last_byte()).collect();
        let can_fit = |byte: Option<u8>| {
            let fits = |end: &Option<u8>| end.is_none() || *end == byte;
            ends.iter().enumerate().filter(|(_, end)| fits(end)).map(|(index, _)| index).collect()
        };
        let by_last_byte = ends.iter().flatten().map(|byte| (*byte, can_fit(Some(*byte)))).collect();
        let of_any_end = can_fit(None);
        Self { rules, by_last_byte, of_any_end }
    }

    /// The rules that could fit a path, in order.
    fn candidates(&self, path: &str) -> &[usize] {
        let last = path.as_bytes().last();
        last.and_then(|byte| self.by_last_byte.get(byte)).unwrap_or(&self.of_any_end)
    }

    /// Whether there is no rule.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the root's entries inherit: nothing.
    pub(crate) fn root(&self) -> Inherited {
        Inherited { fits: vec![false; self.rules.len()], last: None }
    }

    /// Judges a path (relative, without leading slash) whose directory's verdict is known.
    pub(crate) fn judge(&self, path: &str, parent: &Inherited) -> Verdict<'_> {
        let mut fits = parent.fits.clone();
        for index in self.candidates(path) {
            fits[*index] = fits[*index] || self.rules[*index].glob.matches(path);
        }
        let last = fits.iter().rposition(|fits| *fits);
        let rule = last.map(|index| &self.rules[index]);
        Verdict {
            ignored: rule.is_some_and(|rule| !rule.brings_back),
            rule,
            inherited: Inherited { fits, last },
        }
    }

    /// Whether a path that nothing lies below is left out.
    pub(crate) fn drops(&self, path: &str, parent: &Inherited) -> bool {
        let later = self.candidates(path).iter().rev().take_while(|index| Some(**index) > parent.last);
        let own = later.copied().find(|index| self.rules[*index].glob.matches(path));
        own.or(parent.last).is_some_and(|index| !self.rules[index].brings_back)
    }

    /// Judges a path on its own, looking at each of its parents.
    pub(crate) fn judge_path(&self, path: &str) -> Verdict<'_> {
        let mut inherited = self.root();
        for (at, _) in path.match_indices('/') {
            inherited = self.judge(&path[..at], &inherited).inherited;
        }
        self.judge(path, &inherited)
    }

    /// Whether an ignored directory must be entered all the same, as a `!` rule may bring something back in it.
    pub(crate) fn must_enter(&self, directory: &str) -> bool {
        self.rules.iter().any(|rule| rule.brings_back && rule.glob.may_match_below(directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_follow_docker() {
        let rows: [(&[&str], &str, bool); 24] = [
            (&["a"], "a", true),
            (&["a"], "a/b", true),
            (&["a"], "b/a", false),
            (&["**/a"], "b/a/c", true),
            (&["*.md", "!README.md"], "README.md", false),
            (&["!README.md", "*.md"], "README.md", true),
            (&["a", "!a/keep"], "a/keep", false),
            (&["a", "!a/keep"], "a/keep/x", false),
            (&["a", "!a/keep"], "a/other", true),
            (&["/a"], "a", true),
            (&["./a/"], "a/x", true),
            (&["  a  "], "a", true),
            (&["# no", "a"], "a", true),
            (&[" # x"], "# x", true),
            (&["*"], "a/b/c", true),
            (&["*", "!a/b"], "a/b/c", false),
            (&["*", "!a/b"], "a/c", true),
            (&["a/*/c"], "a/b/c/d", true),
            (&["a/../b"], "b", true),
            (&["."], "a", false),
            (&[""], "a", false),
            (&["**"], "x", true),
            (&["a/**"], "a", false),
            (&["a/**"], "a/b", true),
        ];
        for (rules, path, wanted) in rows {
            let ignore = Ignore::parse(&rules.join("\n")).unwrap();
            assert_eq!(ignore.judge_path(path).ignored, wanted, "{rules:?} {path}");
            let parent =
                path.rsplit_once('/').map_or_else(|| ignore.root(), |(p, _)| ignore.judge_path(p).inherited);
            assert_eq!(ignore.drops(path, &parent), wanted, "{rules:?} {path}");
        }
        assert!(Ignore::parse("\u{feff}a").unwrap().judge_path("a").ignored, "a byte order mark is allowed");
        assert!(Ignore::parse("[").is_err());
        for lone in ["!", "a\n! \n"] {
            assert!(Ignore::parse(lone).is_err_and(|error| error.to_string().contains("no pattern follows")));
        }
    }

    #[test]
    fn excluded_directories_are_entered_only_for_exceptions() {
        let ignore = Ignore::parse("node_modules\nsrc\n!src/keep/**").unwrap();
        assert!(ignore.must_enter("src") && ignore.must_enter("src/keep"));
        assert!(!ignore.must_enter("node_modules") && !ignore.must_enter("src/other"));
    }

    #[test]
    fn the_deciding_rule_is_named() {
        let ignore = Ignore::parse("# c\n*.o\n!x.o\n").unwrap();
        let rule = ignore.judge_path("x.o").rule.unwrap();
        assert_eq!((rule.line, rule.text.as_str()), (3, "!x.o"));
    }
}
