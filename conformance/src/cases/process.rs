//! The process.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::Table;
use super::lifecycle::namespace;
use crate::bundle::probe;
use crate::console::Console;
use crate::lab::{Lab, answers};
use crate::verdict::{Finding, fail, holds, needs, same};

pub(super) const CASES: Table = &[
    ("P1", terminal_is_made_and_handed_over),
    ("P2", console_size_is_set),
    ("P3", program_starts_in_cwd),
    ("P5", cwd_is_inside_the_root),
    ("P6", environment_is_the_given_list),
    ("P7", program_is_searched_in_the_given_path),
    ("P9", rlimits_are_exact),
    ("P10", unknown_rlimits_are_errors),
    ("P11", rlimits_given_twice_are_errors),
    ("P12", apparmor_profiles_need_apparmor),
    ("P13", capability_sets_are_exact),
    ("P14", capabilities_that_cannot_be_granted_are_warnings),
    ("P16", no_new_privileges_is_set),
    ("P17", oom_score_is_set_or_left_alone),
    ("P19", selinux_labels_need_selinux),
    ("P24", user_ids_are_those_of_the_container),
    ("P25", umask_is_set),
    ("P26", additional_groups_are_set),
    ("P27", hostname_is_set),
    ("P28", domainname_is_set),
    ("P29", only_three_descriptors_are_open),
    ("P30", links_of_dev_are_made),
    ("P31", members_of_other_platforms_are_ignored),
];

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Runs the probe's actions on a terminal and returns their answers as they came over it.
pub(super) fn on_terminal(
    lab: &Lab,
    words: &[&str],
    change: impl FnOnce(&mut Value),
) -> Finding<Vec<String>> {
    let bundle = lab.bundle(|config| {
        probe(config, &[&["do"], words].concat());
        config["process"]["terminal"] = json!(true);
        change(config);
    })?;
    let socket = lab.place.join("console");
    let console = Console::listen(&socket)?;
    let created = lab.make("create", &["--console-socket", &socket.to_string_lossy()], &bundle)?;
    created.done("create with --console-socket")?;
    let master = console.master(lab)?;
    lab.call(&["start", &bundle.id])?.done("start")?;
    let shown = master.read_to_end(lab)?;
    fs::remove_file(&socket)?;
    answers(&shown).map_or_else(|| fail("the program's words on the terminal", format!("{shown:?}")), Ok)
}

/// Which streams are terminals, and the size.
fn terminal(lab: &Lab, change: impl FnOnce(&mut Value)) -> Finding<Value> {
    Ok(serde_json::from_str(&on_terminal(lab, &["terminal"], change)?[0]).unwrap_or_default())
}

fn terminal_is_made_and_handed_over(lab: &Lab) -> Finding {
    let seen = terminal(lab, |_| ())?;
    same("standard streams that are terminals", &json!([true, true, true]), &seen["streams"])?;
    let plain = lab.inside(&["terminal"], |config| config["process"]["terminal"] = json!(false))?;
    let plain: Value = serde_json::from_str(&plain[0]).unwrap_or_default();
    same(
        "standard input or output that is a terminal without one",
        &json!([false, false, false]),
        &plain["streams"],
    )
}

fn console_size_is_set(lab: &Lab) -> Finding {
    let size = json!({ "height": 31, "width": 97 });
    let seen = terminal(lab, |config| config["process"]["consoleSize"] = size.clone())?;
    same("rows and columns", &json!([31, 97]), &seen["size"])?;
    lab.report(|config| config["process"]["consoleSize"] = size.clone()).map(drop)
}

fn program_starts_in_cwd(lab: &Lab) -> Finding {
    let report = lab.report(|config| config["process"]["cwd"] = json!("/tmp"))?;
    same("the working directory", "/tmp", text(&report["cwd"]))?;
    lab.refuses_to_run("a relative cwd", |config| config["process"]["cwd"] = json!("tmp"))
}

