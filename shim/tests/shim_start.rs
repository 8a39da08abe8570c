//! The actions `start` and `delete`, the pods that share a shim, and the end of shims.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hull_shim::api::*;
use hull_testkit::call::eventually;
use hull_testkit::gate::root;
use hull_testkit::{Bundle, Scratch, needs};
use prost::Message;
use task_client::*;

#[test]
fn address_is_bare_json_or_protobuf_as_the_caller_takes_it() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    assert!(shim.address.starts_with("unix:///run/containerd/s/"), "{}", shim.address);
    assert_eq!(fs::read_to_string(shim.bundle.path().join("address")).unwrap(), shim.address);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&shim.socket()), mode(shim.socket().parent().unwrap())), (0o600, 0o700));

    let params = BootstrapParams {
        instance_id: shim.bundle.id.clone(),
        namespace: "testkit".into(),
        containerd_version: "2.3.4".into(),
        ..BootstrapParams::default()
    };
    let answer = action(&our_shim(), &shim.bundle, &shim.place, "start", &params.encode_to_vec());
    let result = BootstrapResult::decode(answer.stdout.as_slice()).unwrap();
    assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
    assert_eq!(result.address, shim.address, "a second start finds the running shim");

    let options = Any::pack("containerd.runc.v1.Options", &Options::default());
    let answer = action(&our_shim(), &shim.bundle, &shim.place, "start", &options.encode_to_vec());
    assert_eq!(String::from_utf8(answer.stdout).unwrap(), shim.address);

    for (newest, version) in [("2", 2), ("3", 3)] {
        let variables = [("MAX_SHIM_VERSION", newest)];
        let answer = action_with(
            &our_shim(),
            &shim.bundle,
            &shim.place,
            "start",
            &options.encode_to_vec(),
            &variables,
        );
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        let wanted = serde_json::json!({"version": version, "address": shim.address, "protocol": "ttrpc"});
        assert_eq!(answer, wanted);
    }
    shim.shut_down();
}

#[test]
fn killed_shim_is_cleared_up_by_the_delete_action() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    let pid = shim.run();
    // A name that the init's own files have too.
    shim.exec("init", "sleep 1000");
    kill_9(shim.pid());
    let answer = shim.delete_action();
    assert!(answer.status.success(), "{answer:?}");
    let deleted = DeleteResponse::decode(answer.stdout.as_slice()).unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert!(eventually(LIMIT, || !std::path::Path::new(&format!("/proc/{pid}/ns/pid")).exists()));
    // The next start replaces the stale socket.
    let again = action(&our_shim(), &shim.bundle, &shim.place, "start", b"");
    assert_eq!(String::from_utf8(again.stdout).unwrap(), shim.address);
    shim.client = Client::connect(&shim.address);
    shim.shut_down();
}

#[test]
fn delete_action_works_on_half_a_bundle() {
    needs!(root());
    for missing in ["init.pid", "config.json", "rootfs"] {
        let mut shim = Shim::start(sleeper());
        shim.run();
        kill_9(shim.pid());
        let container = shim.bundle.id.clone();
        let path = shim.bundle.path().join(missing);
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap()
        } else {
            fs::remove_file(&path).unwrap()
        }
        let answer = shim.delete_action();
        assert!(answer.status.success(), "{missing}: {answer:?}");
        assert_eq!(DeleteResponse::decode(answer.stdout.as_slice()).unwrap().exit_status, 137);
        let state = Path::new(&shim.options.root).join("testkit").join(&container);
        assert!(!state.exists(), "{missing}: the runtime still knows the container");
        let _ = fs::remove_file(shim.socket());
        shim.mark_ended();
    }
}

#[test]
fn shutdown_is_refused_while_a_container_is_there_and_may_come_twice() {
    needs!(root());
    let mut shim = Shim::start(sleeper());
    shim.run();
    let request = ShutdownRequest { id: shim.bundle.id.clone(), now: true };
    shim.call("Shutdown", &request).unwrap();
    assert_eq!(shim.state().status(), Status::Running);
    shim.kill(9);
    shim.wait("");
    shim.delete();
    let both = shim.client.send_twice("containerd.task.v2.Task", "Shutdown", &request);
    assert!(shim.client.receive(both[0]).is_ok());
    let socket = shim.socket();
    assert!(eventually(LIMIT, || !socket.exists()));
    shim.mark_ended();
}

