//! What a step's command writes, made into lines that are safe to show.

use std::io::{BufRead, BufReader, Read};

use crate::error::{Error, Result};

/// Most bytes of output that one step shows.
const MOST_OUTPUT: usize = 64 << 20;
/// Longest line of output that is shown whole, in bytes.
const LONGEST_LINE: usize = 16 << 10;

/// Passes output on line by line; what goes beyond the bounds is read and dropped.
pub(super) fn read_lines(output: impl Read, lines: &mut dyn FnMut(String)) -> Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, output);
    let (mut total, mut told) = (0, false);
    loop {
        let mut line = Vec::new();
        let count = (&mut reader)
            .take(LONGEST_LINE as u64)
            .read_until(b'\n', &mut line)
            .map_err(Error::io("read the output of", "the command"))?;
        if count == 0 {
            return Ok(());
        }
        total += count;
        if total <= MOST_OUTPUT {
            lines(printable(&line));
        } else if !std::mem::replace(&mut told, true) {
            lines(format!("[the output is longer than {MOST_OUTPUT} bytes: the rest is not shown]"));
        }
    }
}

/// A line without what would move the cursor, colour the text or change the terminal's state. Of a line that was written
/// over and over, as a progress bar is, the last state.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    let last = text.rsplit('\r').next().unwrap_or(text);
    let mut shown = String::with_capacity(last.len());
    let mut rest = last.chars();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => skip_escape(&mut rest),
            '\t' => shown.push(character),
            _ if character.is_control() => {}
            _ => shown.push(character),
        }
    }
    shown
}

/// Skips what follows the escape character: a control sequence, a string, or a sequence of a few bytes (ECMA-48).
fn skip_escape(rest: &mut std::str::Chars<'_>) {
    let mut ahead = rest.clone();
    match ahead.next() {
        Some('[') => {
            // Parameters and intermediate bytes, then one final byte.
            let _final = ahead.find(|c| !(' '..='?').contains(c));
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            // Up to the bell, or the terminator: an escape and a backslash.
            let end = ahead.find(|c| matches!(c, '\x07' | '\x1b'));
            let _backslash = (end == Some('\x1b')).then(|| ahead.next());
        }
        Some(' '..='/') => {
            let _final = ahead.find(|c| !(' '..='/').contains(c));
        }
        _ => {}
    }
    *rest = ahead;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_without_what_moves_or_colours() {
        for (written, shown) in [
            (&b"plain text\n"[..], "plain text"),
            (b"\x1b[1;31merror\x1b[0m: no\r\n", "error: no"),
            (b" 10%\r 50%\r100%\n", "100%"),
            (b"\x1b]0;a title\x07text\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n", "textlink"),
            (b"\x1b(Bset\x1b7 \x1b[2K\x1b[?25lhidden\n", "set hidden"),
            (b"a\tb\x08\x7f\xc2\x9bc\n", "a\tbc"),
            (b"cut in the middle \x1b[3", "cut in the middle "),
            (b"\xff\xfe\n", "\u{fffd}\u{fffd}"),
            (b"\n", ""),
        ] {
            assert_eq!(printable(written), shown, "{}", written.escape_ascii());
        }
    }

    #[test]
    fn long_lines_are_cut_into_several() {
        let mut seen = Vec::new();
        let text = "x".repeat(LONGEST_LINE + 3) + "\ny";
        read_lines(text.as_bytes(), &mut |line| seen.push(line.len())).unwrap();
        assert_eq!(seen, [LONGEST_LINE, 3, 1]);
    }
}
