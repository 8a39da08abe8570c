//! Many idle containers: what their shims and monitors keep, and whether all go away again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_testkit::call::eventually;
use hull_testkit::{Bundle, gate, place, runtime};

use crate::{Driven, Peer, Site};

/// How many containers the comparison has.
const CROWD: usize = 100;

struct Kept {
    rss: u64,
    pss: u64,
    private: u64,
    threads: u64,
    descriptors: usize,
}

/// Memory per shim and monitor with 100 idle containers.
pub(crate) fn memory(peers: &[Peer]) {
    println!("{CROWD} idle containers, average for each (kB)");
    println!("{:16}{:>8}{:>8}{:>9}{:>9}{:>6}", "", "RSS", "PSS", "private", "threads", "fds");
    for peer in peers {
        let site = Site::new();
        let mut shims: Vec<Driven> = (0..CROWD).map(|_| idle(&site, peer)).collect();
        let pids: Vec<u32> = shims.iter_mut().map(Driven::shim_pid).collect();
        row(peer.name, &pids);
        shims.into_iter().for_each(end);
    }
    let conmon = gate::find("conmon");
    let monitors =
        [Some(("hull-monitor", place::program("hull-monitor"))), conmon.map(|found| ("conmon", found))];
    for (name, program) in monitors.into_iter().flatten() {
        let site = Site::new();
        let held: Vec<Monitored> =
            (0..CROWD).map(|_| Monitored::start(&program, &site, &["sleep", "10000"])).collect();
        row(name, &held.iter().map(|one| one.pid).collect::<Vec<_>>());
        held.into_iter().for_each(|one| one.end(&site));
    }
}

fn idle(site: &Site, peer: &Peer) -> Driven {
    let mut shim = site.shim(peer, site.bundle(&["sleep", "10000"]));
    site.create(&mut shim, ["", ""]);
    shim.start();
    shim
}

fn end(mut shim: Driven) {
    shim.kill();
    shim.wait();
    shim.delete();
    shim.shut_down();
}

fn row(name: &str, pids: &[u32]) {
    std::thread::sleep(Duration::from_secs(1));
    let all: Vec<Kept> = pids.iter().map(|&pid| kept(pid)).collect();
    let average = |of: fn(&Kept) -> u64| all.iter().map(of).sum::<u64>() / all.len() as u64;
    println!(
        "{name:16}{:>8}{:>8}{:>9}{:>9}{:>6}",
        average(|kept| kept.rss),
        average(|kept| kept.pss),
        average(|kept| kept.private),
        average(|kept| kept.threads),
        average(|kept| kept.descriptors as u64)
    );
}

fn kept(pid: u32) -> Kept {
    let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |text: &str, name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    Kept {
        rss: of(&memory, "Rss:"),
        pss: of(&memory, "Pss:"),
        private: of(&memory, "Private_Clean:") + of(&memory, "Private_Dirty:"),
        threads: of(&status, "Threads:"),
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
    }
}

/// 1000 idle containers of our shim: up, measured, gone.
pub(crate) fn thousand(peers: &[Peer]) {
    let site = Site::new();
    let began = Instant::now();
    let mut shims: Vec<Driven> = (0..1000).map(|_| idle(&site, &peers[0])).collect();
    println!("1000 containers up in {:.1} s", began.elapsed().as_secs_f64());
    let pids: Vec<u32> = shims.iter_mut().map(Driven::shim_pid).collect();
    println!("{:16}{:>8}{:>8}{:>9}{:>9}{:>6}", "", "RSS", "PSS", "private", "threads", "fds");
    row("hull", &pids);
    let began = Instant::now();
    shims.into_iter().for_each(end);
    println!("all deleted and their shims gone in {:.1} s", began.elapsed().as_secs_f64());
    // A number may be another process's by now.
    let is_ours = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == peers[0].program)
    };
    let left = pids.iter().filter(|pid| is_ours(pid)).count();
    println!("shims left: {left}; runtime states left: {}", entries(&site.place.join("state/testkit")));
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, |entries| entries.count())
}

/// A container under a monitor with conmon's command line.
pub(crate) struct Monitored {
    pub(crate) bundle: Bundle,
    /// The monitor's process.
    pub(crate) pid: u32,
    pub(crate) log: PathBuf,
    pub(crate) exit_file: PathBuf,
}

impl Monitored {
    /// Creates and starts a container.
    pub(crate) fn start(program: &Path, site: &Site, words: &[&str]) -> Self {
        let held = Self::create(program, site, words);
        held.runtime(site, &["start", &held.bundle.id]);
        held
    }

    /// Creates a container, with its log in memory where that is possible.
    pub(crate) fn create(program: &Path, site: &Site, words: &[&str]) -> Self {
        let bundle = site.bundle(words);
        let (dir, id) = (bundle.path().to_owned(), bundle.id.clone());
        let fast = Path::new("/dev/shm");
        let log = if fast.is_dir() { fast.join(&id) } else { dir.join("log") };
        let mut command = Command::new(program);
        command
            .args(["--api-version", "1", "-c", &id, "-u", &id, "-n", &id, "-r"])
            .arg(runtime::under_test());
        for option in ["-b", "--exit-dir", "--socket-dir-path"] {
            command.arg(option).arg(&dir);
        }
        command.arg("-p").arg(dir.join("pid")).arg("-P").arg(dir.join("monitor.pid"));
        command.arg("-l").arg(format!("k8s-file:{}", log.display()));
        command.args(["--log-level", "error", "--full-attach", "--runtime-arg", "--root", "--runtime-arg"]);
        command
            .arg(site.place.join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        assert!(command.status().unwrap().success(), "{command:?}");
        let ready = || dir.join("pid").exists() && dir.join("monitor.pid").exists();
        assert!(eventually(Duration::from_secs(20), ready), "{command:?}");
        let state = || site.place.join("state").join(&id).exists();
        assert!(eventually(Duration::from_secs(20), state), "{command:?}");
        let pid = fs::read_to_string(dir.join("monitor.pid")).unwrap().trim().parse().unwrap();
        let exit_file = dir.join(&id);
        Self { bundle, pid, log, exit_file }
    }

    /// Calls the runtime on the state that the container is in.
    pub(crate) fn runtime(&self, site: &Site, words: &[&str]) {
        let mut command = Command::new(runtime::under_test());
        command.arg("--root").arg(site.place.join("state")).args(words).stdin(Stdio::null());
        assert!(command.status().unwrap().success(), "{command:?}");
    }

    /// Kills and deletes the container.
    pub(crate) fn end(self, site: &Site) {
        self.runtime(site, &["kill", &self.bundle.id, "KILL"]);
        self.finish(site);
    }

    /// Deletes the container that has ended.
    pub(crate) fn finish(self, site: &Site) {
        let gone = || !Path::new(&format!("/proc/{}/exe", self.pid)).exists();
        assert!(eventually(Duration::from_secs(30), gone), "the monitor did not end");
        self.runtime(site, &["delete", "--force", &self.bundle.id]);
        let _ = fs::remove_file(&self.log);
    }
}
