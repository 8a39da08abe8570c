//! Descriptors, files and what is read and written through them.
#![allow(clippy::unwrap_used)] // Functions of a test are tests.

mod support;

use hull_sys::event::{self, Epoll, EventFlags, Ready, WatchFlags};
use hull_sys::fs::{self, FileType, Lock, Mode, OFlags, RenameFlags, ResolveFlags};
use hull_sys::{CWD, CloneFlags, fd, io, memfd, process};
use hull_testkit::{Scratch, gate, needs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use support::{child_says, line, place, take_away};

fn a_minute() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(60))
}

fn open(scratch: &Scratch, name: &str, flags: OFlags) -> OwnedFd {
    fs::openat(CWD, scratch.join(name), flags, Mode::from_raw_mode(0o600)).unwrap()
}

#[test]
fn inherited_fds_are_marked_and_only_those_from_the_first_on() {
    needs!(gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        let (ear, mouth) = fd::pipe().unwrap();
        fd::dup_onto(ear.as_fd(), 100).unwrap();
        fd::dup_onto(mouth.as_fd(), 101).unwrap();
        fd::mark_cloexec_from(101).unwrap();
        let (low, high) = (fd::adopt(100), fd::adopt(102));
        let kept = std::fs::read_to_string("/proc/self/fdinfo/101").unwrap();
        let flags = kept.lines().find_map(|line| line.strip_prefix("flags:\t")).unwrap();
        let flags = i32::from_str_radix(flags, 8).unwrap();
        let adopted = fd::is_cloexec(low.unwrap().as_fd()).unwrap();
        format!("{adopted} {} {}", flags & libc::O_CLOEXEC != 0, line(high))
    });
    assert_eq!(said, format!("true true fcntl(F_GETFD) {}", libc::EBADF));
}

#[test]
fn what_the_caller_left_open_is_taken_over_and_nothing_of_our_own() {
    needs!(gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        // Whoever runs the tests may have left some open, too.
        let _others = fd::adopt_inherited(100).unwrap();
        let (ear, mouth) = fd::pipe().unwrap();
        for number in [100, 101, 102] {
            fd::dup_onto(ear.as_fd(), number).unwrap();
        }
        let _own = fd::adopt(101).unwrap();
        let taken = fd::adopt_inherited(100).unwrap();
        drop(mouth);
        let numbers: Vec<_> = taken.iter().map(AsRawFd::as_raw_fd).collect();
        let marked = taken.iter().all(|fd| fd::is_cloexec(fd.as_fd()).unwrap());
        format!("{numbers:?} {marked} {}", fd::adopt_inherited(100).unwrap().len())
    });
    assert_eq!(said, "[100, 102] true 0");
}

#[test]
fn an_fd_put_at_a_number_is_inherited() {
    needs!(gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        let (ear, _mouth) = fd::pipe().unwrap();
        let before = fd::is_cloexec(ear.as_fd()).unwrap();
        fd::dup_onto(ear.as_fd(), ear.as_raw_fd()).unwrap();
        let onto_itself = fd::is_cloexec(ear.as_fd()).unwrap();
        let high = fd::dup_above(ear.as_fd(), 500).unwrap();
        format!(
            "{before} {onto_itself} {} {}",
            high.as_raw_fd() >= 500,
            fd::is_cloexec(high.as_fd()).unwrap()
        )
    });
    assert_eq!(said, "true false true true");
}

#[test]
fn missing_standard_streams_become_the_null_device() {
    needs!(gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        // What the child says goes through an fd that must survive.
        let open =
            || (0..3).filter(|number| std::path::Path::new(&format!("/proc/self/fd/{number}")).exists());
        for number in 0..3 {
            drop(fd::adopt(number).unwrap());
        }
        let closed = 3 - open().count();
        fd::open_std_fds().unwrap();
        let links = [0, 1, 2].map(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap());
        let (ear, _mouth) = fd::pipe().unwrap();
        format!("{closed} {links:?} {}", ear.as_raw_fd() > 2)
    });
    assert_eq!(said, "3 [\"/dev/null\", \"/dev/null\", \"/dev/null\"] true");
}

#[test]
fn an_end_that_does_not_block_says_so() {
    let (ear, mouth) = fd::nonblocking_pipe().unwrap();
    assert!(io::read(ear.as_fd(), &mut [0; 4]).unwrap_err().is(libc::EAGAIN));
    fd::set_nonblocking(ear.as_fd(), false).unwrap();
    io::write_all(mouth.as_fd(), b"x").unwrap();
    assert_eq!(io::read(ear.as_fd(), &mut [0; 4]).unwrap(), 1);
    fd::set_nonblocking(ear.as_fd(), true).unwrap();
    assert!(io::read(ear.as_fd(), &mut [0; 4]).unwrap_err().is(libc::EAGAIN));
}

