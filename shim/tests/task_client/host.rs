//! What tests make on the host, and read of it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use hull_testkit::{Scratch, runtime};

/// A fifo that a test reads.
pub fn fifo(path: &std::path::Path) -> String {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    path.to_string_lossy().into_owned()
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Anonymous memory of a process, in kB; pages of the program's file are shared by all shims.
pub fn anonymous_kb(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A runtime that is a shell script; `$REAL` is the real one.
pub fn scripted(place: &Scratch, script: &str) -> PathBuf {
    let path = place.join("runtime.sh");
    let real = runtime::under_test();
    fs::write(&path, format!("#!/bin/sh\nREAL={}\n{script}\n", real.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// kill -9.
pub fn kill_9(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A small file system of its own, unmounted at the end.
pub struct Disk(pub PathBuf);

impl Disk {
    /// Mounts it on a directory, which is made if it is missing.
    pub fn over(path: &std::path::Path, options: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let data = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("disk", path, "tmpfs", rustix::mount::MountFlags::empty(), data.as_c_str())
            .unwrap();
        Self(path.to_owned())
    }

    pub fn fill(&self) {
        let mut file = fs::File::create(self.0.join("fill")).unwrap();
        while file.write(&[1; 4096]).is_ok() {}
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// How many children a process has, zombies among them.
pub fn children(pid: u32) -> usize {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap().split_whitespace().count()
}

/// Processor time that a process has used.
pub fn processor_ms(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1_000_000
}

/// The most memory that a process has had resident, in kB.
pub fn peak_kb(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Lets a process open no more descriptors, or as many as it could before.
pub fn limit_descriptors(pid: u32, most: Option<u64>) -> Option<u64> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: most, maximum }).unwrap().current
}