/// CVE-2024-21626: a descriptor of the runtime as the working directory leads out of the root.
fn cwd_is_inside_the_root(lab: &Lab) -> Finding {
    for number in 3..14 {
        let cwd = format!("/proc/self/fd/{number}");
        let bundle = lab.bundle(|config| {
            probe(config, &["do", "getcwd", "+", "stat", "../../../../../../probe"]);
            config["process"]["cwd"] = json!(cwd);
        })?;
        let output = lab.run(&bundle)?;
        if output.succeeded() {
            let seen = answers(&output.stdout).unwrap_or_default();
            let inside =
                seen.first().is_some_and(|path| path.starts_with('/') && !path.contains("oci-conformance"))
                    && seen.get(1).is_some_and(|stat| stat.starts_with("file"));
            holds(
                format!("a working directory inside the root, or an error, for {cwd}"),
                inside,
                format!("{seen:?}"),
            )?;
        }
    }
    Ok(())
}

fn environment_is_the_given_list(lab: &Lab) -> Finding {
    let given = json!(["PATH=/bin", "HOME=/", "ONE=1", "EMPTY=", "TWO=two words=2"]);
    let mut command = lab.suite.command(&lab.place);
    let bundle = lab.bundle(|config| config["process"]["env"] = given.clone())?;
    command.env("LEAKED", "yes").args(["run", "--bundle"]).arg(&bundle.path).arg(&bundle.id);
    let output = lab.call_command(&mut command)?;
    output.done("run")?;
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let sorted = |list: &Value| {
        let mut words: Vec<String> =
            list.as_array().into_iter().flatten().map(|word| text(word).to_owned()).collect();
        words.sort();
        words
    };
    same("the environment", &sorted(&given), &sorted(&report["env"]))
}

fn program_is_searched_in_the_given_path(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| {
        config["process"]["args"] = json!(["probe-of-path", "report"]);
        config["process"]["env"] = json!(["PATH=/nowhere:/opt/bin"]);
    })?;
    fs::create_dir_all(bundle.inside("opt/bin"))?;
    fs::rename(bundle.inside("probe"), bundle.inside("opt/bin/probe-of-path"))?;
    let report = lab.report_of(&bundle)?;
    same("argv", &json!(["probe-of-path", "report"]), &report["argv"])?;
    lab.refuses_to_run("a program that PATH does not have", |config| {
        config["process"]["args"] = json!(["probe"])
    })?;
    lab.refuses_to_run("empty args", |config| config["process"]["args"] = json!([]))
}

fn rlimits_are_exact(lab: &Lab) -> Finding {
    let report = lab.report(|config| {
        config["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 4096 },
            { "type": "RLIMIT_CPU", "soft": 1000, "hard": 2000 },
        ]);
    })?;
    let limits = &report["limits"];
    same("RLIMIT_NOFILE", &json!(["100", "200"]), &limits["Max open files"])?;
    same("RLIMIT_CORE", &json!(["0", "4096"]), &limits["Max core file size"])?;
    same("RLIMIT_CPU", &json!(["1000", "2000"]), &limits["Max cpu time"])?;
    let own = hull_testkit::probe::look();
    if own["limits"]["Max cpu time"] == json!(["unlimited", "unlimited"]) {
        let most = u64::MAX;
        let report = lab.report(|config| {
            config["process"]["rlimits"] = json!([{ "type": "RLIMIT_CPU", "soft": most, "hard": most }]);
        })?;
        same("RLIMIT_CPU of 2^64-1", &json!(["unlimited", "unlimited"]), &report["limits"]["Max cpu time"])?;
    }
    Ok(())
}

fn unknown_rlimits_are_errors(lab: &Lab) -> Finding {
    lab.refuses_to_run("an rlimit of an unknown type", |config| {
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_PATIENCE", "soft": 1, "hard": 1 }]);
    })
}

fn rlimits_given_twice_are_errors(lab: &Lab) -> Finding {
    lab.refuses_to_run("the same rlimit twice", |config| {
        let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 });
        config["process"]["rlimits"] = json!([limit, limit]);
    })
}

fn apparmor_profiles_need_apparmor(lab: &Lab) -> Finding {
    // A profile that is not loaded cannot be applied either.
    lab.refuses_to_run("an AppArmor profile that cannot be applied", |config| {
        config["process"]["apparmorProfile"] = json!("oci-conformance-never-loaded");
    })
}

