//! The shim's one loop: waits, turns what happened into calls of the pure [`Pod`], and carries out its effects.

mod connections;
mod create;
mod delete;
mod events;
mod exits;
mod held;
mod jobs;
mod methods;
mod patience;
mod publisher;
mod root_job;
mod rootfs;
mod streams;
mod timers;
mod token;
mod unclaimed;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hull_sys::event::{Epoll, EventFlags, Ready};
use hull_sys::signal::SignalSet;
use hull_sys::{SysError, process, signal};

use crate::bundle::Bundle;
use crate::cgroup::{OomWatch, Place};
use crate::clock::Clock;
use crate::runtime::Runtime;
use crate::task::{Effect, Key, Pod};

use connections::Connections;
use delete::Draining;
use held::{Flow, Held};
use jobs::Running;
use patience::Patience;
pub use publisher::Publisher;
use root_job::RootJob;
pub use root_job::unmount_until;
use rootfs::Mounts;
use timers::{Timer, Timers};
use token::Token;
use unclaimed::Unclaimed;

/// A shim without container and without client ends itself after this time.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Clients that may wait to be taken.
const BACKLOG: i32 = 4096;
/// How long the last events and answers may take once the shim is to end.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long the execs of an ended container may take to end.
const EXECS_GRACE: Duration = Duration::from_secs(5);

const SIGNALS: [i32; 4] = [libc_signal::CHLD, libc_signal::TERM, libc_signal::INT, libc_signal::USR1];

/// Signal numbers (signal(7)); the same on every architecture that hull is built for.
mod libc_signal {
    pub const INT: i32 = 2;
    pub const USR1: i32 = 10;
    pub const TERM: i32 = 15;
    pub const CHLD: i32 = 17;
}

/// What the loop starts with.
#[derive(Debug)]
pub struct Setup {
    /// The socket that clients connect to.
    pub listener: OwnedFd,
    /// Its path, removed at the end.
    pub socket: Option<PathBuf>,
    /// containerd's namespace.
    pub namespace: String,
    /// Where events go.
    pub publisher: Publisher,
    /// Where warnings go.
    pub log: crate::containerd::Log,
}

/// What the engine knows of a container beyond what [`Pod`] decides on.
#[derive(Debug)]
struct Site {
    bundle: Bundle,
    runtime: Runtime,
    shares_pid_namespace: bool,
    mounts: Mounts,
    checkpoint: String,
    place: Option<Place>,
    oom: Option<(u32, OomWatch)>,
}

/// Whose end is awaited.
#[derive(Debug)]
enum Watched {
    Job(Box<Running>),
    Root(Box<RootJob>),
    Process(Key),
    /// What mounts this root, was killed and did not end.
    LateMount(PathBuf),
    /// A logger, a kill that nobody waits for, or what a container left that is forgotten.
    Helper,
}

/// The loop and everything it holds.
#[derive(Debug)]
pub struct Engine {
    poll: Epoll,
    signals: OwnedFd,
    setup: Setup,
    clock: Clock,
    pod: Pod,
    todo: VecDeque<Effect>,
    connections: Connections,
    timers: Timers,
    sites: BTreeMap<String, Site>,
    held: BTreeMap<Key, Held>,
    flows: BTreeMap<u32, Flow>,
    consoles: BTreeMap<u32, Key>,
    draining: BTreeMap<Key, Draining>,
    ending: BTreeMap<Key, Patience>,
    children: BTreeMap<i32, Watched>,
    unclaimed: Unclaimed,
    next_id: u32,
    leaving: Option<Instant>,
}

impl Engine {
    /// Prepares the loop; nothing is served before [`Engine::run`].
    pub fn new(setup: Setup) -> hull_sys::Result<Self> {
        let set: SignalSet = SIGNALS.into_iter().collect();
        signal::block(&set)?;
        let signals = signal::signal_fd(&set)?;
        process::set_child_subreaper(true)?;
        hull_sys::fd::set_nonblocking(setup.listener.as_fd(), true)?;
        // Clients that come at once wait for their turn; past the queue they are refused.
        rustix::net::listen(&setup.listener, BACKLOG).map_err(SysError::from_rustix("listen"))?;
        let poll = Epoll::new(64)?;
        poll.add(setup.listener.as_fd(), Token::Listener.into(), EventFlags::IN)?;
        poll.add(signals.as_fd(), Token::Signals.into(), EventFlags::IN)?;
        let pid = u32::try_from(process::effective_pid().as_raw()).unwrap_or(0);
        Ok(Self {
            poll,
            signals,
            setup,
            clock: Clock::new(),
            pod: Pod::new(pid),
            todo: VecDeque::new(),
            connections: Connections::default(),
            timers: Timers::default(),
            sites: BTreeMap::new(),
            held: BTreeMap::new(),
            flows: BTreeMap::new(),
            consoles: BTreeMap::new(),
            draining: BTreeMap::new(),
            ending: BTreeMap::new(),
            children: BTreeMap::new(),
            unclaimed: Unclaimed::default(),
            next_id: 0,
            leaving: None,
        })
    }

