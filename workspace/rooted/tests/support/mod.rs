//! Children of a test that say one line and end.
#![allow(dead_code)] // Each test program uses a part.

use hull_sys::CloneFlags;
use hull_sys::mount::{MS_PRIVATE, set_propagation_path};
use hull_sys::process::{self, CloneRequest};
use std::os::fd::AsFd;

/// What `body` says in a child with the namespaces of `flags`.
pub fn child_says(flags: CloneFlags, body: impl FnOnce() -> String) -> String {
    let (mouth, ear) = {
        let (ear, mouth) = hull_sys::fd::pipe().unwrap();
        (mouth, ear)
    };
    let request = CloneRequest { flags, ..CloneRequest::default() };
    let child = process::spawn(&request, || {
        if flags.contains(CloneFlags::NEWNS) {
            set_propagation_path("/", true, MS_PRIVATE).unwrap();
        }
        let said = body();
        hull_sys::io::write_all(mouth.as_fd(), said.as_bytes()).unwrap();
        process::exit_now(0)
    })
    .unwrap();
    drop(mouth);
    let said = hull_sys::io::read_to_limit(ear.as_fd(), 1 << 16).unwrap();
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap().code(), 0, "the child ends well");
    String::from_utf8(said).unwrap()
}

/// A line for any result: the debug form of the value, or the chain of errors.
pub fn line<T: std::fmt::Debug>(result: Result<T, hull_rooted::Error>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// Makes the system call `number` fail with `errno` in this process from now on, as if the kernel lacked it.
pub fn take_away(number: i64, errno: i32) {
    use hull_sys::seccomp::{SeccompInstruction, load_filter};
    let step = |code, jump_false, operand| SeccompInstruction { code, jump_true: 0, jump_false, operand };
    let number = u32::try_from(number).unwrap();
    let refuse = 0x0005_0000 | u32::try_from(errno).unwrap();
    // Load the number; compare; fail or allow.
    let filter = [step(0x20, 0, 0), step(0x15, 1, number), step(0x06, 0, refuse), step(0x06, 0, 0x7fff_0000)];
    process::set_no_new_privileges().unwrap();
    load_filter(&filter, 0).unwrap();
}
