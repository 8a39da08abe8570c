//! Roots on file systems that do not answer.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod hanging_disk;
mod task_client;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use hanging_disk::{HangingDisk, Wait, fuse};
use hull_shim::api::*;
use hull_shim::ttrpc::{Kind, Request, Response, RpcStatus, encode};
use hull_testkit::call::eventually;
use hull_testkit::gate::root;
use hull_testkit::leftovers::mounts_below;
use hull_testkit::{Bundle, needs};
use prost::Message;
use task_client::*;

const SERVICE: &str = "containerd.task.v2.Task";

/// A second container of this shim's pod whose root is mounted from the disk.
fn create_on(shim: &Shim, bundle: &Bundle, disk: &HangingDisk) -> CreateTaskRequest {
    let source = disk.directory().to_string_lossy().into_owned();
    let mount = Mount { r#type: "bind".into(), source, options: vec!["bind".into()], ..Mount::default() };
    CreateTaskRequest {
        id: bundle.id.clone(),
        bundle: bundle.path().to_string_lossy().into_owned(),
        rootfs: vec![mount],
        ..shim.create_request()
    }
}

/// Sends a call whose caller waits for two seconds only, as it says.
fn send_with_two_seconds(shim: &Shim, method: &str, request: &impl Message) -> UnixStream {
    let request = Request {
        service: SERVICE.into(),
        method: method.into(),
        payload: request.encode_to_vec(),
        timeout_nano: 2_000_000_000,
        ..Default::default()
    };
    let mut raw = UnixStream::connect(shim.socket()).unwrap();
    raw.write_all(&encode(1, Kind::Request, &request.encode_to_vec())).unwrap();
    raw
}

/// The answer, which is a refusal.
fn receive_refusal(mut raw: UnixStream) -> RpcStatus {
    let mut head = [0; 10];
    raw.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize];
    raw.read_exact(&mut body).unwrap();
    Response::decode(body.as_slice()).unwrap().status.unwrap()
}

/// The pod's other container is served while a root hangs.
fn others_are_served(shim: &mut Shim, exec: &str) {
    let began = Instant::now();
    assert_eq!(shim.state().status(), Status::Running);
    shim.exec(exec, "exit 6");
    assert_eq!(shim.wait(exec), 6);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}: they waited", began.elapsed());
}

fn end(shim: &mut Shim) {
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    shim.delete();
    shim.shut_down();
}

#[test]
fn mount_that_hangs_holds_up_its_own_container_only_and_is_ended() {
    needs!(root(), fuse());
    let disk = HangingDisk::new(Wait::Killable);
    let mut shim = Shim::start(sleeper());
    shim.run();
    let pid = shim.pid();
    let bundle = Bundle::new(&["/bin/true"]);
    let request = create_on(&shim, &bundle, &disk);
    let raw = send_with_two_seconds(&shim, "Create", &request);
    assert!(eventually(LIMIT, || children(pid) == 2), "there is no helper");
    others_are_served(&mut shim, "e");
    assert_eq!(children(pid), 2, "it hung all the time");
    let status = receive_refusal(raw);
    assert_eq!(status.code, 4, "{}", status.message);
    assert!(status.message.contains("failed to mount") && status.message.contains("in time"), "{status:?}");
    assert_eq!(children(pid), 1, "the helper is gone");
    let other = ProcessRequest { id: bundle.id.clone(), exec_id: String::new() };
    assert_eq!(shim.refused("State", &other).0, 5);
    // The name and the bundle are free again.
    let request = CreateTaskRequest { rootfs: Vec::new(), ..request };
    shim.ok::<PidResponse>("Create", &request);
    shim.ok::<DeleteResponse>("Delete", &other);
    end(&mut shim);
}

#[test]
fn mount_that_cannot_be_killed_is_left_behind_and_undone_when_it_comes_true() {
    needs!(root(), fuse());
    let disk = HangingDisk::new(Wait::Uninterruptible);
    let mut shim = Shim::start(sleeper());
    shim.run();
    let pid = shim.pid();
    let bundle = Bundle::new(&["/bin/true"]);
    let raw = send_with_two_seconds(&shim, "Create", &create_on(&shim, &bundle, &disk));
    let request = disk.is_asked();
    others_are_served(&mut shim, "e");
    let status = receive_refusal(raw);
    assert_eq!(status.code, 4, "{}", status.message);
    assert_eq!(children(pid), 2, "init, and the helper that hangs");
    others_are_served(&mut shim, "f");
    disk.answer(request);
    // It is reaped first, and the root undone by the next helper.
    let undone = || mounts_below(bundle.path()).is_empty() && children(pid) == 1;
    assert!(eventually(LIMIT, undone), "{:?}, {} children", mounts_below(bundle.path()), children(pid));
    end(&mut shim);
}

#[test]
fn shim_killed_while_a_mount_hangs_leaves_no_helper() {
    needs!(root(), fuse());
    let disk = HangingDisk::new(Wait::Killable);
    let mut shim = Shim::start(Bundle::new(&["/bin/true"]));
    let request = create_on(&shim, &shim.bundle, &disk);
    let pid = shim.pid();
    shim.client.send(SERVICE, "Create", &request);
    assert!(eventually(LIMIT, || children(pid) == 1), "there is no helper");
    let helper = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let holds = || descriptors(helper.trim().parse().unwrap());
    assert!(eventually(LIMIT, || holds() == 4), "{} descriptors: some of the shim's are among them", holds());
    kill_9(pid);
    let exe = format!("/proc/{}/exe", helper.trim());
    assert!(eventually(LIMIT, || !std::path::Path::new(&exe).exists()), "the helper outlives the shim");
    shim.mark_ended();
    assert!(shim.delete_action().status.success());
    assert_eq!(mounts_below(shim.bundle.path()), [""; 0]);
}

#[test]
fn roots_of_containers_without_streams_are_forgotten() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    let pid = shim.pid();
    let bundle = Bundle::new(&["/bin/true"]);
    let named = ProcessRequest { id: bundle.id.clone(), exec_id: String::new() };
    let path = bundle.path().to_string_lossy().into_owned();
    let request = CreateTaskRequest { id: bundle.id.clone(), bundle: path, ..shim.create_request() };
    let mut round = || {
        shim.ok::<PidResponse>("Create", &request);
        shim.ok::<PidResponse>("Start", &named);
        shim.ok::<WaitResponse>("Wait", &named);
        shim.ok::<DeleteResponse>("Delete", &named);
        descriptors(pid)
    };
    let before = round();
    for _ in 0..5 {
        assert_eq!(round(), before, "something of it is held still");
    }
    end(&mut shim);
}
