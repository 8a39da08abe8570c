//! A file system in user space (FUSE, linux/fuse.h) that has one directory, `x`, and answers nobody who looks for it.
#![allow(clippy::unwrap_used)] // a failed unwrap fails the test

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use hull_testkit::gate::Gate;
use hull_testkit::{Scratch, place};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const LOOKUP: u32 = 1;
const INIT: u32 = 26;
/// The part before each request's own: length, opcode, unique, node, uid, gid, pid, extensions.
const HEAD: usize = 40;

/// The file system, mounted.
pub struct HangingDisk {
    place: Scratch,
    device: File,
    /// The number of a request that was read and not answered.
    asked: Option<Receiver<u64>>,
}

/// What a caller of such a file system can be freed from by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// A signal that kills: nobody has read the request.
    Killable,
    /// An answer: the request was read.
    Uninterruptible,
}

/// There is FUSE.
pub fn fuse() -> Gate {
    let device = Path::new("/dev/fuse");
    File::options()
        .read(true)
        .write(true)
        .open(device)
        .map(drop)
        .map_err(|error| format!("needs FUSE: {error}"))
}

impl HangingDisk {
    pub fn new(wait: Wait) -> Self {
        let place = Scratch::new("hanging");
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount(place::unique("hanging"), place.path(), "fuse", MountFlags::NOSUID, options.as_c_str())
            .unwrap();
        let serves = wait == Wait::Uninterruptible;
        let asked = serves.then(|| serve(device.try_clone().unwrap()));
        Self { place, device, asked }
    }

    /// Whoever looks for it waits.
    pub fn directory(&self) -> PathBuf {
        self.place.join("x")
    }

    /// Waits until somebody looks for the directory, and gives the request's number.
    pub fn is_asked(&self) -> u64 {
        self.asked.as_ref().unwrap().recv_timeout(crate::task_client::LIMIT).expect("nobody looks for it")
    }

    /// Answers that it is there.
    pub fn answer(&self, request: u64) {
        let (node, mode, links): (u64, u32, u32) = (2, 0o40_755, 2);
        // struct fuse_entry_out: node, generation, how long name and attributes hold (two words, two halves), attributes.
        let mut entry = vec![0; 128];
        entry[0..8].copy_from_slice(&node.to_ne_bytes());
        entry[16..24].copy_from_slice(&3600u64.to_ne_bytes());
        entry[24..32].copy_from_slice(&3600u64.to_ne_bytes());
        // struct fuse_attr at 40: ino at 0, mode at 60, nlink at 64.
        entry[40..48].copy_from_slice(&node.to_ne_bytes());
        entry[100..104].copy_from_slice(&mode.to_ne_bytes());
        entry[104..108].copy_from_slice(&links.to_ne_bytes());
        reply(&self.device, request, &entry);
    }
}

impl Drop for HangingDisk {
    fn drop(&mut self) {
        // With it whoever waits gets an error.
        unmount(self.place.path(), UnmountFlags::FORCE | UnmountFlags::DETACH).unwrap();
    }
}

/// Answers the kernel's first request, and hands the numbers of those that look for something on.
fn serve(mut device: File) -> Receiver<u64> {
    let (tell, asked) = channel();
    std::thread::spawn(move || {
        let mut request = vec![0; 64 << 10];
        // At its end the device gives an error.
        while let Ok(got) = device.read(&mut request) {
            assert!(got >= HEAD, "{got} bytes");
            let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
            let unique = u64::from_ne_bytes(request[8..16].try_into().unwrap());
            match word(4) {
                INIT => reply(&device, unique, &init_answer()),
                LOOKUP if tell.send(unique).is_err() => return,
                _ => {}
            }
        }
    });
    asked
}

/// struct fuse_init_out: version 7.31, no feature, writes of a page.
fn init_answer() -> Vec<u8> {
    let mut answer = vec![0; 64];
    answer[0..4].copy_from_slice(&7u32.to_ne_bytes());
    answer[4..8].copy_from_slice(&31u32.to_ne_bytes());
    answer[20..24].copy_from_slice(&4096u32.to_ne_bytes());
    answer
}

fn reply(mut device: &File, unique: u64, body: &[u8]) {
    let length = u32::try_from(16 + body.len()).unwrap();
    let head = [&length.to_ne_bytes()[..], &0i32.to_ne_bytes(), &unique.to_ne_bytes()].concat();
    device.write_all(&[head.as_slice(), body].concat()).unwrap();
}
