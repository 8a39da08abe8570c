//! What `exec` puts into a container: its namespaces, its options, and whose exit status comes back.
#![forbid(unsafe_code)]

use std::fs;

use hull_testkit::{Bundle, Runtime, gate, needs};

#[test]
fn exec_joins_every_namespace_and_passes_the_exit_status() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    for kind in ["pid", "net", "mnt", "ipc", "uts", "cgroup"] {
        let own = fs::read_link(format!("/proc/{}/ns/{kind}", container.pid())).expect("read the namespace");
        let joined = container.exec(&[], &["/bin/readlink", &format!("/proc/self/ns/{kind}")]);
        assert_eq!(joined.text(), own.to_str().expect("UTF-8"));
    }
    assert_eq!(container.exec(&[], &["/bin/sh", "-c", "exit 9"]).code, 9);
    assert_eq!(container.exec(&[], &["/bin/sh", "-c", "kill -KILL $$"]).code, 137);
    container.exec(&[], &["/no/such/program"]).failed(255, "no such file or directory");
}

#[test]
fn exec_options_set_user_directory_and_environment() {
    needs!(gate::root(), gate::program("busybox"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]);
    let container = runtime.start(&bundle);
    let script = "echo $(id -u):$(id -g) $PWD $A $B";
    let options = ["--user", "1000:1001", "--cwd", "/tmp", "--env", "A=1", "--env", "B=two"];
    assert_eq!(container.exec(&options, &["/bin/sh", "-c", script]).text(), "1000:1001 /tmp 1 two");
    // Only a container's first process has its directory made.
    let missing = container.exec(&["--cwd", "/not/there"], &["/bin/true"]);
    missing.failed(255, "/not/there");
    assert!(missing.stderr.contains("no such file or directory"), "{}", missing.stderr);
    assert!(!bundle.root().join("not").exists());
}
