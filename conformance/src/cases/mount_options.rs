//! Options of mounts.

use std::fs;
use std::path::PathBuf;

use rustix::mount::MountFlags;
use serde_json::{Value, json};

use super::Table;
use super::mounts::{has, lossy, mounted, source, text};
use crate::bundle::{mount, probe, push};
use crate::lab::Lab;
use crate::verdict::{Finding, holds, same, skip};

pub(super) const CASES: Table = &[
    ("R10", flags_are_known_and_do_something),
    ("R12", propagation_is_set),
    ("R13", nosymfollow_is_set),
    ("R14", recursive_attributes_reach_mounts_below),
    ("R15", idmap_maps_ids),
    ("R16", idmap_wants_a_mapping),
    ("R17", mappings_come_in_pairs),
    ("R18", tmpcopyup_copies),
    ("R19", unknown_options_go_to_the_file_system),
];

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
    recursive_attributes_are_lifted(lab)
}

/// The words that take an attribute away, over a source that has it.
fn recursive_attributes_are_lifted(lab: &Lab) -> Finding {
    let from = tree(lab, "tight")?;
    for path in [from.clone(), from.join("sub")] {
        let tight = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let tight = tight | MountFlags::NODIRATIME | MountFlags::NOATIME;
        rustix::mount::mount_remount(&path, MountFlags::BIND | tight, c"")?;
    }
    let words = [
        ("rrw", "ro"),
        ("rsuid", "nosuid"),
        ("rdev", "nodev"),
        ("rexec", "noexec"),
        ("rdiratime", "nodiratime"),
        ("ratime", "noatime"),
        ("rrelatime", "noatime"),
        ("rstrictatime", "noatime"),
    ];
    let report = lab.report(|config| {
        for (word, _) in words {
            mount(config, &format!("/tmp/{word}"), "none", &lossy(&from), &["rbind", word]);
        }
    })?;
    for (word, flag) in words {
        let below = mounted(&report, &format!("/tmp/{word}/sub"))?;
        holds(format!("no {flag} below a mount with {word}"), !has(below, flag), &below["options"])?;
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

/// Whether the kernel can map ids on the suite's own file system, a tmpfs: since Linux 6.3.
pub(super) fn tmpfs_maps_ids() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(3))
}

const IDMAP: &str = "needs Linux 6.3, which maps ids on tmpfs";

fn idmap_maps_ids(lab: &Lab) -> Finding {
    if !tmpfs_maps_ids() {
        return skip(IDMAP);
    }
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
    if !tmpfs_maps_ids() {
        return skip(IDMAP);
    }
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
