//! Memory that is saved before, elsewhere, or later.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use hull_testkit::call::{PATIENCE, eventually};
use hull_testkit::runtime::peek;
use hull_testkit::{Bundle, gate};

use crate::{COUNTER, Pipes, Stage};

#[test]
fn an_earlier_dump_of_the_memory_is_used_by_the_next() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let parent = stage.runtime.beside("parent").display().to_string();
    let first = stage.call(&["checkpoint", "--pre-dump", "--image-path", &parent, &stage.bundle.id]);
    pipes.says("b", "2 b");
    if first.stderr.contains("no tracking of memory") {
        // Refused with the reason, and the container runs on: all that can be seen on such a kernel.
        return gate::skipped("needs a kernel that tracks writes to memory");
    }
    first.done();
    // What is saved anew is taken out of the parent.
    let before = blocks(&parent);
    stage.checkpoint(&["--parent-path", "../parent", "--auto-dedup"]).done();
    assert!(Path::new(&stage.images()).join("parent").is_symlink());
    assert!(blocks(&parent) < before, "{} of {before} blocks", blocks(&parent));
    stage.restore().says("c", "3 c");
}

#[test]
fn a_checkpoint_whose_memory_nobody_fetches_ends_with_a_delete_by_force() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let (images, server) = (stage.images(), format!("127.0.0.1:{}", free_port()));
    let options = ["--image-path", &images, "--lazy-pages", "--page-server", &server, &stage.bundle.id];
    let mut command = stage.runtime.command(&stage.arguments(&[&["checkpoint"], &options[..]].concat()));
    let mut serving = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start checkpoint");
    let log = Path::new(&images).join("dump.log");
    let ready = || fs::read_to_string(&log).is_ok_and(|text| text.contains("status-ready"));
    let ended = |serving: &mut Child| serving.try_wait().expect("look at checkpoint").is_some();
    assert!(eventually(PATIENCE, || ready() || ended(&mut serving)));
    let refused = ended(&mut serving);
    stage.call(&["delete", "--force", &stage.bundle.id]).done();
    stage.is_gone();
    let told = serving.wait_with_output().expect("wait for checkpoint");
    let error = String::from_utf8_lossy(&told.stderr);
    if refused && error.contains("no userfaultfd") {
        return gate::skipped("needs userfaultfd with its non-cooperative events");
    }
    assert!(error.contains("died before all of its memory was fetched"), "{error}");
}

/// Images of memory go over the network to where the container is to be restored.
#[test]
fn memory_goes_to_a_page_server() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let (port, pages) = (free_port(), stage.beside("pages"));
    fs::create_dir(&pages).expect("make a directory");
    let arguments = ["page-server", "--address", "127.0.0.1", "--images-dir", &pages];
    let mut server = Server::start(&stage, &[&arguments[..], &["--port", &port.to_string()]].concat());
    assert!(eventually(PATIENCE, || listens(port) || server.ended().is_some()), "{}", server.said());
    stage.checkpoint(&["--page-server", &format!("127.0.0.1:{port}")]).done();
    assert!(eventually(PATIENCE, || server.ended().is_some()));
    assert_eq!(server.ended(), Some(0), "{}", server.said());
    let moved: Vec<_> =
        fs::read_dir(&pages).expect("list it").flatten().map(|entry| entry.file_name()).collect();
    assert!(moved.iter().any(|name| name.to_string_lossy().starts_with("pages-")), "{moved:?}");
    for name in moved {
        let image = Path::new(&stage.images()).join(&name);
        assert!(!image.exists(), "{} is here as well", image.display());
        fs::rename(Path::new(&pages).join(&name), image).expect("move an image");
    }
    stage.restore().says("b", "2 b");
}

