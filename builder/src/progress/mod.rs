//! What a build tells while it goes on: events in, text for people or programs out.

mod plain;
mod quiet;
mod tail;
mod transfers;
mod tty;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
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
    /// Something about the whole build.
    Note(String),
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

/// The thread that shows events; ends when the last sender is gone.
pub(crate) struct Progress {
    thread: JoinHandle<()>,
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
        (Self { thread }, Events { sender })
    }

    /// Waits until everything was shown; all [`Events`] must be gone.
    pub(crate) fn finish(self) {
        drop(self.thread.join());
    }
}

type Inbox = Receiver<(Instant, Event)>;

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}
