//! The loop: output to the log and to clients, sizes, signals, the end.

mod clients;
mod launch;
mod terminal;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hull_sys::event::{Epoll, EventFlags, Ready};
use hull_sys::process::{self, Pid, WaitStatus};
use hull_sys::signal::{self, SignalSet};
use hull_sys::tty::WindowSize;

use crate::bundle::read_pid;
use crate::cgroup::{OomWatch, Place};
use crate::io::ConsoleSocket;

use super::args::Args;
use super::attach::{AttachSocket, Client};
use super::control::ControlFifo;
use super::ending;
use super::log::{Logs, Source};
use super::notify::Notify;

/// How long the runtime may take to create the container or the exec.
const RUNTIME_LIMIT: Duration = Duration::from_secs(300);
/// What is told when it took longer.
const OVERDUE: &str = "the runtime did not end in time and was killed";
/// Clients may take this long to read the rest once the container has ended.
const FAREWELL: Duration = Duration::from_secs(10);
/// Bytes that are read at once; a buffer of this size is the kernel's again when it is dropped.
const STEP: usize = 256 << 10;
/// A pipe that was full, of the kernel's usual size, is made as large as an unprivileged user may have it.
const FULL_PIPE: usize = 64 << 10;
const GROWN_PIPE: usize = 1 << 20;
/// Most bytes of a failed runtime's words that are passed on.
const WORDS_LIMIT: usize = 16 << 10;
/// Signals that are passed on to the container: SIGINT, SIGQUIT, SIGTERM.
const PASSED_ON: [i32; 3] = [2, 3, 15];
const SIGCHLD: i32 = 17;

const SIGNALS: u64 = 0;
const CONSOLE: u64 = 1;
const ATTACH: u64 = 2;
const CONTROL: u64 = 3;
const SIZES: u64 = 4;
const STDOUT: u64 = 5;
const STDERR: u64 = 6;
const STDIN: u64 = 7;
const OOM: u64 = 8;
const NOTIFY: u64 = 9;
const FIRST_CLIENT: u64 = 16;

/// How a container or exec ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Code(i32),
    /// It was killed because its time was over.
    TimedOut,
}

impl End {
    /// The number that is told: no code of a process when it was killed by us.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::TimedOut => -1,
        }
    }
}

/// One container or exec and everything that is held for it.
#[derive(Debug)]
pub struct Watch<'a> {
    args: &'a Args,
    /// What the caller left open; it stays so while the container runs.
    inherited: Vec<OwnedFd>,
    poll: Epoll,
    signals: OwnedFd,
    attach: Option<AttachSocket>,
    control: Option<ControlFifo>,
    sizes: Option<ControlFifo>,
    notify: Option<Notify>,
    logs: Logs,
    console: Option<ConsoleSocket>,
    terminal: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
    reading: bool,
    stdin: Option<OwnedFd>,
    input: Vec<u8>,
    input_ends: bool,
    stdin_waits: bool,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    /// The container has closed its terminal: when to look again whether it has opened it, and how long that was put off.
    hung_up: Option<(Instant, Duration)>,
    /// No client could be taken; whoever waits would wake us again at once.
    deaf_until: Option<Instant>,
    oom: Option<OomWatch>,
    /// When to look again for a kill for lack of memory.
    oom_look: Option<Instant>,
    runtime: Option<i32>,
    runtime_ended: Option<i32>,
    /// What came on standard error while the runtime ran: its words, if it fails; else the container's.
    words: Vec<u8>,
    pid: Option<i32>,
    unclaimed: BTreeMap<i32, i32>,
    exit: Option<i32>,
    size: Option<WindowSize>,
    buffer: Vec<u8>,
}

