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
    ("R10", flags_are_known_and_do_something),
    ("R12", propagation_is_set),
    ("R13", nosymfollow_is_set),
    ("R14", recursive_attributes_reach_mounts_below),
    ("R15", idmap_maps_ids),
    ("R16", idmap_wants_a_mapping),
    ("R17", mappings_come_in_pairs),
    ("R18", tmpcopyup_copies),
    ("R19", unknown_options_go_to_the_file_system),
    ("R21", flags_of_bind_mounts_take_effect),
    ("R22", default_file_systems_are_usable),
    ("R23", cgroup_mounts_show_the_own_cgroup),
];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn lossy(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A directory of the host with a file `which` that says `content`.
fn source(lab: &Lab, name: &str, content: &str) -> Finding<PathBuf> {
    let path = lab.place.join(name);
    fs::create_dir_all(&path)?;
    fs::write(path.join("which"), content)?;
    Ok(path)
}

/// A tmpfs of the host with a second one below, at `sub`.
fn tree(lab: &Lab, name: &str) -> Finding<PathBuf> {
    let path = lab.place.join(name);
    for directory in [path.clone(), path.join("sub")] {
        fs::create_dir(&directory)?;
        rustix::mount::mount("tmpfs", &directory, "tmpfs", rustix::mount::MountFlags::empty(), c"mode=755")?;
        fs::write(directory.join("which"), name)?;
    }
    Ok(path)
}

/// The topmost mount at a path, as the program saw it.
fn mounted<'a>(report: &'a Value, target: &str) -> Finding<&'a Value> {
    let found = report["mounts"].as_array().into_iter().flatten().rfind(|mount| mount["target"] == target);
    found.map_or_else(|| fail(format!("a mount at {target}"), "none"), Ok)
}

