//! Network devices. Each case has a network namespace of its own as the "host": the runtime is called in there.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::Table;
use crate::bundle::{Bundle, probe};
use crate::call::{Output, silent};
use crate::hold::Held;
use crate::lab::{Lab, answers};
use crate::verdict::{Finding, fail, holds, needs, same};

pub(super) const CASES: Table = &[
    ("D11", devices_move_and_are_renamed),
    ("D12", addresses_are_kept),
    ("D13", devices_are_up),
    ("D14", taken_names_are_errors),
    ("D15", devices_are_never_moved_back),
];

/// A network namespace that plays the host, with a pair of virtual devices `conf0` and `conf1`.
fn host(lab: &Lab) -> Finding<i32> {
    needs(ip().is_some(), "needs ip(8)")?;
    let pid = lab.keep(Held::new(lab.suite, &["net"])?);
    let made = tool(lab, pid, &["link", "add", "conf0", "type", "veth", "peer", "name", "conf1"])?;
    needs(made.succeeded(), "needs virtual ethernet devices")?;
    Ok(pid)
}

fn ip() -> Option<&'static str> {
    ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"].into_iter().find(|path| Path::new(path).exists())
}

/// A command inside the network namespace of a process.
fn inside(lab: &Lab, pid: i32) -> Command {
    let mut command = silent(lab.suite.probe());
    command.arg("enter").arg(format!("/proc/{pid}/ns/net")).arg("--");
    command
}

fn tool(lab: &Lab, pid: i32, words: &[&str]) -> Finding<Output> {
    lab.call_command(inside(lab, pid).arg(ip().unwrap_or("ip")).args(words))
}

/// `run` inside the namespace that plays the host.
fn run(lab: &Lab, host: i32, bundle: &Bundle) -> Finding<Output> {
    let plain = lab.suite.command(&lab.place);
    let mut command = inside(lab, host);
    command.arg(plain.get_program()).args(plain.get_args());
    command.args(["run", "--bundle"]).arg(&bundle.path).arg(&bundle.id);
    let output = lab.call_command(&mut command)?;
    lab.call(&["delete", "--force", &bundle.id])?;
    Ok(output)
}

/// Runs actions in a container that gets the given devices.
fn with_devices(lab: &Lab, host: i32, devices: Value, words: &[&str]) -> Finding<Vec<String>> {
    let bundle = lab.bundle(|config| {
        probe(config, &[&["do"], words].concat());
        config["linux"]["netDevices"] = devices;
    })?;
    let output = run(lab, host, &bundle)?;
    output.done("run with netDevices")?;
    answers(&output.stdout).map_or_else(|| fail("the program's answers", output.told()), Ok)
}

const LIST: [&str; 2] = ["list", "/sys/class/net"];

/// The devices that matter: a kernel may put tunnels of its own into each namespace.
fn ours(list: &str) -> Vec<&str> {
    list.split(' ').filter(|name| name.starts_with("conf") || name.starts_with("inner")).collect()
}

fn devices_move_and_are_renamed(lab: &Lab) -> Finding {
    let host = host(lab)?;
    let devices = json!({ "conf0": {}, "conf1": { "name": "inner1" } });
    let seen = with_devices(lab, host, devices, &LIST)?;
    same("the devices inside", &["conf0", "inner1"][..], &ours(&seen[0])[..])
}

fn addresses_are_kept(lab: &Lab) -> Finding {
    let host = host(lab)?;
    for address in ["10.98.76.54/24", "fd00:98::54/64"] {
        tool(lab, host, &["address", "add", address, "dev", "conf0", "nodad"])?;
        tool(lab, host, &["address", "replace", address, "dev", "conf0"])?;
    }
    let words = ["read", "/proc/net/fib_trie", "+", "read", "/proc/net/if_inet6"];
    let seen = with_devices(lab, host, json!({ "conf0": { "name": "inner0" }, "conf1": {} }), &words)?;
    holds("the address 10.98.76.54", seen[0].contains("10.98.76.54"), "not among the routes inside")?;
    let six = seen[1].lines().any(|line| line.starts_with("fd000098000000000000000000000054"));
    holds("the address fd00:98::54", six || seen[1].starts_with('!'), &seen[1])
}

fn devices_are_up(lab: &Lab) -> Finding {
    let host = host(lab)?;
    let seen = with_devices(lab, host, json!({ "conf0": {} }), &["read", "/sys/class/net/conf0/flags"])?;
    let flags = i64::from_str_radix(seen[0].trim_start_matches("0x"), 16).unwrap_or(0);
    holds("the flag IFF_UP", flags & 1 == 1, &seen[0])
}

fn taken_names_are_errors(lab: &Lab) -> Finding {
    let host = host(lab)?;
    let bundle = lab.bundle(|config| config["linux"]["netDevices"] = json!({ "conf0": { "name": "lo" } }))?;
    run(lab, host, &bundle)?.refused("a device whose name is taken inside")?;
    let still = tool(lab, host, &["link", "show", "conf0"])?;
    holds("the device stays where it was", still.succeeded(), still.stderr.trim())?;
    let seen = with_devices(lab, host, json!({ "conf0": { "name": "inner%d" } }), &LIST)?;
    same("the device of a template", &["inner0"][..], &ours(&seen[0])[..])
}

fn devices_are_never_moved_back(lab: &Lab) -> Finding {
    let host = host(lab)?;
    let target = lab.keep(Held::new(lab.suite, &["net"])?);
    let bundle = lab.bundle(|config| {
        probe(config, &["exit", "0"]);
        config["linux"]["netDevices"] = json!({ "conf0": { "name": "inner0" } });
        if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
            list.retain(|entry| entry["type"] != "network");
            list.push(json!({ "type": "network", "path": format!("/proc/{target}/ns/net") }));
        }
    })?;
    run(lab, host, &bundle)?.done("run with netDevices and a joined network namespace")?;
    let there = tool(lab, target, &["link", "show", "inner0"])?;
    holds("the device in the joined namespace after delete", there.succeeded(), there.stderr.trim())?;
    let back = tool(lab, host, &["link", "show", "conf0"])?;
    holds("no device outside after delete", !back.succeeded(), back.stdout)
}
