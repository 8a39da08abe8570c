//! State and lifecycle.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Table;
use crate::bundle::{Bundle, probe, push};
use crate::cgroup;
use crate::lab::{Lab, mounts_below};
use crate::verdict::{Finding, fail, holds, same};

pub(super) const CASES: Table = &[
    ("L1", state_fits_the_schema),
    ("L2", status_follows_the_lifecycle),
    ("L3", pid_is_there_while_the_process_is),
    ("L4", hooks_see_the_pid_of_their_namespace),
    ("L5", bundle_is_an_absolute_path),
    ("L6", ids_are_unique),
    ("L7", unusable_ids_are_refused),
    ("L8", create_needs_id_and_bundle),
    ("L9", create_does_not_run_the_program),
    ("L10", failed_create_leaves_no_container),
    ("L11", failed_operations_leave_the_host_alone),
    ("L12", warnings_change_nothing),
    ("L13", start_needs_an_id),
    ("L14", start_wants_a_created_container),
    ("L15", start_runs_the_program),
    ("L16", start_without_a_process_fails),
    ("L17", kill_needs_an_id),
    ("L18", kill_of_a_stopped_container_fails),
    ("L19", kill_sends_the_named_signal),
    ("L20", delete_needs_an_id),
    ("L21", delete_wants_a_stopped_container),
    ("L22", delete_removes_what_create_made),
    ("L23", delete_keeps_what_was_there_before),
    ("L24", ids_can_be_used_again),
    ("L25", state_needs_a_known_id),
    ("L26", all_operations_serve_one_container),
    ("L27", steps_come_in_the_order_of_the_lifecycle),
];

fn state_fits_the_schema(lab: &Lab) -> Finding {
    let bundle = lab.waiting(|_| ())?;
    lab.start_waiting(&bundle)?;
    let state = lab.state(&bundle)?;
    holds("an ociVersion of three numbers", semantic(&state["ociVersion"]), &state["ociVersion"])?;
    same("the id", &json!(bundle.id), &state["id"])?;
    same("the status", &json!("running"), &state["status"])?;
    holds("a pid above zero", state["pid"].as_i64().is_some_and(|pid| pid > 0), &state["pid"])?;
    same("the bundle", &json!(bundle.path), &state["bundle"])?;
    let annotations = &state["annotations"];
    holds("annotations as a map, or none", annotations.is_null() || annotations.is_object(), annotations)
}

fn semantic(version: &Value) -> bool {
    let core = version.as_str().unwrap_or_default().split(['-', '+']).next().unwrap_or_default();
    core.split('.').filter(|part| part.parse::<u32>().is_ok()).count() == 3
}

fn status_follows_the_lifecycle(lab: &Lab) -> Finding {
    let bundle = lab.waiting(|_| ())?;
    lab.create(&bundle)?;
    same("the status after create", "created", lab.status(&bundle)?.as_str())?;
    lab.call(&["start", &bundle.id])?.done("start")?;
    same("the status after start", "running", lab.status(&bundle)?.as_str())?;
    lab.stop(&bundle)?;
    same("the status after its end", "stopped", lab.status(&bundle)?.as_str())
}

fn pid_is_there_while_the_process_is(lab: &Lab) -> Finding {
    let bundle = lab.waiting(|_| ())?;
    lab.create(&bundle)?;
    let created = lab.pid(&bundle)?;
    holds("a process of the pid while created", Path::new(&format!("/proc/{created}")).exists(), created)?;
    lab.call(&["start", &bundle.id])?.done("start")?;
    same("the pid while running, and while created", &created, &lab.pid(&bundle)?)
}

fn hooks_see_the_pid_of_their_namespace(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| probe(config, &["exit", "0"]))?;
    let bundle = hooked(bundle, lab, &[("createRuntime", "outside"), ("startContainer", "inside")])?;
    lab.create(&bundle)?;
    let pid = lab.pid(&bundle)?;
    lab.call(&["start", &bundle.id])?.done("start")?;
    lab.await_end(&bundle)?;
    let log = log(&bundle);
    same("the pid for a hook outside", &json!(pid), &entry(&log, "outside")?["state"]["pid"])?;
    same("the pid for a hook inside a pid namespace", &json!(1), &entry(&log, "inside")?["state"]["pid"])
}

