//! Socket activation (sd_listen_fds(3)): descriptors that the caller was started with, for the container's program.

use crate::notify::set_variable;
use std::env::var;

/// How many descriptors from 3 up were passed to this very process.
pub fn passed() -> u32 {
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
