//! What is wrong with a Dockerfile, where, and what the writer may have meant.

use std::fmt;

/// Lines of the Dockerfile, counted from 1, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First line.
    pub first: usize,
    /// Last line.
    pub last: usize,
}

/// One error or warning: its place, its text and, where one can be told, a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The lines it speaks of.
    pub span: Span,
    /// The word of those lines that is meant, underlined in the excerpt.
    pub word: Option<String>,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// What to try instead.
    pub hint: Option<String>,
    /// The name of the lint rule, for warnings.
    pub rule: Option<&'static str>,
}

impl Diagnostic {
    /// An error about these lines.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, word: None, message: message.into(), hint: None, rule: None }
    }

    /// The same, underlining `word`.
    #[must_use]
    pub fn at(mut self, word: impl Into<String>) -> Self {
        self.word = Some(word.into());
        self
    }

    /// The same, with a hint.
    #[must_use]
    pub fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    /// The same as the finding of a lint rule.
    #[must_use]
    pub fn rule(mut self, rule: &'static str) -> Self {
        self.rule = Some(rule);
        self
    }

    /// The text a person reads: place, message, excerpt with the word underlined, hint.
    ///
    /// `name` is what the file is called, `source` its whole text.
    pub fn render(&self, name: &str, source: &str) -> String {
        let mut text = format!("{name}:{}: {}", self.span.first, self.message);
        if let Some(rule) = self.rule {
            text.push_str(&format!(" [{rule}]"));
        }
        text.push('\n');
        self.excerpt(source, &mut text);
        if let Some(hint) = &self.hint {
            text.push_str(&format!("     = {hint}\n"));
        }
        text
    }

    fn excerpt(&self, source: &str, text: &mut String) {
        let from = self.span.first.saturating_sub(2).max(1);
        let last = self.span.last.min(self.span.first + 8);
        let mut underlined = false;
        for (index, line) in source.lines().enumerate().skip(from - 1).take(last + 2 - from) {
            let number = index + 1;
            let line: String = line.chars().filter(|c| !c.is_control() || *c == '\t').take(200).collect();
            let inside = (self.span.first..=self.span.last).contains(&number);
            text.push_str(&format!("{} {number:>3} | {line}\n", if inside { '>' } else { ' ' }));
            let place = self.word.as_deref().and_then(|word| line.find(word).map(|at| (at, word)));
            if let (true, false, Some((at, word))) = (inside, underlined, place) {
                let indent: String = line[..at].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                text.push_str(&format!("      | {indent}{}\n", "^".repeat(word.chars().count())));
                underlined = true;
            }
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.span.first, self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// "did you mean `near`?", when one of the `known` words is near enough to `word`.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate))
        .min_by_key(|(far, _)| *far)
        .filter(|(far, candidate)| *far > 0 && *far <= 2.min(candidate.chars().count() / 2))
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// Number of letters to insert, delete, replace or swap to turn one word into the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().take(64).collect(), to.chars().take(64).collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let same = usize::from(from[i - 1] != to[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["RUN", "COPY", "ENTRYPOINT", "ENV"];
        for (word, wanted) in [
            ("RUNN", Some("did you mean `RUN`?")),
            ("CPOY", Some("did you mean `COPY`?")),
            ("entrypiont", Some("did you mean `ENTRYPOINT`?")),
            ("FOOBAR", None),
            ("XX", None),
        ] {
            assert_eq!(did_you_mean(word, known).as_deref(), wanted, "{word}");
        }
    }

    #[test]
    fn rendering_shows_place_excerpt_underline_and_hint() {
        let found = Diagnostic::new(Span { first: 2, last: 2 }, "unknown instruction: RUNN")
            .at("RUNN")
            .hint(Some("did you mean `RUN`?".into()));
        assert_eq!(
            found.render("Dockerfile", "FROM scratch\nRUNN echo\n"),
            "Dockerfile:2: unknown instruction: RUNN\n    1 | FROM scratch\n>   2 | RUNN echo\n      | ^^^^\n     = did you mean `RUN`?\n"
        );
    }
}