#[test]
fn idle_shim_without_a_client_ends_itself() {
    needs!(root());
    let bundle = sleeper();
    let place = Scratch::new("idle");
    let answer = action(&our_shim(), &bundle, &place, "start", b"");
    let address = String::from_utf8(answer.stdout).unwrap();
    let socket = std::path::PathBuf::from(address.strip_prefix("unix://").unwrap());
    assert!(socket.exists());
    assert!(eventually(Duration::from_secs(50), || !socket.exists()), "it did not end");
}

#[test]
fn start_refuses_what_it_cannot_serve() {
    needs!(root());
    let bundle = Bundle::empty(&["/bin/true"]);
    let place = Scratch::new("refuse");
    let params = BootstrapParams {
        instance_id: bundle.id.clone(),
        containerd_version: "2.3.4".into(),
        socket_dir: format!("/tmp/{}", "x".repeat(100)),
        ..BootstrapParams::default()
    };
    let answer = action(&our_shim(), &bundle, &place, "start", &params.encode_to_vec());
    assert!(!answer.status.success() && answer.stdout.is_empty(), "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.stderr).contains("longer than 106 bytes"));
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    let answer = action(&our_shim(), &bundle, &place, "start", b"");
    assert!(String::from_utf8_lossy(&answer.stderr).contains("read config.json"), "{answer:?}");
}

#[test]
fn core_scheduling_is_set_up_when_it_is_asked_for_or_start_fails() {
    use rustix::process::{Pid, getpid};
    use rustix::thread::{CoreSchedulingScope, core_scheduling_cookie};
    needs!(root());
    let bundle = sleeper();
    let place = Scratch::new("core");
    let cookie = |pid| core_scheduling_cookie(pid, CoreSchedulingScope::Thread);
    let directory = place.join("s");
    let params = BootstrapParams {
        instance_id: bundle.id.clone(),
        containerd_version: "2.3.4".into(),
        socket_dir: directory.to_string_lossy().into_owned(),
        ..BootstrapParams::default()
    };
    let input = params.encode_to_vec();
    let answer = action_with(&our_shim(), &bundle, &place, "start", &input, &[("SCHED_CORE", "1")]);
    if cookie(getpid()).is_err() {
        assert!(!answer.status.success(), "{answer:?}");
        let text = String::from_utf8(answer.stderr).unwrap();
        assert!(text.contains("enable core scheduling"), "{text}");
        assert!(!directory.exists(), "it left a socket");
        return;
    }
    let address = BootstrapResult::decode(answer.stdout.as_slice()).unwrap().address;
    let mut client = Client::connect(&address);
    let named = ProcessRequest { id: bundle.id.clone(), exec_id: String::new() };
    let answer = client.call("containerd.task.v2.Task", "Connect", &named).unwrap();
    let shim = i32::try_from(ConnectResponse::decode(answer.as_slice()).unwrap().shim_pid).unwrap();
    let cookies = (cookie(Pid::from_raw(shim).unwrap()).unwrap(), cookie(getpid()).unwrap());
    kill_9(shim.cast_unsigned());
    assert!(cookies.0 != 0 && cookies.0 != cookies.1, "{cookies:?}");
}

#[test]
fn pod_shares_one_shim_and_a_fault_of_one_container_is_its_own() {
    needs!(root());
    let annotate = |bundle: Bundle, pod: &str| {
        let pod = pod.to_owned();
        bundle.with(move |config| {
            config["annotations"] = serde_json::json!({ "io.kubernetes.cri.sandbox-id": pod })
        })
    };
    let first = sleeper();
    let pod = first.id.clone();
    let mut shim = Shim::start(annotate(first, &pod));
    shim.run();
    let second = annotate(Bundle::shell("exit 9"), &pod);
    let answer = action(&our_shim(), &second, &shim.place, "start", b"");
    assert_eq!(String::from_utf8(answer.stdout).unwrap(), shim.address);
    let first = std::mem::replace(&mut shim.bundle, second);
    assert_eq!(
        {
            shim.run();
            shim.wait("")
        },
        9
    );
    shim.delete();
    let second = std::mem::replace(&mut shim.bundle, first);
    assert_eq!(shim.state().status(), Status::Running, "the other one lives on");
    drop(second);
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}

#[test]
fn containers_of_a_pod_that_start_at_once_get_one_shim() {
    needs!(root());
    let first = Bundle::empty(&["/bin/true"]);
    let pod = first.id.clone();
    let annotate = |bundle: Bundle| {
        let pod = pod.clone();
        bundle.with(move |config| {
            config["annotations"] = serde_json::json!({ "io.kubernetes.cri.sandbox-id": pod })
        })
    };
    let place = Scratch::new("once");
    let bundles: Vec<Bundle> = (0..8).map(|_| annotate(Bundle::empty(&["/bin/true"]))).collect();
    for round in 0..10 {
        let addresses: Vec<String> = std::thread::scope(|scope| {
            let start = |bundle| action(&our_shim(), bundle, &place, "start", b"").stdout;
            let starts: Vec<_> = bundles.iter().map(|bundle| scope.spawn(move || start(bundle))).collect();
            starts.into_iter().map(|one| String::from_utf8(one.join().unwrap()).unwrap()).collect()
        });
        let address = &addresses[0];
        assert!(
            address.starts_with("unix://") && addresses.iter().all(|one| one == address),
            "{addresses:?}"
        );
        let socket = address.strip_prefix("unix://").unwrap();
        let serves = |process: &fs::DirEntry| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == socket.as_bytes())
        };
        let shims = || fs::read_dir("/proc").unwrap().flatten().filter(serves).count();
        let mut client = Client::connect(address);
        // A process that is still becoming the shim has no command line; one that answers has.
        let named = ProcessRequest { id: pod.clone(), exec_id: String::new() };
        client.call("containerd.task.v3.Task", "Connect", &named).unwrap();
        assert_eq!(shims(), 1, "round {round}");
        let request = ShutdownRequest { id: pod.clone(), now: true };
        // The answer may be cut off by the end.
        let _ = client.call("containerd.task.v3.Task", "Shutdown", &request);
        assert!(eventually(LIMIT, || shims() == 0));
        if round % 2 == 0 {
            // As a shim that was killed leaves it.
            drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
        }
    }
}

