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

/// What CRIU calls an error and goes on after: a caller without CAP_SYS_RESOURCE meets it each time.
const HARMLESS: &str = "rlimit: Can't setup RLIMIT_NOFILE for self";

/// The lines that tell of errors at the end of the log `name` in `directory`, or where there are none `otherwise` and the
/// last lines. Without a log that is all.
pub fn last_errors(directory: BorrowedFd<'_>, name: &str, otherwise: &str) -> String {
    let text =
        open_regular(directory, name, false).map_or_else(|_| String::new(), |file| end_of(file.as_fd()));
    if errors_in(&text).next().is_some() {
        return choose(&text);
    }
    [otherwise, &choose(&text)].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

/// The lines that tell of errors at the end of an open file, or its last lines.
pub fn last_lines(file: BorrowedFd<'_>) -> String {
    choose(&end_of(file))
}

fn end_of(file: BorrowedFd<'_>) -> String {
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
    String::from_utf8_lossy(&bytes[..filled]).into_owned()
}

/// Lines of errors before others; without the seconds in front.
fn choose(text: &str) -> String {
    let errors: Vec<&str> = errors_in(text).collect();
    if errors.is_empty() {
        let lines: Vec<&str> = lines_of(text).collect();
        return lines[lines.len().saturating_sub(TOLD)..].join("; ");
    }
    if errors.len() <= TOLD {
        return errors.join("; ");
    }
    let last = errors.len() - (TOLD - FIRST);
    format!("{}; ...; {}", errors[..FIRST].join("; "), errors[last..].join("; "))
}

fn errors_in(text: &str) -> impl Iterator<Item = &str> {
    lines_of(text).filter(|line| line.contains("Error") && !line.contains(HARMLESS))
}

fn lines_of(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(without_time).filter(|line| !line.is_empty())
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
    fn what_criu_goes_on_after_is_no_error() {
        let harmless =
            "(00.1) Error (util.c:9): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n";
        assert_eq!(choose(&format!("{harmless}(00.2) Error (a.c:1): e\n")), "Error (a.c:1): e");
    }

    #[test]
    fn without_errors_the_last_lines_are_told() {
        let log = (1..=9).map(|number| format!("line {number}\n")).collect::<String>();
        assert_eq!(choose(&log), "line 4; line 5; line 6; line 7; line 8; line 9");
    }
}
