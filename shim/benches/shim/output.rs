//! Output: through a shim to a reader, and through a monitor into a log.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use hull_testkit::call::eventually;
use hull_testkit::{gate, place};

use crate::crowd::Monitored;
use crate::task_client::fifo;
use crate::{Peer, Site, processor_time};

const GIB: u64 = 1 << 30;

/// 64 KiB writes and 128 byte writes, read as fast as they come.
pub(crate) fn bulk(peers: &[Peer]) {
    println!("{:12}{:>14}{:>12}{:>16}{:>12}", "", "64 KiB: MB/s", "CPU s/GB", "128 B: MB/s", "CPU s/GB");
    for peer in peers {
        let large =
            [through(peer, 65_536, 8 * GIB), through(peer, 65_536, 8 * GIB), through(peer, 65_536, 8 * GIB)];
        let best = large.into_iter().max_by(|one, other| one.0.total_cmp(&other.0)).unwrap();
        let small = through(peer, 128, GIB / 8);
        println!("{:12}{:>14.0}{:>12.3}{:>16.0}{:>12.2}", peer.name, best.0, best.1, small.0, small.1);
    }
}

/// Megabytes in a second, and seconds of the shim's processor time for a gigabyte.
#[expect(clippy::cast_precision_loss, reason = "a handful of gigabytes fits")]
fn through(peer: &Peer, size: u64, bytes: u64) -> (f64, f64) {
    let site = Site::new();
    let script = format!("exec dd if=/dev/zero bs={size} count={} 2>/dev/null", bytes / size);
    let mut shim = site.shim(peer, site.bundle(&["sh", "-c", &script]));
    let (stdout, stderr) = (fifo(&site.place.join("out")), fifo(&site.place.join("err")));
    // As a client does it: both ends stay open to the last.
    let errors = File::options().read(true).write(true).open(&stderr).unwrap();
    let path = stdout.clone();
    let reader = std::thread::spawn(move || drain(&path));
    site.create(&mut shim, [&stdout, &stderr]);
    let pid = shim.shim_pid();
    let (before, began) = (processor_time(pid), Instant::now());
    shim.start();
    shim.wait();
    let named = shim.named("");
    let spent = loop {
        // The last of it may be on its way still.
        let spent = processor_time(pid);
        std::thread::sleep(Duration::from_millis(20));
        if processor_time(pid) == spent {
            break spent - before;
        }
    };
    shim.ok::<hull_shim::api::DeleteResponse>("Delete", &named);
    let (read, ended) = reader.join().unwrap();
    assert_eq!(read, bytes);
    let took = ended - began;
    drop(errors);
    shim.shut_down();
    (bytes as f64 / 1e6 / took.as_secs_f64(), spent.as_secs_f64() / (bytes as f64 / 1e9))
}

/// Reads to the end without copying; how much there was, and when the last of it came.
fn drain(path: &str) -> (u64, Instant) {
    let input = File::open(path).unwrap();
    // As large as an unprivileged client may have it.
    let _ = rustix::pipe::fcntl_setpipe_size(&input, 1 << 20);
    let null = File::options().write(true).open("/dev/null").unwrap();
    let (mut all, mut last) = (0, Instant::now());
    loop {
        let flags = rustix::pipe::SpliceFlags::empty();
        let got = rustix::pipe::splice(&input, None, &null, None, 1 << 20, flags).unwrap();
        if got == 0 {
            return (all, last);
        }
        all += got as u64;
        last = Instant::now();
    }
}

/// Lines of 100 and 4000 bytes into a k8s-file log.
pub(crate) fn log(_: &[Peer]) {
    let conmon = gate::find("conmon");
    println!(
        "{:16}{:>18}{:>12}{:>18}{:>12}",
        "", "100 B lines: MB/s", "CPU s/GB", "4000 B: MB/s", "CPU s/GB"
    );
    let monitors =
        [Some(("hull-monitor", place::program("hull-monitor"))), conmon.map(|found| ("conmon", found))];
    for (name, program) in monitors.into_iter().flatten() {
        let (short, long) = (logged(&program, 100, GIB / 2), logged(&program, 4000, GIB / 2));
        println!("{name:16}{:>18.0}{:>12.2}{:>18.0}{:>12.2}", short.0, short.1, long.0, long.1);
    }
}

#[expect(clippy::cast_precision_loss, reason = "half a gigabyte fits")]
fn logged(program: &Path, length: usize, bytes: u64) -> (f64, f64) {
    let site = Site::new();
    let held = Monitored::create(program, &site, &["cat", "/lines"]);
    let lines = bytes / length as u64;
    let mut file = BufWriter::new(File::create(site.place.join("rootfs/lines")).unwrap());
    let line = [vec![b'x'; length - 1], vec![b'\n']].concat();
    (0..lines).for_each(|_| file.write_all(&line).unwrap());
    drop(file.into_inner().unwrap());
    let (before, began) = (processor_time(held.pid), Instant::now());
    held.runtime(&site, &["start", &held.bundle.id]);
    let mut spent = Duration::ZERO;
    let ended = eventually(Duration::from_secs(100), || {
        if Path::new(&format!("/proc/{}/exe", held.pid)).exists() {
            let now = fs::read_to_string(format!("/proc/{}/schedstat", held.pid)).unwrap_or_default();
            spent = now
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .map_or(spent, Duration::from_nanos);
        }
        held.exit_file.exists()
    });
    assert!(ended, "no exit file");
    let took = began.elapsed();
    let text = fs::metadata(&held.log).unwrap().len();
    assert!(text > bytes, "{text} bytes logged of {bytes}");
    held.finish(&site);
    (bytes as f64 / 1e6 / took.as_secs_f64(), (spent - before).as_secs_f64() / (bytes as f64 / 1e9))
}
