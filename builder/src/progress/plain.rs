//! Progress as lines, for logs and programs.

use std::collections::HashMap;
use std::time::Instant;

use super::{Event, Inbox, noticed, seconds};

/// One line an event, each with its step's number.
pub(super) fn show(inbox: &Inbox) {
    let mut started: HashMap<usize, Instant> = HashMap::new();
    for (at, event) in inbox {
        let since = |step: &usize| started.get(step).map_or_else(String::new, |begin| seconds(at - *begin));
        match &event {
            Event::Started { step, title } => {
                eprintln!("#{} {title}", step + 1);
                started.insert(*step, at);
            }
            Event::Cached { step, title } => eprintln!("#{0} {title}\n#{0} CACHED", step + 1),
            Event::Log { step, line } => eprintln!("#{} {} {line}", step + 1, since(step)),
            Event::Told { step, lines } => lines.iter().for_each(|line| eprintln!("#{} ? {line}", step + 1)),
            Event::Done { step, .. } => eprintln!("#{} DONE {}", step + 1, since(step)),
            Event::Failed { step, error } => eprintln!("#{} ERROR: {error}", step + 1),
            Event::Note(text) => eprintln!("{text}"),
            Event::Notice(text) => eprintln!("{}", noticed(text)),
            Event::Planned { .. } => {}
        }
    }
}

/// One JSON object a line on standard error.
pub(super) fn show_json(inbox: &Inbox) {
    let begin = Instant::now();
    for (at, event) in inbox {
        let time = at.saturating_duration_since(begin).as_millis() as u64;
        let value = match event {
            Event::Started { step, title } => {
                serde_json::json!({"event": "started", "step": step + 1, "name": title})
            }
            Event::Cached { step, title } => {
                serde_json::json!({"event": "cached", "step": step + 1, "name": title})
            }
            Event::Log { step, line } => serde_json::json!({"event": "log", "step": step + 1, "text": line}),
            Event::Told { step, lines } => {
                serde_json::json!({"event": "explained", "step": step + 1, "reasons": lines})
            }
            Event::Planned { steps } => serde_json::json!({"event": "planned", "steps": steps}),
            Event::Done { step, bytes } => {
                serde_json::json!({"event": "done", "step": step + 1, "bytes": bytes})
            }
            Event::Failed { step, error } => {
                serde_json::json!({"event": "failed", "step": step + 1, "error": error})
            }
            Event::Note(text) => serde_json::json!({"event": "note", "text": text}),
            Event::Notice(text) => serde_json::json!({"event": "notice", "text": text}),
        };
        let mut object = value;
        object["ms"] = time.into();
        eprintln!("{object}");
    }
}
