//! Terminals, signals and sockets.
#![allow(clippy::unwrap_used)] // Functions of a test are tests.

mod support;

use hull_sys::fs::{Mode, OFlags, openat};
use hull_sys::signal::{self, SignalSet};
use hull_sys::tty::{self, WindowSize};
use hull_sys::{CWD, CloneFlags, fd, io, process, socket};
use hull_testkit::{Scratch, gate, needs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use support::{child_says, line, place, status};

fn pty() -> (OwnedFd, OwnedFd) {
    let master = openat(CWD, "/dev/ptmx", OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    tty::unlock_pty(master.as_fd()).unwrap();
    let peer = tty::pty_peer(master.as_fd()).unwrap();
    (master, peer)
}

fn echo(master: &OwnedFd, peer: &OwnedFd) -> Vec<u8> {
    io::write_all(peer.as_fd(), b"a\n").unwrap();
    let mut bytes = [0; 16];
    let len = io::read(master.as_fd(), &mut bytes).unwrap();
    bytes[..len].to_vec()
}

#[test]
fn the_other_end_of_a_terminal_is_opened_through_the_master() {
    needs!(gate::path("/dev/ptmx"));
    let (master, peer) = pty();
    let number = tty::pty_number(master.as_fd()).unwrap();
    let link =
        std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&peer))).unwrap();
    assert_eq!(link.file_name().unwrap().to_str().unwrap(), number.to_string());
    assert!(fd::is_cloexec(peer.as_fd()).unwrap());
    assert!(tty::is_tty(peer.as_fd()) && !tty::is_tty(place("/dev/null").as_fd()));
    let (no_terminal, _mouth) = fd::pipe().unwrap();
    assert!(tty::pty_number(no_terminal.as_fd()).unwrap_err().is(libc::ENOTTY));
    assert!(tty::window_size(no_terminal.as_fd()).unwrap_err().is(libc::ENOTTY));
}

#[test]
fn both_ends_have_one_size() {
    needs!(gate::path("/dev/ptmx"));
    let (master, peer) = pty();
    tty::set_window_size(master.as_fd(), WindowSize { rows: 50, columns: 132 }).unwrap();
    assert_eq!(tty::window_size(peer.as_fd()).unwrap(), WindowSize { rows: 50, columns: 132 });
}

#[test]
fn newlines_pass_as_they_are_when_asked() {
    needs!(gate::path("/dev/ptmx"));
    let (master, peer) = pty();
    assert_eq!(echo(&master, &peer), b"a\r\n");
    tty::clear_onlcr(peer.as_fd()).unwrap();
    assert_eq!(echo(&master, &peer), b"a\n");
}

#[test]
fn raw_mode_takes_keys_one_by_one_and_leaves_output_and_later_users_as_they_were() {
    needs!(gate::path("/dev/ptmx"));
    let (master, peer) = pty();
    let waiting = |end: &OwnedFd| hull_sys::event::bytes_waiting(end.as_fd()).unwrap();
    let raw = tty::raw_mode(peer.as_fd()).unwrap();
    // Control-C, and no newline: neither a signal nor a line is waited for.
    io::write_all(master.as_fd(), b"k\x03").unwrap();
    let mut bytes = [0; 8];
    assert!(socket::poll_in(peer.as_fd(), Instant::now() + Duration::from_secs(60)).unwrap());
    assert_eq!((io::read(peer.as_fd(), &mut bytes).unwrap(), &bytes[..2]), (2, &b"k\x03"[..]));
    assert_eq!(waiting(&master), 0, "nothing was echoed");
    assert_eq!(echo(&master, &peer), b"a\r\n");
    drop(raw);
    io::write_all(master.as_fd(), b"k").unwrap();
    assert!(socket::poll_in(master.as_fd(), Instant::now() + Duration::from_secs(60)).unwrap());
    assert_eq!(io::read(master.as_fd(), &mut bytes).unwrap(), 1, "echoed again");
    assert_eq!(waiting(&peer), 0, "a line is waited for again");
}

#[test]
fn a_session_leader_takes_a_controlling_terminal() {
    needs!(gate::path("/dev/ptmx"), gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        process::setsid().unwrap();
        // The terminal hangs up when its master is closed at the end.
        signal::block(&SignalSet::empty().with(libc::SIGHUP)).unwrap();
        let (_master, peer) = pty();
        let own = || openat(CWD, "/dev/tty", OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
        let before = line(own());
        tty::make_controlling(peer.as_fd()).unwrap();
        format!("{before} {}", line(own()))
    });
    assert_eq!(said, format!("openat {} ok", libc::ENXIO));
}

