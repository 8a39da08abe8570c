//! `hull restore`.

use super::checkpoint::{cgroups_mode, empty_namespaces};
use super::run as run_command;
use crate::cli::{CreateOptions, RestoreOptions};
use crate::create::Request;
use crate::criu::messages::Options;
use crate::destroy;
use crate::error::{Error, Result};
use crate::foreground::{self, Terminal};
use crate::globals::Globals;
use crate::restore::{self, Restored, Source};
use std::os::fd::{AsFd, OwnedFd};

/// Makes a container from images; in the foreground the exit status is the program's.
pub fn run(options: RestoreOptions, globals: &Globals) -> Result<u8> {
    let named = |error: Error| error.within(format!("{} restore failed", globals.name));
    let detach = options.detach;
    let source = source(&options).map_err(named)?;
    let signals =
        if detach { None } else { Some(run_command::prepare(!options.no_subreaper).map_err(named)?) };
    let (request, own_side) = request(options).map_err(named)?;
    let Restored { directory, child, has_terminal } =
        restore::restore(request, &source, globals).map_err(named)?;
    let id = directory.id().clone();
    // Others may change the container while it runs.
    drop(directory);
    let Some(signals) = signals else { return Ok(0) };
    let terminal =
        own_side.filter(|_| has_terminal).map(|socket| Terminal::receive(socket.as_fd())).transpose();
    let status = terminal.and_then(|terminal| foreground::attend(&child, &signals, terminal, None));
    destroy::after_run(&id, globals)?;
    Ok(u8::try_from(status.map_err(named)?.code()).unwrap_or(1))
}

fn source(options: &RestoreOptions) -> Result<Source> {
    let switches = Options {
        tcp_established: Some(options.tcp_established),
        ext_unix_sk: Some(options.ext_unix_sk),
        shell_job: Some(options.shell_job),
        file_locks: Some(options.file_locks),
        lazy_pages: Some(options.lazy_pages),
        auto_dedup: Some(options.auto_dedup),
        manage_cgroups_mode: Some(cgroups_mode(&options.manage_cgroups_mode)?),
        empty_ns: Some(empty_namespaces(&options.empty_ns)?),
        lsm_profile: options.lsm_profile.clone(),
        lsm_mount_context: options.lsm_mount_context.clone(),
        ..Options::default()
    };
    Ok(Source { image_path: options.image_path.clone(), work_path: options.work_path.clone(), switches })
}

/// As for `run`: a session keyring cannot be restored, so the processes have that of the caller.
fn request(options: RestoreOptions) -> Result<(Request, Option<OwnedFd>)> {
    let create = CreateOptions {
        bundle: options.bundle,
        console_socket: options.console_socket,
        pidfd_socket: None,
        pid_file: options.pid_file,
        no_pivot: options.no_pivot,
        no_new_keyring: true,
        preserve_fds: 0,
        id: options.id,
    };
    run_command::with_console(create, options.detach)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        restore: RestoreOptions,
    }

    #[test]
    fn labels_are_passed_on_as_they_are() {
        let context = "system_u:object_r:container_file_t:s0:c82,c137";
        let line = ["restore", "--lsm-profile", "apparmor:a:b", "--lsm-mount-context", context, "id"];
        let line = Line::try_parse_from(line).expect("options of restore");
        let switches = source(&line.restore).expect("options for CRIU").switches;
        assert_eq!(switches.lsm_profile.as_deref(), Some("apparmor:a:b"));
        assert_eq!(switches.lsm_mount_context.as_deref(), Some(context));
    }
}
