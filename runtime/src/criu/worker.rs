//! The CRIU process, and the conversation with it.

use super::messages::{NOTIFY, Notification, Request, Response};
use super::{program, report};
use crate::error::{Code, Context, Error, Result};
use crate::files::null_device;
use crate::link::{LONGEST as LONGEST_ERROR, decode_error, encode_error};
use hull_sys::errno::{ECONNRESET, EPIPE};
use hull_sys::fd::{close_all_but, dup_above, dup_onto};
use hull_sys::memfd::sealed_memfd;
use hull_sys::namespace::{CloneFlags, unshare};
use hull_sys::poll::wait_any_readable;
use hull_sys::process::{
    CStrings, Child, CloneRequest, Pid, WaitStatus, execve, exit_now, pidfd_send_signal, spawn, wait,
    wait_until,
};
use hull_sys::socket::{recv_with_fds, send_with_fds, seqpacket_pair};
use prost::Message;
use std::cell::OnceCell;
use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The socket's number in the CRIU process; files that it inherits follow.
const SOCKET: i32 = 3;

/// Longest answer, in bytes (R19).
const LONGEST: usize = 256 << 10;

/// How long CRIU may take to undo what it began, before it is killed.
const UNDO_DEADLINE: Duration = Duration::from_secs(20);

const SIGKILL: i32 = 9;

/// How long after the container's death CRIU may take for its last answer.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// What is asked of the mount namespace that CRIU runs in.
pub type Prepare<'a> = &'a dyn Fn() -> Result<()>;

/// Standard input, output and error of the CRIU process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Streams {
    /// Nothing to read, and what is written is kept for the report.
    #[default]
    Caught,
    /// Ours: they become those of what is restored.
    Ours,
}

/// How to start CRIU.
pub struct Start<'a> {
    /// Which program.
    pub program: &'a Path,
    /// Its standard streams.
    pub streams: Streams,
    /// Files it inherits, from number 4 up.
    pub inherited: &'a [OwnedFd],
    /// Run in a mount namespace of its own, before CRIU.
    pub prepare: Option<Prepare<'a>>,
}

/// Number in the CRIU process of the inherited file `index`.
pub const fn inherited_number(index: usize) -> i32 {
    SOCKET + 1 + index as i32
}

/// One message from CRIU.
pub struct Heard {
    /// The message.
    pub response: Response,
    /// A file that came with it.
    pub file: Option<OwnedFd>,
}

/// The running process. On drop the socket is closed, and CRIU has a while to undo what it began.
pub struct Worker {
    child: Child,
    socket: Option<OwnedFd>,
    output: OwnedFd,
    /// The process without which there is nothing left to wait for.
    ward: OnceCell<OwnedFd>,
}

impl Worker {
    /// Starts `criu swrk`.
    pub fn start(start: Start<'_>) -> Result<Self> {
        let named = |error: Error| error.code(Code::Criu).object(start.program.display().to_string());
        let program = Program::of(start.program).map_err(named)?;
        let (ours, theirs) = seqpacket_pair().context(|| "make a socket pair for criu")?;
        let output = sealed_memfd("criu", false).context(|| "make a file for what criu says")?;
        // Above all numbers that the CRIU process is given, and not higher: the caller may be allowed few.
        let lowest = inherited_number(start.inherited.len());
        let above = |fd: BorrowedFd<'_>| dup_above(fd, lowest).context(|| "prepare a descriptor for criu");
        let mut files = vec![above(theirs.as_fd())?];
        for fd in start.inherited {
            files.push(above(fd.as_fd())?);
        }
        let kept = above(output.as_fd())?;
        let setup = Setup { files: &files, output: &kept, streams: start.streams, prepare: start.prepare };
        let child = spawn(&CloneRequest::default(), || setup.execute(&program)).context(|| "start criu")?;
        Ok(Self { child, socket: Some(ours), output, ward: OnceCell::new() })
    }

    /// The process.
    pub const fn pid(&self) -> Pid {
        self.child.pid
    }

