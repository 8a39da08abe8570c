//! Hooks.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Table;
use super::lifecycle::{entry, hook, hooked, log, names, namespace};
use crate::bundle::{Bundle, probe};
use crate::cgroup;
use crate::lab::Lab;
use crate::verdict::{Finding, holds, same};

pub(super) const CASES: Table = &[
    ("H1", all_six_kinds_run),
    ("H2", path_args_env_and_timeout_are_honoured),
    ("H3", relative_paths_are_errors),
    ("H4", environment_is_the_given_one),
    ("H5", timeouts_end_a_hook),
    ("H6", hooks_run_in_the_listed_order),
    ("H7", state_comes_over_standard_input),
    ("H8", create_runtime_runs_outside_before_the_root_is_switched),
    ("H9", create_container_runs_inside_before_the_root_is_switched),
    ("H10", start_container_runs_inside_before_the_program),
    ("H11", poststart_runs_outside_before_start_returns),
    ("H12", poststop_runs_outside_before_delete_returns),
    ("H13", failing_create_hooks_destroy_the_container),
    ("H14", failing_start_container_hooks_destroy_the_container),
    ("H15", failing_poststart_hooks_destroy_the_container),
    ("H16", failing_poststop_hooks_are_warnings),
    ("H17", first_failure_stops_the_rest_of_its_kind),
];

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle whose program ends at once, with one logging hook of each kind.
fn all_kinds(lab: &Lab) -> Finding<Bundle> {
    let bundle = lab.waiting(|_| ())?;
    hooked(bundle, lab, &KINDS.map(|kind| (kind, kind)))
}

/// Takes a container through its whole life.
fn live(lab: &Lab, bundle: &Bundle) -> Finding {
    lab.start_waiting(bundle)?;
    lab.stop(bundle)?;
    lab.call(&["delete", &bundle.id])?.done("delete")
}

fn all_six_kinds_run(lab: &Lab) -> Finding {
    let bundle = all_kinds(lab)?;
    live(lab, &bundle)?;
    let mut ran = names(&log(&bundle));
    ran.sort_by_key(|name| KINDS.iter().position(|kind| kind == name));
    same("the hooks that ran", &KINDS[..], &ran[..])
}

/// One hook of a kind, changed by `change`.
fn with_hook(lab: &Lab, kind: &str, change: impl FnOnce(&mut Value)) -> Finding<Bundle> {
    let mut bundle = lab.waiting(|_| ())?;
    let mut entry = hook(lab, &bundle, kind, kind, &[]);
    change(&mut entry);
    bundle.config["hooks"] = json!({ kind: [entry] });
    bundle.write()?;
    Ok(bundle)
}

fn path_args_env_and_timeout_are_honoured(lab: &Lab) -> Finding {
    let bundle = with_hook(lab, "createRuntime", |hook| {
        hook["args"][0] = json!("probe called otherwise");
        hook["env"] = json!(["ONE=1", "TWO=two words"]);
        hook["timeout"] = json!(30);
    })?;
    lab.create(&bundle)?;
    let log = log(&bundle);
    let seen = entry(&log, "createRuntime")?;
    same("args", &bundle.config["hooks"]["createRuntime"][0]["args"], &seen["argv"])?;
    same("env", &json!(["ONE=1", "TWO=two words"]), &seen["env"])
}

fn relative_paths_are_errors(lab: &Lab) -> Finding {
    for kind in KINDS {
        let bundle = with_hook(lab, kind, |hook| hook["path"] = json!("probe"))?;
        lab.try_create(&bundle)?.refused(&format!("a relative path of a {kind} hook"))?;
    }
    Ok(())
}

fn environment_is_the_given_one(lab: &Lab) -> Finding {
    let bundle = with_hook(lab, "createRuntime", |hook| hook["env"] = json!(["ONLY=this"]))?;
    let mut command = lab.suite.command(&lab.place);
    command.env("LEAKED", "yes").args(["create", "--bundle"]).arg(&bundle.path).arg(&bundle.id);
    let created = lab.call_command(&mut command)?;
    let log = log(&bundle);
    lab.call(&["delete", "--force", &bundle.id])?;
    created.done("create")?;
    same("the hook's environment", &json!(["ONLY=this"]), &entry(&log, "createRuntime")?["env"])
}