/// Adds hooks that log to `/log` of the root file system.
pub(super) fn hooked(mut bundle: Bundle, lab: &Lab, hooks: &[(&str, &str)]) -> Finding<Bundle> {
    for (kind, name) in hooks {
        let hook = hook(lab, &bundle, kind, name, &[]);
        if bundle.config["hooks"].is_null() {
            bundle.config["hooks"] = json!({});
        }
        push(&mut bundle.config, &format!("/hooks/{kind}"), hook);
    }
    bundle.write()?;
    Ok(bundle)
}

/// A hook that logs and ends as told: startContainer finds program and log below the container's root.
pub(super) fn hook(lab: &Lab, bundle: &Bundle, kind: &str, name: &str, end: &[&str]) -> Value {
    let inside = kind == "startContainer";
    let program = if inside { "/probe".into() } else { lab.suite.probe() };
    let log = if inside { "/log".into() } else { bundle.inside("log") };
    let log = log.to_string_lossy().into_owned();
    let args: Vec<&str> = ["probe", "hook", &log, name].into_iter().chain(end.iter().copied()).collect();
    json!({ "path": program, "args": args })
}

/// What hooks and program have logged, in order.
pub(super) fn log(bundle: &Bundle) -> Vec<Value> {
    let text = fs::read_to_string(bundle.inside("log")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The names of the log.
pub(super) fn names(log: &[Value]) -> Vec<String> {
    log.iter().filter_map(|line| line["name"].as_str()).map(str::to_owned).collect()
}

/// The first line of a name.
pub(super) fn entry<'a>(log: &'a [Value], name: &str) -> Finding<&'a Value> {
    let found = log.iter().find(|line| line["name"] == name);
    found.map_or_else(|| fail(format!("the hook {name} ran"), format!("ran: {:?}", names(log))), Ok)
}

fn bundle_is_an_absolute_path(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|_| ())?;
    let (parent, name) = (bundle.path.parent(), bundle.path.file_name());
    let mut command = lab.suite.command(&lab.place);
    command.current_dir(parent.unwrap_or(&bundle.path)).args(["create", "--bundle"]);
    command.arg(name.unwrap_or_default()).arg(&bundle.id);
    let created = lab.call_command(&mut command)?;
    let found = lab.state(&bundle).map(|state| state["bundle"].clone());
    lab.call(&["delete", "--force", &bundle.id])?;
    created.done("create with a relative path")?;
    same("the bundle in the state", &json!(bundle.path), &found?)
}

fn ids_are_unique(lab: &Lab) -> Finding {
    let first = lab.waiting(|_| ())?;
    lab.start_waiting(&first)?;
    let before = lab.state(&first)?;
    let mut second = lab.waiting(|_| ())?;
    second.id.clone_from(&first.id);
    lab.try_create(&second)?.refused("create with an id in use")?;
    same("the first container's state after that", &before, &lab.state(&first)?)
}

fn unusable_ids_are_refused(lab: &Lab) -> Finding {
    let mut bundle = lab.bundle(|_| ())?;
    let proper = bundle.id.clone();
    for id in ["", ".", "..", "a/b", "../escape", "/absolute"] {
        id.clone_into(&mut bundle.id);
        let output = lab.try_create(&bundle)?;
        if output.succeeded() {
            lab.call(&["delete", "--force", id])?;
            cgroup::remove_named(&proper);
        }
        output.refused(&format!("the id {id:?}"))?;
    }
    for id in ["with space", "new\nline"] {
        id.clone_into(&mut bundle.id);
        odd_id_is_refused_or_kept(lab, &bundle)?;
        cgroup::remove_named(&proper);
    }
    holds("nothing outside the state directory", !lab.place.join("escape").exists(), "a file named escape")
}

