//! Effects of the process calls, on children of the test itself.
#![allow(clippy::unwrap_used)] // Functions of a test are tests.

mod support;

use hull_sys::fs::{Mode, OFlags, openat};
use hull_sys::process::{self, CStrings, CloneRequest, WaitStatus};
use hull_sys::{CWD, CloneFlags, Pid, fd, io, poll};
use hull_testkit::{gate, needs, place::unique};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use support::{child_says, line, status, take_away};

/// Long enough for anything, short enough not to hang a run for ever.
fn a_minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn strings(list: &[&str]) -> CStrings {
    CStrings::new(list.iter().map(|text| CString::new(*text).unwrap()).collect())
}

#[test]
fn a_child_ends_with_the_code_it_gives() {
    needs!(gate::alone());
    let child = process::spawn(&CloneRequest::default(), || process::exit_now(7)).unwrap();
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), WaitStatus::Exited(7));
    assert!(fd::is_cloexec(child.pidfd.as_fd()).unwrap());
}

#[test]
fn abort_in_the_child_ends_the_child_and_not_its_parent() {
    needs!(gate::alone());
    let child = process::spawn(&CloneRequest::default(), || std::process::abort()).unwrap();
    let status = process::wait(child.pidfd.as_fd()).unwrap();
    assert_eq!(status, WaitStatus::Signaled(libc::SIGABRT));
    assert_eq!(status.code(), 134);
}

#[test]
fn a_child_in_borrowed_memory_has_what_else_a_process_has_to_itself() {
    needs!(gate::alone());
    let (ear, mouth) = fd::pipe().unwrap();
    let path = CString::new("/bin/sh").unwrap();
    let args = strings(&["sh", "-c", "pwd; exit 3"]);
    let here = std::env::current_dir().unwrap();
    let child = process::spawn_program(|| {
        hull_sys::fs::chdir(c"/usr").unwrap();
        hull_sys::signal::unblock_all().unwrap();
        fd::dup_onto(mouth.as_fd(), 1).unwrap();
        process::execve(&path, &args, &strings(&[]));
        process::exit_now(127)
    })
    .unwrap();
    drop(mouth);
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), WaitStatus::Exited(3));
    assert!(fd::is_cloexec(child.pidfd.as_fd()).unwrap());
    let mut text = [0; 16];
    let got = io::read(ear.as_fd(), &mut text).unwrap();
    assert_eq!(&text[..got], b"/usr\n");
    assert_eq!(std::env::current_dir().unwrap(), here);
}

#[test]
fn end_of_a_child_in_borrowed_memory_is_its_own() {
    needs!(gate::alone());
    let mut seen = 0;
    let child = process::spawn_program(|| {
        seen = 5;
        process::exit_now(7)
    })
    .unwrap();
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), WaitStatus::Exited(7));
    assert_eq!(seen, 5, "the caller waited for it");
    let child = process::spawn_program(|| std::process::abort()).unwrap();
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), WaitStatus::Signaled(libc::SIGABRT));
    // Abort hits the id that libc remembers: the caller's again once the child has gone.
    let child = process::spawn(&CloneRequest::default(), || {
        process::spawn_program(|| process::exit_now(0)).unwrap();
        std::process::abort()
    })
    .unwrap();
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), WaitStatus::Signaled(libc::SIGABRT));
}

#[test]
fn a_panic_in_the_child_does_not_unwind_into_the_parents_code() {
    needs!(gate::alone());
    let child = process::spawn(&CloneRequest::default(), || {
        std::panic::set_hook(Box::new(|_| {}));
        panic!("on purpose")
    })
    .unwrap();
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), WaitStatus::Signaled(libc::SIGABRT));
}

