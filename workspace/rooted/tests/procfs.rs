//! procfs by a handle that nothing on `/proc` can fool.
#![allow(clippy::unwrap_used)] // Functions of a test are tests.

mod support;

use hull_rooted::{Entry, Error, Proc, Root, View, prove_cwd_inside};
use hull_sys::fs::{self, Mode, OFlags};
use hull_sys::{CWD, CloneFlags, mount, process};
use hull_testkit::{Scratch, gate, needs};
use std::os::fd::{AsFd, OwnedFd};
use support::{child_says, line, take_away};

fn tmpfs() -> OwnedFd {
    let context = mount::fsopen("tmpfs").unwrap();
    mount::fsconfig_create(context.as_fd()).unwrap();
    mount::fsmount(context.as_fd(), 0).unwrap()
}

fn place(path: &str) -> OwnedFd {
    fs::openat(CWD, path, OFlags::PATH, Mode::empty()).unwrap()
}

#[test]
fn another_file_system_or_a_part_of_procfs_is_refused() {
    let refused = |path| Proc::from_fd(place(path)).unwrap_err().to_string();
    assert_eq!(refused("/sys"), "procfs is another file system");
    assert_eq!(refused("/proc/self/"), "procfs is not there as a whole: a directory of it is in its place");
}

#[test]
fn links_to_open_files_and_paths_that_climb_are_refused() {
    let proc = Proc::open(View::Whole).unwrap();
    for link in ["exe", "cwd", "root", "ns/mnt", "fd/0", "root/etc/passwd", "cwd/."] {
        assert!(proc.open_self(link, OFlags::RDONLY).unwrap_err().is(libc::ELOOP), "{link}");
    }
    for path in ["../1/status", "/etc/passwd", "a/../b", ".."] {
        for entry in [Entry::Own(path), Entry::Parameter(path), Entry::Top(path), Entry::OwnThread(path)] {
            assert!(matches!(proc.open_entry(entry, OFlags::RDONLY), Err(Error::Path { .. })), "{entry:?}");
        }
    }
    let namespace = proc.open_link(Entry::Own("ns/mnt"), OFlags::RDONLY).unwrap();
    assert_eq!(hull_sys::namespace::namespace_type(namespace.as_fd()).unwrap(), CloneFlags::NEWNS);
}

