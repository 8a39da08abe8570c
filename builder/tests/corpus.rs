//! One Dockerfile a behaviour: `corpus/NAME/{Dockerfile,...,expect}`, each built and held against its expectations.
//!
//! `expect` has one `key: value` a line:
//!
//! | key | meaning |
//! |---|---|
//! | `args` | more arguments of `build`, between blanks |
//! | `env` | NAME=VALUE of the builder's environment |
//! | `stdin` | a file of the case that is its standard input |
//! | `fails` | the build fails and says this |
//! | `says`, `silent` | the build's output has this text, has it not |
//! | `file` | `PATH MODE OWNER "CONTENT"` (a JSON string; `*` for any content) |
//! | `dir`, `link` | `PATH MODE OWNER`, `PATH TARGET` |
//! | `absent` | nothing is at this path |
//! | `config` | `/JSON/POINTER JSON` in the image's configuration (`null`: absent) |
//! | `layers` | number of layers |
//! | `script` | a file of the case that is run with sh, in a copy of the case, before the build |
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use hull_image::{Image, Store};
use hull_testkit::{Outcome, Scratch, call, gate, needs, place, runtime};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// The Dockerfile of the image `base` that cases begin with.
const BASE: &str = include_str!("base/Dockerfile");
const PASSWD: &str = include_str!("base/passwd");
const GROUP: &str = include_str!("base/group");

#[test]
fn every_case_of_the_corpus_is_as_expected() {
    needs!(gate::root(), gate::path("/bin/busybox"));
    let scratch = Scratch::new("corpus");
    let store = scratch.join("store");
    build_base(&scratch, &store);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let only = std::env::var("CORPUS_ONLY").unwrap_or_default();
    let mut cases: Vec<PathBuf> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.to_string_lossy().contains(&only));
    cases.sort();
    assert!(!cases.is_empty(), "the corpus is empty");
    let failures = Mutex::new(Vec::new());
    let queue = Mutex::new(cases.iter());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = { queue.lock().unwrap().next() } {
                    let wrong = check(case, &scratch, &store);
                    failures.lock().unwrap().extend(wrong);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} wrong of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    println!("{} cases", cases.len());
}

fn build_base(scratch: &Scratch, store: &Path) {
    let context = scratch.join("base");
    fs::create_dir(&context).unwrap();
    fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    for (name, text) in [("Dockerfile", BASE), ("passwd", PASSWD), ("group", GROUP)] {
        fs::write(context.join(name), text).unwrap();
    }
    let mut command = builder(store);
    command.args(["build", "-t", "base", "."]).current_dir(&context);
    call(&mut command, LIMIT).done();
}

fn builder(store: &Path) -> Command {
    let mut command = Command::new(place::program("hull-build"));
    command.env("HULL_ROOT", store).env("HULL_BUILD_RUNTIME", runtime::under_test());
    command.env_remove("SOURCE_DATE_EPOCH").stdin(Stdio::null());
    command
}

/// What is wrong with a case, a line each.
fn check(case: &Path, scratch: &Scratch, store: &Path) -> Vec<String> {
    let name = case.file_name().unwrap().to_string_lossy().into_owned();
    let expect = fs::read_to_string(case.join("expect")).unwrap_or_else(|e| panic!("{name}/expect: {e}"));
    let wanted: Vec<(&str, &str)> = expect
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(':').map(|(key, value)| (key.trim(), value.trim())).unwrap_or((line, "")))
        .collect();
    let copy = scratch.join(format!("case-{name}"));
    call(Command::new("cp").arg("-a").arg(case).arg(&copy), LIMIT).done();
    for (_, script) in wanted.iter().filter(|(key, _)| *key == "script") {
        call(Command::new("sh").arg(script).current_dir(&copy).stdin(Stdio::null()), LIMIT).done();
    }
    fs::remove_file(copy.join("expect")).unwrap();
    let outcome = build(&copy, store, &name, &wanted);
    let mut wrong = judge(&outcome, &wanted);
    if outcome.code == 0 && wrong.is_empty() {
        wrong.extend(judge_image(scratch, store, &name, &wanted));
    }
    fs::remove_dir_all(&copy).unwrap();
    wrong.into_iter().map(|text| format!("{name}: {text}")).collect()
}

fn build(case: &Path, store: &Path, name: &str, wanted: &[(&str, &str)]) -> Outcome {
    let mut command = builder(store);
    command.args(["build", "--progress", "plain", "-t", &format!("case/{name}")]).current_dir(case);
    let mut context = ".";
    for (key, value) in wanted {
        match *key {
            "args" => drop(command.args(value.split_whitespace())),
            "env" => {
                let (name, value) = value.split_once('=').unwrap();
                command.env(name, value);
            }
            "stdin" => {
                command.stdin(fs::File::open(case.join(value)).unwrap());
            }
            "context" => context = value,
            _ => {}
        }
    }
    call(command.arg(context), LIMIT)
}