#[test]
fn reading_to_a_limit_takes_exactly_that_much() {
    let scratch = Scratch::new("limit");
    for len in [0, 1, 16 * 1024, 16 * 1024 + 1, 100_000] {
        std::fs::write(scratch.join("file"), vec![b'x'; len]).unwrap();
        let read = |limit| io::read_to_limit(open(&scratch, "file", OFlags::RDONLY).as_fd(), limit);
        assert_eq!(read(len).unwrap().len(), len);
        assert_eq!(read(len + 1).unwrap().len(), len);
        if len > 0 {
            assert!(read(len - 1).unwrap_err().is(libc::EFBIG), "{len}");
        }
    }
}

#[test]
fn bytes_move_between_pipes_and_files_inside_the_kernel() {
    let scratch = Scratch::new("splice");
    std::fs::write(scratch.join("from"), "0123456789").unwrap();
    let file = open(&scratch, "from", OFlags::RDONLY);
    let ((ear, mouth), (copy_ear, copy_mouth)) = (fd::pipe().unwrap(), fd::pipe().unwrap());
    assert_eq!(io::splice(file.as_fd(), mouth.as_fd(), 4).unwrap(), 4);
    assert_eq!(io::tee(ear.as_fd(), copy_mouth.as_fd(), 100).unwrap(), 4);
    assert_eq!(io::sendfile(file.as_fd(), mouth.as_fd(), 100).unwrap(), 6);
    let mut bytes = [0; 20];
    assert_eq!((io::read(ear.as_fd(), &mut bytes).unwrap(), &bytes[..10]), (10, &b"0123456789"[..]));
    assert_eq!((io::read(copy_ear.as_fd(), &mut bytes).unwrap(), &bytes[..4]), (4, &b"0123"[..]));
    assert!(io::splice(ear.as_fd(), copy_mouth.as_fd(), 4).unwrap_err().is(libc::EAGAIN));
    assert_eq!(io::splice(file.as_fd(), mouth.as_fd(), 4).unwrap(), 0, "the end");
    let (again, to) =
        (open(&scratch, "from", OFlags::RDONLY), open(&scratch, "to", OFlags::CREATE | OFlags::RDWR));
    assert_eq!(io::copy_file_range(again.as_fd(), to.as_fd(), 7).unwrap(), 7);
    assert_eq!(std::fs::read(scratch.join("to")).unwrap(), b"0123456");
}

#[test]
fn the_mode_of_a_mere_place_is_changed_and_that_of_a_link_is_not() {
    let scratch = Scratch::new("mode");
    std::fs::write(scratch.join("file"), "").unwrap();
    std::os::unix::fs::symlink("file", scratch.join("link")).unwrap();
    let mode = || std::fs::metadata(scratch.join("file")).unwrap().mode() & 0o7777;
    fs::fchmod(place(scratch.join("file")).as_fd(), Mode::from_raw_mode(0o4751)).unwrap();
    assert_eq!(mode(), 0o4751);
    fs::fchmod(open(&scratch, "file", OFlags::RDWR).as_fd(), Mode::from_raw_mode(0o640)).unwrap();
    assert_eq!(mode(), 0o640);
    let link = open(&scratch, "link", OFlags::PATH | OFlags::NOFOLLOW);
    assert!(fs::fchmod(link.as_fd(), Mode::from_raw_mode(0o777)).unwrap_err().is(libc::EOPNOTSUPP));
    assert_eq!(mode(), 0o640);
}

#[test]
fn without_fchmodat2_the_mode_of_a_place_is_changed_through_procfs() {
    needs!(gate::alone());
    const FCHMODAT2: i64 = 452;
    let scratch = Scratch::new("chmod");
    std::fs::write(scratch.join("file"), "").unwrap();
    std::os::unix::fs::symlink("file", scratch.join("link")).unwrap();
    let said = child_says(CloneFlags::empty(), || {
        take_away(FCHMODAT2, libc::ENOSYS);
        let link = open(&scratch, "link", OFlags::PATH | OFlags::NOFOLLOW);
        let file = fs::fchmod(place(scratch.join("file")).as_fd(), Mode::from_raw_mode(0o604));
        format!("{} {}", line(file), line(fs::fchmod(link.as_fd(), Mode::from_raw_mode(0o777))))
    });
    assert_eq!(said, format!("ok fchmod {}", libc::EOPNOTSUPP));
    assert_eq!(std::fs::metadata(scratch.join("file")).unwrap().mode() & 0o777, 0o604);
}

