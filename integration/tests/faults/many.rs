//! Many at once, and much of everything.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use hull_testkit::runtime::ours;
use hull_testkit::{Bundle, Runtime, needs};
use serde_json::json;

use crate::busybox;
use crate::residue::{Swept, delete_leaves_nothing, lasting, nothing_left};

fn create(runtime: &Runtime, bundle: &Bundle) -> hull_testkit::Outcome {
    runtime.call(&["create", "--bundle", bundle.path().to_str().expect("UTF-8"), &bundle.id])
}

///
#[test]
fn of_many_creates_with_one_id_exactly_one_wins() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let _swept = Swept { runtime: &runtime, bundle: &bundle };
    for round in 0..5 {
        let won = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let outcome = create(&runtime, &bundle);
                    if outcome.code == 0 {
                        won.fetch_add(1, Ordering::Relaxed);
                    } else {
                        outcome.failed(1, "already exists");
                    }
                });
            }
        });
        assert_eq!(won.into_inner(), 1, "round {round}");
        delete_leaves_nothing(&runtime, &bundle, "many creates");
    }
}

/// every answer is true at some moment of the call.
#[test]
fn commands_that_race_give_answers_that_are_true() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let bundle = lasting();
    let _swept = Swept { runtime: &runtime, bundle: &bundle };
    let known = [
        "already exists",
        "does not exist",
        "not running",
        "has stopped",
        "already running",
        "in the creating state",
        "does not wait for start",
    ];
    let ask = |arguments: &[&str]| {
        let outcome = runtime.call(arguments);
        let answered = outcome.code == 0 || known.iter().any(|text| outcome.stderr.contains(text));
        // A command that found the container may see its process or its cgroups go while it works.
        assert!(answered && !outcome.stderr.contains("panicked"), "{outcome:?}");
    };
    let path = bundle.path().to_str().expect("UTF-8");
    let id = bundle.id.as_str();
    let create = ["create", "--bundle", path, id];
    let lines: [&[&str]; 6] = [
        &create,
        &["start", id],
        &["state", id],
        &["list", "--format", "json"],
        &["delete", "--force", id],
        &["delete", "--force", id],
    ];
    fs::create_dir_all(runtime.state_dir()).expect("make the state root");
    thread::scope(|scope| {
        for line in lines {
            scope.spawn(move || (0..25).for_each(|_| ask(line)));
        }
    });
    delete_leaves_nothing(&runtime, &bundle, "the races");
}

///
#[test]
fn many_containers_and_many_joins_at_once() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let root = lasting();
    let bundles: Vec<Bundle> = (0..40)
        .map(|_| {
            Bundle::on(&root.root(), &[]).with_id(|id, config| {
                config["process"]["args"] = json!(["/bin/sh", "-c", "while :; do sleep 1; done", id]);
            })
        })
        .collect();
    thread::scope(|scope| {
        for some in bundles.chunks(5) {
            let runtime = &runtime;
            scope.spawn(move || {
                for bundle in some {
                    create(runtime, bundle).done();
                    runtime.call(&["start", &bundle.id]).done();
                }
            });
        }
    });
    assert_eq!(runtime.call(&["list", "-q"]).text().lines().count(), bundles.len());
    thread::scope(|scope| {
        for number in 0..20 {
            let (runtime, first) = (&runtime, &bundles[0].id);
            scope.spawn(move || {
                let script = format!("exit {number}");
                assert_eq!(runtime.call(&["exec", first, "/bin/sh", "-c", &script]).code, number);
            });
        }
    });
    for bundle in &bundles {
        runtime.call(&["delete", "--force", &bundle.id]).done();
    }
    bundles.iter().for_each(|bundle| nothing_left(&runtime, bundle, "many containers"));
}

///
#[test]
fn ten_megabytes_of_configuration_are_read() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let bundle = Bundle::shell("echo ran").with(|config| {
        let all: serde_json::Map<_, _> =
            (0..11_000).map(|number| (format!("org.example.{number}"), json!("x".repeat(1000)))).collect();
        config["annotations"] = all.into();
    });
    assert!(fs::metadata(bundle.path().join("config.json")).expect("look at it").len() > 10 << 20);
    let outcome = runtime.run(&bundle);
    assert!(outcome.text() == "ran", "{}", outcome.code);
}

///
#[test]
fn an_environment_or_argument_too_large_is_told_with_its_size() {
    needs!(busybox(), ours());
    let runtime = Runtime::under_test();
    let large = "x".repeat(3 << 20);
    let many: Vec<String> = (0..3000).map(|number| format!("V{number}={}", "x".repeat(1000))).collect();
    for (name, value) in
        [("env", json!([format!("V={large}")])), ("args", json!(["/bin/echo", large])), ("env", json!(many))]
    {
        let bundle = Bundle::new(&["/bin/true"]).with(|config| config["process"][name] = value);
        let outcome = runtime.run(&bundle);
        assert!(outcome.code != 0, "{name} was taken");
        let text = outcome.stderr.to_lowercase();
        assert!(text.contains("argument list too long") && text.len() < 4000, "{name}: {}", &text[..200]);
        nothing_left(&runtime, &bundle, name);
    }
}

///
#[test]
fn a_thousand_mounts_and_mounts_over_mounts_work() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let count = |mounts: &str| format!("grep -c ' {mounts}' /proc/self/mountinfo");
    let tmpfs =
        |at: String| json!({ "destination": at, "type": "tmpfs", "source": "tmpfs", "options": ["size=4k"] });
    let wide = Bundle::shell(&count("/many/")).with(|config| {
        let mounts = config["mounts"].as_array_mut().expect("a list");
        mounts.extend((0..1000).map(|number| tmpfs(format!("/many/{number}"))));
    });
    assert_eq!(runtime.run(&wide).text(), "1000");
    let deep = Bundle::shell(&count("/one ")).with(|config| {
        let mounts = config["mounts"].as_array_mut().expect("a list");
        mounts.extend((0..200).map(|_| tmpfs("/one".into())));
    });
    assert_eq!(runtime.run(&deep).text(), "200");
}

/// What has ended before anybody looks is no reason to wait.
#[test]
fn very_short_programs_hold_nobody_up() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let short = Bundle::new(&["/bin/true"]);
    for _ in 0..40 {
        runtime.run(&short).done();
    }
    let bundle = lasting();
    let container = runtime.start(&bundle);
    for _ in 0..100 {
        container.exec(&[], &["/bin/true"]).done();
    }
    container.call("delete", &["--force"]).done();
    nothing_left(&runtime, &bundle, "short programs");
}
