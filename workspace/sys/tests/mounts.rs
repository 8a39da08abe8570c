//! Namespaces and mounts, in children with mount namespaces of their own.
#![allow(clippy::unwrap_used)] // Functions of a test are tests.

mod support;

use hull_sys::fs::{self, FileType, Mode, OFlags};
use hull_sys::mount::{self, MountAttr};
use hull_sys::process::{self, CloneRequest};
use hull_sys::{CWD, CloneFlags, fd, io, namespace, uts};
use hull_testkit::{Scratch, gate, needs};
use std::os::fd::{AsFd, OwnedFd};
use support::{child_says, line, place};

fn tmpfs(options: &[(&str, &str)]) -> hull_sys::Result<OwnedFd> {
    let context = mount::fsopen("tmpfs")?;
    for (key, value) in options {
        mount::fsconfig_string(context.as_fd(), *key, *value)?;
    }
    mount::fsconfig_create(context.as_fd())?;
    mount::fsmount(context.as_fd(), 0)
}

fn create(directory: &OwnedFd, name: &str) -> hull_sys::Result<OwnedFd> {
    fs::openat(directory.as_fd(), name, OFlags::CREATE | OFlags::RDWR, Mode::from_raw_mode(0o600))
}

/// The options of the mount at `path` as the kernel tells them.
fn mountinfo(path: &str) -> String {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table.lines().rev().find(|line| line.split(' ').nth(4) == Some(path));
    line.unwrap().split(' ').skip(5).collect::<Vec<_>>().join(" ")
}

fn namespace_file(name: &str) -> OwnedFd {
    fs::openat(CWD, format!("/proc/thread-self/ns/{name}"), OFlags::RDONLY, Mode::empty()).unwrap()
}

#[test]
fn a_namespace_is_left_and_joined_again() {
    needs!(gate::root(), gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        let name = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
        let (outside, before) = (namespace_file("uts"), name());
        namespace::unshare(CloneFlags::NEWUTS).unwrap();
        uts::set_host_name(b"hull-test").unwrap();
        uts::set_domain_name(b"hull.test").unwrap();
        let domain = std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap().trim().to_owned();
        let inside = name();
        let wrong = line(namespace::setns(outside.as_fd(), CloneFlags::NEWNET));
        namespace::setns(outside.as_fd(), CloneFlags::NEWUTS).unwrap();
        format!("{inside} {domain} {wrong} {}", name() == before)
    });
    assert_eq!(said, format!("hull-test hull.test setns {} true", libc::EINVAL));
}

#[test]
fn several_namespaces_of_a_process_are_joined_by_its_pidfd() {
    needs!(gate::root(), gate::alone());
    let (silence, hold) = fd::pipe().unwrap();
    let flags = CloneFlags::NEWUTS | CloneFlags::NEWIPC;
    let request = CloneRequest { flags, ..CloneRequest::default() };
    let other = process::spawn(&request, || {
        fd::close_from(hull_sys_number(&hold)).unwrap();
        poll(&silence);
        process::exit_now(0)
    })
    .unwrap();
    let links = |who: &str| {
        ["uts", "ipc", "net"].map(|name| std::fs::read_link(format!("/proc/{who}/ns/{name}")).unwrap())
    };
    let theirs = links(&other.pid.to_string());
    let said = child_says(CloneFlags::empty(), || {
        namespace::setns(other.pidfd.as_fd(), flags).unwrap();
        format!("{}", links("self") == theirs)
    });
    drop(hold);
    process::wait(other.pidfd.as_fd()).unwrap();
    assert_eq!(said, "true");
}

fn hull_sys_number(fd: &OwnedFd) -> u32 {
    use std::os::fd::AsRawFd;
    fd.as_raw_fd() as u32
}

fn poll(silence: &OwnedFd) {
    hull_sys::poll::wait_readable(silence.as_fd(), None).unwrap();
}