fn judge(outcome: &Outcome, wanted: &[(&str, &str)]) -> Vec<String> {
    let said = format!("{}{}", outcome.stderr, outcome.stdout);
    let mut wrong = Vec::new();
    let must_fail = wanted.iter().any(|(key, _)| *key == "fails");
    if must_fail == (outcome.code == 0) {
        wrong.push(format!("exit status {}:\n{said}", outcome.code));
    }
    for (key, value) in wanted {
        let found = said.contains(value);
        match *key {
            "fails" | "says" if !found => wrong.push(format!("{value:?} is not in:\n{said}")),
            "silent" if found => wrong.push(format!("{value:?} is in:\n{said}")),
            _ => {}
        }
    }
    wrong
}

fn judge_image(scratch: &Scratch, store: &Path, name: &str, wanted: &[(&str, &str)]) -> Vec<String> {
    let keys = ["file", "dir", "link", "absent", "config", "layers"];
    if !wanted.iter().any(|(key, _)| keys.contains(key)) {
        return Vec::new();
    }
    let store = Store::open(store).unwrap();
    let tagged = store.find(&format!("case/{name}")).unwrap();
    let image = store.image(&tagged.descriptor, None).unwrap();
    let root = scratch.join(format!("root-{name}"));
    fs::create_dir(&root).unwrap();
    let fd = fs::File::open(&root).unwrap();
    hull_layer::Unpacker::new(&store).apply(&image, fd.as_fd()).unwrap();
    let wrong = wanted.iter().filter_map(|(key, value)| one(&root, &image, key, value).err()).collect();
    fs::remove_dir_all(&root).unwrap();
    wrong
}

fn one(root: &Path, image: &Image, key: &str, value: &str) -> Result<(), String> {
    let (first, rest) = value.split_once(' ').unwrap_or((value, ""));
    let path = root.join(first.trim_start_matches('/'));
    let meta = || fs::symlink_metadata(&path).map_err(|e| format!("{first}: {e}"));
    match key {
        "absent" if path.symlink_metadata().is_ok() => Err(format!("{first} is there")),
        "dir" => {
            let meta = meta()?;
            same(first, &format!("{:04o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid()), rest)?;
            if meta.is_dir() { Ok(()) } else { Err(format!("{first} is no directory")) }
        }
        "link" => {
            let target = fs::read_link(&path).map_err(|e| format!("{first}: {e}"))?;
            same(first, &target.to_string_lossy(), rest)
        }
        "file" => {
            let meta = meta()?;
            if !meta.is_file() {
                return Err(format!("{first} is no regular file"));
            }
            let mut parts = rest.splitn(3, ' ');
            let mut part = || parts.next().unwrap_or_default();
            let (mode, owner, content) = (part(), part(), part());
            same(first, &format!("{:04o}", meta.mode() & 0o7777), mode)?;
            same(first, &format!("{}:{}", meta.uid(), meta.gid()), owner)?;
            let found = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            match content {
                "*" => Ok(()),
                content => {
                    same(first, &found, &serde_json::from_str::<String>(content).map_err(|e| e.to_string())?)
                }
            }
        }
        "config" => {
            let config = serde_json::to_value(&image.config).unwrap();
            let found = config.pointer(first).cloned().unwrap_or(Value::Null);
            let wanted: Value = serde_json::from_str(rest).map_err(|e| format!("{rest}: {e}"))?;
            if found == wanted { Ok(()) } else { Err(format!("config {first} is {found}, not {wanted}")) }
        }
        "layers" => same("layers", &image.manifest.layers.len().to_string(), value),
        _ => Ok(()),
    }
}

fn same(what: &str, found: &str, wanted: &str) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what} is {found:?}, not {wanted:?}")) }
}

#[test]
fn every_case_has_only_known_keys() {
    let known = [
        "args", "env", "stdin", "context", "fails", "says", "silent", "file", "dir", "link", "absent",
        "config", "layers", "script",
    ];
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut unknown = BTreeMap::new();
    for case in fs::read_dir(corpus).unwrap() {
        let path = case.unwrap().path().join("expect");
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let key = line.split(':').next().unwrap_or_default();
            if !known.contains(&key) {
                unknown.insert(path.clone(), line.to_owned());
            }
        }
    }
    assert_eq!(unknown, BTreeMap::new());
}
