//! `cp`: where files land, whose they are, and that nothing of a container leads a copy astray.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use bed::{Bed, runtime};

/// A store with a container that has ended after a script; none where no container can run.
fn ended(script: &str, more: &[&str]) -> Option<(Bed, String)> {
    let runtime = runtime()?;
    let bed = Bed::new();
    bed.image("lab/a:1");
    let first = ["run", "--name", "c", "--network", "none", "--runtime", &runtime];
    bed.ok(&[&first[..], more, &["lab/a:1", "sh", "-c", script]].concat());
    Some((bed, runtime))
}

fn write(path: &std::path::Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What is at a path of the container.
fn content(bed: &Bed, path: &str) -> Option<String> {
    let to = bed.path("look");
    let output = bed.run(&["cp", "-q", &format!("c:{path}"), &to.display().to_string()]);
    let text = output.status.success().then(|| fs::read_to_string(&to).unwrap());
    drop(fs::remove_file(to));
    text
}

fn piped(bed: &Bed, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = bed.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Who refuses an archive does not read it to the end.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn files_and_directories_land_where_docker_puts_them() {
    let Some((bed, _)) = ended("mkdir -p /in/sub; echo one > /in/sub/f; echo top > /top; ln -s in /way", &[])
    else {
        return;
    };
    let host = |name: &str| bed.path(name).display().to_string();
    // Out of the container.
    bed.ok(&["cp", "c:/top", &host("new")]);
    assert_eq!(fs::read_to_string(bed.path("new")).unwrap(), "top\n");
    bed.ok(&["cp", "c:/in", &host("fresh")]);
    assert_eq!(fs::read_to_string(bed.path("fresh/sub/f")).unwrap(), "one\n");
    bed.ok(&["cp", "c:in", &host("fresh")]);
    assert_eq!(fs::read_to_string(bed.path("fresh/in/sub/f")).unwrap(), "one\n");
    bed.ok(&["cp", "c:/in/.", &host("contents")]);
    bed.ok(&["cp", "c:/way/.", &host("contents")]);
    assert!(bed.path("contents/sub/f").exists() && !bed.path("contents/in").exists());
    assert!(bed.fails(&["cp", "c:/top", &host("none/")]).contains("there is no such directory"));
    assert!(bed.fails(&["cp", "c:/in", &host("new")]).contains("cannot replace"));
    assert!(bed.fails(&["cp", "c:/none", &host("x")]).contains("is not in the container"));
    bed.ok(&["cp", "c:/way", &host("link")]);
    assert_eq!(fs::read_link(bed.path("link")).unwrap().to_str(), Some("in"));
    bed.ok(&["cp", "-L", "c:/way", &host("followed")]);
    assert!(bed.path("followed/sub/f").exists());
    // Into the container.
    bed.ok(&["cp", &host("new"), "c:/data2"]);
    assert_eq!(content(&bed, "/data2").as_deref(), Some("top\n"));
    bed.ok(&["cp", &host("new"), "c:/way"]);
    assert_eq!(content(&bed, "/in/new").as_deref(), Some("top\n"), "a link to a directory is followed");
    bed.ok(&["cp", &host("fresh"), "c:/"]);
    assert_eq!(content(&bed, "/fresh/sub/f").as_deref(), Some("one\n"));
    bed.ok(&["cp", &format!("{}/.", host("fresh")), "c:/fresh2"]);
    assert_eq!(content(&bed, "/fresh2/in/sub/f").as_deref(), Some("one\n"));
    assert!(bed.fails(&["cp", &host("new"), "c:/no/where"]).contains("no directory to put it in"));
    assert!(bed.fails(&["cp", &host("fresh"), "c:/top"]).contains("cannot replace"));
    fs::create_dir_all(bed.path("clash/in/sub")).unwrap();
    fs::create_dir(bed.path("clash/in/sub/f")).unwrap();
    assert!(bed.fails(&["cp", &host("clash/in"), "c:/"]).contains("would replace something"));
    assert_eq!(content(&bed, "/in/sub/f").as_deref(), Some("one\n"));
    for wrong in [["c:/a", "c:/b"], ["a", "b"], ["-", "-"]] {
        assert!(bed.fails(&["cp", wrong[0], wrong[1]]).contains("cp: "));
    }
    let left = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!left.contains(bed.dir.path().to_str().unwrap()), "no mount is left");
    bed.ok(&["rm", "c"]);
}

#[test]
fn only_an_archive_keeps_owners_and_what_gives_rights_away() {
    let Some((bed, _)) = ended(
        "cp /bin/busybox /su 2>/dev/null || busybox cp /bin/busybox /su; busybox chown 7:8 /su; busybox chmod 4755 /su",
        &[],
    ) else {
        return;
    };
    let host = |name: &str| bed.path(name).display().to_string();
    let of = |name: &str| {
        let meta = fs::metadata(bed.path(name)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    bed.ok(&["cp", "c:/su", &host("plain")]);
    bed.ok(&["cp", "-a", "c:/su", &host("kept")]);
    assert_eq!((of("plain"), of("kept")), ((0, 0, 0o755), (7, 8, 0o4755)));
    write(&bed.path("mine"), "x", 0o640);
    std::os::unix::fs::chown(bed.path("mine"), Some(5), Some(6)).unwrap();
    bed.ok(&["cp", &host("mine"), "c:/mine"]);
    bed.ok(&["cp", "-a", &host("mine"), "c:/owned"]);
    let listed = bed.run(&["cp", "c:/.", "-"]).stdout;
    fs::write(bed.path("all.tar"), listed).unwrap();
    let shown = Command::new("tar")
        .args(["-tvf", &host("all.tar"), "--numeric-owner", "./mine", "./owned", "mine", "owned"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let line = |name: &str| shown.lines().find(|line| line.ends_with(name)).unwrap_or_default().to_owned();
    assert!(line("mine").contains(" 0/0 ") && line("owned").contains(" 5/6 "), "{shown}");
}

#[test]
fn links_of_a_container_and_of_an_archive_lead_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "host").unwrap();
    let away = outside.path().display();
    let script = format!(
        "ln -s {away}/secret /evil; ln -s {away} /out; ln -s ../../../../../../../../{away} /up; mkdir -p /d; ln -s /etc/passwd /own"
    );
    let Some((bed, _)) = ended(&script, &[]) else { return };
    let host = |name: &str| bed.path(name).display().to_string();
    let untouched = || {
        let names: Vec<_> =
            fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names == ["secret"] && fs::read_to_string(outside.path().join("secret")).unwrap() == "host"
    };
    for path in ["c:/evil", "c:/out/secret", "c:/up/secret"] {
        assert!(bed.fails(&["cp", "-L", path, &host("x")]).contains("is not in the container"), "{path}");
    }
    bed.ok(&["cp", "-L", "c:/own", &host("passwd")]);
    assert!(fs::read_to_string(bed.path("passwd")).unwrap().contains("app:x:1000"), "the container's own");
    write(&bed.path("f"), "new", 0o644);
    for path in ["c:/evil", "c:/out", "c:/out/f", "c:/up/f", "c:/out/"] {
        drop(bed.run(&["cp", &host("f"), path]));
        assert!(untouched(), "{path}");
    }
    // A link in the archive, and a file below it.
    for (target, through) in
        [(away.to_string(), "l/f"), ("../../../../../../..".to_owned(), &format!("l/{away}/f"))]
    {
        let tree = bed.path("tree");
        drop(fs::remove_dir_all(&tree));
        fs::create_dir(&tree).unwrap();
        symlink(&target, tree.join("l")).unwrap();
        let tar = |more: &[&str]| {
            let output =
                Command::new("tar").args(["-cPf", "-"]).args(more).current_dir(&tree).output().unwrap();
            output.stdout
        };
        let mut archive = tar(&["l"]);
        archive.truncate(512);
        let rename = format!("s,^.*$,{through},");
        archive.extend(tar(&["--transform", &rename, &host("f")]));
        drop(piped(&bed, &["cp", "-", "c:/d"], &archive));
        assert!(untouched(), "{through}");
    }
    for name in ["../../../../../../../../../..", ""] {
        let archive = Command::new("tar")
            .args(["-cPf", "-", "--transform", &format!("s,^.*$,{name}{away}/secret,"), &host("f")])
            .output()
            .unwrap();
        drop(piped(&bed, &["cp", "-", "c:/"], &archive.stdout));
        assert!(untouched());
    }
    // The control: a careless program is led there by the same link.
    fs::write(bed.path("rootfs-link"), "").unwrap();
    symlink(outside.path(), bed.path("careless")).unwrap();
    fs::write(bed.path("careless/f"), "written").unwrap();
    assert!(!untouched());
}

#[test]
fn streams_go_both_ways_compressed_or_not() {
    let Some((bed, _)) = ended("mkdir /d; echo one > /d/f", &[]) else { return };
    let out = bed.run(&["cp", "c:/d", "-"]);
    assert!(out.status.success());
    fs::write(bed.path("out.tar"), &out.stdout).unwrap();
    let list = |arguments: &[&str]| {
        let output = Command::new("tar").args(arguments).arg(bed.path("out.tar")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(list(&["-tf"]), "d/\nd/f\n");
    assert!(piped(&bed, &["cp", "-", "c:/tmp"], &out.stdout).status.success());
    assert_eq!(content(&bed, "/tmp/d/f").as_deref(), Some("one\n"));
    fs::write(bed.path("d.tgz"), "").unwrap();
    let status = Command::new("gzip").arg("-k").arg(bed.path("out.tar")).status().unwrap();
    assert!(status.success());
    let packed = fs::read(bed.path("out.tar.gz")).unwrap();
    assert!(piped(&bed, &["cp", "-", "c:/data"], &packed).status.success());
    assert_eq!(content(&bed, "/data/d/f").as_deref(), Some("one\n"), "in the volume");
    let refused = piped(&bed, &["cp", "-", "c:/nowhere"], &out.stdout);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("a directory that is there"));
    let torn = piped(&bed, &["cp", "-", "c:/tmp"], &out.stdout[..700]);
    assert!(!torn.status.success());
}

#[test]
fn volumes_and_read_only_places_count() {
    let volumes = tempfile::tempdir().unwrap();
    let (open, shut) = (volumes.path().join("open"), volumes.path().join("shut"));
    for directory in [&open, &shut] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("f"), "volume").unwrap();
    }
    let binds = [format!("{}:/open", open.display()), format!("{}:/shut:ro", shut.display())];
    let Some((bed, _)) = ended(":", &["-v", &binds[0], "-v", &binds[1], "--read-only"]) else { return };
    assert_eq!(content(&bed, "/open/f").as_deref(), Some("volume"));
    assert_eq!(content(&bed, "/shut/f").as_deref(), Some("volume"));
    let from = bed.path("rootfs/data/seed").display().to_string();
    bed.ok(&["cp", &from, "c:/open/new"]);
    assert_eq!(fs::read_to_string(open.join("new")).unwrap(), "seed");
    for path in ["c:/shut/new", "c:/etc/new"] {
        assert!(bed.fails(&["cp", &from, path]).contains("may not write there"), "{path}");
    }
    assert!(!shut.join("new").exists());
}

#[test]
fn a_running_container_that_swaps_links_moves_no_copy_out() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "host").unwrap();
    let away = outside.path().display();
    let Some((bed, runtime)) = ended(":", &[]) else { return };
    bed.ok(&["rm", "c"]);
    let script = format!(
        "busybox mkdir /real; echo mine > /real/f; busybox ln -s {away} /link; busybox mv /real /d; while :; do busybox mv /d /real; busybox mv /link /d; busybox mv /d /link; busybox mv /real /d; done"
    );
    let first = ["run", "-d", "--name", "c", "--network", "none", "--runtime", &runtime, "lab/a:1"];
    bed.ok(&[&first[..], &["sh", "-c", &script]].concat());
    fs::write(bed.path("new"), "new").unwrap();
    let from = bed.path("new").display().to_string();
    let to = bed.path("got").display().to_string();
    let mut read = 0;
    for _ in 0..60 {
        drop(bed.run(&["cp", &from, "c:/d/f2"]));
        drop(bed.run(&["cp", &from, "c:/d"]));
        if bed.run(&["cp", "-L", "c:/d/f", &to]).status.success() {
            read += 1;
            assert_eq!(fs::read_to_string(&to).unwrap(), "mine\n");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let names: Vec<_> =
        fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    bed.ok(&["rm", "-f", "c"]);
    assert_eq!(names, ["f"]);
    assert!(read > 0, "some copy met the directory");
}

/// A second overlay on the same upper directory would take the first one's work directory from below it.
#[test]
fn a_container_that_runs_where_its_files_are_not_seen_is_left_alone() {
    let Some(runtime) = runtime() else { return };
    let bed = Bed::new();
    bed.image("lab/a:1");
    let file = bed.path("f").display().to_string();
    fs::write(&file, "f").unwrap();
    let run =
        ["run", "-d", "--name", "c", "--network", "none", "--runtime", &runtime, "lab/a:1", "sleep", "1000"];
    let inside = bed.command(&run);
    let mut elsewhere = Command::new("unshare");
    elsewhere.arg("-m").arg(inside.get_program()).args(inside.get_args()).env_clear();
    elsewhere.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = elsewhere.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for ends in [[file.as_str(), "c:/f"], ["c:/etc/passwd", &file]] {
        let said = bed.fails(&["cp", ends[0], ends[1]]);
        assert!(said.contains("mounted in another mount namespace"), "{said}");
    }
    // A file of the image is copied up where the container changes it.
    bed.ok(&["exec", "c", "sh", "-c", "echo more >> /etc/passwd"]);
    bed.ok(&["rm", "-f", "c"]);
}
