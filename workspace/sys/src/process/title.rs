//! What procfs shows of this process's arguments and environment.

use std::ffi::c_char;

unsafe extern "C" {
    /// program_invocation_name(3): where `argv[0]` is.
    static program_invocation_name: *mut c_char;
}

/// Other arguments, and no environment, for as long as this lives: a process that is cloned meanwhile keeps them, in
/// memory of its own, and `/proc/PID/cmdline` and `environ` of it say nothing of the caller's.
///
/// Nobody may ask for arguments or variables of the environment meanwhile.
#[derive(Debug)]
pub struct Title {
    /// What was there.
    saved: Vec<u8>,
}

impl Title {
    /// Puts `words` in the place of the arguments, as far as they fit there.
    pub fn take_on(words: &[&str]) -> Self {
        let (start, length) = area();
        let mut shown = words.join("\0").into_bytes();
        // The last byte is an end mark, or the kernel takes the environment for a part of the arguments.
        shown.truncate(length.saturating_sub(1));
        shown.resize(length, 0);
        let mut saved = vec![0; length];
        // SAFETY: the area holds `length` bytes of this process's stack, and the vector has room for as many.
        unsafe { std::ptr::copy_nonoverlapping(start, saved.as_mut_ptr(), length) };
        // SAFETY: as above; no reference of Rust's covers the area (the standard library keeps pointers and copies what it
        // is asked for), and the process has one thread.
        unsafe { std::ptr::copy_nonoverlapping(shown.as_ptr(), start, length) };
        Self { saved }
    }

    /// In the cloned process: forgets what was there.
    pub fn keep(&mut self) {
        self.saved.fill(0);
        self.saved.clear();
    }
}

impl Drop for Title {
    fn drop(&mut self) {
        let (start, _) = area();
        // SAFETY: as in `take_on`; `saved` is at most as long as the area.
        unsafe { std::ptr::copy_nonoverlapping(self.saved.as_ptr(), start, self.saved.len()) };
    }
}

/// Where the strings of arguments and environment are: the kernel puts them below the program's file name, one after
/// another (`bprm->exec` in fs/exec.c).
fn area() -> (*mut u8, usize) {
    // SAFETY: the C library sets the pointer before main and never again.
    let start = unsafe { program_invocation_name }.cast::<u8>();
    // SAFETY: a number goes in and comes out: the file name's address, or 0.
    let end = unsafe { libc::getauxval(libc::AT_EXECFN) };
    (start, (end as usize).saturating_sub(start as usize))
}
