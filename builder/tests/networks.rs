//! Networks of containers by the CNI files of the machine: none, a list of its own, and ports that are published.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;

use std::fs;
use std::process::{Command, Output};

use bed::{Bed, program, runtime};
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

#[test]
fn a_published_port_is_served_once_and_no_rule_is_left() {
    let Some(runtime) = runtime() else { return };
    for name in ["iptables-save", "ip", "busybox"] {
        if program(name).is_none() {
            return;
        }
    }
    if !std::path::Path::new("/usr/lib/cni/bridge").exists() {
        return hull_testkit::gate::skipped("needs CNI plug-ins");
    }
    let bed = Bed::new();
    bed.image("lab/a:1");
    // A network namespace of the test's own stands for the host.
    let script = r#"set -e
        wait_for() { for try in $(seq 150); do "$@" && return; sleep 0.2; done; }
        get() { busybox wget -q -O - "$1"; }
        none() { [ -z "$("$0" ps "$1")" ]; }
        ip link set lo up; echo 1 >/proc/sys/net/ipv4/ip_forward
        run() { "$0" run --rm -d --runtime "$1" --network bridge -p 8080:80 --name $2 lab/a:1 busybox httpd -f -p 80 -h /data; }
        run "$1" web >/dev/null
        run "$1" again 2>&1 && exit 9
        for address in 127.0.0.1 10.89.57.1; do
            wait_for get http://$address:8080/seed; echo
        done
        "$0" ps --format '{{.Ports}}'
        "$0" run -d --runtime "$1" --network bridge -p 80 -p 127.0.0.1:81-82:81-82/udp --name any lab/a:1 busybox httpd -f -p 80 -h /data >/dev/null
        "$0" ps --format '{{.Ports}}' | sed -n 's/^0.0.0.0:\([0-9]*\)->80.tcp, /\1 /p' | {
            read port rest
            wait_for get http://127.0.0.1:$port/seed; echo
            echo "$rest"
            "$0" stop -t 0 any web >/dev/null
            wait_for none -q
            "$0" run --rm -d --runtime "$1" --network bridge -p $port:80 --name taker lab/a:1 sleep 100 >/dev/null
            "$0" start any 2>&1 | sed "s/$port/PORT/"
        }
        "$0" stop -t 0 taker >/dev/null; "$0" rm any >/dev/null
        wait_for none -aq
        for try in 1 2 3; do
            id=$("$0" run -d --runtime "$1" --network bridge --name gone lab/a:1 sleep 100)
            "$0" rm -f gone >/dev/null
            grep -l $id /var/lib/cni/networks/hull-bridge/* || echo released
        done
        iptables-save | grep -c 'hull-bridge\|DNAT --to' || true"#;
    let own = env!("CARGO_BIN_EXE_hull-build");
    let mut command = bed.command(&[]);
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "sh", "-c", script, own, &runtime]).env_clear();
    unshare.envs(command.arg("x").get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = unshare.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = "hull-build: port 8080:80/tcp is published by container web\nseed\nseed\n0.0.0.0:8080->80/tcp\n\
        seed\n127.0.0.1:81->81/udp, 127.0.0.1:82->82/udp\n\
        hull-build: start any: port PORT:80/tcp is published by container taker\nreleased\nreleased\nreleased\n0\n";
    assert_eq!(text, expected, "{}", String::from_utf8_lossy(&output.stderr));
}
