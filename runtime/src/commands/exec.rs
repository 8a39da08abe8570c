//! `hull exec`.

use super::find;
use crate::activation;
use crate::cli::ExecOptions;
use crate::console::{self, Destination};
use crate::error::{Code, Context, Error, Result};
use crate::foreground::{self, Signals, Terminal};
use crate::globals::Globals;
use crate::host;
use crate::join::{self, Request};
use crate::log::Level;
use crate::state::{ProcessIdentity, Record, Status};
use crate::streams::Lent;
use hull_plan::{ExecRequest, Warning, exec_process};
use hull_sys::socket::stream_pair;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

const STOPPED: &str = "cannot exec in a stopped container";
const BEING_CREATED: &str = "cannot exec in a container that is being created";

/// Longest process.json that is read, in bytes (R19).
const LONGEST_PROCESS: usize = 4 << 20;

/// Runs a further process in a container; in the foreground the exit status is the program's.
pub fn run(options: ExecOptions, globals: &Globals) -> Result<u8> {
    let detach = options.detach;
    let named = |error: Error| error.within("exec failed");
    let signals = if detach { None } else { Some(Signals::capture().map_err(named)?) };
    let _lent = (!detach).then(Lent::take_stock);
    let started = start(options, globals).map_err(named)?;
    let Some(signals) = signals else { return Ok(0) };
    let terminal =
        started.own_side.map(|socket| Terminal::receive(socket.as_fd())).transpose().map_err(named)?;
    let status = foreground::attend(&started.child, &signals, terminal, None)?;
    Ok(u8::try_from(status.code()).unwrap_or(1))
}

struct Started {
    child: hull_sys::process::Child,
    own_side: Option<OwnedFd>,
}

fn start(options: ExecOptions, globals: &Globals) -> Result<Started> {
    let directory = find(&options.id, globals)?;
    let record = directory.read()?;
    match Status::of(&directory, &record) {
        Status::Stopped => return Err(Error::new(Code::ContainerState, STOPPED)),
        // Its process may still be on the host's root, whatever it counts as for its hooks.
        _ if record.creating => return Err(Error::new(Code::ContainerState, BEING_CREATED)),
        Status::Paused if !options.ignore_paused => {
            return Err(Error::new(
                Code::ContainerState,
                "cannot exec in a paused container (use --ignore-paused to override)",
            ));
        }
        _ => {}
    }
    let loaded = hull_plan::load(&directory.config()?)?;
    let facts = host::probe(&record.bundle, globals.rootless)?;
    let request = request_of(&options, globals)?;
    let plan = exec_process(&loaded.spec, &request, &facts)?;
    log_warnings(&plan.warnings, globals);
    let (console, own_side) = consoles(&options, plan.process.terminal)?;
    let request = Request {
        console,
        pid_file: options.pid_file,
        pidfd_socket: options.pidfd_socket,
        preserve_fds: activation::preserved(options.preserve_fds)?,
        sub_cgroups: options.cgroup,
    };
    let child =
        join::join(request, &plan, &record, &facts, globals).map_err(|error| explain(error, &record))?;
    Ok(Started { child, own_side })
}

/// Where the container ended on the way, what failed for that reason says little.
fn explain(error: Error, record: &Record) -> Error {
    if error.code == Code::ContainerState || record.init.as_ref().is_some_and(ProcessIdentity::is_alive) {
        return error;
    }
    error.code(Code::ContainerState).within(STOPPED)
}

/// Remarks of the loader and the planner.
fn log_warnings(warnings: &[Warning], globals: &Globals) {
    warnings.iter().for_each(|warning| globals.log.write(Level::Warning, &warning.text));
}

fn request_of(options: &ExecOptions, globals: &Globals) -> Result<ExecRequest> {
    let process = match &options.process {
        None => None,
        Some(path) => {
            // The caller's own path: a pipe of a shell's is as good as a file.
            let file = File::open(path).context(|| format!("open {}", path.display()))?;
            let bytes = hull_sys::io::read_to_limit(file.as_fd(), LONGEST_PROCESS)
                .context(|| format!("read {}", path.display()))?;
            let loaded = hull_plan::parse_process(&bytes)?;
            log_warnings(&loaded.warnings, globals);
            Some(loaded.process)
        }
    };
    Ok(ExecRequest {
        process,
        args: options.command.clone(),
        env: options.env.clone(),
        cwd: options.cwd.clone(),
        user: options.user.clone(),
        additional_gids: options.additional_gids.clone(),
        capabilities: options.cap.clone(),
        apparmor_profile: options.apparmor.clone(),
        selinux_label: options.process_label.clone(),
        no_new_privileges: options.no_new_privs.then_some(true),
        terminal: options.tty,
    })
}

/// The socket that the terminal goes to, and our side of it when it comes to ourselves.
fn consoles(options: &ExecOptions, terminal: bool) -> Result<(Option<Destination>, Option<OwnedFd>)> {
    match (&options.console_socket, terminal) {
        (Some(path), true) => Ok((Some(console::connect(path)?), None)),
        (Some(_), false) => Err(Error::new(
            Code::Console,
            "cannot use console socket if runc will not detach or allocate tty",
        )),
        (None, true) if options.detach => Err(Error::new(
            Code::Console,
            "cannot allocate tty if runc will detach without setting console socket",
        )),
        (None, true) => {
            let (ours, theirs) = stream_pair().context(|| "make a socket pair for the terminal")?;
            Ok((Some(Destination::ourselves(theirs)), Some(ours)))
        }
        (None, false) => Ok((None, None)),
    }
}