fn selinux_labels_need_selinux(lab: &Lab) -> Finding {
    needs(
        !Path::new("/sys/fs/selinux/enforce").exists(),
        "the case is for machines without SELinux: which labels a policy has is not known",
    )?;
    lab.refuses_to_run("an SELinux label where there is no SELinux", |config| {
        config["process"]["selinuxLabel"] = json!("system_u:system_r:svirt_lxc_net_t:s0:c124,c675");
    })
}

/// CAP_CHOWN, CAP_KILL and CAP_SETUID as bits (capabilities(7)).
const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const SETUID: u64 = 1 << 7;

fn sets(report: &Value) -> Vec<u64> {
    let hex = |name: &str| u64::from_str_radix(text(&report["capabilities"][name]), 16).unwrap_or(u64::MAX);
    ["bounding", "permitted", "effective", "inheritable", "ambient"].map(hex).to_vec()
}

fn capability_sets_are_exact(lab: &Lab) -> Finding {
    let all = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"]);
    let two = json!(["CAP_CHOWN", "CAP_KILL"]);
    let one = json!(["CAP_KILL"]);
    let as_user = |config: &mut Value, capabilities: Value| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        config["process"]["capabilities"] = capabilities;
    };
    let given =
        json!({ "bounding": all, "permitted": two, "inheritable": one, "ambient": one, "effective": one });
    let report = lab.report(|config| as_user(config, given))?;
    // The kernel's rules of execve(2): what another user than 0 keeps is his ambient set.
    let wanted = [CHOWN | KILL | SETUID, KILL, KILL, KILL, KILL];
    same(
        "bounding, permitted, effective, inheritable, ambient of uid 1000",
        &wanted[..],
        &sets(&report)[..],
    )?;
    let report = lab.report(|config| as_user(config, json!({ "bounding": two })))?;
    same("the same with bounding alone", &[CHOWN | KILL, 0, 0, 0, 0][..], &sets(&report)[..])?;
    let report = lab.report(|config| {
        config["process"]["capabilities"] = json!({ "bounding": two, "permitted": two, "effective": two })
    })?;
    same(
        "the same of uid 0 with bounding, permitted and effective",
        &[CHOWN | KILL, CHOWN | KILL, CHOWN | KILL, 0, 0][..],
        &sets(&report)[..],
    )
}

fn capabilities_that_cannot_be_granted_are_warnings(lab: &Lab) -> Finding {
    let report = lab.report(|config| {
        let list = json!(["CAP_KILL", "CAP_UNHEARD_OF"]);
        config["process"]["capabilities"] = json!({ "bounding": list, "permitted": list, "effective": list });
    })?;
    same("the bounding set beside an unknown name", &KILL, &sets(&report)[0])?;
    let own = hull_testkit::probe::look();
    let mine = sets(&own)[0];
    let lacking = [(24, "CAP_SYS_RESOURCE"), (16, "CAP_SYS_MODULE"), (22, "CAP_SYS_BOOT")];
    let Some((_, name)) = lacking.iter().find(|(bit, _)| mine & (1 << bit) == 0) else { return Ok(()) };
    let report = lab.report(|config| {
        let list = json!(["CAP_KILL", name]);
        config["process"]["capabilities"] = json!({ "bounding": list, "permitted": list, "effective": list });
    })?;
    same(&format!("the bounding set beside {name}, which nobody here has"), &KILL, &sets(&report)[0])
}

fn no_new_privileges_is_set(lab: &Lab) -> Finding {
    for (given, wanted) in [(true, "1"), (false, "0")] {
        let report = lab.report(|config| config["process"]["noNewPrivileges"] = json!(given))?;
        same(
            &format!("the kernel's flag with noNewPrivileges {given}"),
            wanted,
            text(&report["no_new_privs"]),
        )?;
    }
    Ok(())
}

fn oom_score_is_set_or_left_alone(lab: &Lab) -> Finding {
    let own = fs::read_to_string("/proc/self/oom_score_adj")?;
    let report = lab.report(|config| config["process"]["oomScoreAdj"] = json!(512))?;
    same("oom_score_adj", "512", text(&report["oom_score_adj"]))?;
    let report = lab.report(|_| ())?;
    same("oom_score_adj when none is given", own.trim(), text(&report["oom_score_adj"]))
}