/// Which characters it takes is left to the runtime; one that it takes is not lost on the way.
fn odd_id_is_refused_or_kept(lab: &Lab, bundle: &Bundle) -> Finding {
    let output = lab.try_create(bundle)?;
    if !output.succeeded() {
        return output.refused(&format!("the id {:?}", bundle.id));
    }
    let state = lab.state(bundle);
    lab.call(&["delete", "--force", &bundle.id])?;
    same("the id in the state, or an error of create", &json!(bundle.id), &state?["id"])
}

fn create_needs_id_and_bundle(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|_| ())?;
    let path = bundle.path.to_string_lossy();
    lab.call(&["create", "--bundle", &path])?.refused("create without an id")?;
    let nowhere = lab.place.join("nowhere");
    lab.call(&["create", "--bundle", &nowhere.to_string_lossy(), &bundle.id])?
        .refused("create with a bundle that does not exist")?;
    let mut command = lab.suite.command(&lab.place);
    let elsewhere = command.current_dir(&lab.suite.place).args(["create", &bundle.id]);
    lab.call_command(elsewhere)?.refused("create without a bundle")
}

fn create_does_not_run_the_program(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| probe(config, &["log", "/log", "ran"]))?;
    lab.create(&bundle)?;
    same("the status after create", "created", lab.status(&bundle)?.as_str())?;
    std::thread::sleep(std::time::Duration::from_millis(50));
    holds("no run of the program before start", log(&bundle).is_empty(), "its log exists")?;
    let pid = lab.pid(&bundle)?;
    let hostname = namespace(pid, "uts");
    holds("a uts namespace made by create", hostname != namespace(0, "uts"), hostname)
}

/// The namespace of a process; 0 is the suite itself.
pub(super) fn namespace(pid: i32, kind: &str) -> String {
    let process = if pid == 0 { "self".to_owned() } else { pid.to_string() };
    let link = fs::read_link(format!("/proc/{process}/ns/{kind}"));
    link.map_or_else(|error| error.to_string(), |link| link.to_string_lossy().into_owned())
}

fn failed_create_leaves_no_container(lab: &Lab) -> Finding {
    lab.refuses("a mount of an unknown file system", |config| {
        crate::bundle::mount(config, "/tmp/x", "nofilesystem", "none", &[]);
    })
}

/// What a container could leave on the machine: mounts, control groups, files of the bundle and of the state directory.
fn traces(lab: &Lab, bundle: &Bundle) -> BTreeSet<PathBuf> {
    let mut found: BTreeSet<PathBuf> =
        mounts_below(&lab.suite.place).into_iter().filter(|mount| mount.starts_with(&lab.place)).collect();
    found.extend(cgroup::named(&bundle.id));
    found.extend(files(&lab.place.join("state")));
    found.extend(files(&bundle.path));
    found
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn failed_operations_leave_the_host_alone(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| {
        crate::bundle::mount(config, "/tmp/data", "tmpfs", "tmpfs", &[]);
        crate::bundle::mount(config, "/tmp/x", "nofilesystem", "none", &[]);
    })?;
    // The state directory itself, and what a runtime keeps in it for all containers, may come with its first use.
    let other = lab.bundle(|_| ())?;
    lab.run(&other)?.done("run")?;
    let before = traces(lab, &bundle);
    lab.try_create(&bundle)?.refused("a mount of an unknown file system")?;
    let after = traces(lab, &bundle);
    let new: Vec<&PathBuf> = after.difference(&before).collect();
    holds("nothing new after a failed create", new.is_empty(), format!("{new:?}"))
}

fn warnings_change_nothing(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| probe(config, &["exit", "0"]))?;
    let mut bundle = hooked(bundle, lab, &[])?;
    let failing = hook(lab, &bundle, "poststop", "fails", &["exit", "1"]);
    bundle.config["hooks"] = json!({ "poststop": [failing] });
    bundle.write()?;
    lab.start(&bundle)?;
    lab.await_status(&bundle, "stopped")?;
    lab.call(&["delete", &bundle.id])?.done("delete, with a poststop hook that fails,")?;
    entry(&log(&bundle), "fails")?;
    lab.gone(&bundle.id, "after delete")
}