#[test]
fn owners_change_for_the_file_named_and_never_for_what_a_link_leads_to() {
    needs!(gate::root());
    let scratch = Scratch::new("owner");
    std::fs::write(scratch.join("file"), "").unwrap();
    std::os::unix::fs::symlink("file", scratch.join("link")).unwrap();
    let directory = place(scratch.path());
    fs::fchownat(directory.as_fd(), "link", 5, 6).unwrap();
    fs::fchown(place(scratch.join("file")).as_fd(), 7, u32::MAX).unwrap();
    let owner = |name| {
        let found = std::fs::symlink_metadata(scratch.join(name)).unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!((owner("link"), owner("file")), ((5, 6), (7, 0)));
}

#[test]
fn attributes_of_files_are_set_listed_and_removed() {
    let scratch = Scratch::new("xattr");
    std::fs::write(scratch.join("file"), "").unwrap();
    let file = open(&scratch, "file", OFlags::RDWR);
    let first = fs::fsetxattr(file.as_fd(), "user.one", b"\0value");
    needs!(first.map_err(|error| format!("needs a file system with user attributes: {error}")));
    assert_eq!(fs::fgetxattr(file.as_fd(), "user.one").unwrap().unwrap(), b"\0value");
    assert_eq!(fs::fgetxattr(file.as_fd(), "user.two").unwrap(), None);
    assert_eq!(fs::flistxattr(file.as_fd()).unwrap(), [c"user.one".to_owned()]);
    fs::fremovexattr(file.as_fd(), "user.one").unwrap();
    assert!(fs::flistxattr(file.as_fd()).unwrap().is_empty());
}

#[test]
fn a_lock_belongs_to_the_open_file() {
    let scratch = Scratch::new("lock");
    let (one, two) =
        (open(&scratch, "file", OFlags::CREATE | OFlags::RDWR), open(&scratch, "file", OFlags::RDONLY));
    fs::flock(one.as_fd(), Lock::Exclusive).unwrap();
    assert!(!fs::try_flock(two.as_fd(), Lock::Exclusive).unwrap());
    assert!(!fs::try_flock(two.as_fd(), Lock::Shared).unwrap());
    assert!(fs::try_flock(one.as_fd(), Lock::Shared).unwrap());
    assert!(fs::try_flock(two.as_fd(), Lock::Shared).unwrap());
    fs::flock(one.as_fd(), Lock::None).unwrap();
    assert!(fs::try_flock(two.as_fd(), Lock::Exclusive).unwrap());
}

#[test]
fn a_file_is_in_its_place_until_it_is_removed_or_another_comes() {
    let scratch = Scratch::new("place");
    let own = open(&scratch, "file", OFlags::CREATE | OFlags::RDWR);
    let path = scratch.path().join("file");
    assert!(fs::is_in_place(own.as_fd(), CWD, &path));
    std::fs::rename(&path, scratch.path().join("moved")).unwrap();
    assert!(!fs::is_in_place(own.as_fd(), CWD, &path));
    let other = open(&scratch, "file", OFlags::CREATE | OFlags::RDWR);
    assert!(!fs::is_in_place(own.as_fd(), CWD, &path));
    assert!(fs::is_in_place(other.as_fd(), CWD, &path));
    assert!(fs::is_in_place(own.as_fd(), CWD, scratch.path().join("moved")));
}

#[test]
fn names_are_made_moved_listed_and_removed() {
    let scratch = Scratch::new("names");
    let directory =
        fs::openat(CWD, scratch.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let at = directory.as_fd();
    fs::mkdirat(at, "dir", Mode::from_raw_mode(0o700)).unwrap();
    fs::symlinkat("text", at, "link").unwrap();
    fs::linkat(at, "link", at, "again").unwrap();
    fs::renameat(at, "again", at, "moved").unwrap();
    let kept = fs::renameat_with(at, "moved", at, "link", RenameFlags::NOREPLACE);
    assert!(kept.unwrap_err().is(libc::EEXIST));
    assert_eq!(fs::readlinkat(at, "moved").unwrap(), c"text".to_owned());
    assert!(fs::unlinkat(at, "dir").unwrap_err().is(libc::EISDIR));
    let mut names: Vec<_> = fs::read_directory(at).unwrap().into_iter().map(|e| (e.name, e.kind)).collect();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        (c"dir".to_owned(), FileType::Directory),
        (c"link".to_owned(), FileType::Symlink),
        (c"moved".to_owned(), FileType::Symlink),
    ];
    assert_eq!(names, expected);
    fs::unlinkat(at, "moved").unwrap();
    fs::rmdirat(at, "dir").unwrap();
    assert!(fs::statat(at, "dir").unwrap_err().is(libc::ENOENT));
}

#[test]
fn a_lookup_keeps_to_its_limits_and_its_fd_to_itself() {
    let root = place("/");
    let climb = |resolve| {
        fs::openat2(root.as_fd(), "../proc/self/root/etc", OFlags::PATH, Mode::empty(), resolve).map(drop)
    };
    assert!(climb(ResolveFlags::BENEATH).unwrap_err().is(libc::EXDEV));
    assert!(climb(ResolveFlags::NO_MAGICLINKS).unwrap_err().is(libc::ELOOP));
    climb(ResolveFlags::empty()).unwrap();
    let opened =
        fs::openat2(root.as_fd(), "etc", OFlags::PATH, Mode::empty(), ResolveFlags::IN_ROOT).unwrap();
    assert!(fd::is_cloexec(opened.as_fd()).unwrap());
    assert!(fs::openat(CWD, "a\0b", OFlags::PATH, Mode::empty()).unwrap_err().is(libc::EINVAL));
}

#[test]
fn a_sealed_file_never_changes_again() {
    let file = memfd::sealed_memfd("hull-test", true).unwrap();
    assert!(!memfd::is_sealed(file.as_fd()).unwrap());
    io::write_all(file.as_fd(), b"text").unwrap();
    memfd::seal_all(file.as_fd()).unwrap();
    assert!(memfd::is_sealed(file.as_fd()).unwrap());
    assert!(fd::is_cloexec(file.as_fd()).unwrap());
    for refused in
        [io::write_all(file.as_fd(), b"x"), fs::ftruncate(file.as_fd(), 0), fs::ftruncate(file.as_fd(), 9)]
    {
        assert!(refused.unwrap_err().is(libc::EPERM));
    }
    assert!(memfd::seal_all(file.as_fd()).unwrap_err().is(libc::EPERM), "the seals are sealed too");
    assert!(!memfd::is_sealed(place("/proc/self/status").as_fd()).unwrap_or(false));
}

#[test]
fn a_sealed_file_is_a_program_only_when_it_was_meant_to_be() {
    needs!(gate::alone());
    let code = |exec: bool| {
        let file = memfd::sealed_memfd("hull-test", exec).unwrap();
        io::write_all(file.as_fd(), &std::fs::read("/proc/self/exe").unwrap()).unwrap();
        memfd::seal_all(file.as_fd()).unwrap();
        let list =
            |text: &[&std::ffi::CStr]| process::CStrings::new(text.iter().map(|&s| s.to_owned()).collect());
        let (argv, envp) = (list(&[c"self", c"--list"]), list(&[]));
        let child = process::spawn(&process::CloneRequest::default(), || {
            fd::dup_onto(place("/dev/null").as_fd(), 1).unwrap();
            let error = process::execveat(file.as_fd(), c"", &argv, &envp, libc::AT_EMPTY_PATH);
            process::exit_now(error.errno)
        })
        .unwrap();
        process::wait(child.pidfd.as_fd()).unwrap().code()
    };
    assert_eq!(code(false), libc::EACCES);
    assert_ne!(code(true), libc::EACCES);
}

#[test]
fn the_same_fd_is_told_again_until_it_is_read() {
    let (ear, mouth) = fd::pipe().unwrap();
    let mut set = Epoll::new(4).unwrap();
    set.add(ear.as_fd(), 7, EventFlags::IN).unwrap();
    assert_eq!(set.wait(Some(Instant::now())).unwrap(), []);
    io::write_all(mouth.as_fd(), b"x").unwrap();
    let ready = [Ready { token: 7, flags: EventFlags::IN }];
    assert_eq!(set.wait(a_minute()).unwrap(), ready);
    assert_eq!(set.wait(a_minute()).unwrap(), ready);
    assert_eq!(event::bytes_waiting(ear.as_fd()).unwrap(), 1);
    set.modify(ear.as_fd(), 8, EventFlags::empty()).unwrap();
    assert_eq!(set.wait(Some(Instant::now())).unwrap(), []);
    drop(mouth);
    assert_eq!(set.wait(a_minute()).unwrap(), [Ready { token: 8, flags: EventFlags::HUP }]);
    set.remove(ear.as_fd()).unwrap();
    assert_eq!(set.wait(Some(Instant::now())).unwrap(), []);
    let soon = Instant::now() + Duration::from_micros(300);
    assert_eq!(set.wait(Some(soon)).unwrap(), []);
    assert!(Instant::now() >= soon, "it waits for parts of a millisecond, too");
    assert!(set.remove(ear.as_fd()).unwrap_err().is(libc::ENOENT));
}

#[test]
fn timers_and_counters_become_readable_and_are_taken_once() {
    let readable = |fd: BorrowedFd<'_>, until| hull_sys::poll::wait_readable(fd, until).unwrap();
    let timer = event::timer_fd().unwrap();
    event::set_timer(timer.as_fd(), Some(Duration::from_secs(3600))).unwrap();
    assert_eq!(event::take_count(timer.as_fd()).unwrap(), 0);
    event::set_timer(timer.as_fd(), Some(Duration::ZERO)).unwrap();
    assert!(readable(timer.as_fd(), a_minute()));
    assert_eq!(
        (event::take_count(timer.as_fd()).unwrap(), event::take_count(timer.as_fd()).unwrap()),
        (1, 0)
    );
    event::set_timer(timer.as_fd(), None).unwrap();
    assert!(!readable(timer.as_fd(), Some(Instant::now())));
    let counter = event::event_fd().unwrap();
    event::raise_event(counter.as_fd()).unwrap();
    event::raise_event(counter.as_fd()).unwrap();
    assert!(readable(counter.as_fd(), a_minute()));
    assert_eq!(
        (event::take_count(counter.as_fd()).unwrap(), event::take_count(counter.as_fd()).unwrap()),
        (2, 0)
    );
}

#[test]
fn changes_of_files_are_seen_with_their_names() {
    let scratch = Scratch::new("watch");
    let queue = event::inotify_fd().unwrap();
    let watch =
        event::add_watch_fd(queue.as_fd(), place(scratch.path()).as_fd(), WatchFlags::CREATE).unwrap();
    assert!(event::read_changes(queue.as_fd()).unwrap().is_empty());
    std::fs::write(scratch.join("new"), "").unwrap();
    assert!(hull_sys::poll::wait_readable(queue.as_fd(), a_minute()).unwrap());
    let changes = event::read_changes(queue.as_fd()).unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].watch, changes[0].name.as_deref()), (watch, Some(c"new")));
    assert!(changes[0].flags.contains(event::ReadFlags::CREATE));
}