#[test]
fn a_namespace_tells_its_kind_and_its_owner() {
    let kinds = [
        ("user", CloneFlags::NEWUSER),
        ("mnt", CloneFlags::NEWNS),
        ("pid", CloneFlags::NEWPID),
        ("net", CloneFlags::NEWNET),
        ("ipc", CloneFlags::NEWIPC),
        ("uts", CloneFlags::NEWUTS),
        ("cgroup", CloneFlags::NEWCGROUP),
        ("time", CloneFlags::NEWTIME),
    ];
    for (name, kind) in kinds {
        let file = namespace_file(name);
        assert_eq!(namespace::namespace_type(file.as_fd()).unwrap(), kind, "{name}");
    }
    let owner = namespace::namespace_owner(namespace_file("mnt").as_fd()).unwrap();
    assert_eq!(namespace::namespace_type(owner.as_fd()).unwrap(), CloneFlags::NEWUSER);
    assert!(fd::is_cloexec(owner.as_fd()).unwrap());
    let above = namespace::namespace_parent(namespace_file("user").as_fd());
    assert!(above.unwrap_err().is(libc::EPERM), "nothing is above the first one, or not for us");
    assert!(namespace::namespace_type(place("/").as_fd()).unwrap_err().is(libc::EBADF), "no ioctl on O_PATH");
}

#[test]
fn a_set_of_namespaces_is_a_set() {
    let mut set = CloneFlags::NEWNS | CloneFlags::NEWPID;
    set |= CloneFlags::NEWUTS;
    assert!(set.contains(CloneFlags::NEWNS | CloneFlags::NEWUTS) && !set.contains(CloneFlags::NEWUSER));
    assert!((set & CloneFlags::NEWIPC).is_empty());
    assert_eq!(set & !CloneFlags::NEWNS, CloneFlags::NEWPID | CloneFlags::NEWUTS);
    assert_eq!(CloneFlags::from_bits(set.bits()), set);
}

#[test]
fn a_new_file_system_has_its_options_and_attributes() {
    needs!(gate::root(), gate::alone());
    let scratch = Scratch::new("tmpfs");
    let target = scratch.path().to_str().unwrap();
    let said = child_says(CloneFlags::NEWNS, || {
        let context = mount::fsopen("tmpfs").unwrap();
        mount::fsconfig_string(context.as_fd(), "source", "ours").unwrap();
        mount::fsconfig_string(context.as_fd(), "size", "64k").unwrap();
        mount::fsconfig_flag(context.as_fd(), "ro").unwrap();
        mount::fsconfig_create(context.as_fd()).unwrap();
        let attributes = mount::MOUNT_ATTR_NODEV | mount::MOUNT_ATTR_NOSYMFOLLOW;
        let mounted = mount::fsmount(context.as_fd(), attributes).unwrap();
        let cloexec = fd::is_cloexec(mounted.as_fd()).unwrap() && fd::is_cloexec(context.as_fd()).unwrap();
        mount::move_mount(mounted.as_fd(), place(target).as_fd()).unwrap();
        format!("{cloexec} {}", mountinfo(target))
    });
    assert_eq!(said, "true rw,nodev,relatime,nosymfollow - tmpfs ours ro,size=64k");
}

#[test]
fn the_kernels_reason_for_a_refused_option_can_be_read() {
    needs!(gate::root());
    let context = mount::fsopen("tmpfs").unwrap();
    assert!(mount::fsconfig_string(context.as_fd(), "no-such-option", "1").unwrap_err().is(libc::EINVAL));
    let log = mount::fs_log(context.as_fd());
    assert!(log.contains("no-such-option"), "{log}");
    assert_eq!(mount::fs_log(context.as_fd()), "", "each message once");
    assert!(mount::fsopen("no-such-type").unwrap_err().is(libc::ENODEV));
}

