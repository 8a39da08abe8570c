//! Devices.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::Table;
use super::process::on_terminal;
use crate::bundle::push;
use crate::lab::Lab;
use crate::verdict::{Finding, holds, same};

pub(super) const CASES: Table = &[
    ("D1", listed_devices_are_there),
    ("D2", types_and_numbers_are_checked),
    ("D3", mode_and_owner_are_honoured),
    ("D4", devices_may_be_anywhere),
    ("D5", files_in_the_way_are_errors),
    ("D6", devices_work_in_a_user_namespace),
    ("D7", default_devices_are_there),
    ("D8", ptmx_is_the_containers_own),
    ("D9", console_is_there_with_a_terminal),
];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Lists a device and lets the control group allow it.
fn device(config: &mut Value, device: Value) {
    let rule = json!({ "allow": true, "access": "rwm" });
    push(config, "/linux/resources/devices", rule);
    push(config, "/linux/devices", device);
}

fn listed_devices_are_there(lab: &Lab) -> Finding {
    let seen = lab.inside(&["stat", "/dev/one", "+", "open", "/dev/one", "+", "read", "/dev/one"], |config| {
        device(config, json!({ "path": "/dev/one", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0 }));
    })?;
    same("a second null device: stat, open, read", &["char 1:3 666 0:0", "", ""][..], &seen[..])
}

fn types_and_numbers_are_checked(lab: &Lab) -> Finding {
    let words = ["stat", "/dev/c", "+", "stat", "/dev/u", "+", "stat", "/dev/b", "+", "stat", "/dev/p"];
    let seen = lab.inside(&words, |config| {
        for (name, kind, major, minor) in [("c", "c", 1, 5), ("u", "u", 1, 7), ("b", "b", 7, 0)] {
            let path = format!("/dev/{name}");
            device(config, json!({ "path": path, "type": kind, "major": major, "minor": minor, "fileMode": 0o600, "uid": 0, "gid": 0 }));
        }
        device(config, json!({ "path": "/dev/p", "type": "p", "fileMode": 0o600, "uid": 0, "gid": 0 }));
    })?;
    let wanted = ["char 1:5 600 0:0", "char 1:7 600 0:0", "block 7:0 600 0:0", "fifo 600 0:0"];
    same("devices of the types c, u, b and p", &wanted[..], &seen[..])?;
    lab.refuses("a device of the type x", |config| {
        device(config, json!({ "path": "/dev/x", "type": "x", "major": 1, "minor": 3 }))
    })
}

fn mode_and_owner_are_honoured(lab: &Lab) -> Finding {
    let seen = lab.inside(&["stat", "/dev/one"], |config| {
        device(config, json!({ "path": "/dev/one", "type": "c", "major": 1, "minor": 3, "fileMode": 0o642, "uid": 3, "gid": 4 }));
    })?;
    same("mode and owner", "char 1:3 642 3:4", seen[0].as_str())
}

fn devices_may_be_anywhere(lab: &Lab) -> Finding {
    let seen = lab.inside(&["stat", "/opt/deep/er/one"], |config| {
        let path = "/opt/deep/er/one";
        device(config, json!({ "path": path, "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0 }));
    })?;
    same("a device in a directory that was not there", "char 1:3 666 0:0", seen[0].as_str())
}

fn files_in_the_way_are_errors(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| {
        device(config, json!({ "path": "/opt/one", "type": "c", "major": 1, "minor": 3 }))
    })?;
    fs::create_dir(bundle.inside("opt"))?;
    fs::write(bundle.inside("opt/one"), "a file")?;
    lab.try_create(&bundle)?.refused("a device at the path of a file")?;
    same("the file", "a file", fs::read_to_string(bundle.inside("opt/one"))?.as_str())
}

fn devices_work_in_a_user_namespace(lab: &Lab) -> Finding {
    let fuse = Path::new("/dev/fuse").exists();
    let words = ["open-write", "/dev/null", "+", "open", "/dev/urandom", "+", "stat", "/dev/fuse"];
    let seen = lab.inside(&words, |config| {
        super::namespaces::user_namespace(config);
        if fuse {
            device(config, json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 }));
        }
    })?;
    same("null and urandom in a user namespace", &["", ""][..], &seen[..2])?;
    holds("the host's /dev/fuse in a user namespace", !fuse || seen[2].starts_with("char 10:229"), &seen[2])
}

fn default_devices_are_there(lab: &Lab) -> Finding {
    let report = lab.report(|_| ())?;
    for (name, number) in [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ] {
        let seen = text(&report["devices"][format!("/dev/{name}")]);
        holds(format!("/dev/{name} as char {number}"), seen.starts_with(&format!("char {number} ")), seen)?;
    }
    let seen = lab.inside(
        &[
            "open-write",
            "/dev/null",
            "+",
            "open",
            "/dev/zero",
            "+",
            "open",
            "/dev/full",
            "+",
            "open",
            "/dev/random",
        ],
        |_| (),
    )?;
    same("null, zero, full and random can be opened", &[""; 4][..], &seen[..])
}

fn ptmx_is_the_containers_own(lab: &Lab) -> Finding {
    let seen =
        lab.inside(&["stat", "/dev/ptmx", "+", "link", "/dev/ptmx", "+", "open-write", "/dev/ptmx"], |_| ())?;
    let own = seen[0].starts_with("char 5:2") || ["pts/ptmx", "/dev/pts/ptmx"].contains(&seen[1].as_str());
    holds("ptmx as a link to pts/ptmx or a bind mount of it", own, format!("{seen:?}"))?;
    same("opening ptmx", "", seen[2].as_str())
}

fn console_is_there_with_a_terminal(lab: &Lab) -> Finding {
    let seen = on_terminal(
        lab,
        &["stat", "/dev/console", "+", "open-write", "/dev/console", "+", "terminal"],
        |_| (),
    )?;
    holds(
        "/dev/console as a terminal of the container",
        seen[0].starts_with("char 136:") && seen[1].is_empty(),
        format!("{seen:?}"),
    )
}
