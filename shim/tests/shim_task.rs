//! The shim by its Task service, without a containerd: answers, events, execs.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hull_shim::api::*;
use hull_testkit::call::eventually;
use hull_testkit::gate::root;
use hull_testkit::{Bundle, needs};
use prost::Message;
use task_client::*;

#[test]
fn life_is_told_in_order_with_its_exit_code() {
    needs!(root());
    let mut shim = Shim::start(Bundle::shell("exit 7"));
    let pid = shim.create();
    assert_eq!(shim.state().status(), Status::Created);
    let request = shim.named("");
    assert_eq!(shim.ok::<PidResponse>("Start", &request).pid, pid);
    assert_eq!(shim.wait(""), 7);
    let state = shim.state();
    assert_eq!((state.status(), state.exit_status, state.pid), (Status::Stopped, 7, pid));
    let pids = shim.ok::<PidsResponse>("Pids", &request).processes;
    assert_eq!(pids.iter().map(|process| process.pid).collect::<Vec<_>>(), [pid]);
    let deleted = shim.delete();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 7));
    assert_eq!(shim.refused("Wait", &request).0, 5);
    shim.events.expect(&["create", "start", "exit init 7", "delete"]);
    shim.shut_down();
}

#[test]
fn both_versions_are_served_and_unknown_ones_are_unimplemented() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    let request = shim.named("");
    for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let answer = shim.client.call(service, "Connect", &request).unwrap();
        assert!(ConnectResponse::decode(answer.as_slice()).unwrap().shim_pid > 0);
    }
    for (service, method) in
        [("containerd.task.v2.Task", "Dance"), ("containerd.runtime.sandbox.v1.Sandbox", "Platform")]
    {
        assert_eq!(shim.client.call(service, method, &request).unwrap_err().code, 12);
    }
    shim.shut_down();
}

#[test]
fn execs_come_and_go_and_end_before_init() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    shim.exec("e1", "exit 3");
    assert_eq!(shim.wait("e1"), 3);
    let request = shim.named("e1");
    assert_eq!(shim.ok::<DeleteResponse>("Delete", &request).exit_status, 3);
    let pid = shim.exec("e2", "sleep 1000");
    let request = shim.named("");
    let processes = shim.ok::<PidsResponse>("Pids", &request).processes;
    let found = processes.iter().find(|process| process.pid == pid).unwrap();
    assert!(found.info.is_some(), "an exec is named among the pids");
    shim.kill(9);
    assert_eq!((shim.wait("e2"), shim.wait("")), (137, 137));
    shim.delete();
    shim.events.expect(&[
        "create",
        "start",
        "exec-added e1",
        "exec-started e1",
        "exit e1 3",
        "exec-added e2",
        "exec-started e2",
        "exit e2 137",
        "exit init 137",
        "delete",
    ]);
    shim.shut_down();
}

#[test]
fn events_of_an_outage_come_afterwards_once_and_in_order() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    shim.events.expect(&["create", "start"]);
    shim.events.go_away();
    shim.exec("e", "exit 3");
    shim.wait("e");
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    std::thread::sleep(Duration::from_secs(3));
    shim.events.come_back();
    let wanted = ["create", "start", "exec-added e", "exec-started e", "exit e 3", "exit init 137"];
    shim.events.expect(&wanted);
    let exit = shim.events.all().pop().unwrap();
    let at = TaskExit::decode(exit.event.unwrap().value.as_slice()).unwrap().exited_at.unwrap();
    assert_eq!(shim.state().exited_at, Some(at), "with the time of the exit, not of the delivery");
    shim.delete();
    shim.shut_down();
}

#[test]
fn nonsense_ends_its_own_connection_only() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    let inputs: [&[u8]; 4] = [
        &[0xff; 64],
        &[0, 0x50, 0, 0, 0, 0, 0, 1, 1, 0],
        &[0, 0, 0, 4, 0, 0, 0, 1, 9, 0, 1, 2, 3, 4],
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for input in inputs {
        let mut stream = UnixStream::connect(shim.socket()).unwrap();
        stream.write_all(input).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0, "{input:?}");
    }
    // A payload that is no message, and a half frame that never ends.
    let mut half = UnixStream::connect(shim.socket()).unwrap();
    half.write_all(&[0, 0x3f, 0xff]).unwrap();
    let pid = shim.pid();
    let before = (descriptors(pid), anonymous_kb(pid));
    for _ in 0..1000 {
        drop(UnixStream::connect(shim.socket()).unwrap());
    }
    assert!(eventually(LIMIT, || descriptors(pid) <= before.0), "{} > {}", descriptors(pid), before.0);
    assert!(anonymous_kb(pid) <= before.1 + 256, "{} kB, before {}", anonymous_kb(pid), before.1);
    drop(half);
    shim.shut_down();
}

