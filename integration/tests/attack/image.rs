//! What an image holds: links and false devices where the runtime mounts, masks or writes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use hull_testkit::call::quick;
use hull_testkit::gate::program;
use hull_testkit::runtime::peek;
use hull_testkit::{Bundle, Runtime, Scratch, needs};
use serde_json::json;

use crate::{busybox, victim, without_mount};

/// CVE-2026-41579, CVE-2026-47766: an image whose `/dev` is a link into the host, and no mount on it.
#[test]
fn a_linked_dev_does_not_reach_the_host() {
    needs!(busybox());
    let hit = |runtime: &Runtime| {
        let host = Scratch::new("decoy");
        fs::write(host.join("ptmx"), "precious").expect("write the decoy");
        let bundle = Bundle::new(&["/bin/true"]).with(|config| without_mount(config, "/dev"));
        fs::remove_dir(bundle.root().join("dev")).expect("remove /dev of the image");
        symlink(host.path(), bundle.root().join("dev")).expect("make the link");
        runtime.run(&bundle);
        let names: Vec<_> =
            fs::read_dir(host.path()).expect("read the decoy").flatten().map(|e| e.file_name()).collect();
        names != ["ptmx"] || peek(host.join("ptmx")) != "precious"
    };
    assert!(!hit(&Runtime::under_test()), "the host's directory has changed");
    if let Some(victim) = victim() {
        assert!(hit(&victim), "the control is not hit: the attack does not work any more");
    }
}

/// CVE-2025-31133: a masked file shows what the image's `/dev/null` points to.
#[test]
fn a_false_null_device_does_not_become_a_mask() {
    needs!(busybox());
    let seen = |runtime: &Runtime, prepare: fn(&Path)| {
        let bundle = Bundle::shell("head -c 64 /proc/keys; head -c 64 /proc/timer_list").with(|config| {
            without_mount(config, "/dev");
        });
        prepare(&bundle.root().join("dev"));
        fs::write(bundle.root().join("secret"), "not masked").expect("write the secret");
        runtime.run(&bundle).stdout
    };
    let link: fn(&Path) = |dev| symlink("/secret", dev.join("null")).expect("make the link");
    let file: fn(&Path) = |dev| fs::write(dev.join("null"), "not masked").expect("write the file");
    let zero: fn(&Path) =
        |dev| quick("mknod", &[dev.join("null").to_str().expect("UTF-8"), "c", "1", "9"]).done();
    for prepare in [link, file, zero] {
        assert_eq!(seen(&Runtime::under_test(), prepare), "");
    }
    let open = Bundle::shell("head -c 64 /proc/timer_list")
        .with(|config| config["linux"]["maskedPaths"] = json!([]));
    assert!(
        Runtime::under_test().run(&open).stdout.starts_with("Timer List"),
        "the reading shows what is not masked"
    );
}

/// CVE-2023-27561, CVE-2025-54867 and others: `/proc` or `/sys` of the image is a link.
#[test]
fn a_linked_proc_or_sys_is_refused() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    for name in ["proc", "sys"] {
        for to in ["/tmp/elsewhere", "../tmp/elsewhere", "tmp/elsewhere", "/nowhere"] {
            let bundle = Bundle::new(&["/bin/true"]);
            fs::remove_dir(bundle.root().join(name)).expect("remove the directory");
            fs::create_dir_all(bundle.root().join("tmp/elsewhere")).expect("make the target");
            let control = Bundle::new(&["/bin/true"]);
            assert_eq!(runtime.run(&control).code, 0, "the control does not run");
            symlink(to, bundle.root().join(name)).expect("make the link");
            assert_eq!(runtime.run(&bundle).code, 1, "/{name} -> {to} is accepted");
        }
    }
}

/// CVE-2015-3631, CVE-2019-16884: something else in the place of procfs, or over a part of it.
#[test]
fn nothing_is_mounted_over_procfs() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let fake = Scratch::new("fake");
    fs::create_dir_all(fake.join("self/attr")).expect("make the fake");
    fs::write(fake.join("self/attr/exec"), "").expect("make the fake");
    let source = fake.path().to_str().expect("UTF-8");
    let bind = |at: &str| json!({ "destination": at, "type": "bind", "source": source, "options": ["bind"] });
    let attempts = [bind("/proc/self/attr"), bind("/proc/self"), bind("/proc/sys"), bind("/proc/1/attr")];
    for mount in attempts {
        let bundle = Bundle::new(&["/bin/true"])
            .with(|config| config["mounts"].as_array_mut().expect("a list").push(mount.clone()));
        assert_eq!(runtime.run(&bundle).code, 1, "{mount} is accepted");
        assert_eq!(peek(fake.join("self/attr/exec")), "");
    }
    let control = Bundle::new(&["/bin/ls", "/tmp/self/attr"])
        .with(|config| config["mounts"].as_array_mut().expect("a list").push(bind("/tmp")));
    assert_eq!(runtime.run(&control).text(), "exec", "the same bind elsewhere is the control");
}