#[test]
fn a_blocked_signal_is_read_with_its_sender() {
    needs!(gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        let set: SignalSet = [libc::SIGTERM, libc::SIGUSR1, 40].into_iter().collect();
        let before = signal::block(&set).unwrap();
        let queue = signal::signal_fd(&set).unwrap();
        let nothing = signal::read_signal(queue.as_fd()).unwrap();
        process::kill(process::effective_pid(), 40).unwrap();
        let got = signal::read_signal(queue.as_fd()).unwrap().unwrap();
        let own = got.pid == Some(process::effective_pid());
        let during = signal::set_mask(&before).unwrap();
        let full = during.contains(40) && during.contains(libc::SIGTERM) && !during.contains(libc::SIGINT);
        format!("{nothing:?} {} {own} {full} {}", got.signo, fd::is_cloexec(queue.as_fd()).unwrap())
    });
    assert_eq!(said, "None 40 true true true");
}

#[test]
fn masks_and_dispositions_are_the_kernels_own_account() {
    needs!(gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        signal::block_all().unwrap();
        let blocked = status("SigBlk");
        signal::unblock_all().unwrap();
        // Rust ignores SIGPIPE, which would be inherited by the next program.
        let ignored = status("SigIgn").ends_with("1000");
        signal::reset_dispositions().unwrap();
        let caught = status("SigCgt");
        format!("{blocked} {} {ignored} {} {caught}", status("SigBlk"), status("SigIgn"))
    });
    // All but KILL and STOP can be blocked.
    let none = "0000000000000000";
    assert_eq!(said, format!("fffffffffffbfeff {none} true {none} {none}"));
}

#[test]
fn a_set_knows_its_signals() {
    let set = SignalSet::empty().with(1).with(64).with(0).with(65).with(-1);
    assert_eq!(set, [1, 64].into_iter().collect());
    assert!(set.contains(1) && set.contains(64) && !set.contains(2) && !set.contains(0) && !set.contains(65));
    assert_eq!(set.without(64), SignalSet::empty().with(1));
    assert!(SignalSet::all().contains(33));
}

#[test]
fn as_many_fds_as_the_kernel_allows_arrive_in_order_and_cloexec() {
    let (ours, theirs) = socket::seqpacket_pair().unwrap();
    let files: Vec<OwnedFd> = (0..socket::MAX_FDS).map(|_| fd::pipe().unwrap().0).collect();
    let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    assert_eq!(socket::send_with_fds(ours.as_fd(), b"all", &borrowed).unwrap(), 3);
    let mut buffer = [0; 8];
    let got = socket::recv_with_fds(theirs.as_fd(), &mut buffer, socket::MAX_FDS).unwrap();
    assert_eq!(
        (got.len, got.fds.len(), got.truncated, &buffer[..3]),
        (3, socket::MAX_FDS, false, &b"all"[..])
    );
    let inode = |fd: &OwnedFd| hull_sys::fs::fstat(fd.as_fd()).unwrap().st_ino;
    assert!(got.fds.iter().zip(&files).all(|(got, sent)| inode(got) == inode(sent)));
    assert!(got.fds.iter().all(|fd| fd::is_cloexec(fd.as_fd()).unwrap()));
    let too_many = vec![files[0].as_fd(); socket::MAX_FDS + 1];
    assert!(socket::send_with_fds(ours.as_fd(), b"x", &too_many).unwrap_err().is(libc::EINVAL));
}

#[test]
fn what_does_not_fit_is_told_and_the_end_is_empty() {
    let (ours, theirs) = socket::seqpacket_pair().unwrap();
    let (ear, _mouth) = fd::pipe().unwrap();
    let fds = [ear.as_fd(), ear.as_fd(), ear.as_fd()];
    for (most, expected) in [(0, 0), (1, 1), (2, 2)] {
        socket::send_with_fds(ours.as_fd(), b"four", &fds).unwrap();
        let got = socket::recv_with_fds(theirs.as_fd(), &mut [0; 8], most).unwrap();
        assert_eq!((got.len, got.fds.len(), got.truncated), (4, expected, true), "{most}");
    }
    socket::send_with_fds(ours.as_fd(), b"four", &[]).unwrap();
    let got = socket::recv_with_fds(theirs.as_fd(), &mut [0; 2], 4).unwrap();
    assert_eq!((got.len, got.fds.len(), got.truncated), (2, 0, true));
    drop(ours);
    let end = socket::recv_with_fds(theirs.as_fd(), &mut [0; 2], 4).unwrap();
    assert_eq!((end.len, end.truncated), (0, false));
    let gone = socket::send_with_fds(theirs.as_fd(), b"x", &[]);
    assert!(gone.unwrap_err().is(libc::EPIPE), "and no signal");
}