#[test]
fn attributes_of_a_detached_tree_hold_for_all_of_it_before_anybody_sees_it() {
    needs!(gate::root(), gate::alone());
    let scratch = Scratch::new("attr");
    std::fs::create_dir_all(scratch.join("from/below")).unwrap();
    std::fs::create_dir(scratch.join("to")).unwrap();
    let said = child_says(CloneFlags::NEWNS, || {
        let below = tmpfs(&[]).unwrap();
        mount::move_mount(below.as_fd(), place(scratch.join("from/below")).as_fd()).unwrap();
        let flat = mount::open_tree(CWD, scratch.join("from"), true, false).unwrap();
        let tree = mount::open_tree_fd(place(scratch.join("from")).as_fd(), true, true).unwrap();
        let read_only = MountAttr { set: mount::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
        mount::mount_setattr(tree.as_fd(), true, &read_only).unwrap();
        mount::move_mount(tree.as_fd(), place(scratch.join("to")).as_fd()).unwrap();
        let into = |path: &str| line(create(&place(scratch.join(path)), "file"));
        let of_flat = {
            let inside = fs::openat(flat.as_fd(), "below", OFlags::PATH, Mode::empty()).unwrap();
            fs::fs_type(inside.as_fd()).unwrap() == fs::fs_type(flat.as_fd()).unwrap()
        };
        format!("{} {} {} {of_flat}", into("to"), into("to/below"), into("from/below"))
    });
    let refused = format!("openat {}", libc::EROFS);
    assert_eq!(said, format!("{refused} {refused} ok true"));
}

#[test]
fn links_are_not_followed_on_a_mount_that_says_so() {
    needs!(gate::root(), gate::alone());
    let said = child_says(CloneFlags::NEWNS, || {
        let mounted = tmpfs(&[]).unwrap();
        create(&mounted, "file").unwrap();
        fs::symlinkat("file", mounted.as_fd(), "link").unwrap();
        let through = || line(fs::openat(mounted.as_fd(), "link", OFlags::RDONLY, Mode::empty()));
        let before = through();
        let change = MountAttr { set: mount::MOUNT_ATTR_NOSYMFOLLOW, ..MountAttr::default() };
        mount::mount_setattr(mounted.as_fd(), false, &change).unwrap();
        let during = through();
        let change = MountAttr { clear: mount::MOUNT_ATTR_NOSYMFOLLOW, ..MountAttr::default() };
        mount::mount_setattr(mounted.as_fd(), false, &change).unwrap();
        format!("{before} {during} {}", through())
    });
    assert_eq!(said, format!("ok openat {} ok", libc::ELOOP));
}

#[test]
fn ids_go_through_the_maps_of_a_user_namespace() {
    needs!(gate::root(), gate::alone());
    let (silence, hold) = fd::pipe().unwrap();
    let request = CloneRequest { flags: CloneFlags::NEWUSER, ..CloneRequest::default() };
    let mapped = process::spawn(&request, || {
        fd::close_from(hull_sys_number(&hold)).unwrap();
        poll(&silence);
        process::exit_now(0)
    })
    .unwrap();
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", mapped.pid), "0 100000 65536").unwrap();
    }
    let user = format!("/proc/{}/ns/user", mapped.pid);
    let user = fs::openat(CWD, user, OFlags::RDONLY, Mode::empty()).unwrap();
    let said = child_says(CloneFlags::NEWNS, || {
        let mounted = tmpfs(&[]).unwrap();
        let file = create(&mounted, "file").unwrap();
        fs::fchown(file.as_fd(), 7, 9).unwrap();
        let attr = MountAttr { userns: Some(user.as_fd()), ..MountAttr::default() };
        let copy = mount::open_tree_fd(mounted.as_fd(), true, false).unwrap();
        mount::mount_setattr(copy.as_fd(), false, &attr).unwrap();
        let seen = fs::statat(copy.as_fd(), "file").unwrap();
        format!("{} {}", seen.st_uid, seen.st_gid)
    });
    drop(hold);
    process::wait(mapped.pidfd.as_fd()).unwrap();
    assert_eq!(said, "100007 100009");
}