fn timeouts_end_a_hook(lab: &Lab) -> Finding {
    let bundle = with_hook(lab, "createRuntime", |hook| {
        hook["timeout"] = json!(1);
        if let Some(args) = hook["args"].as_array_mut() {
            args.extend([json!("sleep"), json!("25")]);
        }
    })?;
    let begin = Instant::now();
    lab.try_create(&bundle)?.refused("create with a hook that outlives its timeout")?;
    let took = begin.elapsed();
    holds("an end soon after one second", took < Duration::from_secs(20), format!("{took:?}"))?;
    for timeout in [0, -1] {
        let bundle = with_hook(lab, "createRuntime", |hook| hook["timeout"] = json!(timeout))?;
        lab.try_create(&bundle)?.refused(&format!("a timeout of {timeout}"))?;
    }
    Ok(())
}

fn hooks_run_in_the_listed_order(lab: &Lab) -> Finding {
    let bundle = lab.waiting(|_| ())?;
    let listed = ["one", "two", "three", "four"];
    let bundle = hooked(bundle, lab, &listed.map(|name| ("createRuntime", name)))?;
    lab.create(&bundle)?;
    same("the order", &listed[..], &names(&log(&bundle))[..])
}

fn state_comes_over_standard_input(lab: &Lab) -> Finding {
    let bundle = all_kinds(lab)?;
    live(lab, &bundle)?;
    let log = log(&bundle);
    // Hooks of create run when the environment exists and create has not returned: either of two words describes that.
    let during = ["creating", "created"];
    let allowed = [&during[..], &during, &during, &["created"], &["running"], &["stopped"]];
    for (kind, words) in KINDS.iter().zip(allowed) {
        let state = &entry(&log, kind)?["state"];
        same(&format!("the id for {kind}"), &json!(bundle.id), &state["id"])?;
        same(&format!("the bundle for {kind}"), &json!(bundle.path), &state["bundle"])?;
        let status = state["status"].as_str().unwrap_or_default();
        holds(format!("a status of {words:?} for {kind}"), words.contains(&status), &state["status"])?;
    }
    Ok(())
}

/// The namespaces that a hook was in, and those of the suite.
fn is_outside(hook: &Value) -> Finding {
    for kind in ["mnt", "net", "uts", "ipc", "pid"] {
        same(
            &format!("the runtime's {kind} namespace"),
            namespace(0, kind).as_str(),
            text(&hook["namespaces"][kind]),
        )?;
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn create_runtime_runs_outside_before_the_root_is_switched(lab: &Lab) -> Finding {
    let bundle = all_kinds(lab)?;
    lab.create(&bundle)?;
    let log = log(&bundle);
    for kind in ["prestart", "createRuntime"] {
        let seen = entry(&log, kind)?;
        is_outside(seen)?;
        let uts = &seen["container"]["uts"];
        holds("container namespaces that exist", uts.is_string() && *uts != namespace(0, "uts"), uts)?;
        same("the container's root is switched already", &json!(false), &seen["container root is switched"])?;
    }
    let both: Vec<String> = names(&log).into_iter().take(2).collect();
    same("prestart comes first", &["prestart", "createRuntime"][..], &both[..])
}

fn create_container_runs_inside_before_the_root_is_switched(lab: &Lab) -> Finding {
    let bundle = all_kinds(lab)?;
    lab.create(&bundle)?;
    let pid = lab.pid(&bundle)?;
    let log = log(&bundle);
    let seen = entry(&log, "createContainer")?;
    for kind in ["mnt", "net", "uts", "ipc"] {
        let of_container = namespace(pid, kind);
        same(
            &format!("the container's {kind} namespace"),
            of_container.as_str(),
            text(&seen["namespaces"][kind]),
        )?;
    }
    same("the container's root is this hook's root already", &json!(false), &seen["probe at the root"])
}

fn start_container_runs_inside_before_the_program(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| probe(config, &["log", "/log", "program"]))?;
    let bundle = hooked(bundle, lab, &[("startContainer", "startContainer")])?;
    lab.create(&bundle)?;
    holds("no startContainer hook in create", log(&bundle).is_empty(), "it ran")?;
    lab.call(&["start", &bundle.id])?.done("start")?;
    lab.await_status(&bundle, "stopped")?;
    let log = log(&bundle);
    same("the order", &["startContainer", "program"][..], &names(&log)[..])?;
    same("the namespaces of hook and program", &log[1]["namespaces"], &log[0]["namespaces"])?;
    same("the container's root is the hook's root", &json!(true), &log[0]["probe at the root"])
}

fn poststart_runs_outside_before_start_returns(lab: &Lab) -> Finding {
    let bundle = all_kinds(lab)?;
    lab.create(&bundle)?;
    holds("no poststart hook in create", entry(&log(&bundle), "poststart").is_err(), "it ran")?;
    lab.call(&["start", &bundle.id])?.done("start")?;
    is_outside(entry(&log(&bundle), "poststart")?)
}

fn poststop_runs_outside_before_delete_returns(lab: &Lab) -> Finding {
    let bundle = all_kinds(lab)?;
    lab.start(&bundle)?;
    lab.stop(&bundle)?;
    holds("no poststop hook before delete", entry(&log(&bundle), "poststop").is_err(), "it ran")?;
    lab.call(&["delete", &bundle.id])?.done("delete")?;
    is_outside(entry(&log(&bundle), "poststop")?)
}

/// A bundle with a failing hook of a kind and a logging poststop hook.
fn failing(lab: &Lab, kind: &str) -> Finding<Bundle> {
    let mut bundle = lab.waiting(|_| ())?;
    let bad = hook(lab, &bundle, kind, kind, &["exit", "7"]);
    let later = hook(lab, &bundle, kind, "later", &[]);
    let stop = hook(lab, &bundle, "poststop", "poststop", &[]);
    bundle.config["hooks"] = json!({ kind: [bad, later], "poststop": [stop] });
    bundle.write()?;
    Ok(bundle)
}

fn failing_create_hooks_destroy_the_container(lab: &Lab) -> Finding {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let bundle = failing(lab, kind)?;
        lab.try_create(&bundle)?.refused(&format!("a failing {kind} hook"))?;
        lab.gone(&bundle.id, &format!("after a failing {kind} hook"))?;
        entry(&log(&bundle), "poststop")?;
    }
    Ok(())
}

