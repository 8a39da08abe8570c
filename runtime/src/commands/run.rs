//! `hull run`: create and start, and in the foreground wait and delete.

use super::{create as create_command, start};
use crate::cli::RunOptions;
use crate::console::Destination;
use crate::conversation::died;
use crate::create::{self, Created};
use crate::destroy;
use crate::error::{Context, Error, Result};
use crate::foreground::{self, Signals, Terminal};
use crate::gate;
use crate::globals::Globals;
use crate::hooks;
use crate::link::{ToChild, ToParent};
use crate::notify::Listener;
use crate::state::{ContainerId, never_executed};
use crate::streams::Lent;
use hull_sys::socket::stream_pair;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the program may take to be executed, beyond its hooks.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Runs a container; in the foreground the exit status is the program's.
pub fn run(mut options: RunOptions, globals: &Globals) -> Result<u8> {
    let named = |error: Error| error.within(format!("{} run failed", globals.name));
    by_hand(&mut options).map_err(named)?;
    let signals = if options.detach { None } else { Some(prepare(!options.no_subreaper).map_err(named)?) };
    let _lent = (!options.detach).then(Lent::take_stock);
    let (mut request, own_side) = with_console(options.create, options.detach).map_err(named)?;
    request.starts_at_once = true;
    let created = create::create(request, globals).map_err(named)?;
    let id = created.directory.id().clone();
    let own_side = own_side.filter(|_| uses_terminal(&created));
    let started = Listener::bind(&created.directory).and_then(|notify| {
        begin(&created, globals)?;
        Ok((notify, own_side.map(|socket| Terminal::receive(socket.as_fd())).transpose()?))
    });
    let Created { directory, child, .. } = created;
    drop(directory);
    let abandon = |error| {
        // The reason why it cannot go on is the one to report.
        let _reported = destroy::after_run(&id, globals);
        named(error)
    };
    let (notify, terminal) = started.map_err(abandon)?;
    let Some(signals) = signals else {
        notify.iter().for_each(|notify| notify.wait(child.pidfd.as_fd(), child.pid, globals));
        return Ok(0);
    };
    let status = foreground::attend(&child, &signals, terminal, notify).map_err(abandon)?;
    if !options.keep {
        destroy::after_run(&id, globals)?;
    }
    Ok(u8::try_from(status.code()).unwrap_or(1))
}

fn uses_terminal(created: &Created) -> bool {
    created.plan.process.as_ref().is_some_and(|process| process.terminal)
}

/// `hull run bundle/`: an argument with a slash, or `.`, is a bundle, and its directory's name makes the id.
fn by_hand(options: &mut RunOptions) -> Result<()> {
    let given = &options.create.id;
    if !(given.contains('/') || given == ".") || options.create.bundle.is_some() {
        return Ok(());
    }
    let bundle = PathBuf::from(given);
    let id = id_from(&bundle)?;
    crate::output::error_line(format_args!("container {id}"));
    options.create.id = id.to_string();
    options.create.bundle = Some(bundle);
    Ok(())
}

fn id_from(bundle: &Path) -> Result<ContainerId> {
    let path = bundle.canonicalize().context(|| format!("open bundle {}", bundle.display()))?;
    let name = path.file_name().map_or_else(|| "bundle".into(), |name| name.to_string_lossy().into_owned());
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(100).collect();
    ContainerId::parse(&format!("{}-{}", safe.trim_matches('-'), std::process::id()))
}

/// For the foreground: signals are caught, and whatever the container leaves is reaped.
pub fn prepare(subreaper: bool) -> Result<Signals> {
    if subreaper {
        hull_sys::process::set_child_subreaper(true).context(|| "become a subreaper")?;
    }
    Signals::capture()
}

/// In the foreground without a console socket, the terminal comes to ourselves.
pub fn with_console(
    options: crate::cli::CreateOptions,
    detach: bool,
) -> Result<(create::Request, Option<OwnedFd>)> {
    let mut request = create_command::request(options, true)?;
    if detach || request.console_socket.is_some() {
        return Ok((request, None));
    }
    let (ours, theirs) = stream_pair().context(|| "make a socket pair for the terminal")?;
    request.own_console = Some(Destination::ourselves(theirs));
    Ok((request, Some(ours)))
}

/// Says start, and hears of the exec (the end of the conversation) or why there was none.
fn begin(created: &Created, globals: &Globals) -> Result<()> {
    let plan_hooks = &created.plan.hooks;
    let deadline = Instant::now() + START_DEADLINE + hooks::longest(&plan_hooks.start_container);
    if gate::is_closed(&created.directory) {
        gate::open(&created.directory, deadline)?;
    } else {
        created.link.order(ToChild::Start)?;
    }
    match created.link.hear(deadline)? {
        None if never_executed(created.child.pid) => return Err(died(&created.child)),
        None => {}
        Some(ToParent::Failed(error)) => return Err(error.of_init()),
        Some(_) => return Err(died(&created.child)),
    }
    start::finish(&created.directory, &created.record, plan_hooks, globals)
}