#[test]
fn a_wait_with_a_deadline_gives_up_on_a_living_child_and_reaps_an_ended_one() {
    needs!(gate::alone());
    let (ear, _mouth) = fd::pipe().unwrap();
    let child = process::spawn(&CloneRequest::default(), || {
        poll::wait_readable(ear.as_fd(), Some(a_minute())).unwrap();
        process::exit_now(0)
    })
    .unwrap();
    let pidfd = child.pidfd.as_fd();
    assert_eq!(process::wait_until(pidfd, Instant::now()).unwrap(), None);
    assert_eq!(process::try_wait(pidfd).unwrap(), None);
    assert_eq!(process::wait_any_child().unwrap(), None);
    assert_eq!(process::pidfd_pid(pidfd).unwrap(), Some(child.pid));
    process::pidfd_send_signal(pidfd, libc::SIGKILL).unwrap();
    assert_eq!(process::wait_until(pidfd, a_minute()).unwrap(), Some(WaitStatus::Signaled(libc::SIGKILL)));
    assert_eq!(process::pidfd_pid(pidfd).unwrap(), None);
    assert!(process::try_wait(pidfd).unwrap_err().is(libc::ECHILD));
    assert!(process::pidfd_send_signal(pidfd, 0).unwrap_err().is(libc::ESRCH));
    assert_eq!(process::wait_any_child().unwrap(), None);
}

#[test]
fn a_sibling_is_the_child_of_the_callers_parent() {
    needs!(gate::alone());
    let own = process::effective_pid();
    let (ear, mouth) = fd::pipe().unwrap();
    let said = child_says(CloneFlags::empty(), || {
        let request = CloneRequest { as_sibling: true, ..CloneRequest::default() };
        let sibling = process::spawn(&request, || {
            let parent = process::parent_pid().to_string();
            io::write_all(mouth.as_fd(), parent.as_bytes()).unwrap();
            process::exit_now(3)
        })
        .unwrap();
        format!("{} {}", sibling.pid, line(process::wait(sibling.pidfd.as_fd())))
    });
    drop(mouth);
    assert_eq!(io::read_to_limit(ear.as_fd(), 32).unwrap(), own.to_string().into_bytes());
    let (pid, refused) = said.split_once(' ').unwrap();
    assert_eq!(refused, format!("waitid {}", libc::ECHILD), "it is not the caller's");
    let pidfd = process::pidfd_open(Pid::from_raw(pid.parse().unwrap())).unwrap();
    assert_eq!(process::wait(pidfd.as_fd()).unwrap(), WaitStatus::Exited(3));
}

#[test]
fn a_child_is_born_in_the_namespaces_it_was_asked_for() {
    needs!(gate::root(), gate::alone());
    let namespaces = || {
        ["pid", "uts", "ipc", "net", "mnt"]
            .map(|name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap())
    };
    let outside = namespaces();
    let flags = CloneFlags::NEWPID | CloneFlags::NEWUTS | CloneFlags::NEWIPC | CloneFlags::NEWNET;
    let said = child_says(flags, || {
        // This procfs is the outer namespace's, where `self` is the child by its outer id.
        let inside = namespaces();
        let differs: Vec<_> =
            inside.iter().zip(&outside).map(|(inside, outside)| inside != outside).collect();
        format!("{} {differs:?}", process::effective_pid())
    });
    assert_eq!(said, "1 [true, true, true, true, false]");
}

#[test]
fn a_child_is_born_in_the_cgroup_it_was_asked_for() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let hierarchy =
        mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
    let hierarchy = hierarchy.map(std::path::PathBuf::from);
    needs!(gate::root(), gate::alone(), hierarchy.clone().map(drop).ok_or(String::from("needs cgroup v2")));
    let name = unique("spawn");
    let directory = hierarchy.unwrap().join(&name);
    std::fs::create_dir(&directory).unwrap();
    let place = openat(CWD, &directory, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let request = CloneRequest { into_cgroup: Some(place.as_fd()), ..CloneRequest::default() };
    let child = process::spawn(&request, || {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        process::exit_now(i32::from(own.lines().any(|line| line.starts_with("0::") && line.ends_with(&name))))
    });
    let ended = child.map(|child| process::wait(child.pidfd.as_fd()));
    std::fs::remove_dir(&directory).unwrap();
    assert_eq!(ended.unwrap().unwrap(), WaitStatus::Exited(1));
}

