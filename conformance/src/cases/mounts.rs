//! Root and mounts.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Table;
use crate::bundle::{Bundle, mount, probe, push};
use crate::lab::Lab;
use crate::verdict::{Finding, fail, holds, needs, same};

pub(super) const CASES: Table = &[
    ("R1", root_path_is_absolute_or_relative_to_the_bundle),
    ("R2", readonly_root_cannot_be_written),
    ("R3", mounts_come_in_the_listed_order),
    ("R4", relative_destinations_start_at_the_root),
    ("R5", links_in_a_destination_stay_inside),
    ("R6", missing_destinations_are_made),
    ("R7", bind_sources_are_absolute_or_relative_to_the_bundle),
    ("R8", options_make_a_bind_mount),
    ("R9", file_systems_of_the_kernel_can_be_mounted),
    ("R21", flags_of_bind_mounts_take_effect),
    ("R22", default_file_systems_are_usable),
    ("R23", cgroup_mounts_show_the_own_cgroup),
];

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn lossy(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A directory of the host with a file `which` that says `content`.
pub(super) fn source(lab: &Lab, name: &str, content: &str) -> Finding<PathBuf> {
    let path = lab.place.join(name);
    fs::create_dir_all(&path)?;
    fs::write(path.join("which"), content)?;
    Ok(path)
}

/// The topmost mount at a path, as the program saw it.
pub(super) fn mounted<'a>(report: &'a Value, target: &str) -> Finding<&'a Value> {
    let found = report["mounts"].as_array().into_iter().flatten().rfind(|mount| mount["target"] == target);
    found.map_or_else(|| fail(format!("a mount at {target}"), "none"), Ok)
}

/// Whether a mount's own options have a word.
pub(super) fn has(mount: &Value, word: &str) -> bool {
    text(&mount["options"]).split(',').any(|option| option == word)
}

fn root_path_is_absolute_or_relative_to_the_bundle(lab: &Lab) -> Finding {
    lab.report(|config| config["root"]["path"] = json!("./rootfs"))?;
    let mut bundle = lab.bundle(|_| ())?;
    bundle.config["root"]["path"] = json!(bundle.path.join("rootfs"));
    bundle.write()?;
    lab.report_of(&bundle)?;
    lab.refuses("a configuration without root", |config| {
        config.as_object_mut().map(|members| members.remove("root"));
    })
}

fn readonly_root_cannot_be_written(lab: &Lab) -> Finding {
    let seen = lab.inside(&["mkdir", "/new"], |config| config["root"]["readonly"] = json!(true))?;
    same("mkdir in a read-only root", &["!EROFS"][..], &seen[..])?;
    let seen = lab.inside(&["mkdir", "/new"], |config| config["root"]["readonly"] = json!(false))?;
    same("mkdir in a writable root", &[""][..], &seen[..])
}

fn mounts_come_in_the_listed_order(lab: &Lab) -> Finding {
    let (one, two) = (source(lab, "one", "one")?, source(lab, "two", "two")?);
    for (first, last, name) in [(&one, &two, "two"), (&two, &one, "one")] {
        let seen = lab.inside(&["read", "/tmp/which"], |config| {
            mount(config, "/tmp", "none", &lossy(first), &["bind"]);
            mount(config, "/tmp", "none", &lossy(last), &["bind"]);
        })?;
        same("the mount listed last is on top", name, seen[0].as_str())?;
    }
    Ok(())
}

fn relative_destinations_start_at_the_root(lab: &Lab) -> Finding {
    let report = lab.report(|config| {
        config["process"]["cwd"] = json!("/tmp");
        mount(config, "tmp/relative", "tmpfs", "tmpfs", &[]);
    })?;
    same("the type at /tmp/relative", "tmpfs", text(&mounted(&report, "/tmp/relative")?["type"]))
}

fn links_in_a_destination_stay_inside(lab: &Lab) -> Finding {
    let outside = lab.place.join("outside");
    fs::create_dir(&outside)?;
    for target in [
        outside.clone(),
        PathBuf::from("../../../../../..").join(outside.strip_prefix("/").unwrap_or(&outside)),
    ] {
        let bundle = lab.bundle(|config| mount(config, "/link/below", "tmpfs", "tmpfs", &[]))?;
        std::os::unix::fs::symlink(&target, bundle.inside("link"))?;
        // Resolving below the root and refusing are both safe.
        lab.run(&bundle)?;
        holds(
            "nothing made outside of the root",
            !outside.join("below").exists(),
            outside.join("below").display(),
        )?;
    }
    Ok(())
}

fn missing_destinations_are_made(lab: &Lab) -> Finding {
    let from = source(lab, "from", "content")?;
    let seen = lab.inside(&["read", "/new/file", "+", "read", "/also/new/which"], |config| {
        mount(config, "/new/file", "none", &lossy(&from.join("which")), &["bind"]);
        mount(config, "/also/new", "none", &lossy(&from), &["bind"]);
    })?;
    same("the contents of a file and of a directory", &["content", "content"][..], &seen[..])
}

fn bind_sources_are_absolute_or_relative_to_the_bundle(lab: &Lab) -> Finding {
    let from = source(lab, "from", "absolute")?;
    let bundle = lab.bundle(|config| {
        probe(config, &["do", "read", "/tmp/a/which", "+", "read", "/tmp/r/which"]);
        mount(config, "/tmp/a", "none", &lossy(&from), &["bind"]);
        mount(config, "/tmp/r", "none", "data", &["bind"]);
    })?;
    fs::create_dir(bundle.path.join("data"))?;
    fs::write(bundle.path.join("data/which"), "relative")?;
    same("what was bound", &["absolute", "relative"][..], &lab.inside_of(&bundle)?[..])
}

