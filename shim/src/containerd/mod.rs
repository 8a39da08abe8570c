//! `containerd-shim-hull-v2`: the actions that containerd starts, and the daemon that serves it.

mod daemon;
mod delete;
mod flags;
mod info;
mod log;
mod start;

use std::process::ExitCode;

pub use log::Log;

use flags::{Action, Flags};

/// The name under which containerd knows this runtime.
const NAME: &str = "io.containerd.hull.v2";

/// Runs one action; whatever it prints is the answer that containerd reads, so nothing else is printed.
pub fn main() -> ExitCode {
    let flags = match crate::spawn::own_words().and_then(|words| Flags::parse(words.into_iter())) {
        Ok(flags) => flags,
        Err(text) => return fail(&text),
    };
    let done = match flags.action {
        Action::Version => {
            println!("{NAME}:\n  Version:  {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Action::Start => start::start(&flags),
        Action::Delete => delete::delete(&flags),
        Action::Info => info::info(),
        Action::Serve => daemon::serve(&flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => fail(&text),
    }
}

/// containerd shows standard error to its user.
fn fail(text: &str) -> ExitCode {
    eprintln!("{NAME}: {text}");
    ExitCode::FAILURE
}
