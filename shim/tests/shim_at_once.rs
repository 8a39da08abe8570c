//! Calls of the runtime that run beside each other, and beside the end of their container.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

mod task_client;

use std::fs;

use hull_testkit::call::eventually;
use hull_testkit::gate::root;
use hull_testkit::{Scratch, needs};
use task_client::*;

const SERVICE: &str = "containerd.task.v2.Task";

#[test]
fn execs_that_fail_at_once_tell_their_own_errors() {
    needs!(root());
    let tools = Scratch::new("tools");
    // Each has written its error before either ends.
    let script = format!(
        "for word; do [ \"$before\" = --log ] && log=$word; before=$word; done
        for name in a b; do case \"$*\" in *exec-$name.json*)
            echo '{{\"level\":\"error\",\"msg\":\"the error of '$name'\"}}' >>$log
            touch {0}/$name; while [ ! -e {0}/a ] || [ ! -e {0}/b ]; do sleep 0.02; done; exit 1;;
        esac; done; exec $REAL \"$@\"",
        tools.path().display()
    );
    let mut shim = Shim::start_with(our_shim(), sleeper(), scripted(&tools, &script));
    shim.run();
    let names = ["a", "b"];
    let starts = names.map(|name| {
        let request = shim.exec_request(name, "true");
        shim.call("Exec", &request).unwrap();
        let named = shim.named(name);
        shim.client.send(SERVICE, "Start", &named)
    });
    let told = starts.map(|start| shim.client.receive(start).unwrap_err().message);
    assert_eq!(told, names.map(|name| format!("OCI runtime exec failed: the error of {name}")));
    let of_execs = || {
        let entries = fs::read_dir(shim.bundle.path()).unwrap().map(|entry| entry.unwrap().file_name());
        entries.filter(|name| name.to_string_lossy().starts_with("exec-")).count()
    };
    assert!(eventually(LIMIT, || of_execs() == 0), "their files are left in the bundle");
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}

#[test]
fn exec_that_hangs_ends_with_its_container_and_is_nothing_to_the_next_of_that_name() {
    needs!(root());
    let tools = Scratch::new("tools");
    let (hangs, pid_file) = (tools.join("hangs"), tools.join("pid"));
    fs::write(&hangs, "").unwrap();
    let script = format!(
        "case \"$*\" in *' exec '*) if [ -e {} ]; then echo $$ >{}; exec sleep 1000; fi;; esac; exec $REAL \"$@\"",
        hangs.display(),
        pid_file.display()
    );
    let mut shim = Shim::start_with(our_shim(), sleeper(), scripted(&tools, &script));
    shim.run();
    let shim_pid = shim.pid();
    // The shim takes no other container after its last one while only one client is there.
    let mut other = Client::connect(&shim.address);
    let named = shim.named("");
    other.call(SERVICE, "State", &named).unwrap();
    let request = shim.exec_request("e", "exit 3");
    shim.call("Exec", &request).unwrap();
    let named = shim.named("e");
    let start = shim.client.send(SERVICE, "Start", &named);
    assert!(eventually(LIMIT, || fs::read_to_string(&pid_file).is_ok_and(|pid| pid.ends_with('\n'))));
    shim.kill(9);
    assert_eq!(shim.wait(""), 137);
    shim.delete();
    let refusal = shim.client.receive(start).unwrap_err();
    assert_eq!((refusal.code, refusal.message.as_str()), (5, "container not created: not found"));
    assert!(eventually(LIMIT, || children(shim_pid) == 0), "the runtime hangs on");

    fs::remove_file(hangs).unwrap();
    shim.run();
    shim.exec("e", "exit 3");
    assert_eq!(shim.wait("e"), 3);
    shim.kill(9);
    shim.wait("");
    shim.delete();
    shim.shut_down();
}
