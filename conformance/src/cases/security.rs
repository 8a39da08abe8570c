//! Kernel parameters, propagation of the root, paths, personality and memory policy.

use std::fs;
use std::path::Path;

use rustix::mount::{MountPropagationFlags, mount_change};
use serde_json::{Value, json};

use super::Table;
use crate::bundle::probe;
use crate::lab::{Lab, answers};
use crate::verdict::{Finding, fail, holds, needs, same};

pub(super) const CASES: Table = &[
    ("S1", kernel_parameters_are_set),
    ("S14", propagation_of_the_root_is_set),
    ("S15", masked_paths_cannot_be_read),
    ("S16", readonly_paths_cannot_be_written),
    ("S17", mount_labels_need_selinux),
    ("S18", personality_is_set),
    ("S19", memory_policy_is_set),
];

fn kernel_parameters_are_set(lab: &Lab) -> Finding {
    let words = ["read", "/proc/sys/net/ipv4/ip_forward", "+", "read", "/proc/sys/kernel/msgmax"];
    let seen = lab.inside(&words, |config| {
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "4321" });
    })?;
    same("the parameters inside", &["1", "4321"][..], &seen[..])?;
    // The value is the one that it has: a runtime that sets it does no harm.
    let present = fs::read_to_string("/proc/sys/vm/swappiness")?;
    lab.refuses("a parameter that belongs to the whole machine", |config| {
        config["linux"]["sysctl"] = json!({ "vm.swappiness": present.trim() });
    })
}

fn propagation_of_the_root_is_set(lab: &Lab) -> Finding {
    let root = lab.place.join("shared-root");
    fs::create_dir(&root)?;
    rustix::mount::mount("tmpfs", &root, "tmpfs", rustix::mount::MountFlags::empty(), c"mode=755")?;
    fs::copy(lab.suite.probe(), root.join("probe"))?;
    mount_change(&root, MountPropagationFlags::SHARED)?;
    for (word, mark) in [
        ("shared", Some("shared")),
        ("slave", Some("master")),
        ("private", None),
        ("unbindable", Some("unbindable")),
    ] {
        let report = lab.report(|config| {
            config["root"]["path"] = json!(root);
            config["linux"]["rootfsPropagation"] = json!(word);
        })?;
        let mounts = report["mounts"].as_array().into_iter().flatten();
        let seen =
            mounts.filter(|mount| mount["target"] == "/").map(|mount| &mount["propagation"]).next_back();
        let marks: Vec<&str> =
            seen.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let right = mark.map_or(marks.is_empty(), |mark| marks.contains(&mark));
        holds(format!("the root's propagation with {word}"), right, format!("{marks:?}"))?;
    }
    lab.refuses("an unknown propagation", |config| config["linux"]["rootfsPropagation"] = json!("sideways"))
}

fn masked_paths_cannot_be_read(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| {
        probe(config, &["do", "read", "/secret", "+", "list", "/closet", "+", "read", "/closet/one"]);
        config["linux"]["maskedPaths"] = json!(["/secret", "/closet", "/nowhere"]);
    })?;
    fs::write(bundle.inside("secret"), "secret")?;
    fs::create_dir(bundle.inside("closet"))?;
    fs::write(bundle.inside("closet/one"), "secret")?;
    let seen = lab.inside_of(&bundle)?;
    let hidden = |answer: &str| answer.is_empty() || answer.starts_with('!');
    let right = hidden(&seen[0]) && hidden(&seen[1]) && seen[2].starts_with('!');
    holds("nothing to read in a masked file and in a masked directory", right, format!("{seen:?}"))
}

fn readonly_paths_cannot_be_written(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| {
        probe(
            config,
            &[
                "do",
                "open-write",
                "/fixed",
                "+",
                "mkdir",
                "/shelf/new",
                "+",
                "read",
                "/fixed",
                "+",
                "mkdir",
                "/tmp/new",
            ],
        );
        config["linux"]["readonlyPaths"] = json!(["/fixed", "/shelf", "/nowhere"]);
    })?;
    fs::write(bundle.inside("fixed"), "still readable")?;
    fs::create_dir(bundle.inside("shelf"))?;
    let wanted = ["!EROFS", "!EROFS", "still readable", ""];
    same(
        "writing a file, making a directory, reading, writing elsewhere",
        &wanted[..],
        &lab.inside_of(&bundle)?[..],
    )
}