fn start_needs_an_id(lab: &Lab) -> Finding {
    lab.call(&["start"])?.refused("start without an id")?;
    lab.call(&["start", "nobody-knows-it"])?.refused("start of an unknown id")
}

fn start_wants_a_created_container(lab: &Lab) -> Finding {
    let bundle = lab.waiting(|_| ())?;
    lab.start_waiting(&bundle)?;
    let pid = lab.pid(&bundle)?;
    lab.call(&["start", &bundle.id])?.refused("start of a running container")?;
    same("the status after that", "running", lab.status(&bundle)?.as_str())?;
    same("the pid after that", &pid, &lab.pid(&bundle)?)?;
    lab.stop(&bundle)?;
    lab.call(&["start", &bundle.id])?.refused("start of a stopped container")?;
    same("the status after that", "stopped", lab.status(&bundle)?.as_str())
}

fn start_runs_the_program(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| probe(config, &["log", "/log", "it ran"]))?;
    lab.start(&bundle)?;
    let ran = lab.eventually(|| names(&log(&bundle)) == ["it ran"]);
    holds("the program ran after start", ran, "it never wrote its file")?;
    same("its arguments", &json!(["/probe", "log", "/log", "it ran"]), &log(&bundle)[0]["argv"])?;
    lab.await_status(&bundle, "stopped")
}

fn start_without_a_process_fails(lab: &Lab) -> Finding {
    lab.refuses_to_run("start of a configuration without process", |config| {
        config.as_object_mut().map(|members| members.remove("process"));
    })
}

fn kill_needs_an_id(lab: &Lab) -> Finding {
    lab.call(&["kill"])?.refused("kill without an id")?;
    lab.call(&["kill", "nobody-knows-it", "TERM"])?.refused("kill of an unknown id")
}

fn kill_of_a_stopped_container_fails(lab: &Lab) -> Finding {
    let bundle = lab.waiting(|_| ())?;
    lab.start_waiting(&bundle)?;
    lab.stop(&bundle)?;
    lab.call(&["kill", &bundle.id, "TERM"])?.refused("kill of a stopped container")?;
    same("the status after that", "stopped", lab.status(&bundle)?.as_str())
}

fn kill_sends_the_named_signal(lab: &Lab) -> Finding {
    let bundle = lab.waiting(|_| ())?;
    lab.start_waiting(&bundle)?;
    let signals = || fs::read_to_string(bundle.inside("signals")).unwrap_or_default();
    let mut sent = String::new();
    for (given, name) in [("USR1", "SIGUSR1"), ("SIGHUP", "SIGHUP"), ("12", "SIGUSR2"), ("WINCH", "SIGWINCH")]
    {
        lab.call(&["kill", &bundle.id, given])?.done(&format!("kill with {given}"))?;
        sent = format!("{sent}{name}\n");
        holds(format!("received, in this order: {sent:?}"), lab.eventually(|| signals() == sent), signals())?;
    }
    lab.call(&["kill", &bundle.id, "TERM"])?.done("kill with TERM")?;
    lab.await_status(&bundle, "stopped")
}

fn delete_needs_an_id(lab: &Lab) -> Finding {
    lab.call(&["delete"])?.refused("delete without an id")?;
    lab.call(&["delete", "nobody-knows-it"])?.refused("delete of an unknown id")
}

fn delete_wants_a_stopped_container(lab: &Lab) -> Finding {
    let running = lab.waiting(|_| ())?;
    lab.start_waiting(&running)?;
    lab.call(&["delete", &running.id])?.refused("delete of a running container")?;
    same("the status after that", "running", lab.status(&running)?.as_str())?;
    let created = lab.waiting(|_| ())?;
    lab.create(&created)?;
    lab.call(&["delete", &created.id])?.refused("delete of a created container")?;
    same("the status after that", "created", lab.status(&created)?.as_str())
}

