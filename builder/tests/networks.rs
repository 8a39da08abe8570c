//! Networks of containers by the CNI files of the machine: none, and a list of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;

use std::fs;
use std::process::{Command, Output};

use bed::{Bed, runtime};
use hull_testkit::{gate, needs};

/// `run` in a mount namespace of its own, after a script that changes what CNI finds there.
fn run(bed: &Bed, prepares: &str, flags: &[&str], script: &str) -> Output {
    let runtime = runtime().unwrap();
    let run = ["run", "--rm", "--runtime", &runtime];
    let plain = bed.command(&[&run, flags, &["lab/a:1", "sh", "-c", script]].concat());
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &format!("{prepares} && exec \"$@\""), "sh"]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().unwrap()
}

#[test]
fn without_plug_ins_the_hosts_network_is_used_and_said() {
    if runtime().is_none() {
        return;
    }
    let bed = Bed::new();
    bed.image("lab/a:1");
    let hide = "for d in /usr/lib/cni /opt/cni/bin; do [ ! -d $d ] || mount -t tmpfs none $d; done";
    let output = run(&bed, hide, &[], "busybox readlink /proc/self/ns/net");
    let said = String::from_utf8_lossy(&output.stderr);
    let own = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), own, "{said}");
    assert!(said.contains("notice: there are no CNI plug-ins"), "{said}");
    let output = run(&bed, hide, &["--network", "bridge"], "true");
    assert_eq!(output.status.code(), Some(125), "a wish is not passed over");
}

const LIST: &str = r#"{"cniVersion": "0.4.0", "name": "own", "plugins": [{"type": "bridge", "bridge": "hull-own0", "ipam":
    {"type": "host-local", "subnet": "10.89.201.0/24", "dataDir": "/tmp/DIRECTORY"}}]}"#;

#[test]
fn a_list_of_the_machine_is_a_network_by_its_name() {
    needs!(gate::path("/etc/cni/net.d"), gate::path("/usr/lib/cni/bridge"), gate::program("ip"));
    if runtime().is_none() {
        return;
    }
    let bed = Bed::new();
    bed.image("lab/a:1");
    let leases = bed.path("leases").display().to_string();
    fs::write(bed.path("own.conflist"), LIST.replace("/tmp/DIRECTORY", &leases)).unwrap();
    let own = bed.path("own.conflist").display().to_string();
    let lists = format!("mount -t tmpfs none /etc/cni/net.d && cp {own} /etc/cni/net.d/");
    let output = run(&bed, &lists, &["--network", "own"], "busybox ip -4 addr show eth0");
    drop(Command::new("ip").args(["link", "delete", "hull-own0"]).output());
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("inet 10.89.201.2/24"), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    let output = run(&bed, &lists, &["--network", "other"], "true");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(125) && said.contains("other"), "{said}");
}
