//! The rounds: each takes every runtime through `run` of three bundles and through the life of one container.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use hull_testkit::runtime::LIMIT;
use hull_testkit::{Bundle, Scratch, place};
use serde_json::{Value, json};

use crate::Peer;
use crate::measure::{Cost, cost, system_calls};

/// What is measured, in the order of the table.
pub const ROWS: [&str; 9] =
    ["run", "run, 100 mounts", "run, 370-call filter", "create", "start", "state", "exec", "kill", "delete"];

/// Costs by row and peer, and the system calls of one call of each.
#[derive(Debug, Default)]
pub struct Results {
    /// Every measurement.
    pub costs: BTreeMap<(usize, usize), Vec<Cost>>,
    /// The count of one traced call.
    pub calls: BTreeMap<(usize, usize), u64>,
    /// What went wrong, once each.
    pub failures: std::collections::BTreeSet<String>,
}

/// Measures every peer `count` times.
pub fn rounds(peers: &[Peer], count: usize) -> Results {
    let state = Scratch::new("bench");
    let short: Vec<Bundle> = [plain as fn(&mut Value), many_mounts, long_filter]
        .into_iter()
        .map(|change| Bundle::new(&["/bin/true"]).with(change))
        .collect();
    let long = Bundle::new(&["/bin/sleep", "1000"]);
    let mut results = Results::default();
    for round in 0..=count {
        for (index, peer) in peers.iter().enumerate() {
            let mut runner =
                Runner { peer, index, state: state.path(), results: &mut results, kept: round > 0 };
            for (row, bundle) in short.iter().enumerate() {
                runner.take(row, &["run", "--bundle", &text(bundle.path())]);
            }
            runner.life(&long);
        }
    }
    trace(peers, &short, &long, state.path(), &mut results);
    results
}

/// One peer in one round. The first round warms the caches and is not kept.
struct Runner<'a> {
    peer: &'a Peer,
    index: usize,
    state: &'a Path,
    results: &'a mut Results,
    kept: bool,
}

impl Runner<'_> {
    fn life(&mut self, bundle: &Bundle) {
        let id = place::unique("b");
        let path = text(bundle.path());
        let steps: [(usize, Vec<&str>); 6] = [
            (3, vec!["create", "--bundle", &path, &id]),
            (4, vec!["start", &id]),
            (5, vec!["state", &id]),
            (6, vec!["exec", &id, "/bin/true"]),
            (7, vec!["kill", &id, "KILL"]),
            (8, vec!["delete", &id]),
        ];
        for (row, arguments) in steps {
            if row == 8 {
                self.wait_for_the_end(&id);
            }
            self.measure(row, &command(self.peer, self.state, &arguments));
        }
    }

    fn take(&mut self, row: usize, arguments: &[&str]) {
        let id = place::unique("b");
        self.measure(row, &command(self.peer, self.state, &[arguments, &[&id]].concat()));
    }

    fn measure(&mut self, row: usize, command: &Command) {
        match cost(command) {
            Ok(cost) if self.kept => self.results.costs.entry((row, self.index)).or_default().push(cost),
            Ok(_) => {}
            Err(text) => {
                self.results.failures.insert(format!("{}: {}: {text}", self.peer.name, ROWS[row]));
            }
        }
    }

    /// `delete` of a container that is still dying measures the waiting, so the end comes first.
    fn wait_for_the_end(&self, id: &str) {
        hull_testkit::call::eventually(std::time::Duration::from_secs(5), || {
            let output = command(self.peer, self.state, &["state", id]).output();
            output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("stopped"))
        });
    }
}

/// Counts system calls: one traced call of each command whose processes all end with it.
fn trace(peers: &[Peer], short: &[Bundle], long: &Bundle, state: &Path, results: &mut Results) {
    for (index, peer) in peers.iter().enumerate() {
        let mut count = |row: usize, arguments: &[&str]| {
            if let Some(calls) = system_calls(&command(peer, state, arguments), state) {
                results.calls.insert((row, index), calls);
            }
        };
        for (row, bundle) in short.iter().enumerate() {
            count(row, &["run", "--bundle", &text(bundle.path()), &place::unique("b")]);
        }
        let id = place::unique("b");
        let plain = |arguments: &[&str]| hull_testkit::call(&mut command(peer, state, arguments), LIMIT);
        // A failure here shows as a missing count, and in the measured rounds with its text.
        let _ = plain(&["run", "--detach", "--bundle", &text(long.path()), &id]);
        count(5, &["state", &id]);
        count(6, &["exec", &id, "/bin/true"]);
        count(7, &["kill", &id, "KILL"]);
        std::thread::sleep(std::time::Duration::from_millis(200));
        count(8, &["delete", &id]);
    }
}

fn command(peer: &Peer, state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(&peer.program);
    command.arg("--root").arg(state.join(&peer.name)).args(arguments);
    command
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn plain(_: &mut Value) {}

fn many_mounts(config: &mut Value) {
    let mounts = config["mounts"].as_array_mut().expect("a list");
    let bind = |index| json!({ "destination": format!("/tmp/mount-{index}"), "type": "bind", "source": "/etc", "options": ["bind", "ro"] });
    mounts.extend((0..100).map(bind));
}

/// An allow-list as managers write it, with the calls of x86_64 that every runtime's tables know.
fn long_filter(config: &mut Value) {
    let names: Vec<&str> = include_str!("calls.txt").split_whitespace().collect();
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }]
    });
}
