//! What a long life brings: process numbers that come back, programs that are replaced, much input.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_shim::api::*;
use hull_testkit::call::eventually;
use hull_testkit::gate::{Gate, root};
use hull_testkit::{Bundle, Scratch, needs, runtime};
use task_client::*;

/// Since Linux 6.14 each pid namespace has a largest number of its own; before, this would change the host's.
fn own_largest_pid() -> Gate {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|word| word.trim().parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 14) {
        return Err(format!("pid namespaces of Linux {} have no largest pid of their own", release.trim()));
    }
    Ok(())
}

/// A shim that is started in a pid namespace with a hundred numbers for all but the first processes.
struct SmallNamespace {
    place: Scratch,
}

impl SmallNamespace {
    fn new() -> Self {
        let place = Scratch::new("small");
        let script = format!(
            "#!/bin/sh\nmkfifo {place}/answer\nunshare --pid --fork --kill-child --mount-proc sh -c \
             'echo 400 > /proc/sys/kernel/pid_max && {shim} \"$@\" > {place}/answer 2>&1; exec sleep 1000' sh \"$@\" \
             < /dev/null > /dev/null 2>&1 &\necho $! > {place}/unshare\nexec cat {place}/answer\n",
            shim = our_shim().display(),
            place = place.path().display(),
        );
        fs::write(place.join("shim"), script).unwrap();
        fs::set_permissions(place.join("shim"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { place }
    }

    fn shim(&self) -> PathBuf {
        self.place.join("shim")
    }
}

impl Drop for SmallNamespace {
    fn drop(&mut self) {
        // The namespace goes with it.
        if let Ok(pid) = fs::read_to_string(self.place.join("unshare")) {
            kill_9(pid.trim().parse().unwrap());
        }
    }
}

#[test]
fn process_numbers_that_come_back_are_not_mistaken() {
    needs!(root(), own_largest_pid());
    let namespace = SmallNamespace::new();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let mut shim = Shim::start_with(namespace.shim(), bundle, runtime::under_test());
    shim.run();
    let long = shim.exec("long", "sleep 1000");
    let mut seen = BTreeSet::from([long]);
    let mut again = 0;
    for number in 0..300 {
        let name = format!("e{number}");
        let pid = shim.exec(&name, &format!("exit {}", number % 100 + 1));
        assert_eq!(shim.wait(&name), number % 100 + 1, "exec {number} as {pid}");
        again += u32::from(!seen.insert(pid));
        let request = shim.named(&name);
        shim.ok::<DeleteResponse>("Delete", &request);
    }
    assert!(again > 20, "{again} of 300 numbers came back");
    let request = shim.named("");
    let pids = shim.ok::<PidsResponse>("Pids", &request).processes;
    assert!(pids.iter().any(|process| process.pid == long), "the first exec is still there: {pids:?}");
    shim.kill(9);
    assert_eq!((shim.wait("long"), shim.wait("")), (137, 137));
    shim.delete();
    shim.shut_down();
}

/// Puts a new file with the same content in the place of a program, as an installation does.
fn replace(program: &Path) {
    let new = program.with_extension("new");
    fs::copy(program, &new).unwrap();
    fs::rename(new, program).unwrap();
}

#[test]
fn container_lives_on_when_its_runtime_and_shim_are_replaced() {
    needs!(root());
    let place = Scratch::new("installed");
    let (program, runtime) = (place.join("containerd-shim-hull-v2"), place.join("hull"));
    fs::copy(our_shim(), &program).unwrap();
    fs::copy(hull_testkit::runtime::under_test(), &runtime).unwrap();
    let bundle = Bundle::new(&["/bin/sleep", "1000"]);
    let mut shim = Shim::start_with(program.clone(), bundle, runtime.clone());
    shim.run();
    replace(&program);
    replace(&runtime);
    shim.exec("e", "exit 3");
    assert_eq!(shim.wait("e"), 3);
    let answer = action(&program, &shim.bundle, &shim.place, "start", b"");
    assert_eq!(
        String::from_utf8(answer.stdout).unwrap(),
        shim.address,
        "the old shim is found by the new one"
    );
    kill_9(shim.pid());
    let socket = shim.socket();
    assert!(eventually(LIMIT, || std::os::unix::net::UnixStream::connect(&socket).is_err()));
    shim.mark_ended();
    let answer = shim.delete_action();
    assert!(answer.status.success(), "{answer:?}");
    assert!(!socket.exists());
    assert!(!Path::new(&shim.options.root).join("testkit").join(&shim.bundle.id).exists());
}

#[test]
fn gigabyte_of_input_arrives_whole_and_ends() {
    needs!(root());
    const CHUNKS: usize = 1024;
    let mut shim = Shim::start(Bundle::new(&["/bin/wc", "-c"]));
    let (stdin, stdout) = (fifo(&shim.place.join("in")), fifo(&shim.place.join("out")));
    let request = CreateTaskRequest { stdin: stdin.clone(), stdout: stdout.clone(), ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    let reader = std::thread::spawn(move || fs::read_to_string(stdout).unwrap());
    let writer = std::thread::spawn(move || {
        let mut file = fs::File::options().write(true).open(stdin).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        (0..CHUNKS).for_each(|_| file.write_all(&chunk).unwrap());
    });
    // Nothing of it gets lost before there is somebody to read it.
    std::thread::sleep(Duration::from_millis(200));
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
    writer.join().unwrap();
    let close = CloseIoRequest { id: shim.bundle.id.clone(), stdin: true, ..CloseIoRequest::default() };
    shim.call("CloseIO", &close).unwrap();
    assert_eq!(shim.wait(""), 0);
    shim.delete();
    assert_eq!(reader.join().unwrap().trim(), (CHUNKS << 20).to_string());
    shim.shut_down();
}