impl<'a> Watch<'a> {
    /// Opens the log, the attach socket and the fifos, before the runtime is started.
    pub fn new(args: &'a Args, inherited: Vec<OwnedFd>) -> Result<Self, String> {
        let text = |error: hull_sys::SysError| error.to_string();
        let set: SignalSet = PASSED_ON.into_iter().chain([SIGCHLD]).collect();
        signal::block(&set).map_err(text)?;
        process::set_child_subreaper(true).map_err(text)?;
        let logs = Logs::open(args)?;
        let attaches = !logs.passthrough && (!args.exec || args.exec_attach);
        let host =
            args.sdnotify_socket.clone().or_else(|| Some(PathBuf::from(std::env::var_os("NOTIFY_SOCKET")?)));
        let has_bundle = !args.bundle.as_os_str().is_empty();
        let has_fifos = !logs.passthrough && has_bundle && (!args.exec || args.terminal);
        let fifo = |name| has_fifos.then(|| ControlFifo::new(&args.bundle, name)).transpose();
        let watch = Self {
            args,
            inherited,
            poll: Epoll::new(32).map_err(text)?,
            signals: signal::signal_fd(&set).map_err(text)?,
            attach: attaches.then(|| AttachSocket::new(args)).transpose()?,
            control: fifo("ctl")?,
            sizes: fifo("winsz")?,
            notify: host.filter(|_| !args.exec).map(|host| Notify::new(&args.bundle, &host)).transpose()?,
            logs,
            console: None,
            terminal: None,
            outputs: [None, None],
            reading: false,
            stdin: None,
            input: Vec::new(),
            input_ends: false,
            stdin_waits: false,
            clients: BTreeMap::new(),
            next_client: FIRST_CLIENT,
            hung_up: None,
            deaf_until: None,
            oom: None,
            oom_look: None,
            runtime: None,
            runtime_ended: None,
            words: Vec::new(),
            pid: None,
            unclaimed: BTreeMap::new(),
            exit: None,
            size: None,
            buffer: Vec::new(),
        };
        watch.wait_on_fixed().map_err(text)?;
        Ok(watch)
    }

    fn wait_on_fixed(&self) -> hull_sys::Result<()> {
        let fixed: [(Option<&OwnedFd>, u64); 5] = [
            (Some(&self.signals), SIGNALS),
            (self.attach.as_ref().map(AttachSocket::listener), ATTACH),
            (self.control.as_ref().map(ControlFifo::fd), CONTROL),
            (self.sizes.as_ref().map(ControlFifo::fd), SIZES),
            (self.notify.as_ref().map(Notify::fd), NOTIFY),
        ];
        for (fd, token) in fixed {
            if let Some(fd) = fd {
                self.poll.add(fd.as_fd(), token, EventFlags::IN)?;
            }
        }
        Ok(())
    }

    /// Runs the runtime and gives the container's pid.
    fn run_runtime(&mut self) -> Result<u32, String> {
        self.start_runtime()?;
        let deadline = Instant::now() + RUNTIME_LIMIT;
        while self.runtime_ended.is_none() {
            self.step(Some(deadline))?;
            if Instant::now() >= deadline
                && let Some(pid) = self.runtime
            {
                // It may have ended just now; then it is reaped in the next step.
                let _ = process::kill_group(Pid::from_raw(pid), 9);
                return Err(OVERDUE.to_owned());
            }
        }
        // What the runtime said lies in the pipe still.
        self.read_output(1);
        if self.runtime_ended != Some(0) {
            let words = &self.words[..self.words.len().min(WORDS_LIMIT)];
            let words = String::from_utf8_lossy(words).trim_end().to_owned();
            let status = self.runtime_ended.unwrap_or(1);
            return Err(if words.is_empty() {
                format!("runtime failed with exit code {status}")
            } else {
                words
            });
        }
        self.pass_words_on();
        if self.args.terminal {
            // It was the runtime's standard error, not the container's.
            self.outputs[1] = None;
        }
        let file = self.args.container_pid_file.clone().unwrap_or_else(|| self.args.bundle.join("pidfile"));
        let pid = read_pid(&file).map_err(|error| format!("read {}: {error}", file.display()))?;
        self.take_console();
        self.pid = i32::try_from(pid).ok();
        // The end of an earlier process of this number says nothing of one that is our child now.
        let ended = self.pid.filter(|pid| !process::is_child(Pid::from_raw(*pid)));
        self.exit = ended.and_then(|pid| self.unclaimed.remove(&pid));
        self.unclaimed.clear();
        if !self.args.exec {
            self.watch_memory(pid);
        }
        Ok(pid)
    }

