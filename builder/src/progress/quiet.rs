//! No progress: only notices, and what a step said before it failed.

use std::collections::HashMap;

use super::tail::Tail;
use super::{Event, Inbox, noticed};

pub(super) fn show(inbox: &Inbox) {
    let mut tails: HashMap<usize, Tail> = HashMap::new();
    for (_, event) in inbox {
        match event {
            Event::Log { step, line } => tails.entry(step).or_default().push(line),
            Event::Done { step, .. } => drop(tails.remove(&step)),
            Event::Failed { step, error } => {
                let tail = tails.remove(&step).unwrap_or_default();
                tail.told(&error).for_each(|line| eprintln!("{line}"));
            }
            Event::Notice(text) => eprintln!("{}", noticed(&text)),
            Event::Planned { .. }
            | Event::Started { .. }
            | Event::Cached { .. }
            | Event::Told { .. }
            | Event::Note(_) => {}
        }
    }
}