fn failing_start_container_hooks_destroy_the_container(lab: &Lab) -> Finding {
    destroyed_by(lab, "startContainer")?;
    Ok(())
}

fn failing_poststart_hooks_destroy_the_container(lab: &Lab) -> Finding {
    destroyed_by(lab, "poststart")
}

fn destroyed_by(lab: &Lab, kind: &str) -> Finding {
    let bundle = failing(lab, kind)?;
    lab.create(&bundle)?;
    let pid = lab.pid(&bundle)?;
    // The specification leaves open whether the caller is told of the error.
    lab.call(&["start", &bundle.id])?;
    let ended = lab.eventually(|| {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"))
    });
    holds("the container's process is stopped", ended, "it runs")?;
    entry(&log(&bundle), "poststop")?;
    // Whether a name is kept for the caller's delete is left open; what create made is not.
    let cgroups = cgroup::named(&bundle.id);
    holds("the container's control groups are gone", cgroups.is_empty(), format!("{cgroups:?}"))?;
    lab.call(&["delete", &bundle.id])?;
    let stopped = names(&log(&bundle)).iter().filter(|name| *name == "poststop").count();
    same("how often the poststop hook ran, a delete later included", &1, &stopped)?;
    lab.gone(&bundle.id, "after delete")
}

fn failing_poststop_hooks_are_warnings(lab: &Lab) -> Finding {
    let mut bundle = lab.waiting(|_| ())?;
    let bad = hook(lab, &bundle, "poststop", "bad", &["exit", "7"]);
    let good = hook(lab, &bundle, "poststop", "good", &[]);
    bundle.config["hooks"] = json!({ "poststop": [bad, good] });
    bundle.write()?;
    live(lab, &bundle)?;
    same("the poststop hooks that ran", &["bad", "good"][..], &names(&log(&bundle))[..])
}

fn first_failure_stops_the_rest_of_its_kind(lab: &Lab) -> Finding {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let bundle = failing(lab, kind)?;
        if lab.try_create(&bundle)?.succeeded() {
            lab.call(&["start", &bundle.id])?;
            // What a failing poststart hook ends is H15's.
            if kind == "startContainer" {
                lab.await_end(&bundle)?;
            }
        }
        let ran = names(&log(&bundle));
        holds(format!("a {kind} hook that fails runs"), ran.contains(&kind.to_owned()), format!("{ran:?}"))?;
        holds(
            format!("no second {kind} hook after a failing one"),
            !ran.contains(&"later".to_owned()),
            format!("{ran:?}"),
        )?;
    }
    Ok(())
}