#[test]
fn a_mounts_number_is_the_tables_and_its_id_is_another() {
    needs!(gate::root(), gate::alone());
    let scratch = Scratch::new("id");
    let target = scratch.path().to_str().unwrap();
    let said = child_says(CloneFlags::NEWNS, || {
        let mounted = tmpfs(&[]).unwrap();
        mount::move_mount(mounted.as_fd(), place(target).as_fd()).unwrap();
        let number = mount::plain_mount_id(mounted.as_fd()).unwrap();
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let listed = table.lines().find(|line| line.contains(target)).unwrap();
        let same_tree =
            mount::mount_id(place(target).as_fd()).unwrap() == mount::mount_id(mounted.as_fd()).unwrap();
        let copy = mount::open_tree_fd(mounted.as_fd(), true, false).unwrap();
        let other = mount::mount_id(copy.as_fd()).unwrap() == mount::mount_id(mounted.as_fd()).unwrap();
        format!("{} {same_tree} {other}", listed.starts_with(&format!("{number} ")))
    });
    assert_eq!(said, "true true false");
}

#[test]
fn propagation_is_what_was_set() {
    needs!(gate::root(), gate::alone());
    let scratch = Scratch::new("shared");
    let target = scratch.path().to_str().unwrap();
    let said = child_says(CloneFlags::NEWNS, || {
        let mounted = tmpfs(&[]).unwrap();
        mount::move_mount(mounted.as_fd(), place(target).as_fd()).unwrap();
        let private = mountinfo(target).contains("shared:");
        let attr = MountAttr { propagation: mount::MS_SHARED, ..MountAttr::default() };
        mount::mount_setattr(place(target).as_fd(), false, &attr).unwrap();
        let shared = mountinfo(target).contains("shared:");
        mount::set_propagation_path(target, false, mount::MS_SLAVE).unwrap();
        let alone = mountinfo(target);
        mount::set_propagation_path(target, false, mount::MS_UNBINDABLE).unwrap();
        let unbindable = line(mount::open_tree(CWD, target, true, false));
        format!("{private} {shared} {} {unbindable}", alone.contains("shared:"))
    });
    assert_eq!(said, format!("false true false open_tree {}", libc::EINVAL));
}

