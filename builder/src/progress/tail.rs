//! The last lines of a step's output, kept for when it fails.

use std::collections::VecDeque;

use crate::error::Error;

/// Most lines kept.
const MOST: usize = 50;

/// The last lines, oldest first.
#[derive(Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    /// How many came before those.
    dropped: usize,
}

impl Tail {
    /// Adds a line.
    pub(super) fn push(&mut self, line: String) {
        self.lines.push_back(line);
        if self.lines.len() > MOST {
            self.lines.pop_front();
            self.dropped += 1;
        }
    }

    /// The last `count` lines.
    pub(super) fn last(&self, count: usize) -> impl ExactSizeIterator<Item = &str> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count)).map(String::as_str)
    }

    /// All that are kept, with a line before them that says what is not; nothing of a step that failed because another did.
    pub(super) fn told(&self, error: &str) -> impl Iterator<Item = String> {
        let more = (self.dropped > 0).then(|| format!("[{} lines before]", self.dropped));
        let is_cause = error != Error::Cancelled.to_string();
        more.into_iter().chain(self.lines.iter().cloned()).filter(move |_| is_cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_the_others_counted() {
        let mut tail = Tail::default();
        (0..MOST + 2).for_each(|number| tail.push(number.to_string()));
        let lines: Vec<String> = tail.told("exit code 1").collect();
        assert_eq!((lines.len(), &*lines[0], &*lines[1]), (MOST + 1, "[2 lines before]", "2"));
        assert_eq!(tail.told("cancelled").count(), 0);
        assert_eq!(tail.last(2).collect::<Vec<_>>(), [(MOST).to_string(), (MOST + 1).to_string()]);
    }
}