    /// Serves until a client asks for the end, or nobody has needed the shim for a while.
    pub fn run(mut self) -> hull_sys::Result<()> {
        self.timers.set(Timer::Idle, IDLE_LIMIT);
        while !self.may_leave() {
            let ready = self.poll.wait(self.timers.next())?;
            for one in ready {
                self.handle(one);
            }
            for timer in self.timers.due(Instant::now()) {
                self.fire(timer);
            }
            self.work();
        }
        self.remove_socket();
        Ok(())
    }

    /// Takes no new clients from now on; those that are connected stay. By now another shim may have the name.
    fn remove_socket(&mut self) {
        if let Some(socket) = self.setup.socket.take() {
            self.pod.close();
            // Whoever starts the next shim of this name removes a stale one as well.
            let _ = std::fs::remove_file(socket);
        }
    }

    fn may_leave(&self) -> bool {
        let done = self.setup.publisher.is_idle() && self.connections.is_flushed();
        self.leaving.is_some_and(|deadline| done || Instant::now() >= deadline)
    }

    fn handle(&mut self, ready: Ready) {
        match Token::from(ready.token) {
            Token::Listener => self.accept(),
            Token::Signals => self.take_signals(),
            Token::Publisher => self.publish(),
            Token::Connection(id) => self.serve(id, ready.flags),
            Token::Stream(id) => self.turn(id),
            Token::Console(id) => self.take_console(id),
            Token::Oom(id) => self.look_for_oom(id),
        }
        self.work();
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Idle => self.leave_if_idle(),
            Timer::Accept => self.listen(),
            Timer::Job(pid) => self.job_overdue(pid),
            Timer::Console(id) => self.wait_for_console(id),
            Timer::Stream(id) => self.turn(id),
            Timer::Drain(key) => self.check_drained(&key),
            Timer::Output(key) => self.look_for_output(&key),
            Timer::Execs(container) => {
                let effects = self.pod.execs_overdue(&container);
                self.todo.extend(effects);
            }
            Timer::Oom(id) => self.look_for_oom(id),
            Timer::Publish => {
                self.setup.publisher.overdue();
                self.publish();
            }
            Timer::Farewell => {}
        }
    }

    /// Carries out effects until none is left; those that come meanwhile follow in order. Events leave after the answers:
    /// a client waits for its answer, nobody for an event.
    fn work(&mut self) {
        while let Some(effect) = self.todo.pop_front() {
            self.carry_out(effect);
        }
        if self.setup.publisher.has_news() {
            self.publish();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Reply(call, answer) => self.reply(call, answer),
            Effect::Run(ticket) => self.begin(ticket),
            Effect::Publish(event) => {
                let now = self.clock.now();
                let envelope = events::envelope(event, &self.setup.namespace, now);
                self.setup.publisher.push(envelope);
            }
            Effect::Resize { key, width, height } => self.resize(&key, width, height),
            Effect::CloseStdin(key) => {
                if let Some(held) = self.held.get_mut(&key) {
                    held.stdin_keeper = None;
                }
            }
            Effect::Forget(key) => self.forget(&key),
            Effect::InitEnded { container, await_execs } => self.init_ended(container, await_execs),
            Effect::Exit => {
                self.leaving = Some(Instant::now() + FAREWELL);
                self.timers.set(Timer::Farewell, FAREWELL);
            }
        }
    }

    fn leave_if_idle(&mut self) {
        if self.connections.is_empty() && (self.pod.is_empty() || self.is_forgotten()) {
            self.leaving = Some(Instant::now());
        } else {
            self.timers.set(Timer::Idle, IDLE_LIMIT);
        }
    }

    /// A shim that is stopped (SIGSTOP, a debugger) while containerd starts anew is taken for dead: the delete action removes
    /// its containers, and containerd their bundles. Nobody will ask for them again when it goes on.
    fn is_forgotten(&self) -> bool {
        self.pod.has_ended() && self.sites.values().all(|site| !site.bundle.dir.exists())
    }

    fn warn(&self, text: impl std::fmt::Display) {
        self.setup.log.warn(&text.to_string());
    }

    fn fresh_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }
}
