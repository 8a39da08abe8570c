//! What a runtime needs before it can be called for a process: its streams.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use hull_sys::fd;

use crate::api::Options;
use crate::io::{ConsoleSocket, Endpoint, Logger, Output, open_append, open_output, open_stdin};
use crate::runtime::Streams;
use crate::task::{Key, Stdio};

use super::{Engine, Watched};

/// The container's ends of its streams, open only until the runtime has them.
#[derive(Debug, Default)]
pub struct Ends {
    fds: [Option<OwnedFd>; 3],
    console: Option<PathBuf>,
    /// Streams to put to work once the runtime has succeeded.
    pub flows: Vec<(OwnedFd, Output)>,
}

impl Ends {
    /// What the runtime is started with.
    pub fn streams(&self) -> Streams<'_> {
        let [stdin, stdout, stderr] = &self.fds;
        let fds = [stdin, stdout, stderr].map(|fd| fd.as_ref().map(|fd| fd.as_fd()));
        Streams { fds, console: self.console.clone() }
    }
}

impl Engine {
    /// Opens what the client named for a process, and pipes to the container.
    pub(super) fn open_streams(&mut self, key: &Key, stdio: &Stdio) -> Result<Ends, std::io::Error> {
        let (work, options, dir) = {
            let site =
                self.sites.get(&key.container).ok_or_else(|| std::io::Error::other("no such container"))?;
            (site.bundle.file("work"), site.runtime.options().clone(), site.bundle.dir.clone())
        };
        let work = if work.is_dir() { work } else { dir.clone() };
        if stdio.terminal {
            let socket = ConsoleSocket::new(
                &dir,
                &if key.is_init() { "init".to_owned() } else { format!("exec-{}", key.exec) },
            )?;
            let ends = Ends { console: Some(socket.path()), ..Ends::default() };
            self.expect_console(key, socket)?;
            let held = self.held.entry(key.clone()).or_default();
            if !stdio.stdin.is_empty() {
                let stdin = open_stdin(&stdio.stdin)?;
                held.terminal_input = Some(stdin.input);
                held.stdin_keeper = stdin.keeper;
            }
            if !stdio.stdout.is_empty() {
                held.terminal_output = Some(endpoint_output(&stdio.stdout, &work)?);
            }
            return Ok(ends);
        }
        let mut ends = Ends::default();
        if !stdio.stdin.is_empty() {
            let stdin = open_stdin(&stdio.stdin)?;
            let (read, write) = fd::pipe()?;
            fd::set_nonblocking(write.as_fd(), true)?;
            own(&read, &options)?;
            ends.fds[0] = Some(read);
            ends.flows.push((stdin.input, Output::Inward(write)));
            self.held.entry(key.clone()).or_default().stdin_keeper = stdin.keeper;
        }
        if let Endpoint::Binary { path, query } = Endpoint::parse(&stdio.stdout) {
            let logger = Logger::start(path, query, &key.container, &self.setup.namespace)?;
            self.children.insert(logger.child.pid.as_raw(), Watched::Helper);
            let [stdout, stderr] = logger.outputs;
            ends.fds[1] = Some(stdout);
            ends.fds[2] = Some(stderr);
            return Ok(ends);
        }
        for (number, path) in [(1, &stdio.stdout), (2, &stdio.stderr)] {
            // `file://` names one file for both streams.
            let path = match Endpoint::parse(&stdio.stdout) {
                Endpoint::File(_) => &stdio.stdout,
                _ => path,
            };
            if !path.is_empty() {
                let output = endpoint_output(path, &work)?;
                let (read, write) = fd::pipe()?;
                fd::set_nonblocking(read.as_fd(), true)?;
                own(&write, &options)?;
                ends.fds[number] = Some(write);
                ends.flows.push((read, output));
            }
        }
        Ok(ends)
    }
}

fn endpoint_output(text: &str, work: &std::path::Path) -> Result<Output, std::io::Error> {
    match Endpoint::parse(text) {
        Endpoint::Path(path) => open_output(path, work),
        Endpoint::File(path) => open_append(path),
        Endpoint::Binary { .. } => Err(std::io::Error::other("a logger takes no terminal")),
        Endpoint::Unknown(scheme) => Err(std::io::Error::other(format!("unknown STDIO scheme {scheme}"))),
    }
}

/// Lets a container whose root is another user open its own streams again through `/proc/self/fd`.
fn own(pipe: &OwnedFd, options: &Options) -> Result<(), std::io::Error> {
    if options.io_uid == 0 && options.io_gid == 0 {
        return Ok(());
    }
    Ok(hull_sys::fs::fchown(pipe.as_fd(), options.io_uid, options.io_gid)?)
}