fn delete_removes_what_create_made(lab: &Lab) -> Finding {
    let other = lab.bundle(|_| ())?;
    lab.run(&other)?.done("run")?;
    let bundle = lab.waiting(|config| crate::bundle::mount(config, "/tmp", "tmpfs", "tmpfs", &[]))?;
    let before = traces(lab, &bundle);
    lab.start_waiting(&bundle)?;
    lab.stop(&bundle)?;
    fs::remove_file(bundle.inside("signals"))?;
    lab.call(&["delete", &bundle.id])?.done("delete")?;
    let after = traces(lab, &bundle);
    let left: Vec<&PathBuf> = after.difference(&before).collect();
    holds("nothing left after delete", left.is_empty(), format!("{left:?}"))?;
    lab.gone(&bundle.id, "after delete")
}

fn delete_keeps_what_was_there_before(lab: &Lab) -> Finding {
    let shared = lab.place.join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("kept"), "kept")?;
    let bundle = lab.bundle(|config| {
        probe(config, &["exit", "0"]);
        crate::bundle::mount(config, "/tmp", "none", &shared.to_string_lossy(), &["bind"]);
    })?;
    fs::write(bundle.inside("own"), "own")?;
    lab.start(&bundle)?;
    lab.await_status(&bundle, "stopped")?;
    lab.call(&["delete", &bundle.id])?.done("delete")?;
    same("a file of a bind source", "kept", fs::read_to_string(shared.join("kept"))?.as_str())?;
    same("a file of the root", "own", fs::read_to_string(bundle.inside("own"))?.as_str())?;
    holds("config.json is still there", bundle.path.join("config.json").exists(), "it is gone")
}

fn ids_can_be_used_again(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| probe(config, &["exit", "0"]))?;
    for _ in 0..2 {
        lab.start(&bundle)?;
        lab.await_status(&bundle, "stopped")?;
        lab.call(&["delete", &bundle.id])?.done("delete")?;
    }
    Ok(())
}

fn state_needs_a_known_id(lab: &Lab) -> Finding {
    lab.call(&["state"])?.refused("state without an id")?;
    lab.call(&["state", "nobody-knows-it"])?.refused("state of an unknown id")
}

fn all_operations_serve_one_container(lab: &Lab) -> Finding {
    let bundle = lab.waiting(|_| ())?;
    lab.create(&bundle)?;
    lab.state(&bundle)?;
    lab.call(&["start", &bundle.id])?.done("start")?;
    lab.stop(&bundle)?;
    lab.call(&["delete", &bundle.id])?.done("delete")?;
    lab.gone(&bundle.id, "after delete")
}

fn steps_come_in_the_order_of_the_lifecycle(lab: &Lab) -> Finding {
    let bundle = lab.bundle(|config| probe(config, &["log", "/log", "program"]))?;
    let kinds = ["poststop", "poststart", "startContainer", "createContainer", "createRuntime", "prestart"];
    let mut bundle = hooked(bundle, lab, &kinds.map(|kind| (kind, kind)))?;
    // A runtime that does not wait for it has the time to go on with the next step.
    let slow = hook(lab, &bundle, "startContainer", "slow", &["sleep", "1"]);
    let after = bundle.config["hooks"]["startContainer"][0].take();
    bundle.config["hooks"]["startContainer"] = json!([slow, after]);
    bundle.write()?;
    lab.create(&bundle)?;
    let create = ["prestart", "createRuntime", "createContainer"];
    same("what ran in create", &create[..], &names(&log(&bundle))[..])?;
    lab.call(&["start", &bundle.id])?.done("start")?;
    lab.await_status(&bundle, "stopped")?;
    lab.call(&["delete", &bundle.id])?.done("delete")?;
    let all = names(&log(&bundle));
    // The program runs on its own from its first instruction: it may write before or after the poststart hooks.
    let rest: Vec<&str> =
        all.iter().map(String::as_str).filter(|name| !["program", "slow"].contains(name)).collect();
    let hooks = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    same("the order of the hooks", &hooks[..], &rest[..])?;
    let at = |name: &str| all.iter().position(|one| one == name);
    let between = at("startContainer") < at("program") && at("program") < at("poststop");
    holds("the program after startContainer and before poststop", between, format!("{all:?}"))
}