#[test]
fn hundreds_of_execs_leave_memory_and_descriptors_as_they_were() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    let pid = shim.pid();
    let round = |shim: &mut Shim, number: u32| {
        let name = format!("e{number}");
        shim.exec(&name, "exit 5");
        assert_eq!(shim.wait(&name), 5);
        let request = shim.named(&name);
        shim.ok::<DeleteResponse>("Delete", &request);
    };
    for number in 0..30 {
        round(&mut shim, number);
    }
    let before = (descriptors(pid), anonymous_kb(pid));
    for number in 30..230 {
        round(&mut shim, number);
    }
    assert!(eventually(LIMIT, || descriptors(pid) == before.0), "{} not {}", descriptors(pid), before.0);
    assert!(anonymous_kb(pid) <= before.1 + 32, "{} kB, before {}", anonymous_kb(pid), before.1);
    let exits = |shim: &Shim| shim.events.brief().iter().filter(|event| event.starts_with("exit")).count();
    assert!(eventually(LIMIT, || exits(&shim) == 230));
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}

#[test]
fn shim_stays_for_clients_that_are_connected_when_its_last_container_goes() {
    needs!(root());
    let mut shim = Shim::start(Bundle::new(&["/bin/true"]));
    let mut other = Client::connect(&shim.address);
    let named = shim.named("");
    // Answered, so it is known to be connected.
    other.call("containerd.task.v2.Task", "State", &named).unwrap_err();
    shim.run();
    shim.wait("");
    shim.delete();
    assert!(shim.socket().exists());
    shim.run();
    shim.wait("");
    let pid = shim.pid();
    let connected = descriptors(pid);
    drop(other);
    assert!(eventually(LIMIT, || descriptors(pid) < connected));
    shim.delete();
    assert!(!shim.socket().exists());
    let request = shim.create_request();
    let (code, text) = shim.refused("Create", &request);
    assert_eq!(code, 14, "nobody would find it: {text}");
    shim.shut_down();
}

#[test]
fn many_waits_leave_room_for_other_calls() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    let named = shim.named("");
    let waits: Vec<u32> =
        (0..64).map(|_| shim.client.send("containerd.task.v2.Task", "Wait", &named)).collect();
    assert_eq!(shim.state().status(), Status::Running);
    shim.kill(9);
    for wait in waits {
        let answer = shim.client.receive(wait).unwrap();
        assert_eq!(WaitResponse::decode(answer.as_slice()).unwrap().exit_status, 137);
    }
    shim.delete();
    shim.shut_down();
}

#[test]
fn orphans_are_reaped_and_no_exit_is_missed() {
    needs!(root());
    let script = "i=0; while [ $i -lt 2000 ]; do (true &) ; i=$((i+1)); done; exit 6";
    let bundle = Bundle::shell(script).with(without_pid_namespace);
    let mut shim = Shim::start(bundle);
    shim.run();
    assert_eq!(shim.wait(""), 6);
    let pid = shim.pid();
    assert!(eventually(LIMIT, || children(pid) == 0));
    shim.delete();
    shim.shut_down();
}

#[test]
fn shim_without_a_free_descriptor_waits_and_takes_clients_again() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    let (pid, named) = (shim.pid(), shim.named(""));
    let before = limit_descriptors(pid, Some(1));
    let mut late = Client::connect(&shim.address);
    let state = late.send("containerd.task.v2.Task", "State", &named);
    let spent = processor_ms(pid);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let spent = processor_ms(pid) - spent;
    assert!(spent < 100, "{spent} ms of processor time for a client that cannot be taken");
    assert_eq!(shim.state().status(), Status::Running, "who is connected is served");
    limit_descriptors(pid, before);
    let answer = StateResponse::decode(late.receive(state).unwrap().as_slice()).unwrap();
    assert_eq!(answer.status(), Status::Running);
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}