fn mount_labels_need_selinux(lab: &Lab) -> Finding {
    needs(
        !Path::new("/sys/fs/selinux/enforce").exists(),
        "the case is for machines without SELinux: which labels a policy has is not known",
    )?;
    lab.refuses("a mount label where there is no SELinux", |config| {
        config["linux"]["mountLabel"] = json!("system_u:object_r:svirt_sandbox_file_t:s0:c715,c811");
    })
}

fn personality_is_set(lab: &Lab) -> Finding {
    let machine = |domain: Option<&str>| {
        lab.inside(&["uname"], |config| {
            if let Some(domain) = domain {
                config["linux"]["personality"] = json!({ "domain": domain });
            }
        })
    };
    let plain = machine(None)?;
    same("the machine with LINUX", &plain, &machine(Some("LINUX"))?)?;
    let thirty_two = machine(Some("LINUX32"))?;
    let wanted = if plain[0] == "x86_64" { "i686" } else { "armv8l" };
    if ["x86_64", "aarch64"].contains(&plain[0].as_str()) {
        same("the machine with LINUX32", wanted, thirty_two[0].as_str())?;
    }
    lab.refuses_to_run("an unknown domain", |config| {
        config["linux"]["personality"] = json!({ "domain": "LINUX16" })
    })?;
    lab.refuses_to_run("a flag of personality, of which none is defined", |config| {
        config["linux"]["personality"] = json!({ "domain": "LINUX", "flags": ["SHORT_INODE"] });
    })
}

/// The policy of the program's own memory, as numa(7) tells it.
fn policy(lab: &Lab, given: Value) -> Finding<String> {
    let bundle = lab.bundle(|config| {
        probe(config, &["do", "read", "/proc/self/numa_maps"]);
        config["linux"]["memoryPolicy"] = given;
    })?;
    let output = lab.run(&bundle)?;
    output.done("run with a memory policy")?;
    let Some(seen) = answers(&output.stdout) else { return fail("the program's answers", output.told()) };
    Ok(seen[0].lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned())
}

fn memory_policy_is_set(lab: &Lab) -> Finding {
    needs(Path::new("/proc/self/numa_maps").exists(), "needs a kernel with memory policies")?;
    same("bind to node 0", "bind:0", policy(lab, json!({ "mode": "MPOL_BIND", "nodes": "0" }))?.as_str())?;
    same(
        "interleave on node 0",
        "interleave:0",
        policy(lab, json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }))?.as_str(),
    )?;
    same("the default", "default", policy(lab, json!({ "mode": "MPOL_DEFAULT" }))?.as_str())?;
    let on_node =
        |mode: &str, flags: &[&str]| policy(lab, json!({ "mode": mode, "nodes": "0", "flags": flags }));
    same("preferring node 0", "prefer:0", on_node("MPOL_PREFERRED", &[])?.as_str())?;
    same("local nodes", "local", policy(lab, json!({ "mode": "MPOL_LOCAL" }))?.as_str())?;
    same("static nodes", "bind=static:0", on_node("MPOL_BIND", &["MPOL_F_STATIC_NODES"])?.as_str())?;
    same("relative nodes", "bind=relative:0", on_node("MPOL_BIND", &["MPOL_F_RELATIVE_NODES"])?.as_str())?;
    for (what, given) in [
        ("an unknown mode", json!({ "mode": "MPOL_SOMEWHERE" })),
        ("MPOL_BIND without nodes", json!({ "mode": "MPOL_BIND" })),
        ("MPOL_DEFAULT with nodes", json!({ "mode": "MPOL_DEFAULT", "nodes": "0" })),
        ("an unknown flag", json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_SOON"] })),
        ("nodes that are no list", json!({ "mode": "MPOL_BIND", "nodes": "first" })),
    ] {
        lab.refuses_to_run(what, |config| config["linux"]["memoryPolicy"] = given)?;
    }
    Ok(())
}
