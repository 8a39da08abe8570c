//! Times of one container's life and of execs, beside those of the bare runtime.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hull_shim::api::*;
use hull_testkit::{Bundle, runtime};

use crate::{Driven, Peer, Site, processor_time, spread};

const ROUNDS: usize = 40;

#[derive(Default)]
struct Life {
    start_command: Vec<Duration>,
    create: Vec<Duration>,
    to_exit: Vec<Duration>,
    delete: Vec<Duration>,
    all: Vec<Duration>,
    create_to_exit: Vec<Duration>,
}

/// Rounds of one `true`, taking turns, and then execs.
pub(crate) fn life(peers: &[Peer]) {
    let site = Site::new();
    let mut bare = Life::default();
    let mut lives: Vec<Life> = peers.iter().map(|_| Life::default()).collect();
    for _ in 0..ROUNDS {
        bare_round(&site, &mut bare);
        for (peer, life) in peers.iter().zip(&mut lives) {
            shim_round(&site, peer, life);
        }
    }
    println!("{ROUNDS} rounds of one `true`, ms (median / least)");
    println!(
        "{:12}{:>16}{:>16}{:>18}{:>16}{:>20}{:>16}",
        "", "start command", "Create", "Start to exit", "Delete", "Create to exit", "all"
    );
    let names = ["runtime"].into_iter().chain(peers.iter().map(|peer| peer.name));
    for (name, life) in names.zip([bare].into_iter().chain(lives)) {
        let start = if life.start_command.is_empty() { "-".to_owned() } else { spread(life.start_command) };
        println!(
            "{name:12}{start:>16}{:>16}{:>18}{:>16}{:>20}{:>16}",
            spread(life.create),
            spread(life.to_exit),
            spread(life.delete),
            spread(life.create_to_exit),
            spread(life.all)
        );
    }
    execs(&site, peers);
}

fn shim_round(site: &Site, peer: &Peer, life: &mut Life) {
    let bundle = site.bundle(&["true"]);
    let began = Instant::now();
    let mut shim = site.shim(peer, bundle);
    life.start_command.push(shim.start_took);
    let created = Instant::now();
    site.create(&mut shim, ["", ""]);
    life.create.push(created.elapsed());
    let started = Instant::now();
    shim.start();
    shim.wait();
    life.to_exit.push(started.elapsed());
    life.create_to_exit.push(created.elapsed());
    let deleted = Instant::now();
    shim.delete();
    life.delete.push(deleted.elapsed());
    life.all.push(began.elapsed());
    shim.shut_down();
}

fn bare(site: &Site, words: &[&str]) {
    let mut command = Command::new(runtime::under_test());
    command.arg("--root").arg(site.place.join("bare")).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.status().unwrap().success(), "{command:?}");
}

fn create_bare(site: &Site, bundle: &Bundle) -> PathBuf {
    let pid_file = bundle.path().join("pid");
    let words = [
        "create",
        "--bundle",
        bundle.path().to_str().unwrap(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        &bundle.id,
    ];
    bare(site, &words);
    pid_file
}

fn bare_round(site: &Site, life: &mut Life) {
    let bundle = site.bundle(&["true"]);
    let began = Instant::now();
    let pid_file = create_bare(site, &bundle);
    life.create.push(began.elapsed());
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let started = Instant::now();
    bare(site, &["start", &bundle.id]);
    let ended = rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN);
    rustix::event::poll(&mut [ended], None).unwrap();
    life.to_exit.push(started.elapsed());
    life.create_to_exit.push(began.elapsed());
    let deleted = Instant::now();
    bare(site, &["delete", &bundle.id]);
    life.delete.push(deleted.elapsed());
    life.all.push(began.elapsed());
}

/// Execs of `true` in one container each.
fn execs(site: &Site, peers: &[Peer]) {
    let container = site.bundle(&["sleep", "1000"]);
    create_bare(site, &container);
    bare(site, &["start", &container.id]);
    let mut shims: Vec<Driven> =
        peers.iter().map(|peer| site.shim(peer, site.bundle(&["sleep", "1000"]))).collect();
    for shim in &mut shims {
        site.create(shim, ["", ""]);
        shim.start();
    }
    let mut times = vec![Vec::new(); peers.len() + 1];
    let pids: Vec<u32> = shims.iter_mut().map(Driven::shim_pid).collect();
    let before: Vec<Duration> = pids.iter().map(|&pid| processor_time(pid)).collect();
    for round in 0..ROUNDS * 5 {
        let began = Instant::now();
        bare(site, &["exec", &container.id, "true"]);
        times[0].push(began.elapsed());
        for (shim, times) in shims.iter_mut().zip(&mut times[1..]) {
            times.push(exec(shim, &format!("e{round}")));
        }
    }
    println!(
        "\n{} execs of `true`, ms (median / least), and processor time of the shim for each",
        ROUNDS * 5
    );
    println!("{:12}{:>16}", "runtime", spread(times[0].clone()));
    for (index, peer) in peers.iter().enumerate() {
        let spent = (processor_time(pids[index]) - before[index]) / u32::try_from(ROUNDS * 5).unwrap();
        println!(
            "{:12}{:>16}{:>10.2} ms",
            peer.name,
            spread(times[index + 1].clone()),
            spent.as_secs_f64() * 1e3
        );
    }
    bare(site, &["delete", "--force", &container.id]);
    for mut shim in shims {
        shim.kill();
        shim.wait();
        shim.delete();
        shim.shut_down();
    }
}

/// From the start of the exec to its exit.
fn exec(shim: &mut Driven, name: &str) -> Duration {
    let mut process = shim.bundle.config["process"].clone();
    process["args"] = serde_json::json!(["true"]);
    let value = process.to_string().into_bytes();
    let request = ExecProcessRequest {
        id: shim.bundle.id.clone(),
        exec_id: name.to_owned(),
        spec: Some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value,
        }),
        ..ExecProcessRequest::default()
    };
    let named = shim.named(name);
    let began = Instant::now();
    shim.ok::<PidResponse>("Exec", &request);
    shim.ok::<PidResponse>("Start", &named);
    shim.ok::<WaitResponse>("Wait", &named);
    let took = began.elapsed();
    shim.ok::<DeleteResponse>("Delete", &named);
    took
}