#[test]
fn what_is_written_is_read_back() {
    needs!(gate::root(), gate::alone());
    let said = child_says(CloneFlags::NEWNET | CloneFlags::NEWIPC, || {
        let proc = Proc::open(View::Whole).unwrap();
        let kept = proc.write(Entry::Own("oom_score_adj"), b" 500\n");
        let ports = proc.write(Entry::Parameter("net/ipv4/ip_local_reserved_ports"), b"8081,8080");
        let hexadecimal = proc.write(Entry::Parameter("kernel/shm_rmid_forced"), b"0x1");
        let cut = proc.write(Entry::Own("comm"), b"a-name-of-more-than-fifteen");
        let unreadable = proc.write(Entry::Own("clear_refs"), b"1");
        let trigger = proc.write(Entry::Parameter("net/ipv4/route/flush"), b"1");
        let refused = proc.write(Entry::Own("oom_score_adj"), b"many");
        // The kernel cuts the name: the second write changes nothing, as if it had gone elsewhere.
        let unkept = proc.write(Entry::Own("comm"), b"a-name-of-more-than-fifteen");
        [kept, ports, hexadecimal, cut, unreadable, trigger, refused, unkept].map(line).join("\n")
    });
    let expected = [
        "Confirmed",
        "Confirmed",
        "Confirmed",
        "Adjusted",
        "Unreadable",
        "Unreadable",
        "write \"self/oom_score_adj\": write: Invalid argument (os error 22)",
        "\"self/comm\" reads \"a-name-of-more-\" after \"a-name-of-more-than-fifteen\" was written",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_fake_file_system_on_proc_gets_no_write() {
    needs!(gate::root(), gate::alone());
    let said = child_says(CloneFlags::NEWNS, || {
        let fake = tmpfs();
        for directory in ["self", "self/attr", "thread-self"] {
            fs::mkdirat(fake.as_fd(), directory, Mode::from_raw_mode(0o755)).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::RDWR;
        let decoy =
            fs::openat(fake.as_fd(), "self/oom_score_adj", flags, Mode::from_raw_mode(0o644)).unwrap();
        mount::move_mount(fake.as_fd(), place("/proc").as_fd()).unwrap();
        // The careless way is caught.
        std::fs::write("/proc/self/oom_score_adj", "300").unwrap();
        let careless = hull_sys::io::read_to_limit(decoy.as_fd(), 64).unwrap();
        fs::ftruncate(decoy.as_fd(), 0).unwrap();

        let proc = Proc::open(View::Whole).unwrap();
        let written = proc.write(Entry::Own("oom_score_adj"), b"400");
        let left = fs::fstat(decoy.as_fd()).unwrap().st_size;
        // Without the right to make a procfs only the fake one is there, and it is refused.
        hull_sys::capability::set(&Default::default()).unwrap();
        let fallen_back = Proc::open(View::Whole).map(|_| "opened");
        format!("{careless:?} {} {left} {}", line(written), line(fallen_back))
    });
    assert_eq!(said, "[51, 48, 48] Confirmed 0 procfs is another file system");
}

#[test]
fn a_file_mounted_over_an_entry_is_not_entered() {
    needs!(gate::root(), gate::alone());
    let said = child_says(CloneFlags::NEWNS, || {
        let pid = process::effective_pid();
        let harmless = mount::open_tree(CWD, format!("/proc/{pid}/sched"), true, false).unwrap();
        mount::move_mount(harmless.as_fd(), place(&format!("/proc/{pid}/oom_score_adj")).as_fd()).unwrap();
        let visible = Proc::from_fd(place("/proc")).unwrap();
        let over = visible.open_self("oom_score_adj", OFlags::WRONLY).map(drop);
        let beside = visible.open_self("comm", OFlags::WRONLY).map(drop);
        // One's own procfs has nothing mounted on it.
        let own = Proc::open(View::Whole).unwrap().write(Entry::Own("oom_score_adj"), b"450");
        [line(over), line(beside), line(own)].join("; ")
    });
    let crossing = "open \"self/oom_score_adj\": openat2: Cross-device link (os error 18)";
    assert_eq!(said, format!("{crossing}; (); Confirmed"));
}

#[test]
fn without_any_right_the_mounted_procfs_serves() {
    needs!(gate::root(), gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        hull_sys::identity::set_groups(&[]).unwrap();
        hull_sys::identity::set_gids(1000, 1000, 1000).unwrap();
        hull_sys::identity::set_uids(1000, 1000, 1000).unwrap();
        let proc = Proc::open(View::Processes).unwrap();
        let status = String::from_utf8(proc.read(Entry::Own("status")).unwrap()).unwrap();
        status.lines().find(|line| line.starts_with("Uid:")).unwrap().to_owned()
    });
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["Uid:", "1000", "1000", "1000", "1000"]);
}

#[test]
fn without_the_mount_calls_the_mounted_procfs_serves() {
    needs!(gate::root(), gate::alone());
    let said = child_says(CloneFlags::NEWNS, || {
        take_away(libc::SYS_fsopen, libc::ENOSYS);
        let copy = Proc::open(View::Processes).unwrap();
        // Only a copy shows everything although it was asked for processes only, and is mounted nowhere.
        let whole = line(copy.read(Entry::Parameter("kernel/ostype")).map(|text| text.len()));
        let id = mount::plain_mount_id(copy.as_fd()).unwrap();
        let detached = copy.mounts().unwrap().iter().all(|entry| entry.id != id);
        take_away(libc::SYS_open_tree, libc::ENOSYS);
        let mounted = Proc::open(View::Processes).unwrap();
        let id = mount::plain_mount_id(mounted.as_fd()).unwrap();
        let attached = mounted.mounts().unwrap().iter().any(|entry| entry.id == id);
        format!("{whole} {detached} {attached}")
    });
    assert_eq!(said, "6 true true");
}

#[test]
fn in_a_user_namespace_the_copy_brings_its_locked_mounts_and_no_lookup_enters_them() {
    needs!(gate::root(), gate::alone());
    let said = child_says(CloneFlags::NEWNS, || {
        let cover = tmpfs();
        mount::move_mount(cover.as_fd(), place("/proc/sys").as_fd()).unwrap();
        // Only processes of this pid namespace's own user namespace may make a procfs of it.
        hull_sys::namespace::unshare(CloneFlags::NEWUSER | CloneFlags::NEWNS).unwrap();
        let proc = Proc::open(View::Whole).unwrap();
        let id = mount::plain_mount_id(proc.as_fd()).unwrap();
        let detached = proc.mounts().unwrap().iter().all(|entry| entry.id != id);
        let own = line(proc.read(Entry::Own("comm")).map(|name| !name.is_empty()));
        format!("{detached} {own} {}", line(proc.open_sys("kernel/ostype", OFlags::RDONLY)))
    });
    let crossing = "open \"sys/kernel/ostype\": openat2: Cross-device link (os error 18)";
    assert_eq!(said, format!("true true {crossing}"));
}

#[test]
fn the_processes_view_hides_kernel_parameters() {
    needs!(gate::root());
    let proc = Proc::open(View::Processes).unwrap();
    assert!(proc.open_sys("kernel/ostype", OFlags::RDONLY).unwrap_err().is(libc::ENOENT));
    let proc = Proc::open(View::Whole).unwrap();
    assert_eq!(proc.read(Entry::Parameter("kernel/ostype")).unwrap(), b"Linux\n");
}

#[test]
fn the_handle_shows_the_pid_namespace_it_was_opened_in() {
    needs!(gate::root(), gate::alone());
    let outer = Proc::open(View::Processes).unwrap();
    let (ear, mouth) = hull_sys::socket::seqpacket_pair().unwrap();
    let said = child_says(CloneFlags::NEWPID | CloneFlags::NEWNS, || {
        let inner = Proc::open(View::Processes).unwrap();
        hull_sys::socket::send_with_fds(mouth.as_fd(), b"p", &[inner.as_fd()]).unwrap();
        let own = |proc: &Proc| {
            let stat = String::from_utf8(proc.read(Entry::Own("stat")).unwrap()).unwrap();
            stat.split(' ').next().unwrap().parse::<i32>().unwrap()
        };
        format!("{} {} {}", process::effective_pid(), own(&inner), own(&outer) > 1)
    });
    assert_eq!(said, "1 1 true");
    let got = hull_sys::socket::recv_with_fds(ear.as_fd(), &mut [0; 8], 1).unwrap();
    let inner = Proc::from_fd(got.fds.into_iter().next().unwrap()).unwrap();
    assert!(inner.open_self("stat", OFlags::RDONLY).unwrap_err().is(libc::ENOENT), "we are not in there");
}

#[test]
fn a_leaked_directory_is_no_current_directory_of_the_container() {
    needs!(gate::root(), gate::alone());
    let scratch = Scratch::new("cwd");
    std::fs::create_dir_all(scratch.join("root")).unwrap();
    let said = child_says(CloneFlags::NEWNS, || {
        let proc = Proc::open(View::Whole).unwrap();
        let leaked = place("/usr");
        mount::move_mount(tmpfs().as_fd(), place(scratch.join("root").to_str().unwrap()).as_fd()).unwrap();
        let root = Root::at(scratch.join("root")).unwrap();
        root.open_or_create_dir("work/deep", 0o755).unwrap();
        fs::fchdir(root.as_fd()).unwrap();
        mount::pivot_root_here().unwrap();
        mount::unmount_here().unwrap();
        fs::chdir("/work/deep").unwrap();
        let inside = prove_cwd_inside(&proc);
        fs::fchdir(leaked.as_fd()).unwrap();
        let outside = prove_cwd_inside(&proc);
        [line(inside), line(outside)].join("; ")
    });
    let outside = "the current directory \"(unreachable)/usr\" is outside the container";
    assert!(said == format!("\"/work/deep\"; {outside}"), "{said}");
}

#[test]
fn the_table_of_mounts_has_what_was_mounted_under_its_own_name() {
    needs!(gate::root(), gate::alone());
    let scratch = Scratch::new("mounts");
    let target = scratch.join("with space\\and\ttab#");
    std::fs::create_dir_all(&target).unwrap();
    let said = child_says(CloneFlags::NEWNS, || {
        let mounted = tmpfs();
        let id = mount::plain_mount_id(mounted.as_fd()).unwrap();
        let at = fs::openat(CWD, &target, OFlags::PATH, Mode::empty()).unwrap();
        mount::move_mount(mounted.as_fd(), at.as_fd()).unwrap();
        let mounts = Proc::open(View::Whole).unwrap().mounts().unwrap();
        let found = mounts.iter().find(|entry| entry.id == id).unwrap();
        format!("{} {} {:?}", found.mount_point == target, found.fs_type, found.shared)
    });
    assert_eq!(said, "true tmpfs None");
}

#[test]
fn a_file_is_named_and_opened_anew_through_its_handle() {
    let scratch = Scratch::new("link");
    let path = scratch.join("file");
    std::fs::write(&path, "text").unwrap();
    let proc = Proc::open(View::Processes).unwrap();
    let handle = place(path.to_str().unwrap());
    assert_eq!(proc.fd_link(handle.as_fd()).unwrap(), path);
    let file = proc.reopen(handle.as_fd(), OFlags::RDONLY).unwrap();
    assert_eq!(hull_sys::io::read_to_limit(file.as_fd(), 9).unwrap(), b"text");
}