#[test]
fn the_first_of_many_that_is_ready_is_told() {
    let pipes: Vec<_> = (0..3).map(|_| fd::pipe().unwrap()).collect();
    let ends: Vec<_> = pipes.iter().map(|(ear, _)| ear.as_fd()).collect();
    let ready = |until| hull_sys::poll::wait_any_readable(&ends, until).unwrap();
    assert_eq!(ready(Some(Instant::now())), None);
    io::write_all(pipes[2].1.as_fd(), b"x").unwrap();
    assert_eq!(ready(a_minute()), Some(2));
    io::write_all(pipes[1].1.as_fd(), b"x").unwrap();
    assert_eq!(ready(a_minute()), Some(1));
    assert!(hull_sys::poll::wait_writable(pipes[0].1.as_fd(), a_minute()).unwrap());
}

#[test]
fn a_child_keeps_the_fds_it_names_and_the_standard_ones() {
    needs!(gate::alone());
    let (ear, mouth) = fd::pipe().unwrap();
    let child = process::spawn(&process::CloneRequest::default(), || {
        fd::dup_onto(ear.as_fd(), 50).unwrap();
        fd::dup_onto(ear.as_fd(), 70).unwrap();
        let keep = mouth.as_raw_fd();
        fd::close_all_but(vec![70, 1, keep]).unwrap();
        let open = (0..100).filter(|number| fd::adopt(*number).map(std::mem::forget).is_ok());
        let open: Vec<i32> = open.filter(|number| *number > 2).collect();
        process::exit_now(i32::from(open == [keep.min(70), keep.max(70)]))
    });
    assert_eq!(process::wait(child.unwrap().pidfd.as_fd()).unwrap().code(), 1);
}

#[test]
fn whether_a_file_may_be_executed_is_asked_for_the_effective_user() {
    needs!(gate::root(), gate::alone());
    let scratch = Scratch::new("access");
    std::fs::write(scratch.join("file"), "").unwrap();
    let said = child_says(CloneFlags::empty(), || {
        fs::fchmod(place(scratch.join("file")).as_fd(), Mode::from_raw_mode(0o700)).unwrap();
        let root = line(fs::access_execute(scratch.join("file")));
        hull_sys::identity::set_uids(u32::MAX, 1000, u32::MAX).unwrap();
        let user = line(fs::access_execute(scratch.join("file")));
        format!("{root} {user}")
    });
    assert_eq!(said, format!("ok faccessat2 {}", libc::EACCES));
}