/// The container runs before its memory is there, and `checkpoint` ends when all of it is.
#[test]
fn memory_comes_when_it_is_asked_for() {
    let stage = stage!(Bundle::shell(COUNTER));
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    let (port, images, status) = (free_port(), stage.images(), stage.beside("status"));
    let server = format!("127.0.0.1:{port}");
    let options = [
        "--image-path",
        &images,
        "--lazy-pages",
        "--page-server",
        &server,
        "--status-fd",
        "7",
        &stage.bundle.id,
    ];
    let checkpoint = stage.runtime.command(&stage.arguments(&[&["checkpoint"], &options[..]].concat()));
    let mut with_status = Command::new("sh");
    with_status
        .args(["-c", "exec 7>\"$1\"; shift; exec \"$@\"", "sh", &status])
        .arg(checkpoint.get_program());
    let mut serving = Server::spawn(&stage, "serving", with_status.args(checkpoint.get_args()));
    // A zero byte says that the images are complete but for the memory (criu(8), --status-fd).
    let ready = || fs::read(&status).is_ok_and(|bytes| bytes == [0]);
    assert!(eventually(PATIENCE, || ready() || serving.ended().is_some()), "{}", serving.said());
    if serving.ended().is_some() && serving.said().contains("no userfaultfd") {
        return gate::skipped("needs userfaultfd with its non-cooperative events");
    }
    let (address, port) = ("127.0.0.1", port.to_string());
    let daemon =
        ["lazy-pages", "--page-server", "--address", address, "--port", &port, "--images-dir", &images];
    let mut fetching = Server::start(&stage, &daemon);
    let socket = Path::new(&images).join("lazy-pages.socket");
    assert!(eventually(PATIENCE, || socket.exists() || fetching.ended().is_some()), "{}", fetching.said());
    // Under another name, as the first is in use until its memory is fetched; with the same files.
    let other = Bundle::on(&stage.bundle.root(), &["/bin/sh", "-c", COUNTER]);
    let other = Stage::new(other, stage.criu.clone());
    let bundle = other.bundle.path().display().to_string();
    let options = ["--lazy-pages", "--image-path", &images, "--bundle", &bundle, &other.bundle.id];
    let words = other.arguments(&[&["restore", "--detach"], &options[..]].concat());
    let Some(mut restored) = Pipes::try_start(&mut other.runtime.command(&words)) else {
        // Between CRIU and the kernel: no other runtime's comes through either.
        assert!(
            serving.said().contains("Lazy pages transfer FAILED"),
            "{} {}",
            serving.said(),
            fetching.said()
        );
        return gate::skipped("needs a criu that can serve memory on this kernel");
    };
    restored.says("b", "2 b");
    for server in [&mut serving, &mut fetching] {
        assert!(eventually(PATIENCE, || server.ended().is_some()), "{}", server.said());
        assert_eq!(server.ended(), Some(0), "{}", server.said());
    }
    stage.is_gone();
    restored.says("c", "3 c");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port()
}

/// Somebody listens at the port: whoever connected to find out would be taken for the one who is waited for.
fn listens(port: u16) -> bool {
    let listening = format!(":{port:04X} 00000000:0000 0A ");
    peek("/proc/net/tcp").contains(&listening)
}

/// What the images of a directory take on the disk.
fn blocks(directory: &str) -> u64 {
    let entries = fs::read_dir(directory).expect("list the images").flatten();
    entries.map(|entry| entry.metadata().map_or(0, |found| found.blocks())).sum()
}

/// A program beside the runtime, ended with the test.
struct Server {
    child: Child,
    log: String,
}

impl Server {
    /// One of CRIU's own.
    fn start(stage: &Stage, arguments: &[&str]) -> Self {
        Self::spawn(stage, arguments[0], Command::new(&stage.criu).args(arguments))
    }

    fn spawn(stage: &Stage, name: &str, command: &mut Command) -> Self {
        let log = stage.beside(&format!("{name}.log"));
        let file = fs::File::create(&log).expect("make the log");
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Self { child: command.spawn().expect("start it"), log }
    }

    fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().expect("look at it").map(|status| status.code().unwrap_or(-1))
    }

    fn said(&self) -> String {
        peek(&self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, where the test came to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