#[test]
fn a_socket_in_a_directory_with_a_long_path_is_ours_alone() {
    let scratch = Scratch::new("long");
    let deep = scratch.join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    let directory = place(&deep);
    let listener = socket::listen_seqpacket_at(directory.as_fd(), "gate").unwrap();
    let mode = std::fs::symlink_metadata(deep.join("gate")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(socket::listen_seqpacket_at(directory.as_fd(), "gate").unwrap_err().is(libc::EADDRINUSE));
    let now = Instant::now();
    assert!(!socket::poll_in(listener.as_fd(), now).unwrap());
    let client = socket::connect_seqpacket_at(directory.as_fd(), "gate").unwrap();
    assert!(socket::poll_in(listener.as_fd(), now + Duration::from_secs(60)).unwrap());
    let server = socket::accept(listener.as_fd()).unwrap();
    assert!(fd::is_cloexec(server.as_fd()).unwrap() && fd::is_cloexec(listener.as_fd()).unwrap());
    let peer = socket::peer_credentials(server.as_fd()).unwrap();
    assert_eq!(peer.pid, Some(process::effective_pid()));
    assert_eq!(
        (peer.uid, peer.gid),
        (hull_sys::identity::effective_uid(), hull_sys::identity::effective_gid())
    );
    socket::send_with_fds(client.as_fd(), b"go", &[]).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(socket::recv_with_fds(server.as_fd(), &mut buffer, 0).unwrap().len, 2);
    drop((listener, server));
    assert!(socket::connect_seqpacket_at(directory.as_fd(), "gate").unwrap_err().is(libc::ECONNREFUSED));
    assert!(socket::connect_seqpacket_at(directory.as_fd(), "none").unwrap_err().is(libc::ENOENT));
    for name in ["", "a/b", "../gate"] {
        assert!(
            socket::connect_seqpacket_at(directory.as_fd(), name).unwrap_err().is(libc::EINVAL),
            "{name}"
        );
    }
}

#[test]
fn streams_and_datagrams_arrive_by_path_and_by_directory() {
    let scratch = Scratch::new("short");
    let directory = place(scratch.path());
    let listener = socket::listen_stream_at(directory.as_fd(), "stream").unwrap();
    for client in [
        socket::connect_stream(&scratch.join("stream")).unwrap(),
        socket::connect_stream_at(directory.as_fd(), "stream").unwrap(),
    ] {
        let server = socket::accept(listener.as_fd()).unwrap();
        io::write_all(client.as_fd(), b"hello").unwrap();
        assert_eq!(io::read(server.as_fd(), &mut [0; 9]).unwrap(), 5);
    }
    let notify = socket::bind_public_datagram_at(directory.as_fd(), "notify").unwrap();
    let mode = |name| std::fs::metadata(scratch.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["stream", "notify"].map(mode), [0o600, 0o777]);
    socket::send_datagram(&scratch.join("notify"), b"READY=1").unwrap();
    let mut buffer = [0; 16];
    let len = socket::recv_with_fds(notify.as_fd(), &mut buffer, 0).unwrap().len;
    assert_eq!(&buffer[..len], b"READY=1");
    let nobody = socket::send_datagram(std::path::Path::new("@hull-test-nobody"), b"x");
    assert!(nobody.unwrap_err().is(libc::ECONNREFUSED));
    let (one, other) = socket::stream_pair().unwrap();
    io::write_all(one.as_fd(), b"pair").unwrap();
    assert_eq!(io::read(other.as_fd(), &mut [0; 9]).unwrap(), 4);
}

#[test]
fn a_peer_that_takes_nobody_or_reads_nothing_is_given_up() {
    let scratch = Scratch::new("stuck");
    let directory = place(scratch.path());
    let listener = socket::listen_stream_at(directory.as_fd(), "stream").unwrap();
    let patience = std::time::Duration::from_millis(20);
    let connect = || socket::connect_stream_within(&scratch.join("stream"), patience);
    let mut waiting = Vec::new();
    let full = loop {
        match connect() {
            Ok(client) => waiting.push(client),
            Err(error) => break error,
        }
        assert!(waiting.len() < 1000, "the queue is never full");
    };
    assert!(full.is(libc::EAGAIN), "{full}");
    let unread = io::write_all(waiting[0].as_fd(), &vec![0; 16 << 20]).unwrap_err();
    assert!(unread.is(libc::EAGAIN), "{unread}");
    socket::accept(listener.as_fd()).unwrap();
    connect().unwrap();
}

#[test]
fn the_first_process_of_a_namespace_ends_by_the_signals_it_asked_to_end_by() {
    needs!(gate::root(), gate::alone());
    let end_by = |number| {
        let (ear, mouth) = fd::pipe().unwrap();
        let request = process::CloneRequest { flags: CloneFlags::NEWPID, ..Default::default() };
        let child = process::spawn(&request, || {
            signal::end_on_termination_signals();
            io::write_all(mouth.as_fd(), b"r").unwrap();
            loop {
                hull_sys::poll::wait_for_signal().unwrap();
            }
        })
        .unwrap();
        io::read(ear.as_fd(), &mut [0]).unwrap();
        process::pidfd_send_signal(child.pidfd.as_fd(), number).unwrap();
        process::wait(child.pidfd.as_fd()).unwrap()
    };
    for number in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        assert_eq!(end_by(number), process::WaitStatus::Exited(128 + number));
    }
    assert_eq!(end_by(libc::SIGKILL), process::WaitStatus::Signaled(libc::SIGKILL));
}