    fn watch_memory(&mut self, pid: u32) {
        self.oom = Place::of(pid).ok().and_then(|place| OomWatch::new(&place).ok());
        if let Some((signal, flags)) = self.oom.as_ref().and_then(OomWatch::signal) {
            // Without it the look at the end is the only one.
            let _ = self.poll.add(signal, OOM, flags);
        }
    }

    /// True when the container has our own streams.
    pub fn is_passthrough(&self) -> bool {
        self.logs.passthrough
    }

    /// Watches until the container has ended and its output is logged.
    pub fn until_the_end(&mut self) -> Result<End, String> {
        let limit = (self.args.timeout > 0).then(|| Instant::now() + Duration::from_secs(self.args.timeout));
        let mut overdue = false;
        while self.exit.is_none() {
            self.step(limit.filter(|_| !overdue))?;
            if !overdue && self.exit.is_none() && limit.is_some_and(|at| Instant::now() >= at) {
                overdue = true;
                self.kill_all();
            }
        }
        // Complete before the exit file shows: managers rely on it.
        self.drain()?;
        if !self.args.no_sync_log {
            self.logs.sync();
        }
        self.look_for_oom();
        let end = if overdue { End::TimedOut } else { End::Code(self.exit.unwrap_or(255)) };
        // Whoever sees the exit file may need what they stand for: a port of the next container.
        self.inherited = Vec::new();
        ending::write_exit_files(self.args, end.code());
        self.attach = None;
        let deadline = Instant::now() + FAREWELL;
        while self.clients.values().any(Client::has_unsent) && Instant::now() < deadline {
            self.step(Some(deadline))?;
        }
        Ok(end)
    }

    /// Reads what the container left. Clients that lag are waited for, as they were while it ran: so what is kept for them is
    /// bounded, whatever a process that outlives the container goes on writing.
    fn drain(&mut self) -> Result<(), String> {
        let patience = Instant::now() + FAREWELL;
        // After that what the pipes can hold must do.
        let mut last_turns = GROWN_PIPE / STEP + 1;
        while last_turns > 0 && (self.read_output(0) | self.read_output(1)) {
            while self.clients.values().any(Client::is_behind) && Instant::now() < patience {
                self.step(Some(patience))?;
            }
            if Instant::now() >= patience {
                self.clients.retain(|_, client| !client.is_behind());
                last_turns -= 1;
            }
        }
        Ok(())
    }

    /// Kills what was started, with its process group if it leads one.
    fn kill_all(&self) {
        if let Some(pid) = self.pid.filter(|_| self.exit.is_none()) {
            // Not reaped yet, so the number is still its own; a group it does not lead has another number.
            let _ = process::kill_group(Pid::from_raw(pid), 9);
            let _ = process::kill(Pid::from_raw(pid), 9);
        }
    }

    /// Waits once and handles what happened.
    fn step(&mut self, deadline: Option<Instant>) -> Result<(), String> {
        self.pause_or_resume();
        self.listen_again();
        let waits_for_client = self.clients.values().any(Client::has_unsent);
        let look = waits_for_client.then(|| Instant::now() + Duration::from_secs(1));
        let terminal = self.hung_up.filter(|_| self.reading).map(|(at, _)| at);
        let deadline = [deadline, look, terminal, self.oom_look, self.deaf_until].into_iter().flatten().min();
        for ready in self.poll.wait(deadline).map_err(|error| error.to_string())? {
            self.handle(ready);
        }
        self.clients.retain(|_, client| !client.is_stuck());
        if terminal.is_some_and(|at| Instant::now() >= at) {
            self.look_at_terminal();
        }
        if self.oom_look.is_some_and(|at| Instant::now() >= at) {
            self.look_for_oom();
        }
        Ok(())
    }

