//! The journal as a log driver: its native protocol over a datagram socket.

use std::io::{Error, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_sys::poll;

use super::args::Args;
use super::log::Source;

const SOCKET: &str = "/run/systemd/journal/socket";
/// Longest text of one message.
const PART: usize = 16 << 10;
/// Bytes that may wait for the journal; as many as the kernel lets us have.
const WAITING: usize = 8 << 20;
/// For so long a journal that takes too little holds up what was read at once; less than what a client has.
const PATIENCE: Duration = Duration::from_secs(5);

/// The journal, and what each entry says of the container.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    patience: Duration,
    /// It does not block.
    socket: UnixDatagram,
    fields: Vec<u8>,
    partial_flag: bool,
    /// Entries that it has not taken in time. Until it is told of them it is not waited for again.
    lost: u64,
}

impl Journal {
    /// Connects to the journal of the machine.
    pub fn open(args: &Args) -> Result<Self, String> {
        Self::connect(Path::new(SOCKET), PATIENCE, fields(args), args.partial_flag)
            .map_err(|error| format!("connect to the journal: {error}"))
    }

    fn connect(path: &Path, patience: Duration, fields: Vec<u8>, partial_flag: bool) -> Result<Self, Error> {
        let (path, socket) = (path.to_owned(), connected(path)?);
        Ok(Self { path, patience, socket, fields, partial_flag, lost: 0 })
    }

    /// Logs what was read at once from one stream; `entry` is room to work in.
    pub fn write(&mut self, entry: &mut Vec<u8>, source: Source, bytes: &[u8]) {
        let mut deadline = None;
        for line in journal_parts(bytes) {
            journal_entry(entry, &self.fields, self.partial_flag, source, line);
            self.tell_of_losses();
            if self.lost > 0 || self.send_until(entry, &mut deadline).is_err() {
                self.lost += 1;
            }
        }
    }

    /// Says how many entries are missing, once the journal takes any again.
    pub fn tell_of_losses(&mut self) {
        if self.lost == 0 {
            return;
        }
        let text = format!("<4>{} lines were lost: the journal did not take them\n", self.lost);
        let mut entry = Vec::new();
        journal_entry(&mut entry, &self.fields, self.partial_flag, Source::Stderr, text.as_bytes());
        if self.send(&entry).is_ok() {
            self.lost = 0;
        }
    }

    /// Sends an entry, and waits for room if there is none, until the deadline; it is set when it is first needed.
    fn send_until(&mut self, entry: &[u8], deadline: &mut Option<Instant>) -> Result<(), Error> {
        loop {
            match self.send(entry) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let until = *deadline.get_or_insert_with(|| Instant::now() + self.patience);
                    if Instant::now() >= until || !poll::wait_writable(self.socket.as_fd(), Some(until))? {
                        return Err(error);
                    }
                }
                sent => return sent,
            }
        }
    }

    /// Sends an entry if there is room. A journal that was started anew may have another socket.
    fn send(&mut self, entry: &[u8]) -> Result<(), Error> {
        match self.socket.send(entry) {
            Err(error) if is_gone(&error) => {
                self.socket = connected(&self.path)?;
                self.socket.send(entry).map(drop)
            }
            sent => sent.map(drop),
        }
    }
}

fn connected(path: &Path) -> Result<UnixDatagram, Error> {
    let socket = UnixDatagram::unbound()?;
    // With the kernel's own size it only waits sooner.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, WAITING);
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

fn is_gone(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::NotConnected
    )
}

/// What is the same in each entry.
fn fields(args: &Args) -> Vec<u8> {
    let short = args.container.get(..12).unwrap_or(&args.container);
    let mut fields = Vec::new();
    let named = [
        ("CONTAINER_ID", short),
        ("CONTAINER_ID_FULL", &args.container),
        ("CONTAINER_NAME", &args.name),
        ("CONTAINER_TAG", &args.log_tag),
        ("SYSLOG_IDENTIFIER", if args.log_tag.is_empty() { &args.name } else { &args.log_tag }),
    ];
    for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
        journal_field(&mut fields, name, value.as_bytes());
    }
    for (name, value) in args.log_labels.iter().filter_map(|label| label.split_once('=')) {
        let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if name.bytes().all(allowed) {
            journal_field(&mut fields, name, value.as_bytes());
        }
    }
    fields
}

/// Lines, the long ones in parts: the journal takes a message of a socket's size at most, and a lost one is not told of.
fn journal_parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').flat_map(|line| line.chunks(PART))
}

