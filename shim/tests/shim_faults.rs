//! Faults: a shim killed at every step, full disks, bombs, bundles and runtimes that are not what they should be.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use hull_shim::api::*;
use hull_testkit::call::eventually;
use hull_testkit::gate::{cgroup_v1, root};
use hull_testkit::leftovers::Cgroups;
use hull_testkit::{Bundle, Scratch, needs};
use prost::Message;
use rustix::mount::MountFlags;
use task_client::*;

/// After a shim's death: the delete action takes away the container, its cgroup, its root and the socket.
#[track_caller]
fn nothing_is_left_after_delete(shim: &mut Shim, step: &str) {
    shim.mark_ended();
    let answer = shim.delete_action();
    assert!(answer.status.success(), "{step}: {answer:?}");
    let id = &shim.bundle.id;
    assert!(!Path::new(&shim.options.root).join("testkit").join(id).exists(), "{step}: runtime state");
    for controller in ["memory", "pids", "devices", "freezer"] {
        let cgroup = Path::new("/sys/fs/cgroup").join(controller).join(id);
        assert!(!cgroup.exists(), "{step}: {}", cgroup.display());
    }
    assert!(!shim.socket().exists(), "{step}: socket");
    let mounts = hull_testkit::leftovers::mounts_below(shim.bundle.path());
    assert!(mounts.is_empty(), "{step}: {mounts:?}");
}

#[test]
fn shim_killed_round_each_runtime_call_leaves_nothing_after_delete() {
    needs!(root(), cgroup_v1());
    let tools = Scratch::new("tools");
    for verb in ["create", "start", "exec", "kill", "delete"] {
        for before in [true, false] {
            let step = format!("{} {verb}", if before { "before" } else { "after" });
            // `delete --force` is the delete action's own.
            let (first, then) = if before {
                ("kill -9 $PPID", "sleep 5")
            } else {
                ("$REAL \"$@\"", "kill -9 $PPID; sleep 5")
            };
            let script = format!(
                "case \"$*\" in *--force*) ;; *' {verb} '*) {first}; {then}; exit 1;; esac; exec $REAL \"$@\""
            );
            let mut shim =
                Shim::start_with(our_shim(), Bundle::new(&["sleep", "1000"]), scripted(&tools, &script));
            let pid = shim.pid();
            let (create, named) = (shim.create_request(), shim.named(""));
            let (exec, exec_named) = (shim.exec_request("e", "sleep 1000"), shim.named("e"));
            let kill = KillRequest { id: shim.bundle.id.clone(), signal: 9, ..KillRequest::default() };
            let gone = shim.call("Create", &create).is_err()
                || shim.call("Start", &named).is_err()
                || shim.call("Exec", &exec).is_err()
                || shim.call("Start", &exec_named).is_err()
                || shim.call("Kill", &kill).is_err()
                || shim.call("Wait", &named).is_err()
                || shim.call("Delete", &named).is_err();
            assert!(gone, "{step}: the shim lives");
            // Its connections end before it does: the delete action must not meet it dying.
            assert!(eventually(LIMIT, || !Path::new(&format!("/proc/{pid}/exe")).exists()), "{step}");
            nothing_is_left_after_delete(&mut shim, &step);
        }
    }
}

