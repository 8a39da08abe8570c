//! The image commands from outside, alone and with other tools that read and write the same formats.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "bed/mod.rs"]
mod bed;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use bed::{Bed, program, runtime};
use hull_testkit::call::eventually;
use serde_json::Value;

/// Longest wait for what a container does.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

#[test]
fn an_image_is_listed_named_inspected_and_removed() {
    let bed = Bed::new();
    let id = bed.image("lab/a:1");
    let short = &id["sha256:".len()..][..12];
    assert_eq!(bed.ok(&["images", "-q"]).trim(), short);
    bed.ok(&["tag", "lab/a:1", "other"]);
    assert_eq!(
        bed.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}", "-f", "reference=lab/*"]),
        "lab/a:1\n"
    );
    assert_eq!(bed.ok(&["images", "-q", "-f", "label=k=x"]), "");
    let shared = ["images", "--format", "{{.SharedLayers}}", "-f", "reference=lab/*"];
    assert_eq!(bed.ok(&shared), "0\n", "two names of one image share nothing");
    bed.ok(&["import", "-m", "again", &bed.path("rootfs.tar").display().to_string(), "lab/b:1"]);
    assert_eq!(bed.ok(&shared), "1\n1\n");
    bed.ok(&["rmi", "lab/b:1"]);
    assert_eq!(
        bed.ok(&["inspect", "-f", "{{.Id}} {{.Config.Env}} {{join .RepoTags \",\"}}", short]),
        format!("{id} [A=1] lab/a:1,other:latest\n")
    );
    let history = bed.ok(&["history", "--format", "{{.ID}} {{.Comment}}", "other"]);
    assert!(history.starts_with(&format!("{short} Imported from")), "{history}");
    assert!(bed.fails(&["rmi", short]).contains("2 names"));
    assert_eq!(bed.ok(&["rmi", "other"]), "Untagged: other:latest\n");
    let gone = bed.ok(&["rmi", "lab/a:1"]);
    assert!(gone.contains("Untagged: lab/a:1") && gone.contains(&format!("Deleted: {id}")), "{gone}");
    assert_eq!(fs::read_dir(bed.path("store/blobs/sha256")).unwrap().count(), 0, "nothing is left");
    assert!(bed.fails(&["inspect", "lab/a:1"]).contains("no such image"));
}

#[test]
fn a_saved_image_comes_back_the_same_by_both_formats() {
    let bed = Bed::new();
    let id = bed.image("lab/a:1");
    let archive = bed.path("a.tar").display().to_string();
    bed.ok(&["save", "-o", &archive, "lab/a:1"]);
    let again = bed.path("b.tar").display().to_string();
    bed.ok(&["save", "-o", &again, "lab/a:1"]);
    assert!(fs::read(&archive).unwrap() == fs::read(&again).unwrap(), "the same bytes each time");
    let other = Bed::new();
    assert_eq!(other.ok(&["load", "-i", &archive]), "Loaded image: lab/a:1\n");
    assert_eq!(other.ok(&["inspect", "-f", "{{.Id}}", "lab/a:1"]).trim(), id);
    // Docker's own format alone: the same archive without the files of a layout.
    let dir = bed.path("docker");
    fs::create_dir(&dir).unwrap();
    assert!(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&dir).status().unwrap().success());
    for name in ["index.json", "oci-layout"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let docker = bed.path("docker.tar").display().to_string();
    assert!(Command::new("tar").args(["-cf", &docker, "-C"]).arg(&dir).arg(".").status().unwrap().success());
    let third = Bed::new();
    third.ok(&["load", "-i", &docker, "--platform", "linux/riscv64"]);
    assert_eq!(third.ok(&["inspect", "-f", "{{.Id}}", "lab/a:1"]).trim(), id);
    assert_eq!(third.ok(&["fsck"]), "0 problems\n");
}

#[test]
fn an_archive_has_a_name_once_and_none_for_a_digest() {
    let bed = Bed::new();
    bed.image("lab/a:1");
    let digest = bed.ok(&["inspect", "-f", "{{.Descriptor.digest}}", "lab/a:1"]);
    let exact = format!("lab/a@{}", digest.trim());
    let archive = bed.path("a.tar").display().to_string();
    let read = |name: &str| {
        let output = Command::new("tar").args(["-xOf", &archive, name]).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    for (names, tags) in [
        (&[&*exact][..], serde_json::json!([])),
        (&["lab/a:1", "lab/a:1", &exact], serde_json::json!(["lab/a:1"])),
    ] {
        bed.ok(&[&["save", "-o", &archive], names].concat());
        let (manifest, repositories) = (read("manifest.json"), read("repositories"));
        assert_eq!((&manifest[0]["RepoTags"], manifest.as_array().unwrap().len()), (&tags, 1), "{names:?}");
        let tagged = tags.as_array().unwrap().len();
        assert_eq!(repositories.as_object().unwrap().len(), tagged, "{names:?}: {repositories}");
    }
}

#[test]
fn archives_come_in_however_compressed_and_in_whatever_parts() {
    let Some(xz) = program("xz") else { return };
    let bed = Bed::new();
    let id = bed.image("lab/a:1");
    bed.ok(&["save", "-o", &bed.path("a.tar").display().to_string(), "lab/a:1"]);
    for name in ["a.tar", "rootfs.tar"] {
        assert!(Command::new(&xz).arg("-0k").arg(bed.path(name)).status().unwrap().success());
    }
    let other = Bed::new();
    other.ok(&["load", "-q", "-i", &bed.path("a.tar.xz").display().to_string()]);
    assert_eq!(other.ok(&["inspect", "-f", "{{.Id}}", "lab/a:1"]).trim(), id);
    other.ok(&["import", &bed.path("rootfs.tar.xz").display().to_string(), "lab/b:1"]);
    let mut slow = other.command(&["import", "-", "lab/c:1"]);
    let mut child = slow.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let archive = fs::read(bed.path("rootfs.tar")).unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&archive[..100]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    pipe.write_all(&archive[100..]).unwrap();
    drop(pipe);
    assert!(child.wait().unwrap().success(), "the first part is shorter than a header");
    let layers = |name: &str| other.ok(&["inspect", "-f", "{{.RootFS.Layers}}", name]);
    assert_eq!(layers("lab/b:1"), layers("lab/a:1"));
    assert_eq!(layers("lab/c:1"), layers("lab/a:1"));
}

#[test]
fn an_archive_whose_blob_is_not_what_its_name_says_is_refused() {
    let bed = Bed::new();
    bed.image("lab/a:1");
    let archive = bed.path("a.tar");
    bed.ok(&["save", "-o", &archive.display().to_string(), "lab/a:1"]);
    let good = fs::read(&archive).unwrap();
    let other = Bed::new();
    // A byte of the configuration, which is text: the archive's own checksums do not cover it.
    let at = good.windows(12).position(|window| window == b"architecture").unwrap();
    let mut bad = good.clone();
    bad[at + 16] ^= 1;
    fs::write(&archive, &bad).unwrap();
    let said = other.fails(&["load", "-i", &archive.display().to_string()]);
    assert!(said.contains("verify sha256:"), "{said}");
    assert_eq!(other.ok(&["images", "-q"]), "");
}

#[test]
fn an_imported_image_has_the_time_that_is_asked_for() {
    let bed = Bed::new();
    bed.image("lab/a:1");
    let archive = bed.path("rootfs.tar").display().to_string();
    for (epoch, created) in
        [("5", Some("1970-01-01T00:00:05Z\n")), ("yesterday", None), ("253402300800", None)]
    {
        let mut import = bed.command(&["import", &archive, "lab/b:1"]);
        let output = import.env("SOURCE_DATE_EPOCH", epoch).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.success(), said.contains(epoch)),
            (created.is_some(), created.is_none()),
            "{said}"
        );
        if let Some(created) = created {
            assert_eq!(bed.ok(&["inspect", "-f", "{{.Created}}", "lab/b:1"]), created);
        }
    }
}

#[test]
fn garbage_is_told_and_removed() {
    let bed = Bed::new();
    bed.image("lab/a:1");
    fs::write(bed.path("rootfs/tmp/more"), "x").unwrap();
    bed.image("lab/a:1");
    assert_eq!(bed.ok(&["images", "-q", "-f", "dangling=true"]).lines().count(), 1);
    let said = bed.ok(&["prune"]);
    assert!(said.contains("Deleted: sha256:") && said.contains("Total reclaimed space"), "{said}");
    assert_eq!(bed.ok(&["images", "-q"]).lines().count(), 1);
    let rows = bed.ok(&["df", "--format", "{{.Type}}={{.TotalCount}}"]);
    assert!(rows.starts_with("Blobs=3\n"), "{rows}");
    assert_eq!(bed.ok(&["fsck"]), "0 problems\n");
}

#[test]
fn a_damaged_blob_is_found_and_moved_away() {
    let bed = Bed::new();
    bed.image("lab/a:1");
    let layer = bed.ok(&["inspect", "-f", "{{.Descriptor.digest}}", "lab/a:1"]);
    let path = bed.path("store/blobs/sha256").join(layer.trim().trim_start_matches("sha256:"));
    fs::write(&path, "damage").unwrap();
    let other = hull_image::Store::open(&bed.path("store")).unwrap();
    let busy = bed.run(&["fsck", "--repair"]);
    let said = [busy.stdout, busy.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(
        said[0].contains("content differs from its name\n") && said[1].contains("in use by another process"),
        "{said:?}"
    );
    assert!(path.exists(), "another command may be about to use it");
    drop(other);
    assert_eq!(bed.run(&["fsck", "--repair"]).status.code(), Some(1));
    assert!(!path.exists() && fs::read_dir(bed.path("store/quarantine")).unwrap().count() == 1);
}

#[test]
fn skopeo_and_umoci_take_the_store_and_the_archive() {
    let (Some(skopeo), Some(umoci)) = (program("skopeo"), program("umoci")) else { return };
    let bed = Bed::new();
    let id = bed.image("lab/a:1");
    let archive = bed.path("a.tar").display().to_string();
    bed.ok(&["save", "-o", &archive, "lab/a:1"]);
    let store = format!("oci:{}:docker.io/lab/a:1", bed.path("store").display());
    let copy = format!("oci:{}:1", bed.path("copy").display());
    let config = |source: &str| {
        let output = Command::new(&skopeo).args(["inspect", "--config", "--raw", source]).output().unwrap();
        assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
        hull_image::Digest::of(&output.stdout).to_string()
    };
    assert_eq!(config(&store), id);
    for source in [format!("oci-archive:{archive}"), format!("docker-archive:{archive}"), store] {
        let done = Command::new(&skopeo).args(["copy", "-q", &source, &copy]).output().unwrap();
        assert!(done.status.success(), "{source}: {}", String::from_utf8_lossy(&done.stderr));
    }
    if !rustix::process::geteuid().is_root() {
        return hull_testkit::gate::skipped("needs root");
    }
    let bundle = bed.path("bundle");
    let image = format!("{}:1", bed.path("copy").display());
    let done = Command::new(&umoci).args(["unpack", "--image", &image]).arg(&bundle).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(fs::read_to_string(bundle.join("rootfs/data/seed")).unwrap(), "seed");
}

#[test]
fn podman_loads_what_save_wrote() {
    let Some(podman) = program("podman") else { return };
    if !rustix::process::geteuid().is_root() {
        return hull_testkit::gate::skipped("needs root");
    }
    let bed = Bed::new();
    let id = bed.image("lab/a:1");
    let archive = bed.path("a.tar").display().to_string();
    bed.ok(&["save", "-o", &archive, "lab/a:1"]);
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&podman);
        command.arg("--root").arg(bed.path("podman")).arg("--runroot").arg(bed.path("podman-run"));
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]).args(arguments);
        command.output().unwrap()
    };
    let loaded = call(&["load", "-q", "-i", &archive]);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let listed = call(&["images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), format!("{id} docker.io/lab/a:1"));
}

#[test]
fn what_buildah_made_is_loaded_and_unpacked() {
    let Some(buildah) = program("buildah") else { return };
    if !rustix::process::geteuid().is_root() {
        return hull_testkit::gate::skipped("needs root");
    }
    let bed = Bed::new();
    bed.image("lab/a:1");
    fs::create_dir(bed.path("context")).unwrap();
    fs::copy(bed.path("rootfs.tar"), bed.path("context/rootfs.tar")).unwrap();
    fs::write(
        bed.path("context/Dockerfile"),
        "FROM scratch\nADD rootfs.tar /\nCOPY Dockerfile /etc/from\nCMD [\"sh\"]\n",
    )
    .unwrap();
    for (index, kind) in ["oci-archive", "docker-archive"].iter().enumerate() {
        let call = |arguments: &[&str]| {
            let mut command = Command::new(&buildah);
            command.arg("--root").arg(bed.path("buildah")).arg("--runroot").arg(bed.path("buildah-run"));
            let output = command.args(["--storage-driver", "vfs"]).args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let context = bed.path("context").display().to_string();
        call(&["bud", "-q", "--isolation", "chroot", "-t", "localhost/b:1", &context]);
        let archive = bed.path(&format!("b{index}.tar"));
        call(&["push", "-q", "localhost/b:1", &format!("{kind}:{}:localhost/b:1", archive.display())]);
        let other = Bed::new();
        other.ok(&["load", "-i", &archive.display().to_string()]);
        let bundle = other.path("bundle");
        other.ok(&["unpack", "localhost/b:1", &bundle.display().to_string()]);
        assert_eq!(fs::read_to_string(bundle.join("rootfs/data/seed")).unwrap(), "seed", "{kind}");
        assert!(bundle.join("rootfs/etc/from").exists());
    }
}

#[test]
fn an_unpacked_bundle_has_the_specifications_conversion() {
    let bed = Bed::new();
    bed.image("lab/a:1");
    let bundle = bed.path("bundle").display().to_string();
    bed.ok(&["unpack", "lab/a:1", &bundle]);
    let config: Value = serde_json::from_slice(&fs::read(bed.path("bundle/config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"], serde_json::json!(["sh"]));
    assert_eq!(config["process"]["env"][0], "A=1");
    assert_eq!(config["annotations"]["k"], "v");
    assert_eq!(config["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert!(bed.fails(&["unpack", "lab/a:1", &bundle]).contains("not empty"));
    bed.ok(&["import", &bed.path("rootfs.tar").display().to_string(), "lab/bare:1"]);
    let nothing = bed.path("nothing");
    let said = bed.fails(&["unpack", "lab/bare:1", &nothing.display().to_string()]);
    assert!(said.contains("neither entry point nor command") && !nothing.exists(), "{said}");
}

#[test]
fn a_container_runs_with_its_images_user_volume_and_code() {
    let Some(runtime) = runtime() else { return };
    let bed = Bed::new();
    bed.image("lab/a:1");
    let run = |more: &[&str]| {
        let mut arguments = vec!["run", "--rm", "--network", "none", "--runtime", &runtime];
        arguments.extend(more);
        bed.run(&arguments)
    };
    let output = run(&["lab/a:1", "sh", "-c", "echo $A; cat /data/seed; exit 7"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        (text.as_str(), output.status.code()),
        ("1\nseed", Some(7)),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = run(&["-u", "app", "-e", "A=2", "lab/a:1", "sh", "-c", "id; echo $A"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "uid=1000(app) gid=1000(app) groups=50(extra),1000(app)\n2\n"
    );
    let named = |script: &str| run(&["-v", "own:/data", "lab/a:1", "sh", "-c", script]);
    assert!(named("echo changed > /data/seed").status.success());
    let output = named("cat /data/seed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "changed\n", "a volume is filled but once");
    let output = run(&["-v", "other:/data", "lab/a:1", "cat", "/data/seed"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "seed", "a new volume has what the image has there");
    assert!(!run(&["-u", "nobody", "lab/a:1", "id"]).status.success(), "an unknown user is an error");
    assert_eq!(bed.ok(&["ps", "-aq"]), "");
    let left = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!left.contains(bed.dir.path().to_str().unwrap()), "no mount is left");
}

#[test]
fn changes_of_a_container_are_told_and_become_an_image() {
    let Some(runtime) = runtime() else { return };
    let bed = Bed::new();
    bed.image("lab/a:1");
    let script = "echo new > /etc/new; rm /etc/group; echo x >> /etc/passwd";
    bed.ok(&[
        "run",
        "--name",
        "c",
        "--network",
        "none",
        "--runtime",
        &runtime,
        "lab/a:1",
        "sh",
        "-c",
        script,
    ]);
    let mut lines: Vec<String> = bed.ok(&["diff", "c"]).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["A /etc/new", "C /etc", "C /etc/passwd", "D /etc/group"]);
    assert!(bed.fails(&["rmi", "lab/a:1"]).contains("used by container c"));
    bed.ok(&["commit", "-c", "ENV B=2", "c", "lab/b:1"]);
    let bundle = bed.path("bundle");
    bed.ok(&["unpack", "lab/b:1", &bundle.display().to_string()]);
    assert_eq!(fs::read_to_string(bundle.join("rootfs/etc/new")).unwrap(), "new\n");
    assert!(!bundle.join("rootfs/etc/group").exists());
    bed.ok(&["export", "-o", &bed.path("e.tar").display().to_string(), "c"]);
    let listed = Command::new("tar").arg("-tf").arg(bed.path("e.tar")).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("etc/new\n") && !listed.contains("etc/group\n"), "{listed}");
    bed.ok(&["rm", "c"]);
    assert_eq!(bed.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_detached_container_is_seen_heard_entered_and_stopped() {
    let Some(runtime) = runtime() else { return };
    let bed = Bed::new();
    bed.image("lab/a:1");
    let script = "echo out; echo err >&2; while :; do sleep 0.1; done";
    let id = bed.ok(&[
        "run",
        "-d",
        "--name",
        "d",
        "--network",
        "none",
        "--runtime",
        &runtime,
        "lab/a:1",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(id.trim().len(), 64);
    assert_eq!(bed.ok(&["ps", "--format", "{{.Names}} {{.State}}"]), "d running\n");
    assert_eq!(bed.ok(&["exec", "-u", "app", "d", "id", "-u"]), "1000\n");
    assert_eq!(bed.run(&["exec", "d", "sh", "-c", "exit 3"]).status.code(), Some(3));
    let is_heard = || {
        let output = bed.run(&["logs", "d"]);
        output.stdout == b"out\n" && output.stderr == b"err\n"
    };
    assert!(eventually(PATIENCE, is_heard));
    assert!(bed.fails(&["rm", "d"]).contains("is running"));
    bed.ok(&["stop", "-t", "1", "d"]);
    assert_eq!(bed.ok(&["ps", "-q"]), "");
    bed.ok(&["rm", "d"]);
}

#[test]
fn an_ended_container_starts_again_with_its_files() {
    let Some(runtime) = runtime() else { return };
    let bed = Bed::new();
    bed.image("lab/a:1");
    let script = "echo run >> /count; while :; do sleep 0.1; done";
    let arguments = ["run", "-d", "--name", "again", "--network", "none", "--runtime", &runtime, "lab/a:1"];
    bed.ok(&[&arguments[..], &["sh", "-c", script]].concat());
    let count = || bed.ok(&["exec", "again", "cat", "/count"]);
    let counted = |wanted: &str| {
        eventually(PATIENCE, || bed.run(&["exec", "again", "cat", "/count"]).stdout == wanted.as_bytes())
    };
    assert!(counted("run\n"));
    assert_eq!(bed.ok(&["start", "again"]), "again\n", "it runs: nothing happens");
    assert_eq!(count(), "run\n");
    for wanted in ["run\nrun\n", "run\nrun\nrun\n"] {
        bed.ok(&["stop", "-t", "1", "again"]);
        bed.ok(&["start", "again"]);
        assert_eq!(bed.ok(&["ps", "--format", "{{.Names}} {{.State}}"]), "again running\n");
        assert!(counted(wanted));
    }
    // The monitor of the first run cleans up after it, so late that the container has been started again.
    let id = bed.ok(&["ps", "-q", "--no-trunc"]);
    bed.ok(&["after-exit", id.trim()]);
    assert_eq!(count(), "run\nrun\nrun\n");
    bed.ok(&["stop", "-t", "1", "again"]);
    bed.ok(&["rm", "again"]);
    assert!(bed.fails(&["start", "again"]).contains("no container again"));
}

#[test]
fn what_cannot_run_ends_with_dockers_codes() {
    let Some(runtime) = runtime() else { return };
    let bed = Bed::new();
    bed.image("lab/a:1");
    for (arguments, code, said) in [
        (&["--pull", "never", "none"][..], 125, "no such image"),
        (&["--no-such-flag", "lab/a:1"], 125, "--no-such-flag"),
        (&["-v", "x", "lab/a:1"], 125, "is not SOURCE:DESTINATION"),
        (&["-p", "80:x", "lab/a:1"], 125, "is not [ADDRESS:][HOST:]CONTAINER"),
        (&["-m", "0", "lab/a:1"], 125, "out of range"),
        (&["-u", "nobody", "lab/a:1"], 125, "nobody"),
        (&["lab/a:1", "/none"], 127, "/none"),
        (&["lab/a:1", "/etc/passwd"], 126, "/etc/passwd"),
        (&["lab/a:1", "sh", "-c", "exit 1"], 1, ""),
    ] {
        let network = if arguments[0] == "-p" { "bridge" } else { "none" };
        let mut all = vec!["run", "--rm", "--network", network, "--runtime", &runtime];
        all.extend(arguments);
        let output = bed.run(&all);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && text.contains(said), "{arguments:?}: {output:?}");
    }
    assert_eq!(bed.ok(&["ps", "-aq"]), "");
    // A wrong command line, of whatever command, is told from what a program in a container ends with.
    for words in
        [&["run"][..], &["exec", "--none", "a", "b"], &["images", "--none"], &["none"], &["build", "--creds"]]
    {
        assert_eq!(bed.run(words).status.code(), Some(125), "{words:?}");
    }
    for words in [&["--help"][..], &["run", "--help"], &["--version"]] {
        assert!(!bed.ok(words).is_empty(), "{words:?}");
    }
}
