//! What a failed runtime said, as the user will read it.

use std::path::Path;

use crate::bundle::read_limited;

/// Largest log that is searched for the error.
const LOG_LIMIT: u64 = 4 << 20;
/// Longest message that is passed on.
const MESSAGE_LIMIT: usize = 16 << 10;

#[derive(serde::Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The last line of level `error` in a runtime's JSON log; lines that are not JSON are passed over.
///
/// Only what lies behind `from` counts: before it is what earlier calls said.
pub fn last_error(log: &Path, from: u64) -> Result<Option<String>, std::io::Error> {
    let bytes = read_limited(log, LOG_LIMIT)?;
    let from = usize::try_from(from).unwrap_or(0).min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[from..]);
    let errors = text.lines().rev().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let message = errors.into_iter().find(|line| line.level == "error").map(|line| line.msg);
    Ok(message.map(|mut message| {
        let end = (0..=MESSAGE_LIMIT.min(message.len())).rev().find(|&at| message.is_char_boundary(at));
        message.truncate(end.unwrap_or(0));
        message
    }))
}

/// A failed call where nothing but its status and output is known.
pub fn plain_text(runtime: &str, status: i32, output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output);
    let ended =
        if status > 128 { format!("signal {}", status - 128) } else { format!("exit status {status}") };
    format!("{runtime} did not terminate successfully: {ended}: {}", output.trim_end())
}

/// The text for a runtime call that failed: the runtime's own words where it left some.
pub fn outcome_text(prefix: &str, plain: &str, log: &Path, from: u64) -> String {
    match last_error(log, from) {
        Ok(Some(message)) => format!("{prefix}: {message}"),
        Ok(None) => format!("{prefix}: {plain}"),
        Err(error) => format!("{prefix}: unable to retrieve OCI runtime error ({error}): {plain}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_error_line_becomes_the_message() {
        let dir = std::env::temp_dir().join(format!("hull-shim-log-{}", std::process::id()));
        std::fs::write(
            &dir,
            "{\"level\":\"error\",\"msg\":\"first\"}\nnot json\n{\"level\":\"error\",\"msg\":\"last\"}\n\
             {\"level\":\"info\",\"msg\":\"later\"}\n",
        )
        .unwrap();
        assert_eq!(last_error(&dir, 0).unwrap().as_deref(), Some("last"));
        assert_eq!(outcome_text("cannot", "plain", &dir, 0), "cannot: last");
        let size = std::fs::metadata(&dir).unwrap().len();
        assert_eq!(outcome_text("cannot", "plain", &dir, size), "cannot: plain");
        assert_eq!(plain_text("hull", 137, b"said\n"), "hull did not terminate successfully: signal 9: said");
        std::fs::remove_file(&dir).unwrap();
        let text = outcome_text("cannot", "plain", &dir, 0);
        assert!(text.starts_with("cannot: unable to retrieve OCI runtime error (No such file"), "{text}");
    }
}