/// The length-prefixed form of the journal's native protocol, which any byte may be in.
fn journal_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn journal_entry(out: &mut Vec<u8>, fields: &[u8], partial_flag: bool, source: Source, line: &[u8]) {
    out.clear();
    out.extend_from_slice(fields);
    let (text, whole) = line.strip_suffix(b"\n").map_or((line, false), |text| (text, true));
    // `<3>text`: the prefix of sd-daemon(3) sets the priority.
    let (priority, text) = match text {
        [b'<', digit @ b'0'..=b'7', b'>', rest @ ..] => (*digit, rest),
        _ if source == Source::Stderr => (b'3', text),
        _ => (b'6', text),
    };
    journal_field(out, "PRIORITY", &[priority]);
    if !whole && partial_flag {
        journal_field(out, "CONTAINER_PARTIAL_MESSAGE", b"true");
    }
    journal_field(out, "MESSAGE", text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn listen(name: &str) -> (UnixDatagram, PathBuf) {
        let path = std::env::temp_dir().join(format!("hull-journal-{name}-{}", std::process::id()));
        (UnixDatagram::bind(&path).unwrap(), path)
    }

    fn message(listener: &UnixDatagram) -> String {
        let mut bytes = vec![0; 64 << 10];
        let got = listener.recv(&mut bytes).unwrap();
        let at = bytes[..got].windows(8).position(|word| word == b"MESSAGE\n").unwrap();
        String::from_utf8(bytes[at + 16..got - 1].to_vec()).unwrap()
    }

    fn lines(numbers: std::ops::Range<u32>) -> String {
        numbers.map(|number| format!("line {number}\n")).collect()
    }

    #[test]
    fn burst_reaches_a_journal_that_reads_slowly() {
        let (listener, path) = listen("slow");
        let mut journal = Journal::connect(&path, PATIENCE, Vec::new(), true).unwrap();
        let reader = std::thread::spawn(move || {
            let slowly = |_| {
                std::thread::sleep(Duration::from_micros(500));
                message(&listener) + "\n"
            };
            (0..2000).map(slowly).collect::<String>()
        });
        journal.write(&mut Vec::new(), Source::Stdout, lines(0..2000).as_bytes());
        assert_eq!(journal.lost, 0);
        assert!(reader.join().unwrap() == lines(0..2000), "a line is missing");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn lines_that_a_stuck_journal_does_not_take_are_counted_and_told_of() {
        let (listener, path) = listen("stuck");
        let mut journal = Journal::connect(&path, Duration::from_millis(20), Vec::new(), true).unwrap();
        journal.write(&mut Vec::new(), Source::Stdout, lines(0..20_000).as_bytes());
        let (lost, taken) = (journal.lost, 20_000 - journal.lost);
        assert!(lost > 0, "it takes all of it");
        for number in 0..taken {
            assert_eq!(message(&listener), format!("line {number}"));
        }
        journal.write(&mut Vec::new(), Source::Stdout, b"next\n");
        assert_eq!(message(&listener), format!("{lost} lines were lost: the journal did not take them"));
        assert_eq!((message(&listener), journal.lost), ("next".to_owned(), 0));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn journal_that_takes_a_little_now_and_then_holds_up_no_more_than_one_that_is_stuck() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let (listener, path) = listen("trickle");
        let mut journal = Journal::connect(&path, Duration::from_millis(30), Vec::new(), true).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                    message(&listener);
                }
            });
            journal.write(&mut Vec::new(), Source::Stdout, lines(0..20_000).as_bytes());
            done.store(true, Ordering::Relaxed);
        });
        assert!(journal.lost > 0, "each line was waited for");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn journal_that_was_started_anew_is_found() {
        let (listener, path) = listen("anew");
        let mut journal = Journal::connect(&path, PATIENCE, Vec::new(), true).unwrap();
        let mut write = |text: &str| journal.write(&mut Vec::new(), Source::Stdout, text.as_bytes());
        write("before\n");
        assert_eq!(message(&listener), "before");
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        write("one\ntwo\n");
        let (listener, path) = listen("anew");
        write("after\n");
        assert_eq!(message(&listener), "2 lines were lost: the journal did not take them");
        assert_eq!(message(&listener), "after");
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        // Nothing is lost where the new one is there by then.
        let (listener, path) = listen("anew");
        write("at once\n");
        assert_eq!(message(&listener), "at once");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn long_lines_reach_the_journal_in_parts() {
        let text = [&[b'x'; 40_000][..], b"\nshort\n"].concat();
        let parts: Vec<&[u8]> = journal_parts(&text).collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [16_384, 16_384, 7_233, 6]);
        assert_eq!(parts.concat(), text);
    }

    #[test]
    fn journal_entry_takes_its_priority_from_stream_or_prefix() {
        let cases = [
            (Source::Stdout, "x\n", b'6', false),
            (Source::Stderr, "x", b'3', true),
            (Source::Stdout, "<2>x\n", b'2', false),
        ];
        for (source, line, priority, partial) in cases {
            let mut out = Vec::new();
            journal_entry(&mut out, b"", true, source, line.as_bytes());
            let mut wanted = Vec::new();
            journal_field(&mut wanted, "PRIORITY", &[priority]);
            if partial {
                journal_field(&mut wanted, "CONTAINER_PARTIAL_MESSAGE", b"true");
            }
            journal_field(&mut wanted, "MESSAGE", b"x");
            assert_eq!(out, wanted);
        }
    }
}