    fn handle(&mut self, ready: Ready) {
        match ready.token {
            SIGNALS => self.take_signals(),
            CONSOLE => self.take_console(),
            ATTACH => self.take_clients(),
            CONTROL | SIZES => self.take_requests(),
            STDOUT => drop(self.read_output(0)),
            STDERR => drop(self.read_output(1)),
            STDIN => {
                self.write_input();
                self.settle_clients();
            }
            OOM => self.look_for_oom(),
            NOTIFY => {
                if let Some(notify) = &self.notify {
                    notify.relay();
                }
            }
            client => self.serve(client, ready.flags),
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = signal::read_signal(self.signals.as_fd()) {
            if PASSED_ON.contains(&info.signo) {
                self.pass_on(info.signo);
            }
        }
        while let Ok(Some((pid, status))) = process::wait_any_child() {
            self.reaped(pid.as_raw(), status);
        }
    }

    fn reaped(&mut self, pid: i32, status: WaitStatus) {
        const UNCLAIMED_LIMIT: usize = 65_536;
        if self.runtime == Some(pid) {
            self.runtime = None;
            self.runtime_ended = Some(status.code());
        } else if self.pid == Some(pid) {
            self.exit = Some(status.code());
        } else if self.pid.is_none() && self.unclaimed.len() < UNCLAIMED_LIMIT {
            self.unclaimed.insert(pid, status.code());
        }
    }

    fn pass_on(&self, signo: i32) {
        if let Some(pid) = self.pid.filter(|_| self.exit.is_none()) {
            // Not reaped yet, so the number is still the container's own.
            let _ = process::kill(Pid::from_raw(pid), signo);
        }
    }

    fn look_for_oom(&mut self) {
        let Some(oom) = &mut self.oom else { return };
        if oom.look() {
            ending::write_oom_files(self.args);
        }
        self.oom_look = oom.look_again().map(|span| Instant::now() + span);
    }

    /// Reads once from an output; false when nothing (more) is there.
    fn read_output(&mut self, index: usize) -> bool {
        let Some(output) = &self.outputs[index] else { return false };
        self.buffer.clear();
        self.buffer.reserve(STEP);
        let got = match rustix::io::read(output, rustix::buffer::spare_capacity(&mut self.buffer)) {
            Ok(got) => got,
            Err(rustix::io::Errno::AGAIN) => {
                self.buffer = Vec::new();
                return false;
            }
            Err(rustix::io::Errno::IO) if self.terminal.is_some() && self.exit.is_none() => {
                self.buffer = Vec::new();
                self.hang_up();
                return false;
            }
            Err(_) => 0,
        };
        if got == 0 {
            self.outputs[index] = None;
            self.buffer = Vec::new();
            return false;
        }
        let source = if index == 0 { Source::Stdout } else { Source::Stderr };
        if got == FULL_PIPE {
            // Best effort: with the kernel's size it only takes more turns.
            let _ = rustix::pipe::fcntl_setpipe_size(output, GROWN_PIPE);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        if index == 1 && self.pid.is_none() {
            self.keep_words(&buffer[..got]);
        } else {
            self.pass_on_output(source, &buffer[..got]);
        }
        if got >= STEP / 4 {
            // An idle monitor keeps no buffer; one that is busy keeps it.
            buffer.clear();
            self.buffer = buffer;
        }
        true
    }

    /// Keeps what comes on standard error while the runtime runs. If the runtime fails, the caller tells that, and whoever is
    /// attached must not read it twice. A runtime must not wait for us: what is longer than its words is passed on.
    fn keep_words(&mut self, bytes: &[u8]) {
        let had_room = self.words.len() < WORDS_LIMIT;
        if had_room {
            self.words.extend_from_slice(bytes);
        }
        if self.args.terminal || self.words.len() < WORDS_LIMIT {
            return;
        }
        let words = if had_room { self.words.clone() } else { bytes.to_vec() };
        self.pass_on_output(Source::Stderr, &words);
    }

    /// The runtime has succeeded: what it left on standard error is the container's, or nobody's where that is a terminal.
    fn pass_words_on(&mut self) {
        let words = std::mem::take(&mut self.words);
        if !self.args.terminal && words.len() < WORDS_LIMIT {
            self.pass_on_output(Source::Stderr, &words);
        }
    }

    fn pass_on_output(&mut self, source: Source, bytes: &[u8]) {
        self.logs.write(source, bytes);
        self.clients.values_mut().for_each(|client| client.send(source, bytes));
        self.settle_clients();
    }
}
