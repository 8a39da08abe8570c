//! `hull create`.

use crate::activation;
use crate::cli::CreateOptions;
use crate::create::{self, Request};
use crate::error::Result;
use crate::globals::Globals;
use crate::state::ContainerId;

/// Creates a container that waits for `start`.
pub fn run(options: CreateOptions, globals: &Globals) -> Result<u8> {
    let request = request(options, false)
        .and_then(|request| create::create(request, globals))
        .map_err(|error| error.within(format!("{} create failed", globals.name)));
    request.map(|_created| 0)
}

/// What the options ask for.
pub fn request(options: CreateOptions, starts_at_once: bool) -> Result<Request> {
    Ok(Request {
        id: ContainerId::parse(&options.id)?,
        bundle: options.bundle.unwrap_or_default(),
        console_socket: options.console_socket,
        pid_file: options.pid_file,
        pidfd_socket: options.pidfd_socket,
        no_pivot: options.no_pivot,
        no_new_keyring: options.no_new_keyring,
        preserve_fds: activation::preserved(options.preserve_fds)?,
        own_console: None,
        starts_at_once,
    })
}