#[test]
fn a_program_gets_its_arguments_and_environment_by_path_and_by_fd() {
    needs!(gate::path("/bin/sh"), gate::alone());
    let (argv, envp) = (strings(&["sh", "-c", "exit $CODE"]), strings(&["CODE=9"]));
    let shell = openat(CWD, "/bin/sh", OFlags::PATH, Mode::empty()).unwrap();
    let by_path = process::spawn(&CloneRequest::default(), || {
        process::execve(c"/bin/sh", &argv, &envp);
        process::exit_now(1)
    });
    let by_fd = process::spawn(&CloneRequest::default(), || {
        process::execveat(shell.as_fd(), c"", &argv, &envp, libc::AT_EMPTY_PATH);
        process::exit_now(1)
    });
    for child in [by_path, by_fd] {
        assert_eq!(process::wait(child.unwrap().pidfd.as_fd()).unwrap(), WaitStatus::Exited(9));
    }
    let missing = process::execve(c"/no/such", &argv, &envp);
    assert_eq!((missing.call, missing.errno), ("execve", libc::ENOENT));
    assert_eq!(argv.strings().len(), 3);
}

#[test]
fn program_is_given_its_own_number() {
    let argv = strings(&["sh", "-c", "test \"$OWN$OTHER\" = \"$$ other\""]);
    let mut envp = CStrings::with_number(vec![c"OTHER= other".to_owned()], "OWN=");
    // A longer one leaves nothing of itself.
    envp.set_number(i32::MIN);
    for _ in 0..2 {
        let child = process::spawn_program(|| {
            envp.set_number(process::effective_pid().as_raw());
            process::execve(c"/bin/sh", &argv, &envp);
            process::exit_now(1)
        });
        assert_eq!(process::wait(child.unwrap().pidfd.as_fd()).unwrap(), WaitStatus::Exited(0));
    }
}

#[test]
fn orphans_come_to_the_subreaper_and_die_with_their_parent_when_they_asked_to() {
    needs!(gate::alone());
    process::set_child_subreaper(true).unwrap();
    let (ear, mouth) = fd::pipe().unwrap();
    let (_never, silence) = fd::pipe().unwrap();
    let said = child_says(CloneFlags::empty(), || {
        let orphan = process::spawn(&CloneRequest::default(), || {
            process::set_parent_death_signal(libc::SIGKILL).unwrap();
            io::write_all(mouth.as_fd(), b"ready").unwrap();
            poll::wait_readable(silence.as_fd(), None).unwrap();
            process::exit_now(0)
        })
        .unwrap();
        poll::wait_readable(ear.as_fd(), Some(a_minute())).unwrap();
        orphan.pid.to_string()
    });
    let orphan = Pid::from_raw(said.parse().unwrap());
    let pidfd = process::pidfd_open(orphan).unwrap();
    assert!(poll::wait_readable(pidfd.as_fd(), Some(a_minute())).unwrap());
    assert!(process::is_child(orphan), "it is to be reaped");
    assert_eq!(process::wait_any_child().unwrap(), Some((orphan, WaitStatus::Signaled(libc::SIGKILL))));
    assert!(!process::is_child(orphan));
}

#[test]
fn an_fd_of_another_process_is_duplicated() {
    needs!(gate::alone());
    let (ear, mouth) = fd::pipe().unwrap();
    let (stop, hold) = fd::pipe().unwrap();
    let child = process::spawn(&CloneRequest::default(), || {
        fd::dup_onto(mouth.as_fd(), 200).unwrap();
        fd::set_cloexec(mouth.as_fd(), true).unwrap();
        io::write_all(hold.as_fd(), b"r").unwrap();
        poll::wait_readable(ear.as_fd(), None).unwrap();
        process::exit_now(0)
    })
    .unwrap();
    poll::wait_readable(stop.as_fd(), Some(a_minute())).unwrap();
    let theirs = process::pidfd_getfd(child.pidfd.as_fd(), 200).unwrap();
    assert!(process::pidfd_getfd(child.pidfd.as_fd(), 201).unwrap_err().is(libc::EBADF));
    io::write_all(theirs.as_fd(), b"x").unwrap();
    assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), WaitStatus::Exited(0));
    assert_eq!(io::read(ear.as_fd(), &mut [0; 4]).unwrap(), 1);
}