#[test]
fn the_new_root_is_all_that_is_left_after_the_pivot() {
    needs!(gate::root(), gate::alone());
    let scratch = Scratch::new("pivot");
    let target = scratch.path().to_str().unwrap();
    let said = child_says(CloneFlags::NEWNS, || {
        let root = tmpfs(&[]).unwrap();
        create(&root, "mark").unwrap();
        mount::move_mount(root.as_fd(), place(target).as_fd()).unwrap();
        fs::fchdir(root.as_fd()).unwrap();
        mount::pivot_root_here().unwrap();
        mount::unmount_here().unwrap();
        fs::chdir("/").unwrap();
        let root = fs::openat(CWD, "/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let names: Vec<_> = fs::read_directory(root.as_fd()).unwrap().into_iter().map(|e| e.name).collect();
        format!("{names:?} {:?} {}", fs::getcwd().unwrap(), line(mount::unmount_detach("/none")))
    });
    assert_eq!(said, format!("[\"mark\"] \"/\" umount2 {}", libc::ENOENT));
}

#[test]
fn unmounting_follows_no_link() {
    needs!(gate::root(), gate::alone());
    let scratch = Scratch::new("umount");
    std::fs::create_dir(scratch.join("target")).unwrap();
    std::os::unix::fs::symlink("target", scratch.join("link")).unwrap();
    let said = child_says(CloneFlags::NEWNS, || {
        let mounted = tmpfs(&[]).unwrap();
        mount::move_mount(mounted.as_fd(), place(scratch.join("target")).as_fd()).unwrap();
        let by_link = line(mount::unmount_detach(scratch.join("link")));
        format!("{by_link} {}", line(mount::unmount_detach(scratch.join("target"))))
    });
    assert_eq!(said, format!("umount2 {} ok", libc::EINVAL));
}

#[test]
fn another_root_can_be_taken_for_lookups() {
    needs!(gate::root(), gate::alone());
    let scratch = Scratch::new("chroot");
    std::fs::write(scratch.join("mark"), "inside").unwrap();
    let said = child_says(CloneFlags::empty(), || {
        fs::chroot(scratch.path()).unwrap();
        fs::chdir("/").unwrap();
        std::fs::read_to_string("/mark").unwrap()
    });
    assert_eq!(said, "inside");
}

#[test]
fn a_file_system_is_made_from_an_open_file() {
    needs!(gate::root(), gate::alone());
    // overlay takes its layers as fds since 6.13; before, the option is unknown and says so.
    let said = child_says(CloneFlags::NEWNS, || {
        let (one, two) = (tmpfs(&[]).unwrap(), tmpfs(&[]).unwrap());
        create(&one, "a").unwrap();
        create(&two, "b").unwrap();
        let context = mount::fsopen("overlay").unwrap();
        for layer in [&one, &two] {
            if let Err(error) = mount::fsconfig_fd(context.as_fd(), "lowerdir+", layer.as_fd()) {
                return format!("skip {error}");
            }
        }
        mount::fsconfig_create(context.as_fd()).unwrap();
        let merged = mount::fsmount(context.as_fd(), 0).unwrap();
        let found = ["a", "b"].map(|name| fs::statat(merged.as_fd(), name).is_ok());
        format!("{found:?}")
    });
    needs!(if said.starts_with("skip") { Err(said.clone()) } else { Ok(()) });
    assert_eq!(said, "[true, true]");
}

#[test]
fn this_kernel_has_the_mount_calls() {
    assert!(mount::is_supported());
}

#[test]
fn a_node_is_made_as_asked() {
    needs!(gate::root());
    let scratch = Scratch::new("node");
    let directory = place(scratch.path());
    let device = fs::makedev(1, 5);
    fs::mknodat(directory.as_fd(), "zero", FileType::CharacterDevice, Mode::from_raw_mode(0o600), device)
        .unwrap();
    let zero = fs::openat(directory.as_fd(), "zero", OFlags::RDONLY, Mode::empty());
    match zero {
        Ok(zero) => assert_eq!(io::read(zero.as_fd(), &mut [1; 4]).unwrap(), 4),
        // The scratch directory may lie on a file system without devices.
        Err(error) => assert!(error.is(libc::EACCES), "{error}"),
    }
    let found = fs::statat(directory.as_fd(), "zero").unwrap().st_rdev;
    assert_eq!((fs::major(found), fs::minor(found)), (1, 5));
}

#[test]
fn options_of_a_mounted_file_system_are_changed_through_its_root() {
    needs!(gate::root(), gate::alone());
    let said = child_says(CloneFlags::NEWNS, || {
        let mounted = tmpfs(&[("size", "64k")]).unwrap();
        let context = mount::fspick(mounted.as_fd()).unwrap();
        mount::fsconfig_string(context.as_fd(), "size", "128k").unwrap();
        mount::fsconfig_reconfigure(context.as_fd()).unwrap();
        let found = fs::fstatfs(mounted.as_fd()).unwrap();
        format!(
            "{} {}",
            found.f_blocks * u64::try_from(found.f_bsize).unwrap(),
            fd::is_cloexec(context.as_fd()).unwrap()
        )
    });
    assert_eq!(said, "131072 true");
}

#[test]
fn the_loopback_of_a_new_network_namespace_comes_up() {
    needs!(gate::root(), gate::alone());
    let said = child_says(CloneFlags::NEWNET, || {
        let state =
            || std::net::UdpSocket::bind("127.0.0.1:0").and_then(|own| own.send_to(b"x", own.local_addr()?));
        let before = state().is_ok();
        hull_sys::network::bring_up("lo").unwrap();
        let missing = line(hull_sys::network::bring_up("none"));
        let long = line(hull_sys::network::bring_up("a-name-longer-than-any"));
        format!("{before} {} {missing} {long}", state().is_ok())
    });
    assert_eq!(said, format!("false true ioctl {} ioctl {}", libc::ENODEV, libc::ENAMETOOLONG));
}
