//! Log lines as runc writes them: `time level msg`, as text or JSON, to `--log` or standard error.
//!
//! Callers parse the last line with level `error` after a failure; the JSON form carries the structured error beside it.

use crate::error::{Code, Context, Error, Result};
use crate::output;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A fifo without a reader is an error, not a wait.
const NONBLOCK: i32 = hull_sys::fs::OFlags::NONBLOCK.bits().cast_signed();

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `time="..." level=... msg="..."`.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// Reads the option's value.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "text" | "" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(Error::new(Code::Usage, format!("invalid log-format: {other}"))),
        }
    }
}

/// Severity, with logrus' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// With `--debug` only.
    Debug,
    /// Remarks.
    Info,
    /// Something the user should know.
    Warning,
    /// The command failed.
    Error,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// The level with this number, as the link carries it.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Debug,
            1 => Self::Info,
            2 => Self::Warning,
            _ => Self::Error,
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    format: Format,
    least: Level,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Error>,
}

impl Log {
    /// Opens the log: `path` is appended to, or standard error is used.
    pub fn open(path: Option<&Path>, format: Format, debug: bool) -> Result<Self> {
        let file = match path {
            None => None,
            Some(path) => Some(
                File::options()
                    .append(true)
                    .create(true)
                    .mode(0o644)
                    .custom_flags(NONBLOCK)
                    .open(path)
                    .context(|| format!("open log file {}", path.display()))?,
            ),
        };
        Ok(Self { file, format, least: if debug { Level::Debug } else { Level::Info } })
    }

    /// Writes one line.
    pub fn write(&self, level: Level, text: &str) {
        if level >= self.least {
            self.line(level, text, None);
        }
    }

    /// Writes the error that ends the command; a person without a log file gets it in plain words on standard error.
    pub fn error(&self, error: &Error) {
        self.line(Level::Error, &error.message, Some(error));
        if self.file.is_some() {
            // Callers that do not read the log file show our standard error.
            output::error_line(&error.message);
        } else if let Some(hint) = &error.hint
            && self.format == Format::Text
            && hull_sys::tty::is_tty(std::io::stderr().as_fd())
        {
            // For a person only: programs count the lines.
            output::error_line(format_args!("hint: {hint}"));
        }
    }

    fn line(&self, level: Level, text: &str, error: Option<&Error>) {
        let time = timestamp(SystemTime::now());
        let mut line = match self.format {
            Format::Text => format!("time=\"{time}\" level={} msg={}", level.name(), quoted(text)),
            Format::Json => serde_json::to_string(&Line { level: level.name(), msg: text, time, error })
                .unwrap_or_else(|_| format!("{{\"level\":\"error\",\"msg\":{text:?}}}")),
        };
        line.push('\n');
        // A log that cannot be written (full disk, reader gone) must not lose the container.
        let _lost = match &self.file {
            Some(file) => (&mut &*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

/// Quotes as logrus does: always in quotes, with the usual escapes.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // A terminal would act on these: a hook's output and names of a bundle end up here.
            other if other.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(other))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// RFC 3339 in UTC, whole seconds.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format_seconds(since.as_secs(), None)
}

/// RFC 3339 in UTC with nanoseconds, trailing zeros trimmed as Go does.
pub fn timestamp_nanoseconds(seconds: u64, nanoseconds: u32) -> String {
    format_seconds(seconds, Some(nanoseconds))
}

fn format_seconds(seconds: u64, nanoseconds: Option<u32>) -> String {
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let fraction = match nanoseconds {
        None | Some(0) => String::new(),
        Some(nanoseconds) => {
            let digits = format!("{nanoseconds:09}");
            format!(".{}", digits.trim_end_matches('0'))
        }
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Days since 1970-01-01 to year, month, day in the proleptic Gregorian calendar.
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_gregorian_calendar() {
        assert_eq!(format_seconds(0, None), "1970-01-01T00:00:00Z");
        assert_eq!(format_seconds(951_782_400, None), "2000-02-29T00:00:00Z");
        assert_eq!(format_seconds(1_795_257_296, Some(120_000_000)), "2026-11-21T10:34:56.12Z");
    }

    #[test]
    fn text_lines_quote_like_logrus() {
        assert_eq!(quoted("a \"b\"\n"), "\"a \\\"b\\\"\\n\"");
    }
}
