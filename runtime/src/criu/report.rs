//! The end of CRIU's log: what went wrong, in its own words.
//!
//! Of many errors the first are the cause, and the last say what came of it.

use crate::files::open_regular;
use hull_sys::io::read_at;
use std::os::fd::{AsFd, BorrowedFd};

/// How much of a log's end is looked at, in bytes (R19).
const LOOKED_AT: u64 = 64 << 10;

/// How many lines are told.
const TOLD: usize = 6;

/// How many of them are the first errors, where there are more.
const FIRST: usize = 2;

/// The lines that tell of errors at the end of the log `name` in `directory`; empty when there are none, or no log.
pub fn last_errors(directory: BorrowedFd<'_>, name: &str) -> String {
    open_regular(directory, name, false).map_or_else(|_| String::new(), |file| last_lines(file.as_fd()))
}

/// The same of an open file.
pub fn last_lines(file: BorrowedFd<'_>) -> String {
    let Ok(stat) = hull_sys::fs::fstat(file) else { return String::new() };
    let length = u64::try_from(stat.st_size).unwrap_or_default();
    let mut bytes = vec![0; usize::try_from(length.min(LOOKED_AT)).unwrap_or_default()];
    let mut filled = 0;
    let start = length.saturating_sub(LOOKED_AT);
    while filled < bytes.len() {
        match read_at(file, &mut bytes[filled..], start + filled as u64) {
            Ok(count) if count > 0 => filled += count,
            _ => break,
        }
    }
    choose(&String::from_utf8_lossy(&bytes[..filled]))
}

/// Lines of errors before others; without the seconds in front.
fn choose(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(without_time).filter(|line| !line.is_empty()).collect();
    let errors: Vec<&str> = lines.iter().copied().filter(|line| line.contains("Error")).collect();
    if errors.is_empty() {
        return lines[lines.len().saturating_sub(TOLD)..].join("; ");
    }
    if errors.len() <= TOLD {
        return errors.join("; ");
    }
    let last = errors.len() - (TOLD - FIRST);
    format!("{}; ...; {}", errors[..FIRST].join("; "), errors[last..].join("; "))
}

/// `(00.012345)` begins most lines, and `    42: ` those of a process.
fn without_time(line: &str) -> &str {
    let line = match line.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((time, rest)) if time.chars().all(|c| c.is_ascii_digit() || c == '.') => rest,
        _ => line,
    };
    line.trim()
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn errors_are_told_without_their_times_and_in_order() {
        let log = "(00.000001) Version: 4.2\n(00.01) Error (a.c:1): first\n(00.02) fine\n(00.03)      7: Error (b.c:2): second\n";
        assert_eq!(choose(log), "Error (a.c:1): first; 7: Error (b.c:2): second");
    }

    #[test]
    fn of_many_errors_the_first_and_the_last_are_told() {
        let log = (1..=9)
            .map(|number| format!("(00.1) Error (a.c:{number}): e\n(00.1) fine\n"))
            .collect::<String>();
        let told: Vec<_> = [1, 2, 6, 7, 8, 9].map(|number| format!("Error (a.c:{number}): e")).into();
        assert_eq!(choose(&log), format!("{}; ...; {}", told[..2].join("; "), told[2..].join("; ")));
    }

    #[test]
    fn without_errors_the_last_lines_are_told() {
        let log = (1..=9).map(|number| format!("line {number}\n")).collect::<String>();
        assert_eq!(choose(&log), "line 4; line 5; line 6; line 7; line 8; line 9");
    }
}