/// A root file system that Create mounts: an overlay over a busybox root.
fn overlay(shim: &Shim) -> Mount {
    let make = |name: &str| {
        let path = shim.place.join(name);
        fs::create_dir_all(&path).unwrap();
        path.to_string_lossy().into_owned()
    };
    let (lower, upper, work) = (make("lower"), make("upper"), make("work"));
    hull_testkit::rootfs::busybox(Path::new(&lower)).unwrap();
    let options = vec![format!("lowerdir={lower}"), format!("upperdir={upper}"), format!("workdir={work}")];
    Mount { r#type: "overlay".into(), source: "overlay".into(), options, ..Mount::default() }
}

#[test]
fn shim_killed_at_any_moment_of_create_leaves_nothing_after_delete() {
    needs!(root(), cgroup_v1());
    for step in 0..16 {
        let mut shim = Shim::start(Bundle::empty(&["/bin/sleep", "1000"]));
        let rootfs = vec![overlay(&shim)];
        let request = CreateTaskRequest { rootfs, ..shim.create_request() };
        let pid = shim.pid();
        shim.client.send("containerd.task.v2.Task", "Create", &request);
        std::thread::sleep(Duration::from_millis(step * 2));
        kill_9(pid);
        assert!(eventually(LIMIT, || !Path::new(&format!("/proc/{pid}/exe")).exists()));
        nothing_is_left_after_delete(&mut shim, &format!("{} ms", step * 2));
    }
}

#[test]
fn exit_code_is_known_to_the_delete_action_when_the_shim_was_killed_later() {
    needs!(root());
    let mut shim = Shim::start(Bundle::shell("exit 42"));
    shim.run();
    assert_eq!(shim.wait(""), 42);
    let at = shim.state().exited_at;
    kill_9(shim.pid());
    shim.mark_ended();
    let answer = DeleteResponse::decode(shim.delete_action().stdout.as_slice()).unwrap();
    assert_eq!((answer.exit_status, answer.exited_at), (42, at));
}

#[test]
fn shim_killed_after_its_last_delete_leaves_no_socket() {
    needs!(root());
    let mut shim = Shim::start(Bundle::new(&["sleep", "1000"]));
    let pid = shim.pid();
    shim.run();
    shim.kill(9);
    shim.wait("");
    assert!(shim.socket().exists());
    // containerd calls no delete action once the task is deleted.
    shim.delete();
    assert!(!shim.socket().exists());
    let named = shim.named("");
    assert_eq!(shim.refused("State", &named).0, 5, "who is connected is still served");
    kill_9(pid);
    shim.mark_ended();
}

#[test]
fn shim_that_was_stopped_while_it_was_taken_for_dead_ends_itself() {
    needs!(root());
    let signal = |pid: u32, signal| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    let mut shim = Shim::start(Bundle::new(&["sleep", "1000"]));
    let pid = shim.pid();
    shim.run();
    signal(pid, rustix::process::Signal::STOP);
    let answer = shim.delete_action();
    let exit = DeleteResponse::decode(answer.stdout.as_slice()).unwrap().exit_status;
    assert_eq!((answer.status.success(), exit), (true, 137), "{answer:?}");
    let state = Path::new(&shim.options.root).join("testkit").join(&shim.bundle.id);
    assert!(!state.exists(), "the runtime still knows the container");
    // As containerd does after it.
    fs::remove_dir_all(shim.bundle.path()).unwrap();
    signal(pid, rustix::process::Signal::CONT);
    let socket = shim.socket();
    shim.mark_ended();
    drop(shim);
    assert!(eventually(2 * LIMIT, || !Path::new(&format!("/proc/{pid}/exe")).exists()), "nobody needs it");
    assert!(!socket.exists());
}

#[test]
fn runtime_that_dies_half_way_leaves_no_container() {
    needs!(root());
    let tools = Scratch::new("tools");
    let script = "case \"$*\" in *' create '*) $REAL \"$@\"; kill -9 $$;; esac; exec $REAL \"$@\"";
    let mut shim = Shim::start_with(our_shim(), Bundle::new(&["sleep", "1000"]), scripted(&tools, script));
    let request = shim.create_request();
    let (code, text) = shim.refused("Create", &request);
    assert!(code == 2 && text.starts_with("OCI runtime create failed"), "{code} {text}");
    let state = Path::new(&shim.options.root).join("testkit").join(&shim.bundle.id);
    assert!(!state.exists(), "the runtime still knows the container");
    let named = shim.named("");
    assert_eq!(shim.refused("State", &named).0, 5);
    shim.shut_down();
}

#[test]
fn half_a_bundle_is_refused_and_leaves_no_container() {
    needs!(root());
    let mut shim = Shim::start(Bundle::new(&["sleep", "1000"]));
    let config = shim.bundle.path().join("config.json");
    let whole = fs::read(&config).unwrap();
    let (request, named) = (shim.create_request(), shim.named(""));
    for broken in [&b""[..], b"{", b"\xff\xfe", &whole[..whole.len() / 2]] {
        fs::write(&config, broken).unwrap();
        let (_, text) = shim.refused("Create", &request);
        assert!(text.contains("create container"), "{text}");
        assert_eq!(shim.refused("State", &named).0, 5);
    }
    fs::remove_file(&config).unwrap();
    let (_, text) = shim.refused("Create", &request);
    assert!(text.contains("No such file"), "{text}");
    // Whole again, it is as good as new.
    fs::write(&config, whole).unwrap();
    shim.run();
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    shim.delete();
    shim.shut_down();
}

#[test]
fn full_disk_refuses_new_work_and_loses_no_exit_code() {
    needs!(root());
    // The root file system is elsewhere: only what shim and runtime write is on the small disk.
    let elsewhere = Bundle::new(&[]);
    let script = "while [ ! -e /go ]; do sleep 0.05; done; head -c 300000 /dev/zero; exit 5";
    let mut shim = Shim::start(Bundle::on(&elsewhere.root(), &["/bin/sh", "-c", script]));
    let disk = Disk::over(&shim.place.join("disk"), "size=512k");
    fs::copy(shim.bundle.path().join("config.json"), disk.0.join("config.json")).unwrap();
    let stdout = fifo(&shim.place.join("out"));
    let bundle = disk.0.to_string_lossy().into_owned();
    let request = CreateTaskRequest { bundle, stdout: stdout.clone(), ..shim.create_request() };
    disk.fill();
    let (_, text) = shim.refused("Create", &request);
    assert!(text.contains("No space left on device"), "{text}");
    let named = shim.named("");
    assert_eq!(shim.refused("State", &named).0, 5);

    disk.free();
    shim.ok::<PidResponse>("Create", &request);
    shim.ok::<PidResponse>("Start", &named);
    disk.fill();
    let (exec, exec_named) = (shim.exec_request("e", "true"), shim.named("e"));
    shim.call("Exec", &exec).unwrap();
    let (_, text) = shim.refused("Start", &exec_named);
    assert!(text.contains("No space left on device"), "{text}");
    // Nobody reads and nothing can be spooled: the container waits, and goes on when there is a reader.
    fs::write(elsewhere.root().join("go"), "").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(shim.state().status(), Status::Running);
    assert_eq!(fs::read(&stdout).unwrap(), vec![0; 300_000]);
    assert_eq!(shim.wait(""), 5);
    assert_eq!(shim.delete().exit_status, 5);
    shim.shut_down();
}

#[test]
fn log_file_on_a_full_disk_is_continued_when_there_is_room() {
    needs!(root());
    let lines = "i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done; exit 3";
    let mut shim = Shim::start(Bundle::shell(lines));
    let disk = Disk::over(&shim.place.join("disk"), "size=256k");
    let log = disk.0.join("log");
    let stdout = format!("file://{}", log.display());
    let request = CreateTaskRequest { stdout, ..shim.create_request() };
    shim.run_as(&request);
    disk.fill();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(shim.state().status(), Status::Running, "it waits for room");
    rustix::mount::mount_remount(&disk.0, MountFlags::empty(), "size=4m").unwrap();
    assert_eq!(shim.wait(""), 3);
    shim.delete();
    let wanted: String = (0..60_000).map(|number| format!("line {number}\n")).collect();
    assert!(fs::read_to_string(&log).unwrap() == wanted, "the log is not whole");
    shim.shut_down();
}

fn pids(shim: &mut Shim) -> u64 {
    use containerd_shim_protos::cgroups::metrics::Metrics;
    use protobuf::Message as _;
    let named = shim.named("");
    let stats = shim.ok::<StatsResponse>("Stats", &named).stats.unwrap();
    Metrics::parse_from_bytes(&stats.value).unwrap().pids.current
}

#[test]
fn fork_bomb_is_killed_as_a_whole() {
    needs!(root(), cgroup_v1());
    let bundle = Bundle::shell("bomb() { bomb | bomb & }; bomb; exec sleep 1000")
        .with(|config| config["linux"]["resources"]["pids"] = serde_json::json!({ "limit": 100 }));
    let mut shim = Shim::start(bundle);
    shim.run();
    assert!(eventually(LIMIT, || pids(&mut shim) >= 90), "it does not go off");
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    shim.delete();
    shim.events.expect(&["create", "start", "exit init 137", "delete"]);
    assert!(!Path::new("/sys/fs/cgroup/pids").join(&shim.bundle.id).exists());
    shim.shut_down();
}

#[test]
fn reader_that_stops_holds_up_its_container_and_nobody_else() {
    needs!(root());
    let mut shim = Shim::start(Bundle::shell("head -c 3000000 /dev/zero; exit 4"));
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { stdout: stdout.clone(), ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    // There is a reader, so nothing is spooled; it just does not read.
    let mut reader = File::options().read(true).write(true).open(&stdout).unwrap();
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(shim.state().status(), Status::Running);
    shim.exec("e", "exit 6");
    assert_eq!(shim.wait("e"), 6);
    let mut text = vec![1; 3_000_000];
    std::io::Read::read_exact(&mut reader, &mut text).unwrap();
    assert!(text.iter().all(|byte| *byte == 0));
    assert_eq!(shim.wait(""), 4);
    shim.delete();
    shim.shut_down();
}

#[test]
fn delete_comes_to_its_end_though_a_reader_takes_nothing() {
    needs!(root());
    let mut shim = Shim::start(Bundle::shell("head -c 3000000 /dev/zero; sleep 1000"));
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { stdout: stdout.clone(), ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    let _reader = File::options().read(true).write(true).open(&stdout).unwrap();
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    assert_eq!(shim.delete().exit_status, 137);
    shim.shut_down();
}

#[test]
fn removed_socket_directory_is_made_anew() {
    needs!(root());
    let bundle = Bundle::new(&["sleep", "1000"]);
    let place = Scratch::new("sockets");
    let directory = place.join("s");
    let params = BootstrapParams {
        instance_id: bundle.id.clone(),
        namespace: "testkit".into(),
        containerd_version: "2.3.4".into(),
        socket_dir: directory.to_string_lossy().into_owned(),
        ..BootstrapParams::default()
    };
    let start = || {
        let answer = action(&our_shim(), &bundle, &place, "start", &params.encode_to_vec());
        BootstrapResult::decode(answer.stdout.as_slice()).unwrap().address
    };
    let address = start();
    assert!(address.contains("/s/"), "{address}");
    let named = ProcessRequest { id: bundle.id.clone(), exec_id: String::new() };
    let mut first = Client::connect(&address);
    let pid = |client: &mut Client| {
        let answer = client.call("containerd.task.v3.Task", "Connect", &named).unwrap();
        ConnectResponse::decode(answer.as_slice()).unwrap().shim_pid
    };
    let before = pid(&mut first);
    fs::remove_dir_all(&directory).unwrap();
    assert_eq!(pid(&mut first), before, "who is connected stays so");
    assert_eq!(start(), address);
    let mut second = Client::connect(&address);
    assert_ne!(pid(&mut second), before);
    for client in [&mut first, &mut second] {
        let request = ShutdownRequest { id: bundle.id.clone(), now: true };
        // The answer may be cut off by the end.
        let _ = client.call("containerd.task.v3.Task", "Shutdown", &request);
    }
    assert!(eventually(LIMIT, || !Path::new(&format!("/proc/{before}/exe")).exists()));
}

#[test]
fn mounts_below_a_root_that_is_none_go_with_it() {
    needs!(root(), cgroup_v1());
    for killed in [false, true] {
        let mut shim = Shim::start(Bundle::new(&["sleep", "1000"]));
        let root = shim.bundle.root();
        fs::create_dir_all(root.join("a/below")).unwrap();
        std::os::unix::fs::symlink("/a", root.join("link")).unwrap();
        let source = shim.place.join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("kept"), "").unwrap();
        let bind = |target: &str, options: &[&str]| Mount {
            r#type: "bind".into(),
            source: source.to_string_lossy().into_owned(),
            target: target.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        let rootfs = vec![bind("/a", &["rbind", "ro"]), bind("/link", &["bind"])];
        fs::create_dir(source.join("below")).unwrap();
        let request = CreateTaskRequest { rootfs, ..shim.create_request() };
        shim.ok::<PidResponse>("Create", &request);
        assert!(root.join("a/kept").exists());
        assert_eq!(hull_testkit::leftovers::mounts_below(shim.bundle.path()).len(), 2);
        if killed {
            let pid = shim.pid();
            kill_9(pid);
            assert!(eventually(LIMIT, || !Path::new(&format!("/proc/{pid}/exe")).exists()));
            nothing_is_left_after_delete(&mut shim, "mounts below");
            continue;
        }
        shim.kill(9);
        shim.wait("");
        shim.delete();
        let mounts = hull_testkit::leftovers::mounts_below(shim.bundle.path());
        assert!(mounts.is_empty(), "{mounts:?}");
        shim.shut_down();
    }
}

#[test]
fn busy_root_is_detached_and_goes_with_its_last_user() {
    needs!(root());
    let mut shim = Shim::start(Bundle::empty(&["/bin/sleep", "1000"]));
    let rootfs = vec![overlay(&shim)];
    let request = CreateTaskRequest { rootfs, ..shim.create_request() };
    shim.ok::<PidResponse>("Create", &request);
    let inside = shim.bundle.root().join("bin/busybox");
    let user = File::open(&inside).unwrap();
    let named = shim.named("");
    shim.ok::<PidResponse>("Start", &named);
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    assert_eq!(shim.delete().exit_status, 137);
    assert!(hull_testkit::leftovers::mounts_below(shim.bundle.path()).is_empty());
    assert_eq!(
        fs::read_dir(shim.bundle.root()).unwrap().count(),
        0,
        "the mount is gone, the directory is there"
    );
    assert!(shim.place.join("lower/bin/busybox").exists(), "nothing was removed through the mount");
    drop(user);
    shim.shut_down();
}

#[test]
fn four_megabytes_are_enough_for_a_shim_whose_output_nobody_reads() {
    needs!(root(), cgroup_v1());
    let cgroup = Cgroups::new("small");
    let script = "while [ ! -e /go ]; do sleep 0.05; done; i=0; while [ $i -lt 300000 ]; do echo line $i; i=$((i+1)); done; exec sleep 1000";
    let options = Options { shim_cgroup: cgroup.path(), ..Options::default() };
    let any = Any::pack("containerd.runc.v1.Options", &options).encode_to_vec();
    let runtime = hull_testkit::runtime::under_test();
    let mut shim = Shim::start_asked(our_shim(), Bundle::shell(script), runtime, &any);
    let memory = Path::new("/sys/fs/cgroup/memory").join(cgroup.name());
    let pid = shim.pid();
    let placed = fs::read_to_string(memory.join("cgroup.procs")).unwrap();
    assert_eq!(placed.trim(), pid.to_string(), "the shim is in the cgroup that was asked for");
    let stdout = fifo(&shim.place.join("out"));
    let request = CreateTaskRequest { stdout: stdout.clone(), ..shim.create_request() };
    shim.run_as(&request);
    let named = shim.named("");
    // Runtimes seal a copy of themselves in memory: only the shim itself is held to it.
    let limited = || fs::write(memory.join("memory.limit_in_bytes"), "4194304").is_ok();
    assert!(eventually(LIMIT, limited));
    fs::write(shim.bundle.root().join("go"), "").unwrap();
    let mut clients: Vec<Client> = (0..200).map(|_| Client::connect(&shim.address)).collect();
    for client in &mut clients {
        for _ in 0..20 {
            client.send("containerd.task.v2.Task", "Wait", &named);
        }
    }
    let wanted: String = (0..300_000).map(|number| format!("line {number}\n")).collect();
    let mut reader = File::open(&stdout).unwrap();
    let mut text = vec![0; wanted.len()];
    std::io::Read::read_exact(&mut reader, &mut text).unwrap();
    assert!(text == wanted.as_bytes(), "the output is not whole");
    fs::write(memory.join("memory.limit_in_bytes"), "-1").unwrap();
    assert_eq!(shim.pid(), pid);
    let control = fs::read_to_string(memory.join("memory.oom_control")).unwrap();
    assert!(control.contains("oom_kill 0"), "{control}");
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    shim.delete();
    shim.shut_down();
}
