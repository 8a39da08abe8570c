//! The features document.

use std::fs;

use serde_json::{Value, json};

use super::Table;
use super::mount_options::tmpfs_maps_ids;
use crate::bundle::{Bundle, mount, push};
use crate::call::silent;
use crate::lab::Lab;
use crate::verdict::{Finding, fail, holds, same, skip};

pub(super) const CASES: Table = &[
    ("F1", versions_are_there_and_accepted),
    ("F2", content_does_not_depend_on_the_machine),
    ("F4", named_hooks_and_mount_options_are_accepted),
    ("F5", members_belong_to_the_version),
    ("F6", annotations_are_strings),
    ("F7", unsafe_annotations_are_listed),
    ("F8", namespaces_and_capabilities_are_lists),
    ("F9", cgroup_members_are_booleans),
    ("F10", seccomp_members_are_lists),
    ("F11", security_modules_are_booleans),
    ("F12", memory_policy_and_rdt_are_described),
    ("F13", idmap_is_told_when_it_is_understood),
    ("F14", network_devices_are_told),
];

/// What `features` prints; the command is optional.
fn features(lab: &Lab) -> Finding<Value> {
    let output = lab.call(&["features"])?;
    if !output.succeeded() {
        return skip("the runtime has no features command, which is optional");
    }
    serde_json::from_str(&output.stdout).or_else(|_| fail("one JSON document", output.stdout))
}

/// Three numbers of a version, to compare.
fn version(value: &Value) -> Option<Vec<u32>> {
    let core = value.as_str()?.split(['-', '+']).next()?;
    let numbers: Vec<u32> = core.split('.').map_while(|part| part.parse().ok()).collect();
    (numbers.len() == 3).then_some(numbers)
}

fn versions_are_there_and_accepted(lab: &Lab) -> Finding {
    let features = features(lab)?;
    let (least, most) = (&features["ociVersionMin"], &features["ociVersionMax"]);
    holds(
        "versions of three numbers",
        version(least).is_some() && version(most).is_some(),
        format!("{least} {most}"),
    )?;
    holds(
        "a largest version not below the smallest",
        version(most) >= version(least),
        format!("{least} {most}"),
    )?;
    for value in [least, most] {
        let bundle = lab.bundle(|config| config["ociVersion"] = value.clone())?;
        lab.run(&bundle)?.done(&format!("run of a bundle of version {value}"))?;
    }
    Ok(())
}

fn content_does_not_depend_on_the_machine(lab: &Lab) -> Finding {
    let mut here = features(lab)?;
    let mut command = silent(lab.suite.probe());
    command.args(["blind", "--"]).arg(&lab.suite.runtime).args(&lab.suite.arguments).arg("features");
    let output = lab.call_command(&mut command)?;
    output.done("features without /sys")?;
    let mut there: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    for document in [&mut here, &mut there] {
        // This one list is meant to tell what kernel and library can do.
        document["linux"]["seccomp"]["supportedFlags"] = Value::Null;
    }
    same("the document where /sys is empty", &here, &there)
}

