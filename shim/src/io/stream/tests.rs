//! Streams over pipes of the tests' own.

use super::*;

#[test]
fn stream_is_busy_when_it_moved_something_just_before() {
    let now = Instant::now();
    let before = |micros| now.checked_sub(Duration::from_micros(micros));
    assert!(!is_busy(None, now));
    assert!(is_busy(before(999), now));
    assert!(!is_busy(before(1000), now));
}

#[test]
fn stream_waits_for_input_when_nothing_came_in_its_pause() {
    let (input, writer) = hull_sys::fd::pipe().unwrap();
    let (reader, output) = hull_sys::fd::pipe().unwrap();
    hull_sys::fd::set_nonblocking(input.as_fd(), true).unwrap();
    let mut stream = Stream::new(input, Output::Inward(output));
    assert_eq!(stream.take_turn(), Turn::Input);
    let mut bytes = [0; 8];
    // As if the turn before had been in the future, and thus never too long ago.
    let future = || Some(Instant::now() + BUSY);
    for (last, turn) in [(None, Turn::Input), (future(), Turn::Look(PAUSE))] {
        stream.last = last;
        io::write(writer.as_fd(), b"text").unwrap();
        assert_eq!(stream.take_turn(), turn);
        assert_eq!(io::read(reader.as_fd(), &mut bytes).unwrap(), 4, "taken at once");
    }
    assert_eq!(stream.take_turn(), Turn::Input);
    stream.last = future();
    io::write(writer.as_fd(), &[0; MUCH]).unwrap();
    assert_eq!(stream.take_turn(), Turn::Gather(GATHER), "much is held up for less long");
}

#[test]
fn what_a_reader_left_in_its_fifo_outlives_the_end_of_the_input() {
    let (input, writer) = hull_sys::fd::pipe().unwrap();
    let (reader, fd) = hull_sys::fd::pipe().unwrap();
    hull_sys::fd::set_nonblocking(input.as_fd(), true).unwrap();
    let fifo = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    let mut stream = Stream::new(input, Output::Fifo { fd, spool: Spool::new(&std::env::temp_dir()) });
    io::write(writer.as_fd(), b"text").unwrap();
    assert_eq!(stream.take_turn(), Turn::Input);
    // The fifo's file is still named by this while nobody has its reading end open.
    let path = rustix::fs::open(fifo, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    drop((reader, writer));
    for look in [FIRST_LOOK, FIRST_LOOK * 2] {
        assert_eq!(stream.take_turn(), Turn::Look(look));
        assert!(stream.reader_is_away());
    }
    let fifo = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&path));
    let back = std::fs::File::open(fifo).unwrap();
    assert_eq!(stream.take_turn(), Turn::Ended, "whoever reads now gets it all");
    drop(stream);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut { back }, &mut text).unwrap();
    assert_eq!(text, "text");
}

#[test]
fn spool_that_cannot_be_read_is_no_hangup() {
    let (input, _writer) = hull_sys::fd::pipe().unwrap();
    let (_reader, fd) = hull_sys::fd::pipe().unwrap();
    let mut stream = Stream::new(input, Output::Fifo { fd, spool: Spool::new(&std::env::temp_dir()) });
    let error = SysError::new("splice", EIO);
    assert!(stream.is_hangup(error));
    let Output::Fifo { spool, .. } = &mut stream.output else { panic!("a fifo") };
    spool.push(b"kept").unwrap();
    assert!(!stream.is_hangup(error));
}

#[test]
fn pipes_grow_when_they_were_full_twice() {
    let (input, writer) = hull_sys::fd::pipe().unwrap();
    let (reader, output) = hull_sys::fd::pipe().unwrap();
    for end in [&input, &writer] {
        hull_sys::fd::set_nonblocking(end.as_fd(), true).unwrap();
    }
    let mut stream = Stream::new(input, Output::Inward(output));
    let mut bytes = vec![0; 2 * GROWN_PIPE];
    for held in [PIPE, PIPE, GROWN_PIPE] {
        assert_eq!(io::write(writer.as_fd(), &bytes).unwrap(), held);
        stream.take_turn();
        assert_eq!(io::read(reader.as_fd(), &mut bytes).unwrap(), held);
    }
}
