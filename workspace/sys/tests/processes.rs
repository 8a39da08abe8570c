//! Effects of the process calls, on children of the test itself.

use hull_sys::process::{self, CloneRequest, WaitStatus};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

#[test]
fn a_child_ends_with_the_code_it_gives() {
    let child = process::spawn(&CloneRequest::default(), || process::exit_now(7)).unwrap();
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), WaitStatus::Exited(7));
}

#[test]
fn abort_in_the_child_ends_the_child_and_not_its_parent() {
    let child = process::spawn(&CloneRequest::default(), || std::process::abort()).unwrap();
    let status = process::wait(child.pidfd.as_fd()).unwrap();
    assert_eq!(status, WaitStatus::Signaled(6));
    assert_eq!(status.code(), 134);
}

#[test]
fn a_panic_in_the_child_does_not_unwind_into_the_parents_code() {
    let child = process::spawn(&CloneRequest::default(), || {
        std::panic::set_hook(Box::new(|_| {}));
        panic!("on purpose")
    })
    .unwrap();
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), WaitStatus::Signaled(6));
}

#[test]
fn a_wait_with_a_deadline_gives_up_on_a_living_child_and_reaps_an_ended_one() {
    let (end, held) = hull_sys::fd::pipe().unwrap();
    let child = process::spawn(&CloneRequest::default(), || {
        drop(held.try_clone());
        let _ = hull_sys::poll::wait_readable(end.as_fd(), Some(Instant::now() + Duration::from_secs(60)));
        process::exit_now(0)
    })
    .unwrap();
    let pidfd = child.pidfd.as_fd();
    assert_eq!(process::wait_until(pidfd, Instant::now()).unwrap(), None);
    assert_eq!(process::try_wait(pidfd).unwrap(), None);
    assert_eq!(process::pidfd_pid(pidfd).unwrap(), Some(child.pid));
    process::pidfd_send_signal(pidfd, 9).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    assert_eq!(process::wait_until(pidfd, deadline).unwrap(), Some(WaitStatus::Signaled(9)));
    assert_eq!(process::pidfd_pid(pidfd).unwrap(), None);
    assert!(process::try_wait(pidfd).unwrap_err().is(10), "ECHILD once it was reaped");
}
