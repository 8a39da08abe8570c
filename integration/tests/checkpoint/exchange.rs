//! Images that hull and runc hand to each other.

use std::env;
use std::process::{Command, Stdio};

use hull_testkit::gate::Gate;
use hull_testkit::{Bundle, Outcome, Runtime, gate, needs};
use serde_json::json;

use crate::{COUNTER, Pipes, Stage};

/// runc, with the bundle and the CRIU of a stage.
struct Peer<'a> {
    runtime: Runtime,
    stage: &'a Stage,
}

impl<'a> Peer<'a> {
    fn beside(stage: &'a Stage) -> Self {
        Self { runtime: Runtime::at(gate::find("runc").expect("looked for by the test")), stage }
    }

    /// Newer versions look for CRIU in PATH alone. Logs of what was asked of it are left where the caller is.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.runtime.command(words);
        let criu = self.stage.criu.parent().into_iter().map(Into::into);
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(criu.chain(env::split_paths(&path))).expect("a list of directories");
        command.env("PATH", path).current_dir(self.stage.bundle.path());
        command
    }

    fn call(&self, words: &[&str]) -> Outcome {
        hull_testkit::call(&mut self.command(words), hull_testkit::runtime::LIMIT)
    }

    /// Older versions and newer ones of CRIU do not agree on every kernel.
    fn restores_its_own(&self) -> Gate {
        let bundle = Bundle::new(&["/bin/sleep", "1000"]);
        let (path, id) = (bundle.path().to_str().expect("UTF-8"), bundle.id.as_str());
        let images = self.runtime.beside("own").display().to_string();
        let quietly = |words: &[&str]| {
            let mut command = self.command(words);
            let command = command.stdout(Stdio::null()).stderr(Stdio::null());
            command.status().expect("start runc").success()
        };
        let done = quietly(&["run", "--detach", "--bundle", path, id])
            && quietly(&["checkpoint", "--image-path", &images, id])
            && quietly(&["restore", "--detach", "--bundle", path, "--image-path", &images, id]);
        quietly(&["delete", "--force", id]);
        if done { Ok(()) } else { Err("needs a runc that restores its own containers".to_owned()) }
    }

    fn checkpoint(&self, images: &str) {
        self.call(&["checkpoint", "--image-path", images, &self.stage.bundle.id]).done();
    }

    fn restore(&self, images: &str) -> Pipes {
        let bundle = self.stage.bundle.path().to_str().expect("UTF-8");
        let log = self.runtime.beside("log").display().to_string();
        let id = self.stage.bundle.id.as_str();
        let words = ["--log", &log, "restore", "--detach", "--bundle", bundle, "--image-path", images, id];
        Pipes::start(self.command(&words), &log)
    }
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        // Gone already, where the test came to its end.
        let _ = self.call(&["delete", "--force", &self.stage.bundle.id]);
    }
}

/// Pipes, bind mounts, a tmpfs and masked paths: all that has a name in the images which both must give it.
#[test]
fn images_go_from_hull_to_runc_and_back() {
    needs!(gate::program("runc"));
    let volume = hull_testkit::Scratch::new("volume");
    std::fs::write(volume.join("file"), "of the host\n").expect("write");
    let source = volume.path().display().to_string();
    let stage = stage!(Bundle::shell(&format!("echo in memory >/scratch/file; {COUNTER}")).with(|config| {
        let mounts = config["mounts"].as_array_mut().expect("an array");
        mounts.push(json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs" }));
        mounts.push(
            json!({ "destination": "/volume", "type": "bind", "source": source, "options": ["bind", "ro"] }),
        );
    }));
    let peer = Peer::beside(&stage);
    needs!(peer.restores_its_own());
    let mut pipes = stage.run();
    pipes.says("a", "1 a");
    stage.checkpoint(&[]).done();
    let (first, second) = (stage.images(), stage.beside("images-of-runc"));
    let mut pipes = peer.restore(&first);
    pipes.says("b", "2 b");
    peer.checkpoint(&second);
    let mut pipes = stage.with_pipes("restore", &["--image-path", &second], &stage.bundle.id);
    pipes.says("c", "3 c");
    assert_eq!(stage.inside("cat /scratch/file /volume/file"), "in memory\nof the host");
}