#[test]
fn attributes_are_what_was_set() {
    needs!(gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        let before = process::is_dumpable().unwrap();
        process::set_dumpable(false).unwrap();
        let after = process::is_dumpable().unwrap();
        process::set_dumpable(true).unwrap();
        process::set_no_new_privileges().unwrap();
        let session = process::setsid().unwrap() == process::effective_pid();
        process::umask(0o027);
        let mask = process::umask(0o022);
        process::set_personality(8).unwrap();
        let persona = std::fs::read_to_string("/proc/self/personality").unwrap();
        let again = line(process::setsid());
        format!("{before} {after} {} {session} {again} {mask:o} {}", status("NoNewPrivs"), persona.trim())
    });
    assert_eq!(said, format!("true false 1 true setsid {} 27 00000008", libc::EPERM));
}

#[test]
fn signals_to_all_or_to_groups_by_a_wrong_number_are_refused() {
    for wrong in [0, -1, i32::MIN] {
        assert!(process::kill(Pid::from_raw(wrong), 0).unwrap_err().is(libc::EINVAL), "{wrong}");
        assert!(process::kill_group(Pid::from_raw(wrong), 0).unwrap_err().is(libc::EINVAL), "{wrong}");
    }
    assert!(process::kill_group(Pid::from_raw(1), 0).unwrap_err().is(libc::EINVAL));
    process::kill(process::effective_pid(), 0).unwrap();
}

#[test]
fn a_group_is_signalled_as_a_whole() {
    needs!(gate::alone());
    let (ear, mouth) = fd::pipe().unwrap();
    let (silence, _never) = fd::pipe().unwrap();
    let leader = process::spawn(&CloneRequest::default(), || {
        process::setsid().unwrap();
        let member = process::spawn(&CloneRequest::default(), || {
            io::write_all(mouth.as_fd(), b"m").unwrap();
            poll::wait_readable(silence.as_fd(), None).unwrap();
            process::exit_now(0)
        });
        process::exit_now(i32::from(member.is_err()))
    })
    .unwrap();
    assert_eq!(process::wait(leader.pidfd.as_fd()).unwrap(), WaitStatus::Exited(0));
    assert_eq!(io::read(ear.as_fd(), &mut [0; 4]).unwrap(), 1);
    drop(mouth);
    process::kill_group(leader.pid, libc::SIGKILL).unwrap();
    // The member held the last end to write to: its end is the end of the pipe.
    assert!(poll::wait_readable(ear.as_fd(), Some(a_minute())).unwrap());
    assert_eq!(io::read(ear.as_fd(), &mut [0; 4]).unwrap(), 0);
}

#[test]
fn without_the_kernels_answer_a_pidfds_pid_is_read_from_procfs() {
    needs!(gate::alone());
    let own = process::effective_pid();
    let said = child_says(CloneFlags::empty(), || {
        let (ear, _mouth) = fd::pipe().unwrap();
        let parent = process::pidfd_open(own).unwrap();
        let ended = process::spawn(&CloneRequest::default(), || process::exit_now(0)).unwrap();
        process::wait(ended.pidfd.as_fd()).unwrap();
        take_away(libc::SYS_ioctl, libc::ENOTTY);
        let found = process::pidfd_pid(parent.as_fd()).unwrap();
        let gone = process::pidfd_pid(ended.pidfd.as_fd()).unwrap();
        format!("{} {gone:?} {}", found == Some(own), line(process::pidfd_pid(ear.as_fd())))
    });
    assert_eq!(said, format!("true None read fdinfo {}", libc::EBADF));
}

#[test]
fn a_kernel_without_clone3_is_named_as_such() {
    needs!(gate::alone());
    let said = child_says(CloneFlags::empty(), || {
        take_away(libc::SYS_clone3, libc::ENOSYS);
        let error = process::spawn(&CloneRequest::default(), || process::exit_now(0)).unwrap_err();
        format!("{} {}", error.is_unknown_call(), error)
    });
    assert_eq!(said, "true clone3: Function not implemented (os error 38)");
}
