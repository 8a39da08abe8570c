//! What a test needs from the machine. A test that cannot run says why and is counted, never silently passed.
//!
//! ```ignore
//! needs!(gate::root(), gate::program("podman"));
//! ```

use std::io::Write;
use std::path::Path;
use std::{env, fs, thread};

use crate::place;

/// `Ok` when the machine has what is needed, else the reason in a few words.
pub type Gate = Result<(), String>;

/// Returns from the test with a counted `skipped: why` unless every gate is open.
#[macro_export]
macro_rules! needs {
    ($($gate:expr),+ $(,)?) => {
        $(if let Err(why) = $gate { $crate::gate::skipped(&why); return; })+
    };
}

/// Records that the running test is skipped: a line on standard output and one in the run's list.
///
/// # Panics
/// When the list cannot be written: an uncounted skip would look like a pass.
pub fn skipped(why: &str) {
    skipped_part(thread::current().name().unwrap_or("unnamed"), why);
}

/// Records that a part of the running test is skipped, under a name of its own.
///
/// # Panics
/// When the list cannot be written.
pub fn skipped_part(name: &str, why: &str) {
    println!("skipped: {why}");
    let list = list();
    fs::create_dir_all(list.parent().expect("the list has a directory"))
        .expect("make the directory of the list");
    let mut file =
        fs::OpenOptions::new().create(true).append(true).open(&list).expect("open the list of skips");
    file.write_all(format!("{name}: {why}\n").as_bytes()).expect("write the list of skips");
}

/// The file that lists the skipped tests of a run, one `name: why` a line.
#[must_use]
pub fn list() -> std::path::PathBuf {
    env::var_os("HULL_SKIP_LIST").map_or_else(|| place::cache_dir().join("skipped.txt"), Into::into)
}

/// The test changes namespaces, mounts or cgroups of its own.
pub fn root() -> Gate {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err("needs root".into()) }
}

/// The test has a process of its own (`cargo nextest`) in which nothing else runs, so that it may clone itself without
/// exec: a lock of the C library that another thread held would stay locked in the copy.
pub fn alone() -> Gate {
    if env::var_os("NEXTEST").is_none() {
        return Err("needs a process of its own: cargo nextest".into());
    }
    // The harness's first thread goes to sleep soon after it has started the test.
    for _ in 0..1000 {
        if others_sleep() {
            return Ok(());
        }
        thread::sleep(std::time::Duration::from_millis(2));
    }
    Err("needs a process in which nothing else runs".into())
}

fn others_sleep() -> bool {
    let own = fs::read_link("/proc/thread-self").expect("read the own thread's id");
    let own = own.file_name().expect("the link ends in the id").to_owned();
    let threads = fs::read_dir("/proc/self/task").expect("list the threads");
    let mut others = threads.flatten().filter(|thread| thread.file_name() != own);
    others.all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| state.starts_with('S'))
    })
}

/// A program of the distribution is installed.
pub fn program(name: &str) -> Gate {
    match find(name) {
        Some(_) => Ok(()),
        None => Err(format!("needs the program {name}")),
    }
}

/// A file or directory exists.
pub fn path(path: impl AsRef<Path>) -> Gate {
    let path = path.as_ref();
    if path.exists() { Ok(()) } else { Err(format!("needs {}", path.display())) }
}

/// The machine's clock is nobody else's, so that a test may set it: a machine of `integration/vm`.
pub fn own_clock() -> Gate {
    path("/run/hull-vm/started")
        .map_err(|_| "needs a machine with a clock of its own: integration/vm".to_owned())
}

/// The cgroup controllers can be used, in either version.
pub fn cgroups() -> Gate {
    cgroup_v1()
        .or_else(|_| path("/sys/fs/cgroup/cgroup.controllers"))
        .map_err(|_| "needs control groups".to_owned())
}

/// The cgroup controllers are mounted as version 1 hierarchies (pure or hybrid).
pub fn cgroup_v1() -> Gate {
    path("/sys/fs/cgroup/memory/cgroup.procs").map_err(|_| "needs version 1 cgroups".to_owned())
}

/// The Debian root file system has been made (`integration/prepare.sh`).
pub fn debian() -> Gate {
    path(crate::rootfs::debian())
        .map_err(|_| "needs the Debian root file system of integration/prepare.sh".to_owned())
}

/// A CRIU that works on this kernel: the one that `integration/criu.sh` fetched, or the system's.
///
/// # Errors
/// There is none.
pub fn criu() -> Result<std::path::PathBuf, String> {
    let works = |path: &std::path::PathBuf| {
        let mut check = std::process::Command::new(path);
        crate::call(check.arg("check").stdin(std::process::Stdio::null()), std::time::Duration::from_secs(60))
            .code
            == 0
    };
    let fetched = Some(place::cache_dir().join("criu/criu")).filter(|path| path.is_file());
    [fetched, find("criu")]
        .into_iter()
        .flatten()
        .find(works)
        .ok_or_else(|| "needs a criu that works on this kernel: integration/criu.sh".to_owned())
}

/// Finds a program in PATH and in the directories of system programs.
#[must_use]
pub fn find(name: &str) -> Option<std::path::PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into);
    system.into_iter().chain(env::split_paths(&path)).map(|dir| dir.join(name)).find(|file| file.is_file())
}