fn options_make_a_bind_mount(lab: &Lab) -> Finding {
    let from = source(lab, "from", "bound")?;
    let seen = lab.inside(
        &["read", "/tmp/a/which", "+", "read", "/tmp/b/which", "+", "read", "/tmp/c/which"],
        |config| {
            mount(config, "/tmp/a", "tmpfs", &lossy(&from), &["bind"]);
            mount(config, "/tmp/b", "nonsense", &lossy(&from), &["rbind"]);
            push(config, "/mounts", json!({ "destination": "/tmp/c", "source": from, "options": ["rbind"] }));
        },
    )?;
    same("what is bound, whatever the type says", &["bound"; 3][..], &seen[..])
}

fn file_systems_of_the_kernel_can_be_mounted(lab: &Lab) -> Finding {
    let known = fs::read_to_string("/proc/filesystems")?;
    let overlay = known.lines().any(|line| line.ends_with("\toverlay"));
    let layers = ["lower", "upper", "work"].map(|name| lab.place.join(name));
    for layer in &layers {
        fs::create_dir(layer)?;
    }
    let [lower, upper, work] = layers.map(|layer| lossy(&layer));
    let data = [format!("lowerdir={lower}"), format!("upperdir={upper}"), format!("workdir={work}")];
    let data: Vec<&str> = data.iter().map(String::as_str).collect();
    let report = lab.report(|config| {
        mount(config, "/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]);
        mount(config, "/tmp/ram", "ramfs", "ramfs", &[]);
        if overlay {
            mount(config, "/tmp/over", "overlay", "overlay", &data);
        }
    })?;
    let wanted = [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/mqueue", "mqueue"),
        ("/tmp/ram", "ramfs"),
        ("/tmp/over", "overlay"),
    ];
    for (target, kind) in wanted.into_iter().filter(|(_, kind)| overlay || *kind != "overlay") {
        same(&format!("the type at {target}"), kind, text(&mounted(&report, target)?["type"]))?;
    }
    Ok(())
}

fn flags_of_bind_mounts_take_effect(lab: &Lab) -> Finding {
    let from = source(lab, "from", "x")?;
    let flags = ["bind", "ro", "nosuid", "nodev", "noexec"];
    let bundle = lab.bundle(|config| {
        probe(config, &["do", "report", "+", "make", "/tmp/x/new"]);
        mount(config, "/tmp/x", "none", &lossy(&from), &flags);
    })?;
    let seen = lab.inside_of(&bundle)?;
    let report = serde_json::from_str(&seen[0]).unwrap_or_default();
    let at = mounted(&report, "/tmp/x")?;
    for flag in &flags[1..] {
        holds(format!("{flag} on a bind mount"), has(at, flag), &at["options"])?;
    }
    same("a new file below a read-only bind mount", "!EROFS", seen[1].as_str())?;
    locked_flags_are_kept(lab)
}

/// In a user namespace the kernel refuses a remount that drops a flag of the source (mount_namespaces(7)).
fn locked_flags_are_kept(lab: &Lab) -> Finding {
    use rustix::mount::{MountFlags, mount as mount_here};
    let from = lab.place.join("locked");
    fs::create_dir(&from)?;
    mount_here(
        "tmpfs",
        &from,
        "tmpfs",
        MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC,
        c"mode=755",
    )?;
    let report = lab.report(|config| {
        super::namespaces::user_namespace(config);
        mount(config, "/tmp", "none", &lossy(&from), &["bind", "ro"]);
    })?;
    let at = mounted(&report, "/tmp")?;
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        holds(
            format!("{flag} on a read-only bind mount of a locked source in a user namespace"),
            has(at, flag),
            &at["options"],
        )?;
    }
    Ok(())
}

fn default_file_systems_are_usable(lab: &Lab) -> Finding {
    let words = [
        "read",
        "/proc/self/comm",
        "+",
        "list",
        "/sys/fs",
        "+",
        "make",
        "/dev/shm/x",
        "+",
        "open-write",
        "/dev/ptmx",
    ];
    let seen = lab.inside(&words, |_| ())?;
    let usable = !seen[0].is_empty() && seen.iter().all(|answer| !answer.starts_with('!'));
    holds("reads and writes in /proc, /sys, /dev/shm and /dev/pts", usable, format!("{seen:?}"))
}

fn cgroup_mounts_show_the_own_cgroup(lab: &Lab) -> Finding {
    use crate::cgroup::{Layout, version};
    needs(lab.suite.layout != Layout::None, "needs control groups")?;
    let own = if version("memory") == Some(1) { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" };
    // Whether version 2 shows the machine's tree to a container without a cgroup namespace the text leaves open.
    let namespaces: &[bool] = if lab.suite.layout == Layout::V2 { &[true] } else { &[false, true] };
    let procs = format!("{own}/cgroup.procs");
    let child = format!("{own}/child");
    let words = ["do", "read", &procs, "+", "mkdir", &child];
    for (options, made) in
        [(&["nosuid", "noexec", "nodev", "ro"], "!EROFS"), (&["nosuid", "noexec", "nodev", "rw"], "")]
    {
        for &namespace in namespaces {
            let bundle: Bundle = lab.bundle(|config| {
                probe(config, &words);
                mount(config, "/sys/fs/cgroup", "cgroup", "cgroup", options);
                if namespace {
                    push(config, "/linux/namespaces", json!({ "type": "cgroup" }));
                }
            })?;
            let seen = lab.inside_of(&bundle)?;
            let what =
                format!("the processes of the cgroup at {own}, and a new one there, with {}", options[3]);
            same(&what, &["1", made][..], &seen[..])?;
        }
    }
    Ok(())
}