#[test]
fn each_container_of_a_large_pod_ends_alone() {
    needs!(root());
    let first = sleeper();
    let pod = first.id.clone();
    let annotate = |bundle: Bundle| {
        let pod = pod.clone();
        bundle.with(move |config| {
            config["annotations"] = serde_json::json!({ "io.containerd.runc.v2.group": pod })
        })
    };
    let root = first.root();
    let mut shim = Shim::start(annotate(first));
    shim.run();
    let others: Vec<Bundle> = (1..50).map(|_| annotate(Bundle::on(&root, &["/bin/sleep", "1000"]))).collect();
    let mut running = Vec::new();
    for other in others {
        let answer = action(&our_shim(), &other, &shim.place, "start", b"");
        assert_eq!(String::from_utf8(answer.stdout).unwrap(), shim.address);
        let own = std::mem::replace(&mut shim.bundle, other);
        shim.run();
        running.push(std::mem::replace(&mut shim.bundle, own));
    }
    while let Some(next) = running.pop() {
        let own = std::mem::replace(&mut shim.bundle, next);
        shim.kill(9);
        assert_eq!(shim.wait(""), 137);
        shim.delete();
        drop(std::mem::replace(&mut shim.bundle, own));
        for other in &running {
            let request = ProcessRequest { id: other.id.clone(), exec_id: String::new() };
            assert_eq!(shim.ok::<StateResponse>("State", &request).status(), Status::Running);
        }
    }
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    shim.delete();
    shim.shut_down();
}