fn user_ids_are_those_of_the_container(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| {
        super::namespaces::user_namespace(config);
        probe(config, &["sleep", "30"]);
        config["process"]["user"] = json!({ "uid": 12, "gid": 34 });
    })?;
    lab.start(&bundle)?;
    let pid = lab.pid(&bundle)?;
    let line = |name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let found = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
        found.split_whitespace().next().unwrap_or_default().to_owned()
    };
    let seen = || [line("Uid:"), line("Gid:")];
    let wanted = ["100012".to_owned(), "100034".to_owned()];
    holds(
        format!("ids {wanted:?} outside for 12 and 34 inside"),
        lab.eventually(|| seen() == wanted),
        format!("{:?}", seen()),
    )?;
    let report = lab.report(|config| config["process"]["user"] = json!({ "uid": 12, "gid": 34 }))?;
    same("real, effective, saved and file system uid", &json!([12, 12, 12, 12]), &report["ids"]["uid"])?;
    same("real, effective, saved and file system gid", &json!([34, 34, 34, 34]), &report["ids"]["gid"])
}

fn umask_is_set(lab: &Lab) -> Finding {
    let report = lab.report(|config| config["process"]["user"]["umask"] = json!(0o27))?;
    same("the umask", "0027", text(&report["umask"]))?;
    let own = hull_testkit::probe::look();
    let report = lab.report(|_| ())?;
    same("the umask when none is given: the caller's", text(&own["umask"]), text(&report["umask"]))
}

fn additional_groups_are_set(lab: &Lab) -> Finding {
    let groups = |report: &Value| {
        let mut all: Vec<u64> =
            report["ids"]["groups"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        all.sort_unstable();
        all
    };
    let report = lab.report(|config| {
        config["process"]["user"] = json!({ "uid": 10, "gid": 20, "additionalGids": [5, 1001] })
    })?;
    let seen: Vec<u64> = groups(&report).into_iter().filter(|group| *group != 20).collect();
    same("the groups beside the first", &[5, 1001][..], &seen[..])?;
    let report = lab.report(|config| config["process"]["user"] = json!({ "uid": 10, "gid": 20 }))?;
    let seen: Vec<u64> = groups(&report).into_iter().filter(|group| *group != 20).collect();
    holds("no other group when none is given", seen.is_empty(), format!("{seen:?}"))
}

fn hostname_is_set(lab: &Lab) -> Finding {
    let own = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let report = lab.report(|config| config["hostname"] = json!("mrs-dalloway"))?;
    same("the hostname inside", "mrs-dalloway", text(&report["hostname"]))?;
    holds(
        "a uts namespace of its own",
        text(&report["namespaces"]["uts"]) != namespace(0, "uts"),
        &report["namespaces"]["uts"],
    )?;
    same("the hostname outside", &own, &fs::read_to_string("/proc/sys/kernel/hostname")?)
}

fn domainname_is_set(lab: &Lab) -> Finding {
    let report = lab.report(|config| config["domainname"] = json!("example.test"))?;
    same("the domain name inside", "example.test", text(&report["domainname"]))
}

fn only_three_descriptors_are_open(lab: &Lab) -> Finding {
    let report = lab.report(|_| ())?;
    let open: Vec<&String> =
        report["fds"].as_object().into_iter().flatten().map(|(number, _)| number).collect();
    same("the open descriptors", &["0", "1", "2"][..], &open[..])
}

fn links_of_dev_are_made(lab: &Lab) -> Finding {
    let report = lab.report(|_| ())?;
    for (name, to) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        let wanted = format!("link /proc/self/{to}");
        same(&format!("/dev/{name}"), wanted.as_str(), text(&report["devices"][format!("/dev/{name}")]))?;
    }
    Ok(())
}

fn members_of_other_platforms_are_ignored(lab: &Lab) -> Finding {
    let report = lab.report(|config| {
        config["process"]["commandLine"] = json!("cmd /c dir");
        config["process"]["user"]["username"] = json!("containeradministrator");
    })?;
    same("argv", &json!(["/probe", "report"]), &report["argv"])
}
