//! Progress on a terminal: finished steps scroll away, running ones stay below with their times and last lines.

use std::collections::BTreeMap;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::tail::Tail;
use super::{Event, Inbox, seconds};

/// Lines of output shown under a running step.
const SHOWN: usize = 4;

struct Running {
    title: String,
    begin: Instant,
    tail: Tail,
}

#[derive(Default)]
struct View {
    running: BTreeMap<usize, Running>,
    drawn: usize,
}

/// Shows events as they come and redraws the running steps.
pub(super) fn show(inbox: &Inbox) {
    let mut view = View::default();
    loop {
        match inbox.recv_timeout(Duration::from_millis(100)) {
            Ok((at, event)) => view.take(at, event),
            Err(RecvTimeoutError::Timeout) => view.draw(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    view.clear();
}

impl View {
    fn take(&mut self, at: Instant, event: Event) {
        match event {
            Event::Started { step, title } => {
                self.running.insert(step, Running { title, begin: at, tail: Tail::default() });
            }
            Event::Log { step, line } => {
                if let Some(running) = self.running.get_mut(&step) {
                    running.tail.push(line);
                }
            }
            Event::Cached { title, .. } => self.print(&format!(" cached  {title}")),
            Event::Told { lines, .. } => {
                lines.iter().for_each(|line| self.print(&format!("         ? {line}")))
            }
            Event::Done { step } => {
                if let Some(done) = self.running.remove(&step) {
                    self.print(&format!(" {:>6}  {}", seconds(at - done.begin), done.title));
                }
            }
            Event::Failed { step, error } => {
                if let Some(failed) = self.running.remove(&step) {
                    failed.tail.told(&error).for_each(|line| self.print(&format!("         | {line}")));
                    self.print(&format!(" failed  {}: {error}", failed.title));
                }
            }
            Event::Note(text) => self.print(&text),
        }
        self.draw();
    }

    fn print(&mut self, line: &str) {
        self.clear();
        eprintln!("{line}");
    }

    fn clear(&mut self) {
        if self.drawn > 0 {
            eprint!("\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    fn draw(&mut self) {
        self.clear();
        for running in self.running.values() {
            eprintln!("{}", cut(&format!(" {:>6}… {}", seconds(running.begin.elapsed()), running.title)));
            let shown = running.tail.last(SHOWN);
            self.drawn += 1 + shown.len();
            shown.for_each(|line| eprintln!("{}", cut(&format!("         | {line}"))));
        }
    }
}

/// What fits in one line of a narrow terminal, control characters taken out.
fn cut(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).take(79).collect()
}