/// CVE-2019-18837, CVE-2021-30465: a mount target in the image is a link that leads to the host.
#[test]
fn mount_targets_are_resolved_inside_the_root() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let host = Scratch::new("decoy");
    let up = format!("../../../../../../..{}", host.path().display());
    for to in [host.path().to_str().expect("UTF-8"), &up, "loop"] {
        let bundle = Bundle::shell("grep -c ' /tmp/testkit-decoy' /proc/self/mountinfo").with(|config| {
            let mount = json!({ "destination": "/data/deep", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"] });
            config["mounts"].as_array_mut().expect("a list").push(mount);
        });
        let at = if to == "loop" { "loop" } else { "data" };
        symlink(to, bundle.root().join(at)).expect("make the link");
        if to == "loop" {
            symlink("loop", bundle.root().join("data")).expect("make the link");
            assert_eq!(runtime.run(&bundle).code, 1, "a loop of links is accepted");
        } else {
            // Inside the container the link leads to a directory of the image by the same name.
            assert_eq!(runtime.run(&bundle).text(), "1");
        }
        assert_eq!(
            fs::read_dir(host.path()).expect("read the decoy").count(),
            0,
            "{to}: something was made on the host"
        );
    }
}

/// CVE-2015-3630: what is masked reads empty and cannot be written.
#[test]
fn masked_and_read_only_paths_hold() {
    needs!(busybox());
    let runtime = Runtime::under_test();
    let script = "cat /proc/keys /proc/timer_list /proc/kcore | head -c 64; ls -A /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v ':$';
                  for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do ( echo x >$f ) 2>/dev/null && echo $f; done; true";
    assert_eq!(runtime.run(&Bundle::shell(script)).text().trim(), "");
    let open = Bundle::shell(
        "head -c 8 /proc/timer_list; (: >>/proc/sys/kernel/hostname) 2>/dev/null && echo writable",
    )
    .with(|config| {
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
    });
    let control = runtime.run(&open);
    assert!(control.text().starts_with("Timer Li") && control.text().ends_with("writable"), "{control:?}");
}

/// CVE-2025-52881, CVE-2019-16884: a parameter or label is written to what the image has in the place of procfs.
#[test]
fn the_procfs_of_an_image_gets_no_write() {
    needs!(busybox(), program("nsenter"));
    let runtime = Runtime::under_test();
    let bundle = Bundle::new(&["/bin/sleep", "60"]).with(|config| {
        without_mount(config, "/proc");
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_default_ttl": "33" });
        for list in ["maskedPaths", "readonlyPaths"] {
            config["linux"][list] = json!([]);
        }
    });
    let parameter = "/proc/sys/net/ipv4/ip_default_ttl";
    let fake = bundle.root().join(parameter.trim_start_matches('/'));
    fs::create_dir_all(fake.parent().expect("a directory")).expect("make the fake");
    fs::write(&fake, "64").expect("make the fake");
    let container = runtime.start(&bundle);
    let real = quick("nsenter", &["-t", &container.pid().to_string(), "-n", "cat", parameter]);
    assert_eq!((peek(&fake).as_str(), real.text()), ("64", "33"), "the fake, and the namespace's own");
    // The control: who writes by the path hits the fake.
    container.exec(&[], &["/bin/sh", "-c", &format!("echo 34 >{parameter}")]).done();
    assert_eq!(peek(&fake), "34", "the control is not hit: the fake is not in the way");
}

/// CVE-2025-52565, CVE-2026-88264: `/dev/console` of the image is a link, and the terminal is bound to where it leads.
#[test]
fn a_linked_console_is_not_followed() {
    needs!(busybox(), program("script"));
    let hit = |runtime: &Runtime, to: &str| {
        let bundle = Bundle::shell("test -c /etc/precious && echo hit")
            .with(|config| {
                without_mount(config, "/dev");
                config["process"]["terminal"] = json!(true);
                let pts = json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] });
                config["mounts"].as_array_mut().expect("a list").push(pts);
            });
        fs::write(bundle.root().join("etc/precious"), "precious").expect("write the target");
        symlink("pts/ptmx", bundle.root().join("dev/ptmx")).expect("make a link");
        symlink(to, bundle.root().join("dev/console")).expect("make the link");
        let line = runtime.run_line(&bundle);
        let shown = quick("script", &["-qec", &line, "/dev/null"]).stdout;
        shown.contains("hit") || peek(bundle.root().join("etc/precious")) != "precious"
    };
    for to in ["/etc/precious", "../etc/precious"] {
        assert!(!hit(&Runtime::under_test(), to), "{to}: the terminal lies over the link's target");
        if let Some(victim) = victim() {
            assert!(hit(&victim, to), "the control is not hit: the attack does not work any more");
        }
    }
}

/// CVE-2015-3627, CVE-2015-3629: the names of the standard streams in the image lead to a file of the host; the second
/// start finds what the first one left.
#[test]
fn linked_standard_streams_are_not_opened() {
    needs!(busybox(), program("script"));
    let runtime = Runtime::under_test();
    let host = Scratch::new("decoy");
    let decoy = host.join("precious");
    fs::write(&decoy, "precious").expect("write the decoy");
    let far = format!("../../../../../../../../../../..{}", decoy.display());
    for (terminal, own_dev) in [(false, true), (false, false), (true, true), (true, false)] {
        let bundle = Bundle::shell("echo out; echo err >&2").with(|config| {
            config["process"]["terminal"] = json!(terminal);
            if own_dev {
                without_mount(config, "/dev");
            }
        });
        let dev = bundle.root().join("dev");
        fs::create_dir_all(dev.join("fd")).expect("make the directory");
        for name in ["stdin", "stdout", "stderr", "tty", "fd/0", "fd/1", "fd/2"] {
            let to = if name.contains('t') { &far } else { decoy.to_str().expect("UTF-8") };
            symlink(to, dev.join(name)).expect("make a link");
        }
        let line = runtime.run_line(&bundle);
        for _ in 0..2 {
            let shown = quick("script", &["-qec", &line, "/dev/null"]).stdout;
            assert!(shown.contains("out") || shown.contains("/dev"), "neither done nor refused: {shown}");
            assert_eq!(peek(&decoy), "precious", "terminal {terminal}, own /dev {own_dev}");
        }
    }
}
