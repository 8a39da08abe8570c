//! Progress on a terminal: finished steps scroll away, running ones stay below with their times and last lines.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::tail::Tail;
use super::{Event, Inbox, noticed, seconds};
use crate::host;

/// Most lines of output shown under a running step.
const SHOWN: usize = 4;
/// How often the running steps are drawn again while much happens.
const PAUSE: Duration = Duration::from_millis(50);
/// How often their times are.
const TICK: Duration = Duration::from_millis(100);

/// Shows events as they come and redraws the running steps.
pub(super) fn show(inbox: &Inbox) {
    let mut view = View::new(Instant::now());
    let mut last = Instant::now();
    loop {
        let drawn = match inbox.recv_timeout(TICK) {
            Ok((at, event)) => {
                view.take(at, event);
                last.elapsed() >= PAUSE || view.has_lines()
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if drawn {
            last = Instant::now();
            write(&view.frame(last, screen()));
        }
    }
    write(&view.end(Instant::now()));
}

/// In one piece, so that nobody sees a half.
fn write(text: &str) {
    // Who has closed the terminal sees nothing anyway.
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// Lines and columns of the terminal; where it tells none, the usual ones.
fn screen() -> (usize, usize) {
    let size = hull_sys::tty::window_size(std::io::stderr().as_fd()).ok();
    let size = size.map(|size| (usize::from(size.rows), usize::from(size.columns)));
    size.filter(|(rows, columns)| *rows > 0 && *columns > 0).unwrap_or((24, 80))
}

struct Running {
    title: String,
    begin: Instant,
    tail: Tail,
}

/// What is on the screen, and what is to come.
struct View {
    begin: Instant,
    steps: usize,
    done: usize,
    cached: usize,
    running: BTreeMap<usize, Running>,
    /// Whole lines that are yet to be written above the running steps.
    lines: String,
    /// Lines below them that the next frame takes away.
    drawn: usize,
}

impl View {
    fn new(begin: Instant) -> Self {
        let (running, lines) = (BTreeMap::new(), String::new());
        Self { begin, steps: 0, done: 0, cached: 0, running, lines, drawn: 0 }
    }

    fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    fn take(&mut self, at: Instant, event: Event) {
        match event {
            Event::Planned { steps } => (self.steps, self.done, self.cached) = (steps, 0, 0),
            Event::Started { step, title } => {
                self.running.insert(step, Running { title, begin: at, tail: Tail::default() });
            }
            Event::Log { step, line } => {
                if let Some(running) = self.running.get_mut(&step) {
                    running.tail.push(line);
                }
            }
            Event::Cached { title, .. } => {
                self.done += 1;
                self.cached += 1;
                self.print(&format!(" cached  {title}"));
            }
            Event::Told { lines, .. } => {
                lines.iter().for_each(|line| self.print(&format!("         ? {line}")))
            }
            Event::Done { step, bytes } => {
                self.done += 1;
                if let Some(done) = self.running.remove(&step) {
                    let size = if bytes > 0 { format!(" +{}", host::size(bytes)) } else { String::new() };
                    self.print(&format!(" {:>6}  {}{size}", seconds(at - done.begin), done.title));
                }
            }
            Event::Failed { step, error } => {
                if let Some(failed) = self.running.remove(&step) {
                    failed.tail.told(&error).for_each(|line| self.print(&format!("         | {line}")));
                    self.print(&format!(" failed  {}: {error}", failed.title));
                }
            }
            Event::Note(text) => self.print(&text),
            Event::Notice(text) => self.print(&noticed(&text)),
        }
    }

    fn print(&mut self, line: &str) {
        self.lines.push_str(line);
        self.lines.push('\n');
    }

    /// What changes the screen into what it is to be now.
    fn frame(&mut self, now: Instant, (rows, columns): (usize, usize)) -> String {
        let mut text = self.cleared();
        let lines = self.running_lines(now, rows.saturating_sub(1));
        self.drawn = lines.len();
        if !lines.is_empty() {
            // Without wrapping (DECAWM) a line is one line, however wide its letters are.
            text.push_str("\x1b[?7l");
            for line in lines {
                text.extend(line.chars().filter(|c| !c.is_control()).take(columns));
                text.push('\n');
            }
            text.push_str("\x1b[?7h");
        }
        text
    }

    /// The last frame: nothing runs any more.
    fn end(&mut self, now: Instant) -> String {
        let took = seconds(now - self.begin);
        if self.steps > 0 && self.done == self.steps {
            self.print(&format!(" {took:>6}  done: {} of {} steps from the cache", self.cached, self.steps));
        }
        self.running.clear();
        self.cleared()
    }

    /// Takes the running steps away and puts the lines there that stay.
    fn cleared(&mut self) -> String {
        let up = if self.drawn > 0 { format!("\x1b[{}A\r\x1b[J", self.drawn) } else { String::new() };
        self.drawn = 0;
        up + &std::mem::take(&mut self.lines)
    }

    /// At most `most` lines: how far the build is, then each running step with as many lines of its output as fit.
    fn running_lines(&self, now: Instant, most: usize) -> Vec<String> {
        if self.running.is_empty() || most == 0 {
            return Vec::new();
        }
        let mut lines =
            vec![format!(" {:>6}  {} of {} steps done", seconds(now - self.begin), self.done, self.steps)];
        let room = most - 1;
        let each = (room / self.running.len()).saturating_sub(1).min(SHOWN);
        for running in self.running.values() {
            lines.push(format!(" {:>6}… {}", seconds(now - running.begin), running.title));
            lines.extend(running.tail.last(each).map(|line| format!("         | {line}")));
        }
        if lines.len() > most && most > 1 {
            lines.truncate(most - 1);
            lines.push(format!("         and {} more", self.running.len() + 2 - most));
        }
        lines.truncate(most);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(running: usize, begin: Instant) -> View {
        let mut view = View::new(begin);
        view.take(begin, Event::Planned { steps: 9 });
        for step in 0..running {
            view.take(begin, Event::Started { step, title: format!("step {step}{}", " ".repeat(step * 9)) });
            (0..9).for_each(|line| view.take(begin, Event::Log { step, line: format!("line {line}") }));
        }
        view
    }

    #[test]
    fn running_steps_are_drawn_again_and_finished_ones_stay_above_them() {
        let begin = Instant::now();
        let later = begin + Duration::from_millis(1500);
        let mut view = view(1, begin);
        let block = |done: usize, time: &str| {
            let tail: String = (5..9).map(|line| format!("         | line {line}\n")).collect();
            format!("\x1b[?7l   {time}  {done} of 9 steps done\n   {time}… step 0\n{tail}\x1b[?7h")
        };
        assert_eq!(view.frame(begin, (24, 80)), block(0, "0.0s"));
        view.take(later, Event::Cached { step: 5, title: "step 5".to_owned() });
        view.take(later, Event::Started { step: 6, title: "step 6".to_owned() });
        view.take(later, Event::Done { step: 6, bytes: 1_230_000 });
        view.take(later, Event::Notice("by the way".to_owned()));
        let above =
            "\x1b[6A\r\x1b[J cached  step 5\n   0.0s  step 6 +1.23MB\nhull-build: notice: by the way\n";
        assert_eq!(view.frame(later, (24, 80)), format!("{above}{}", block(2, "1.5s")));
        view.take(later, Event::Done { step: 0, bytes: 0 });
        assert_eq!(view.end(later), "\x1b[6A\r\x1b[J   1.5s  step 0\n", "not all of the steps");
    }

    #[test]
    fn no_screen_is_too_small() {
        let begin = Instant::now();
        for running in 0..8 {
            for rows in 1..20 {
                let mut view = view(running, begin);
                let text = view.frame(begin, (rows, 24)).replace("\x1b[?7l", "").replace("\x1b[?7h", "");
                let count = text.lines().count();
                assert!(count < rows && count == view.drawn, "{running} {rows}: {text}");
                assert!(text.lines().all(|line| line.chars().count() <= 24), "{text}");
                let more =
                    text.lines().find_map(|line| line.trim().strip_prefix("and ")?.strip_suffix(" more"));
                let more: usize = more.map_or(0, |number| number.parse().unwrap());
                let shown = text.matches('…').count();
                assert!(rows < 3 || shown + more == running, "{running} {rows}: {text}");
            }
        }
    }

    #[test]
    fn a_build_that_went_well_ends_with_a_line_of_all() {
        let begin = Instant::now();
        let mut view = View::new(begin);
        view.take(begin, Event::Planned { steps: 2 });
        view.take(begin, Event::Cached { step: 0, title: "a".to_owned() });
        view.take(begin, Event::Started { step: 1, title: "b".to_owned() });
        view.take(begin, Event::Done { step: 1, bytes: 5 });
        let end = begin + Duration::from_secs(2);
        assert_eq!(view.end(end), " cached  a\n   0.0s  b +5B\n   2.0s  done: 1 of 2 steps from the cache\n");
    }
}
