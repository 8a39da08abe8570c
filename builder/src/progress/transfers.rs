//! Blobs on their way from or to a registry: on a terminal those that move stay below with their bytes, elsewhere there is a
//! line for each that is done.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use hull_image::Descriptor;

use super::{noticed, teller};
use crate::host;

/// How often the blobs that move are drawn again.
const TICK: Duration = Duration::from_millis(100);
/// Columns of a bar, and of a terminal that has room for one.
const BAR: usize = 30;
const WIDE: usize = 76;

/// How transfers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Not at all.
    Nothing,
    /// Those that are done, one a line.
    Lines,
    /// On a terminal, as they go on.
    Live,
}

impl Shown {
    /// As it is fit for standard error.
    pub(crate) fn on_stderr() -> Self {
        if std::io::stderr().is_terminal() { Self::Live } else { Self::Lines }
    }
}

/// The transfers of one image; what moves is taken from the screen with it.
pub(crate) struct Transfers {
    screen: Option<Arc<Screen>>,
    ticker: Option<JoinHandle<()>>,
}

impl Transfers {
    pub(crate) fn new(shown: Shown) -> Self {
        let state = State { is_live: shown == Shown::Live, ..State::default() };
        let screen = (shown != Shown::Nothing)
            .then(|| Arc::new(Screen { state: Mutex::new(state), over: Condvar::new() }));
        let ticker = screen.clone().filter(|_| shown == Shown::Live).and_then(|screen| {
            let own = Arc::clone(&screen);
            *teller() = Some(Arc::new(move |text| own.state().draw(&(noticed(text) + "\n"))));
            // Without a thread the blobs are drawn when one of them begins or ends.
            std::thread::Builder::new().name("transfers".into()).spawn(move || screen.tick()).ok()
        });
        Self { screen, ticker }
    }

    /// Shows that something happens to a blob, until what this returns is dropped.
    pub(crate) fn begin(&self, blob: &Descriptor, doing: &'static str) -> Transfer {
        let at = Arc::new(AtomicU64::new(0));
        let name = blob.digest.encoded().chars().take(12).collect::<String>();
        if let Some(screen) = &self.screen {
            let mut state = screen.state();
            state.rows.push(Row { name: name.clone(), doing, size: blob.size, at: at.clone() });
            state.draw("");
        }
        Transfer { screen: self.screen.clone(), name, at, outcome: None }
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        if let Some(screen) = &self.screen {
            let mut state = screen.state();
            state.is_over = true;
            screen.over.notify_all();
            if state.is_live {
                *teller() = None;
            }
        }
        // A ticker that has panicked has nothing more to draw.
        drop(self.ticker.take().map(JoinHandle::join));
    }
}

/// One blob.
pub(crate) struct Transfer {
    screen: Option<Arc<Screen>>,
    name: String,
    at: Arc<AtomicU64>,
    outcome: Option<String>,
}

impl Transfer {
    /// How many of its bytes have come or gone; to be set by whoever moves them.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        self.at.clone()
    }

    /// Something else happens to it now, with so many bytes; with 0 none are told.
    pub(crate) fn now(&self, doing: &'static str, size: u64) {
        if let Some(screen) = &self.screen {
            let mut state = screen.state();
            if let Some(row) = state.rows.iter_mut().find(|row| Arc::ptr_eq(&row.at, &self.at)) {
                (row.doing, row.size) = (doing, size);
            }
            state.draw("");
        }
    }

    /// What is told of it in the end; of a transfer that fails nothing is.
    pub(crate) fn ends(&mut self, outcome: impl Into<String>) {
        self.outcome = Some(outcome.into());
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(screen) = &self.screen {
            let mut state = screen.state();
            let own = state.rows.iter().position(|row| Arc::ptr_eq(&row.at, &self.at));
            own.map(|own| state.rows.remove(own));
            let line = self.outcome.take().map(|outcome| format!("{}: {outcome}\n", self.name));
            state.draw(&line.unwrap_or_default());
        }
    }
}

struct Screen {
    state: Mutex<State>,
    over: Condvar,
}

impl Screen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn tick(&self) {
        let mut state = self.state();
        while !state.is_over {
            state.draw("");
            state = match self.over.wait_timeout(state, TICK) {
                Ok((state, _)) => state,
                Err(_) => return,
            };
        }
    }
}

#[derive(Default)]
struct State {
    is_live: bool,
    is_over: bool,
    rows: Vec<Row>,
    /// Lines that the next frame takes away.
    drawn: usize,
}

struct Row {
    name: String,
    doing: &'static str,
    size: u64,
    at: Arc<AtomicU64>,
}

impl State {
    /// Writes whole lines, above what moves; in one piece, so that nobody sees a half.
    fn draw(&mut self, lines: &str) {
        let text = if self.is_live { self.frame(lines, columns()) } else { lines.to_owned() };
        // Who has closed the terminal sees nothing anyway.
        drop(std::io::stderr().write_all(text.as_bytes()));
    }

    fn frame(&mut self, lines: &str, columns: usize) -> String {
        let up = if self.drawn > 0 { format!("\x1b[{}A\x1b[J", self.drawn) } else { String::new() };
        self.drawn = self.rows.len();
        let rows = self.rows.iter().map(|row| row.text(columns) + "\n");
        up + lines + &rows.collect::<String>()
    }
}

impl Row {
    /// One line, shorter than the terminal is wide: a longer one would take two.
    fn text(&self, columns: usize) -> String {
        let mut text = format!("{}: {}", self.name, self.doing);
        let at = self.at.load(Ordering::Relaxed).min(self.size);
        if let Some(full) = (at * BAR as u64).checked_div(self.size) {
            let full = usize::try_from(full).unwrap_or(BAR);
            if columns > WIDE {
                let bar = "=".repeat(full) + if full < BAR { ">" } else { "" };
                let _ = write!(text, " [{bar:<BAR$}]");
            }
            let _ = write!(text, " {}/{}", host::size(at), host::size(self.size));
        }
        text.chars().take(columns.saturating_sub(1)).collect()
    }
}

/// How wide the terminal is; where it tells nothing, as usual.
fn columns() -> usize {
    let size = hull_sys::tty::window_size(std::io::stderr().as_fd()).ok();
    size.map(|size| usize::from(size.columns)).filter(|columns| *columns > 0).unwrap_or(80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_drawn_again_below_what_is_done() {
        let row = |name: &str, size, at| Row {
            name: name.to_owned(),
            doing: "Downloading",
            size,
            at: Arc::new(AtomicU64::new(at)),
        };
        let mut state = State { is_live: true, ..State::default() };
        state.rows = vec![row("aa", 2_000_000, 500_000), row("bb", 10, 10), row("cc", 0, 0)];
        let half = format!("aa: Downloading [{:<BAR$}] 500kB/2MB\n", "=======>");
        let full = format!("bb: Downloading [{}] 10B/10B\n", "=".repeat(BAR));
        assert_eq!(state.frame("", 80), format!("{half}{full}cc: Downloading\n"));
        state.rows.remove(1);
        let again = state.frame("bb: Pull complete\n", 40);
        assert_eq!(again, "\x1b[3A\x1b[Jbb: Pull complete\naa: Downloading 500kB/2MB\ncc: Downloading\n");
        state.rows.clear();
        assert_eq!(state.frame("", 20), "\x1b[2A\x1b[J");
        assert_eq!(state.frame("x\n", 20), "x\n");
        assert_eq!(row("0123456789ab", 9, 3).text(20), "0123456789ab: Downl");
    }
}