    /// From now on the answer may be a stranger's to bring about, who never comes: the wait for it ends with `process`.
    pub fn watch(&self, process: OwnedFd) {
        // One is enough.
        let _first_stays = self.ward.set(process);
    }

    /// Sends a request, or the answer to a notification.
    pub fn send(&self, request: &Request) -> Result<()> {
        let bytes = request.encode_to_vec();
        let sent = self.socket.as_ref().map(|socket| send_with_fds(socket.as_fd(), &bytes, &[]));
        match sent {
            // A process that ended at once: its end is noticed, with the reason, when its answer is waited for.
            Some(Err(error)) if error.is(EPIPE) || error.is(ECONNRESET) => Ok(()),
            Some(Err(error)) => Err(Error::sys("ask criu", error).code(Code::Criu)),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// The next message. Without a deadline the wait ends with CRIU: a dump takes as long as the memory is large.
    pub fn hear(&self, deadline: Option<Instant>) -> Result<Heard> {
        let socket = self.socket.as_ref().ok_or_else(|| gone("was told to end"))?;
        let mut awaited = vec![socket.as_fd(), self.child.pidfd.as_fd()];
        awaited.extend(self.ward.get().map(AsFd::as_fd));
        let found = match wait_any_readable(&awaited, deadline).context(|| "wait for criu")? {
            Some(2) => self.last_answer(&awaited[..2])?,
            other => other,
        };
        match found {
            Some(0) => {}
            None => return Err(Error::new(Code::Timeout, "criu did not answer in time")),
            // Whatever it said before its end was in the socket by then.
            Some(_) => return Err(self.ended()),
        }
        let mut buffer = vec![0; LONGEST];
        let received = match recv_with_fds(socket.as_fd(), &mut buffer, 1) {
            Err(error) if error.is(ECONNRESET) => return Err(self.ended()),
            other => other.context(|| "hear from criu")?,
        };
        if received.len == 0 {
            return Err(self.ended());
        }
        if received.truncated {
            return Err(Error::new(Code::Criu, "criu said more than can be read"));
        }
        let response = Response::decode(&buffer[..received.len])
            .map_err(|error| Error::new(Code::Criu, format!("criu said something unreadable: {error}")))?;
        Ok(Heard { response, file: received.fds.into_iter().next() })
    }

    /// CRIU ends the processes itself when it is done. Where somebody else did, it does not notice.
    fn last_answer(&self, awaited: &[BorrowedFd<'_>]) -> Result<Option<usize>> {
        let found = wait_any_readable(awaited, Some(Instant::now() + LAST_ANSWER));
        let found = found.context(|| "wait for criu")?;
        if found.is_none() {
            // Gone in this moment is as good.
            let _gone = pidfd_send_signal(self.child.pidfd.as_fd(), SIGKILL);
            return Err(Error::new(
                Code::InitDied,
                "the container died before all of its memory was fetched",
            ));
        }
        Ok(found)
    }

    /// Sends `request`, has `attend` deal with each notification, and returns the answer, which is a success.
    pub fn carry_out(
        &self,
        request: &Request,
        mut attend: impl FnMut(&Notification, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Response> {
        self.send(request)?;
        loop {
            let Heard { response, file } = self.hear(None)?;
            if !response.success {
                return Err(refused(&response));
            }
            if response.kind != NOTIFY {
                return Ok(response);
            }
            let notification = response.notify.unwrap_or_default();
            attend(&notification, file)?;
            self.send(&Request { kind: NOTIFY, notify_success: Some(true), ..Request::default() })?;
        }
    }

    /// Waits for the end of a process that has answered.
    pub fn finish(mut self) -> Result<WaitStatus> {
        self.socket = None;
        wait(self.child.pidfd.as_fd()).context(|| "wait for criu")
    }

    /// The end of what it wrote on its standard streams, where they were caught.
    pub fn said(&self) -> String {
        report::last_lines(self.output.as_fd())
    }

    /// Why there is no answer: what went wrong before CRIU was executed, or how it ended.
    fn ended(&self) -> Error {
        let mut bytes = vec![0; LONGEST_ERROR];
        if let Ok(length) = hull_sys::io::read_at(self.output.as_fd(), &mut bytes, 0)
            && let Some(error) = decode_error(&bytes[..length])
        {
            return error;
        }
        let how = match wait_until(self.child.pidfd.as_fd(), Instant::now() + UNDO_DEADLINE) {
            Ok(Some(WaitStatus::Exited(code))) => format!("exited with status {code}"),
            Ok(Some(WaitStatus::Signaled(signal))) => format!("was killed by signal {signal}"),
            _ => "closed its socket".to_owned(),
        };
        gone(&how)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.socket = None;
        let pidfd = self.child.pidfd.as_fd();
        // Reaped before, or by whoever waits for any child: nothing is left to be done then.
        if let Ok(None) = wait_until(pidfd, Instant::now() + UNDO_DEADLINE) {
            let _gone = pidfd_send_signal(pidfd, SIGKILL);
            let _reaped = wait(pidfd);
        }
    }
}

fn gone(how: &str) -> Error {
    Error::new(Code::Criu, format!("criu {how} before it answered"))
}

/// What a failed answer says by itself; the log says more.
fn refused(response: &Response) -> Error {
    let mut error =
        Error::new(Code::Criu, response.message.clone().unwrap_or_else(|| "criu failed".to_owned()));
    error.errno = response.errno;
    error
}

/// What is executed, made before the clone.
struct Program {
    path: CString,
    argv: CStrings,
    envp: CStrings,
}

impl Program {
    fn of(path: &Path) -> Result<Self> {
        let nul = |_| Error::new(Code::Usage, "the path of criu holds a NUL byte");
        let path = CString::new(path.as_os_str().as_bytes()).map_err(nul)?;
        let number = CString::new(SOCKET.to_string()).map_err(nul)?;
        let argv = CStrings::new(vec![path.clone(), c"swrk".to_owned(), number]);
        Ok(Self { path, argv, envp: CStrings::new(program::environment()) })
    }
}

/// What the child does before it is CRIU.
struct Setup<'a> {
    /// The socket, then what is inherited.
    files: &'a [OwnedFd],
    /// Takes what is written to the streams, and the error of a child that never becomes CRIU.
    output: &'a OwnedFd,
    streams: Streams,
    prepare: Option<Prepare<'a>>,
}

impl Setup<'_> {
    fn execute(&self, program: &Program) -> Infallible {
        let error = match self.prepare() {
            Ok(()) => Error::sys("execute criu", execve(&program.path, &program.argv, &program.envp))
                .code(Code::Criu),
            Err(error) => error,
        };
        // Unread, it is told as a death without an answer.
        let _unread = hull_sys::io::write_all(self.output.as_fd(), &encode_error(&error));
        exit_now(127)
    }

    fn prepare(&self) -> Result<()> {
        if let Some(prepare) = self.prepare {
            unshare(CloneFlags::NEWNS).context(|| "make a mount namespace")?;
            prepare()?;
        }
        // R7: nothing of ours lives on in CRIU but what it is given.
        let kept = self.files.iter().chain([self.output]).map(AsRawFd::as_raw_fd).collect();
        close_all_but(kept).context(|| "close descriptors")?;
        if self.streams == Streams::Caught {
            // No session of a terminal: its signals are not for a dump that is under way.
            hull_sys::process::setsid().context(|| "make a session")?;
            let null = null_device().context(|| "open /dev/null")?;
            dup_onto(null.as_fd(), 0)
                .and_then(|()| dup_onto(self.output.as_fd(), 1))
                .and_then(|()| dup_onto(self.output.as_fd(), 2))
                .context(|| "set the standard streams")?;
        }
        for (index, file) in (SOCKET..).zip(self.files) {
            dup_onto(file.as_fd(), index).context(|| "pass a descriptor on")?;
        }
        hull_sys::signal::reset_dispositions()
            .and_then(|()| hull_sys::signal::unblock_all().map(drop))
            .context(|| "reset the signals")
    }
}
