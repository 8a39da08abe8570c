//! What a build tells while it goes on: events in, text for people or programs out.

mod plain;
mod quiet;
mod tail;
mod transfers;
mod tty;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::graph::StepId;
pub(crate) use transfers::{Shown, Transfer, Transfers};

/// Something happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// So many steps are to be done, or found in the cache.
    Planned { steps: usize },
    /// A step with this title began.
    Started { step: StepId, title: String },
    /// A step was in the cache.
    Cached { step: StepId, title: String },
    /// A line of a step's output.
    Log { step: StepId, line: String },
    /// Why a step was not in the cache, or what else there is to say of it.
    Told { step: StepId, lines: Vec<String> },
    /// A step is done, and its layer has files of so many bytes.
    Done { step: StepId, bytes: u64 },
    /// A step failed.
    Failed { step: StepId, error: String },
    /// Something about the whole build, that was asked for.
    Note(String),
    /// Something that nobody asked for, and everybody is told.
    Notice(String),
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Style {
    /// A live view on a terminal, else plain.
    Auto,
    /// One line an event.
    Plain,
    /// A live view.
    Tty,
    /// One JSON object a line.
    Rawjson,
    /// Nothing but the image id; of a step that fails its last lines.
    #[value(alias = "none")]
    Quiet,
}

/// Where steps send their events.
#[derive(Clone)]
pub(crate) struct Events {
    sender: SyncSender<(Instant, Event)>,
}

impl Events {
    /// Sends an event; when nobody listens any more, it is lost, and so is the listener's interest.
    pub(crate) fn send(&self, event: Event) {
        drop(self.sender.send((Instant::now(), event)));
    }
}

/// Who tells notices.
type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// While something is shown, who tells by means of it.
static TELLER: Mutex<Option<Tell>> = Mutex::new(None);

fn teller() -> MutexGuard<'static, Option<Tell>> {
    // It is changed by one assignment: it is whole whoever panicked.
    TELLER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells what nobody asked for, as a part of what is shown: below the lines of a live view it would be lost with the next
/// frame, and between the objects of a program it would be none.
pub(crate) fn notice(text: &str) {
    let tell = teller().clone();
    tell.map_or_else(|| eprintln!("{}", noticed(text)), |tell| tell(text));
}

fn noticed(text: &str) -> String {
    format!("hull-build: notice: {text}")
}

/// The thread that shows events; ends when the last sender is gone.
pub(crate) struct Progress {
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins showing.
    pub(crate) fn start(style: Style) -> (Self, Events) {
        let (sender, receiver) = sync_channel(256);
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let thread = std::thread::spawn(move || match style {
            Style::Auto if is_terminal => tty::show(&receiver),
            Style::Tty => tty::show(&receiver),
            Style::Auto | Style::Plain => plain::show(&receiver),
            Style::Rawjson => plain::show_json(&receiver),
            Style::Quiet => quiet::show(&receiver),
        });
        let events = Events { sender };
        let own = events.clone();
        *teller() = Some(Arc::new(move |text| own.send(Event::Notice(text.to_owned()))));
        (Self { thread: Some(thread) }, events)
    }
}

impl Drop for Progress {
    /// Waits until everything was shown; all [`Events`] must be gone.
    fn drop(&mut self) {
        *teller() = None;
        // One that has panicked has nothing more to show.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

type Inbox = Receiver<(Instant, Event)>;

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}
