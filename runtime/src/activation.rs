//! Descriptors that the caller was started with, for the container's program: `--preserve-fds`, and socket activation
//! (sd_listen_fds(3)).

use crate::error::{Code, Error, Result};
use crate::notify::set_variable;
use std::env::var;
use std::sync::OnceLock;

static INHERITED: OnceLock<u32> = OnceLock::new();

/// Counts them, before the runtime opens anything of its own.
pub fn take_stock() {
    INHERITED.get_or_init(hull_sys::fd::count_inherited);
}

/// How many descriptors from 3 up reach the program: those of socket activation, then as many as `--preserve-fds` says.
///
/// # Errors
/// One of them is not open: what the runtime opens itself would get its number, and live on in the container.
pub fn preserved(asked: u32) -> Result<u32> {
    let inherited = INHERITED.get().copied().unwrap_or(0);
    passed().checked_add(asked).filter(|count| *count <= inherited).ok_or_else(|| {
        Error::new(Code::Usage, format!("--preserve-fds {asked}: descriptor {} is not open", 3 + inherited))
            .hint("it counts the descriptors from 3 up, after those of LISTEN_FDS")
    })
}

/// How many descriptors from 3 up were passed to this very process.
fn passed() -> u32 {
    let number = |name| var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") == Some(std::process::id()) { number("LISTEN_FDS").unwrap_or(0) } else { 0 }
}

/// Tells the program of them; it is process 1 in there.
pub fn announce(env: &mut Vec<String>) {
    let count = passed();
    if count == 0 {
        return;
    }
    set_variable(env, "LISTEN_FDS", &count.to_string());
    set_variable(env, "LISTEN_PID", "1");
    if let Ok(names) = var("LISTEN_FDNAMES") {
        set_variable(env, "LISTEN_FDNAMES", &names);
    }
}