/// Whether a container with this mount option starts, in one of the ways in which options are used.
fn accepted(lab: &Lab, option: &str) -> Finding<bool> {
    let from = lab.place.join("source");
    fs::create_dir_all(from.join("sub"))?;
    let from = from.to_string_lossy().into_owned();
    let alone = lab.bundle(|config| mount(config, "/tmp", "tmpfs", "tmpfs", &[option]))?;
    let bound = lab.bundle(|config| mount(config, "/tmp", "none", &from, &["rbind", option]))?;
    let mapped = lab.bundle(|config| {
        let ids = json!([{ "containerID": 0, "hostID": 1000, "size": 1000 }]);
        push(config, "/mounts", json!({ "destination": "/tmp", "source": from, "options": ["bind", option], "uidMappings": ids, "gidMappings": ids }));
    })?;
    let again = lab.bundle(|config| {
        mount(config, "/tmp", "tmpfs", "tmpfs", &[]);
        mount(config, "/tmp", "tmpfs", "tmpfs", &[option, "ro"]);
    })?;
    for bundle in [&alone, &bound, &mapped, &again] {
        if runs(lab, bundle)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn runs(lab: &Lab, bundle: &Bundle) -> Finding<bool> {
    lab.run(bundle).map(|output| output.succeeded())
}

fn named_hooks_and_mount_options_are_accepted(lab: &Lab) -> Finding {
    let features = features(lab)?;
    let list = |name: &str| features[name].as_array().cloned().unwrap_or_default();
    let hooks: Vec<Value> = list("hooks");
    let known = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    for hook in &hooks {
        holds("a kind of hook that the specification knows", known.iter().any(|kind| hook == kind), hook)?;
    }
    for option in list("mountOptions") {
        let name = option.as_str().unwrap_or_default();
        holds(
            "no options of a file system in mountOptions",
            !["mode", "size", "uid", "gid"].contains(&name),
            name,
        )?;
        if name.ends_with("idmap") && !tmpfs_maps_ids() {
            continue;
        }
        holds(
            format!("the mount option {name} accepted, as features says"),
            accepted(lab, name)?,
            "refused",
        )?;
    }
    Ok(())
}

/// Members with the version of the specification that they came with.
const MEMBERS: [(&str, [u32; 3]); 19] = [
    ("/ociVersionMin", [1, 1, 0]),
    ("/ociVersionMax", [1, 1, 0]),
    ("/hooks", [1, 1, 0]),
    ("/mountOptions", [1, 1, 0]),
    ("/linux", [1, 1, 0]),
    ("/annotations", [1, 1, 0]),
    ("/potentiallyUnsafeConfigAnnotations", [1, 2, 0]),
    ("/linux/namespaces", [1, 1, 0]),
    ("/linux/capabilities", [1, 1, 0]),
    ("/linux/cgroup", [1, 1, 0]),
    ("/linux/seccomp", [1, 1, 0]),
    ("/linux/apparmor", [1, 1, 0]),
    ("/linux/selinux", [1, 1, 0]),
    ("/linux/intelRdt", [1, 1, 0]),
    ("/linux/mountExtensions", [1, 2, 0]),
    ("/linux/netDevices", [1, 3, 0]),
    ("/linux/memoryPolicy", [1, 3, 0]),
    ("/linux/intelRdt/schemata", [1, 3, 0]),
    ("/linux/intelRdt/monitoring", [1, 3, 0]),
];

fn members_belong_to_the_version(lab: &Lab) -> Finding {
    let features = features(lab)?;
    let most = version(&features["ociVersionMax"]).unwrap_or_default();
    let names = |value: &Value, below: &str| {
        let members = value.as_object().into_iter().flatten();
        members.map(|(name, _)| format!("{below}/{name}")).collect::<Vec<_>>()
    };
    let mut present = names(&features, "");
    present.extend(names(&features["linux"], "/linux"));
    for member in present {
        let known = MEMBERS.iter().find(|(name, _)| *name == member);
        let Some((_, since)) = known else { return fail("members of the specification alone", member) };
        // Those of 1.1 had been in use for a while before it.
        let early = *since == [1, 1, 0];
        holds(
            format!("no {member}, which came with {since:?}"),
            early || most >= since.to_vec(),
            format!("ociVersionMax {most:?}"),
        )?;
    }
    Ok(())
}

fn annotations_are_strings(lab: &Lab) -> Finding {
    let annotations = features(lab)?["annotations"].clone();
    let strings = annotations
        .as_object()
        .is_none_or(|map| map.iter().all(|(key, value)| !key.is_empty() && value.is_string()));
    holds(
        "a map of strings, or none",
        strings && (annotations.is_object() || annotations.is_null()),
        annotations,
    )
}

/// An optional list of strings that are not empty.
fn strings(value: &Value) -> bool {
    value.is_null()
        || value
            .as_array()
            .is_some_and(|list| list.iter().all(|word| word.as_str().is_some_and(|word| !word.is_empty())))
}

fn boolean(value: &Value) -> bool {
    value.is_null() || value.is_boolean()
}

/// Checks the kind of optional members.
fn members(lab: &Lab, pointers: &[&str], kind: &str, fits: fn(&Value) -> bool) -> Finding {
    let features = features(lab)?;
    for pointer in pointers {
        let value = features.pointer(pointer).unwrap_or(&Value::Null);
        holds(format!("{pointer} as {kind}, or absent"), fits(value), value)?;
    }
    Ok(())
}

fn unsafe_annotations_are_listed(lab: &Lab) -> Finding {
    members(lab, &["/potentiallyUnsafeConfigAnnotations"], "a list of names", strings)
}

fn namespaces_and_capabilities_are_lists(lab: &Lab) -> Finding {
    members(lab, &["/linux/namespaces", "/linux/capabilities"], "a list of names", strings)?;
    let list = features(lab)?["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
    let known = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
    let strange: Vec<&Value> = list.iter().filter(|name| !known.iter().any(|kind| name == kind)).collect();
    holds("types of namespaces that the specification knows", strange.is_empty(), format!("{strange:?}"))
}

fn cgroup_members_are_booleans(lab: &Lab) -> Finding {
    let pointers = [
        "/linux/cgroup/v1",
        "/linux/cgroup/v2",
        "/linux/cgroup/systemd",
        "/linux/cgroup/systemdUser",
        "/linux/cgroup/rdma",
    ];
    members(lab, &pointers, "a boolean", boolean)
}

fn seccomp_members_are_lists(lab: &Lab) -> Finding {
    let lists = ["actions", "operators", "archs", "knownFlags", "supportedFlags"]
        .map(|name| format!("/linux/seccomp/{name}"));
    members(lab, &lists.each_ref().map(String::as_str), "a list of names", strings)?;
    members(lab, &["/linux/seccomp/enabled"], "a boolean", boolean)
}

fn security_modules_are_booleans(lab: &Lab) -> Finding {
    members(lab, &["/linux/apparmor/enabled", "/linux/selinux/enabled"], "a boolean", boolean)
}

fn memory_policy_and_rdt_are_described(lab: &Lab) -> Finding {
    members(lab, &["/linux/memoryPolicy/modes", "/linux/memoryPolicy/flags"], "a list of names", strings)?;
    let booleans = ["/linux/intelRdt/enabled", "/linux/intelRdt/schemata", "/linux/intelRdt/monitoring"];
    members(lab, &booleans, "a boolean", boolean)
}

fn idmap_is_told_when_it_is_understood(lab: &Lab) -> Finding {
    let told = features(lab)?["linux"]["mountExtensions"]["idmap"]["enabled"].clone();
    let from = lab.place.join("source");
    fs::create_dir_all(&from)?;
    fs::write(from.join("which"), "")?;
    let ids = json!([{ "containerID": 0, "hostID": 1000, "size": 1000 }]);
    let seen = lab.inside(&["stat", "/tmp/which"], |config| {
        push(config, "/mounts", json!({ "destination": "/tmp", "source": from, "options": ["bind", "idmap"], "uidMappings": ids, "gidMappings": ids }));
    });
    let understood = seen.is_ok_and(|seen| seen[0] == "file 644 1000:1000");
    holds(
        "mountExtensions.idmap.enabled as it is",
        told == json!(true) || !understood,
        format!("{told}, and an id-mapped mount works"),
    )
}

fn network_devices_are_told(lab: &Lab) -> Finding {
    members(lab, &["/linux/netDevices/enabled"], "a boolean", boolean)
}