/// Whether a mount's own options have a word.
fn has(mount: &Value, word: &str) -> bool {
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

/// The flags that must be known, those of bind mounts, `remount` and propagation apart.
const FLAGS: [&str; 27] = [
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "iversion",
    "lazytime",
    "loud",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "relatime",
    "ro",
    "rw",
    "silent",
    "strictatime",
    "suid",
    "sync",
    "shared",
];

fn flags_are_known_and_do_something(lab: &Lab) -> Finding {
    let report = lab.report(|config| {
        for flag in FLAGS {
            mount(config, &format!("/tmp/{flag}"), "tmpfs", "tmpfs", &[flag]);
        }
        mount(config, "/tmp/again", "tmpfs", "tmpfs", &["nosuid"]);
        mount(config, "/tmp/again", "tmpfs", "tmpfs", &["remount", "ro"]);
    })?;
    for flag in ["noatime", "nodev", "nodiratime", "noexec", "nosuid", "relatime", "ro"] {
        let at = mounted(&report, &format!("/tmp/{flag}"))?;
        holds(format!("the flag {flag} on a mount"), has(at, flag), &at["options"])?;
    }
    for flag in ["dirsync", "lazytime", "sync"] {
        let at = mounted(&report, &format!("/tmp/{flag}"))?;
        let set = text(&at["super"]).split(',').any(|option| option == flag);
        holds(format!("the flag {flag} on a file system"), set, &at["super"])?;
    }
    let strict = mounted(&report, "/tmp/strictatime")?;
    holds(
        "no relatime with strictatime",
        !has(strict, "relatime") && !has(strict, "noatime"),
        &strict["options"],
    )?;
    let again = mounted(&report, "/tmp/again")?;
    let ro = has(again, "ro") || text(&again["super"]).split(',').any(|option| option == "ro");
    holds("a file system remounted read-only", ro, again)
}

fn propagation_is_set(lab: &Lab) -> Finding {
    let from = tree(lab, "from")?;
    use rustix::mount::{MountPropagationFlags, mount_change};
    mount_change(&from, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    let words = ["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];
    let report = lab.report(|config| {
        for word in words {
            mount(config, &format!("/tmp/{word}"), "none", &lossy(&from), &["rbind", word]);
        }
    });
    mount_change(&from, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let report = report?;
    for word in words {
        let at = mounted(&report, &format!("/tmp/{word}"))?;
        let (shared, slave, unbindable) =
            (marked(at, "shared"), marked(at, "master"), marked(at, "unbindable"));
        let right = match word.strip_prefix('r').unwrap_or(word) {
            // One that is made shared after the root became a slave is both.
            "shared" => shared,
            "slave" => slave && !shared,
            "private" => !shared && !slave && !unbindable,
            _ => unbindable,
        };
        holds(format!("the propagation of {word}"), right, &at["propagation"])?;
    }
    for (word, mark, set) in
        [("rprivate", "shared", false), ("rslave", "master", true), ("rshared", "shared", true)]
    {
        let below = mounted(&report, &format!("/tmp/{word}/sub"))?;
        holds(format!("the propagation below {word}"), marked(below, mark) == set, &below["propagation"])?;
    }
    Ok(())
}

/// Whether a mount's propagation fields have a word (proc(5), mountinfo).
fn marked(mount: &Value, word: &str) -> bool {
    mount["propagation"].as_array().is_some_and(|fields| fields.iter().any(|field| field == word))
}

fn nosymfollow_is_set(lab: &Lab) -> Finding {
    let report = lab.report(|config| {
        mount(config, "/tmp/no", "tmpfs", "tmpfs", &["nosymfollow"]);
        mount(config, "/tmp/yes", "tmpfs", "tmpfs", &["nosymfollow", "symfollow"]);
    })?;
    let (no, yes) = (mounted(&report, "/tmp/no")?, mounted(&report, "/tmp/yes")?);
    holds("nosymfollow on the mount", has(no, "nosymfollow"), &no["options"])?;
    holds("no nosymfollow after symfollow", !has(yes, "nosymfollow"), &yes["options"])
}

const RECURSIVE: [&str; 18] = [
    "rro",
    "rrw",
    "rnosuid",
    "rsuid",
    "rnodev",
    "rdev",
    "rnoexec",
    "rexec",
    "rnodiratime",
    "rdiratime",
    "rrelatime",
    "rnorelatime",
    "rnoatime",
    "ratime",
    "rstrictatime",
    "rnostrictatime",
    "rnosymfollow",
    "rsymfollow",
];

fn recursive_attributes_reach_mounts_below(lab: &Lab) -> Finding {
    let from = tree(lab, "from")?;
    let report = lab.report(|config| {
        for word in RECURSIVE {
            mount(config, &format!("/tmp/{word}"), "none", &lossy(&from), &["rbind", word]);
        }
    })?;
    for (word, flag) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rnosymfollow", "nosymfollow"),
    ] {
        let below = mounted(&report, &format!("/tmp/{word}/sub"))?;
        holds(format!("{flag} below a mount with {word}"), has(below, flag), &below["options"])?;
    }
    Ok(())
}

/// A mapping of the first 1000 ids to those from `to` on.
fn mapping(to: u32) -> Value {
    json!([{ "containerID": 0, "hostID": to, "size": 1000 }])
}

/// Adds an id-mapped mount of `from`.
fn idmapped(config: &mut Value, target: &str, from: &std::path::Path, option: &str) {
    let entry = json!({
        "destination": target, "type": "none", "source": from, "options": ["rbind", option],
        "uidMappings": mapping(20000), "gidMappings": mapping(30000)
    });
    push(config, "/mounts", entry);
}

fn idmap_maps_ids(lab: &Lab) -> Finding {
    let from = tree(lab, "from")?;
    let words = [
        "stat",
        "/tmp/one/which",
        "+",
        "stat",
        "/tmp/all/which",
        "+",
        "stat",
        "/tmp/all/sub/which",
        "+",
        "stat",
        "/tmp/one/sub/which",
    ];
    let seen = lab.inside(&words, |config| {
        idmapped(config, "/tmp/one", &from, "idmap");
        idmapped(config, "/tmp/all", &from, "ridmap");
    })?;
    let mapped = "file 644 20000:30000";
    same(
        "owner by idmap, by ridmap, below ridmap, below idmap",
        &[mapped, mapped, mapped, "file 644 0:0"][..],
        &seen[..],
    )
}

fn idmap_wants_a_mapping(lab: &Lab) -> Finding {
    let from = source(lab, "from", "x")?;
    let seen =
        lab.inside(&["stat", "/tmp/mapped/which"], |config| idmapped(config, "/tmp/mapped", &from, "idmap"))?;
    same("the owner by the mount's own mapping", "file 644 20000:30000", seen[0].as_str())?;
    lab.refuses("idmap without mappings and without a user namespace", |config| {
        mount(config, "/tmp/x", "none", &lossy(&from), &["bind", "idmap"]);
    })
}

fn mappings_come_in_pairs(lab: &Lab) -> Finding {
    let from = source(lab, "from", "x")?;
    for only in ["uidMappings", "gidMappings"] {
        lab.refuses(&format!("{only} of a mount alone"), |config| {
            let mut entry = json!({ "destination": "/tmp/x", "type": "none", "source": from, "options": ["bind", "idmap"] });
            entry[only] = mapping(20000);
            push(config, "/mounts", entry);
        })?;
    }
    Ok(())
}

fn tmpcopyup_copies(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| {
        probe(config, &["do", "read", "/etc/below", "+", "make", "/etc/new"]);
        mount(config, "/etc", "tmpfs", "tmpfs", &["tmpcopyup"]);
    })?;
    fs::create_dir(bundle.inside("etc"))?;
    fs::write(bundle.inside("etc/below"), "copied")?;
    same("a file from below", &["copied", ""][..], &lab.inside_of(&bundle)?[..])?;
    holds("the root is left alone", !bundle.inside("etc/new").exists(), "the new file is in it")
}

fn unknown_options_go_to_the_file_system(lab: &Lab) -> Finding {
    let report = lab.report(|config| {
        mount(config, "/tmp/x", "tmpfs", "tmpfs", &["size=128k", "nr_inodes=77", "mode=0711"])
    })?;
    let at = mounted(&report, "/tmp/x")?;
    for word in ["size=128k", "nr_inodes=77", "mode=711"] {
        holds(
            format!("{word} on the file system"),
            text(&at["super"]).split(',').any(|option| option == word),
            &at["super"],
        )?;
    }
    lab.refuses("an option that the file system refuses", |config| {
        mount(config, "/tmp/x", "tmpfs", "tmpfs", &["no-such-option=1"])
    })
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
    let procs = format!("{own}/cgroup.procs");
    let child = format!("{own}/child");
    let words = ["do", "read", &procs, "+", "mkdir", &child];
    for (options, made) in
        [(&["nosuid", "noexec", "nodev", "ro"], "!EROFS"), (&["nosuid", "noexec", "nodev", "rw"], "")]
    {
        for namespace in [false, true] {
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
