//! What takes minutes or hours: `just soak`. CI runs shorter forms of the same in the other files.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod containerd_daemon;
mod task_client;

use std::time::{Duration, Instant};

use containerd_daemon::{Manager, containerd};
use hull_shim::api::*;
use hull_testkit::call::eventually;
use hull_testkit::gate::root;
use hull_testkit::place::unique;
use hull_testkit::{Bundle, needs};
use task_client::*;

/// A number from the environment, for a longer or shorter run.
fn number(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
#[ignore = "takes 10 minutes"]
fn events_of_ten_minutes_without_containerd_come_once_in_order() {
    needs!(root());
    let mut shim = Shim::start(Bundle::new(&["/bin/sleep", "10000"]));
    shim.run();
    shim.events.expect(&["create", "start"]);
    shim.events.go_away();
    let began = Instant::now();
    let mut wanted = vec!["create".to_owned(), "start".to_owned()];
    for number in 0..20 {
        let exec = format!("e{number}");
        shim.exec(&exec, &format!("exit {number}"));
        assert_eq!(shim.wait(&exec), number);
        wanted.extend([format!("exec-added {exec}"), format!("exec-started {exec}")]);
        wanted.push(format!("exit {exec} {number}"));
    }
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    wanted.push("exit init 137".to_owned());
    let outage = Duration::from_secs(u64::from(number("SOAK_OUTAGE", 600)));
    let pid = shim.pid();
    let before = processor_ms(pid);
    std::thread::sleep(outage.saturating_sub(began.elapsed()));
    let spent = processor_ms(pid) - before;
    assert!(spent < 200 + outage.as_millis() as u64 / 1000, "{spent} ms of processor time while waiting");
    shim.events.come_back();
    assert!(eventually(Duration::from_secs(10), || shim.events.brief().len() >= wanted.len()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(shim.events.brief(), wanted);
    shim.delete();
    shim.shut_down();
}

#[test]
#[ignore = "takes an hour"]
fn memory_and_descriptors_are_flat_over_100_000_execs() {
    needs!(root());
    let mut shim = Shim::start(Bundle::new(&["/bin/sleep", "100000"]));
    shim.run();
    let pid = shim.pid();
    let round = |shim: &mut Shim, number: u32| {
        let name = format!("e{number}");
        shim.exec(&name, "exit 5");
        assert_eq!(shim.wait(&name), 5);
        let request = shim.named(&name);
        shim.ok::<DeleteResponse>("Delete", &request);
    };
    (0..200).for_each(|number| round(&mut shim, number));
    let before = (descriptors(pid), anonymous_kb(pid));
    let rounds = number("SOAK_EXECS", 100_000);
    for number in 200..rounds {
        round(&mut shim, number);
        if number % (rounds / 10) == 0 {
            println!("{number} execs: {} kB anonymous, {} descriptors", anonymous_kb(pid), descriptors(pid));
        }
    }
    assert!(eventually(LIMIT, || descriptors(pid) == before.0), "{} not {}", descriptors(pid), before.0);
    // 5 % of what a shim has resident.
    assert!(anonymous_kb(pid) <= before.1 + 50, "{} kB, before {}", anonymous_kb(pid), before.1);
    assert_eq!(children(pid), 1, "only init is left");
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}

#[test]
#[ignore = "takes a minute"]
fn storm_of_orphans_is_reaped_and_misses_no_exit() {
    needs!(root());
    let each = number("SOAK_ORPHANS", 20_000) / 4;
    let storm = format!("i=0; while [ $i -lt {each} ]; do (true &); i=$((i+1)); done");
    let script = format!("for n in 1 2 3 4; do ({storm}) & done; wait; exit 6");
    let mut shim = Shim::start(Bundle::shell(&script).with(without_pid_namespace));
    let began = Instant::now();
    shim.run();
    let pid = shim.pid();
    let before = processor_ms(pid);
    let mut execs = 0;
    while shim.state().status() == Status::Running {
        let name = format!("e{execs}");
        let request = shim.exec_request(&name, "exit 5");
        shim.call("Exec", &request).unwrap();
        let named = shim.named(&name);
        // The container may end between the question above and this.
        if shim.call("Start", &named).is_err() {
            break;
        }
        let code = shim.wait(&name);
        assert!(code == 5 || shim.state().status() == Status::Stopped, "{name}: {code}");
        execs += 1;
    }
    assert_eq!(shim.wait(""), 6);
    let took = began.elapsed();
    assert!(eventually(LIMIT, || children(pid) == 0));
    let spent = processor_ms(pid) - before;
    println!("{} orphans and {execs} execs in {took:?}, {spent} ms of the shim's processor time", 4 * each);
    assert!(execs > 0);
    shim.delete();
    shim.shut_down();
}

#[test]
#[ignore = "takes 3 minutes"]
fn hundred_of_hundred_exit_codes_survive_a_killed_containerd() {
    needs!(containerd());
    let mut manager = Manager::start();
    // Ten deaths of containerd with ten containers each.
    for round in 0..number("SOAK_DEATHS", 10) {
        let names: Vec<String> = (0..10).map(|_| unique("survivor")).collect();
        for (name, code) in names.iter().zip(10 * round..) {
            let script = format!("sleep 8; exit {}", code % 200 + 1);
            manager.run(&["-d", "--null-io"], name, &["sh", "-c", &script]).done();
        }
        manager.kill();
        std::thread::sleep(Duration::from_secs(10));
        manager.raise();
        for (name, code) in names.iter().zip(10 * round..) {
            assert!(eventually(LIMIT, || manager.status(name) == "STOPPED"), "round {round}");
            manager.remove_ended(name, code % 200 + 1);
        }
    }
}
