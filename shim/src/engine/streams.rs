//! The streams of a process, opened before the runtime is called for it.

use std::io::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::fd;

use crate::api::Options;
use crate::io::{ConsoleSocket, Endpoint, Logger, Output, open_log, open_output, open_stdin};
use crate::runtime::Streams;
use crate::task::{Key, Stdio};

use super::held::Held;
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
    /// Opens what the client named for a process, and a terminal's socket or pipes to the container.
    pub(super) fn open_streams(&mut self, key: &Key, stdio: &Stdio) -> Result<Ends, Error> {
        let site = self.sites.get(&key.container).ok_or_else(|| Error::other("no such container"))?;
        let dir = site.bundle.dir.clone();
        let work = site.bundle.file("work");
        let spools = if work.is_dir() { work } else { dir.clone() };
        match stdio.terminal {
            true => self.open_terminal(key, stdio, &dir, &spools),
            false => self.open_pipes(key, stdio, &spools),
        }
    }

    fn open_terminal(&mut self, key: &Key, stdio: &Stdio, dir: &Path, spools: &Path) -> Result<Ends, Error> {
        let name = if key.is_init() { "init".to_owned() } else { format!("exec-{}", key.exec) };
        let socket = ConsoleSocket::new(dir, &name)?;
        let ends = Ends { console: Some(socket.path()), ..Ends::default() };
        self.expect_console(key, socket)?;
        if !stdio.stdin.is_empty() {
            let stdin = open_stdin(&stdio.stdin)?;
            let held = self.held(key);
            held.terminal_input = Some(stdin.input);
            held.stdin_keeper = stdin.keeper;
        }
        if !stdio.stdout.is_empty() {
            let output = match Endpoint::parse(&stdio.stdout) {
                // A terminal is copied into the logger's pipe; nothing comes on the other one.
                Endpoint::Binary { path, query } => {
                    let [stdout, _stderr] = self.start_logger(key, &path, query)?;
                    fd::set_nonblocking(stdout.as_fd(), true)?;
                    Output::Logger(stdout)
                }
                endpoint => open_endpoint(&endpoint, spools)?,
            };
            self.held(key).terminal_output = Some(output);
        }
        Ok(ends)
    }

    fn open_pipes(&mut self, key: &Key, stdio: &Stdio, spools: &Path) -> Result<Ends, Error> {
        let site = self.sites.get(&key.container).ok_or_else(|| Error::other("no such container"))?;
        let options = site.runtime.options().clone();
        let mut ends = Ends::default();
        if !stdio.stdin.is_empty() {
            let stdin = open_stdin(&stdio.stdin)?;
            let (read, write) = fd::pipe()?;
            fd::set_nonblocking(write.as_fd(), true)?;
            own(&read, &options)?;
            ends.fds[0] = Some(read);
            ends.flows.push((stdin.input, Output::Inward(write)));
            self.held(key).stdin_keeper = stdin.keeper;
        }
        let stdout = Endpoint::parse(&stdio.stdout);
        if let Endpoint::Binary { path, query } = &stdout {
            // The container writes to the logger itself.
            let [stdout, stderr] = self.start_logger(key, path, query)?;
            ends.fds[1] = Some(stdout);
            ends.fds[2] = Some(stderr);
            return Ok(ends);
        }
        for (number, text) in [(1, &stdio.stdout), (2, &stdio.stderr)] {
            let endpoint = match &stdout {
                // It names one file for both streams.
                Endpoint::File(_) => stdout.clone(),
                _ if text.is_empty() => continue,
                _ => Endpoint::parse(text),
            };
            let output = open_endpoint(&endpoint, spools)?;
            let (read, write) = fd::pipe()?;
            fd::set_nonblocking(read.as_fd(), true)?;
            own(&write, &options)?;
            ends.fds[number] = Some(write);
            ends.flows.push((read, output));
        }
        Ok(ends)
    }

    fn start_logger(&mut self, key: &Key, path: &str, query: &str) -> Result<[OwnedFd; 2], Error> {
        let logger = Logger::start(path, query, &key.container, &self.setup.namespace)?;
        self.children.insert(logger.child.pid.as_raw(), Watched::Helper);
        Ok(logger.outputs)
    }

    fn held(&mut self, key: &Key) -> &mut Held {
        self.held.entry(key.clone()).or_default()
    }
}

fn open_endpoint(endpoint: &Endpoint<'_>, spools: &Path) -> Result<Output, Error> {
    match endpoint {
        Endpoint::Path(path) => open_output(path, spools),
        Endpoint::File(path) => open_log(path),
        Endpoint::Binary { .. } => Err(Error::other("a logger takes both streams, or neither")),
        Endpoint::Unknown(scheme) => Err(Error::other(format!("unknown STDIO scheme {scheme}"))),
    }
}

/// Lets a container whose root is another user open its own streams again through `/proc/self/fd`.
fn own(pipe: &OwnedFd, options: &Options) -> Result<(), Error> {
    if options.io_uid == 0 && options.io_gid == 0 {
        return Ok(());
    }
    Ok(hull_sys::fs::fchown(pipe.as_fd(), options.io_uid, options.io_gid)?)
}
