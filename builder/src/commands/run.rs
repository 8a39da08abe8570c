//! `run`: a container of an image, in the foreground or under a monitor.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use hull_image::{Image, Reference, Store, Tagged};
use hull_layer::{Change, Extractor, TarWriter, TimeRule, Unpacker, extract, list, pack, read_entry};
use serde_json::{Value, json};

use super::containers::{self, Container, Place};
use super::registry_options::RegistryArguments;
use super::{Outcome, host, network, pull};
use crate::bundle::{self, Bind, Wishes};
use crate::registry;
use crate::steps::accounts::Accounts;

type Failure = Box<dyn std::error::Error>;

/// Arguments of `run`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run in the background, under a monitor
    #[arg(short, long)]
    detach: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// KEY=VALUE, or KEY for the value of this process
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// File with one KEY=VALUE a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// SOURCE:DESTINATION[:ro]; a source without slash is a named volume
    #[arg(short, long, value_name = "SOURCE:DESTINATION[:ro]")]
    volume: Vec<String>,
    /// Working directory
    #[arg(short, long)]
    workdir: Option<String>,
    /// USER[:GROUP], names or numbers
    #[arg(short, long)]
    user: Option<String>,
    /// [ADDRESS:]HOST:CONTAINER[/PROTOCOL]
    #[arg(short, long, value_name = "HOST:CONTAINER")]
    publish: Vec<String>,
    /// Another entry point; empty for none
    #[arg(long)]
    entrypoint: Option<String>,
    /// Limit of memory, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Limit of processors, such as 1.5
    #[arg(long)]
    cpus: Option<f64>,
    /// Make the root read-only
    #[arg(long)]
    read_only: bool,
    /// none, host, bridge or the name of a CNI network
    #[arg(long)]
    network: Option<String>,
    /// Host name
    #[arg(long)]
    hostname: Option<String>,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// KEY=VALUE kept with the container
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// missing, always or never
    #[arg(long, default_value = "missing")]
    pull: String,
    /// The OCI runtime
    #[arg(long, default_value = "hull")]
    runtime: String,
    #[command(flatten)]
    registry: RegistryArguments,
    /// Name or id of the image
    image: String,
    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Makes the container and runs it.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let (_, image) = obtain(&store, &arguments.image, &arguments.pull, &arguments.registry)?;
    let runtime = containers::program(&arguments.runtime)
        .ok_or_else(|| format!("run: there is no runtime {}", arguments.runtime))?;
    let place = make(&store, arguments, &image, runtime)?;
    let prepared = prepare(&store, arguments, &image, &place);
    if let Err(error) = prepared {
        // The first error is the one to tell.
        let _ = place.remove(&store);
        return Err(error);
    }
    // A long-lived container must not keep garbage collection from the store: its image is pinned.
    drop(store);
    match arguments.detach {
        true => background(&place),
        false => foreground(&place, arguments),
    }
}

/// The image, pulled when the policy says so.
pub(crate) fn obtain(
    store: &Store,
    name: &str,
    policy: &str,
    flags: &RegistryArguments,
) -> Result<(Tagged, Image), Failure> {
    let found = host::find_image(store, name, None);
    let wanted = match (policy, &found) {
        ("always", _) | ("missing", Err(_)) => true,
        ("missing" | "never", _) => false,
        _ => return Err(format!("--pull {policy} is neither missing, always nor never").into()),
    };
    if wanted {
        let reference: Reference = name.parse()?;
        eprintln!("hull-build: pulling {}", reference.familiar());
        let pulled = registry::pull(store, &reference, None, &flags.options()?)?;
        pull::finish(store, &pulled, &reference)?;
        return Ok(host::find_image(store, name, None)?);
    }
    Ok(found?)
}

/// Reserves the name and writes down what the container is.
fn make(store: &Store, arguments: &Arguments, image: &Image, runtime: PathBuf) -> Result<Place, Failure> {
    let _lock = store.lock("containers")?;
    let id = containers::new_id()?;
    let name = arguments.name.clone().unwrap_or_else(|| format!("hull-{}", &id[..8]));
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() > 200 || name.starts_with(['.', '-']) || name.is_empty() || !name.chars().all(valid) {
        return Err(format!("run: {name:?} is no name for a container").into());
    }
    if containers::all(store)?.iter().any(|other| other.container.name == name) {
        return Err(format!("run: the name {name} is in use").into());
    }
    let network = network::choose(arguments.network.as_deref());
    let container = Container {
        id: id.clone(),
        name,
        image: arguments.image.clone(),
        image_id: image.id().to_string(),
        manifest: image.descriptor.digest.clone(),
        diff_ids: image.config.rootfs.diff_ids.clone(),
        created: host::now(),
        command: Vec::new(),
        runtime,
        stop_signal: image.config.config.stop_signal.clone().unwrap_or_else(|| "SIGTERM".to_owned()),
        remove: arguments.rm,
        network,
        ports: arguments.publish.clone(),
    };
    let dir = containers::dir(store).join(&id);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("exits"))?;
    let runtime_root = store.dir().join("run");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&runtime_root)?;
    let mut kept = vec![image.descriptor.digest.clone(), image.id().clone()];
    kept.extend(image.config.rootfs.diff_ids.iter().cloned());
    kept.extend(image.manifest.layers.iter().map(|layer| layer.digest.clone()));
    store.pin(&containers::pin(&id), &kept)?;
    let place = Place { container, dir, runtime_root };
    place.save()?;
    Ok(place)
}

/// Unpacks, mounts, and writes the configuration.
fn prepare(store: &Store, arguments: &Arguments, image: &Image, place: &Place) -> Result<(), Failure> {
    let lowers = Unpacker::new(store).unpack(image)?.layers;
    place.mount(&lowers)?;
    let rootfs = containers::open_directory(&place.rootfs())?;
    let accounts = Accounts::read(rootfs.as_fd())?;
    let asked = arguments.user.as_deref().unwrap_or(&image.config.config.user);
    let user = accounts.process_user(asked)?;
    let mut wishes = wishes(arguments, place)?;
    wishes.binds = binds(store, arguments, image, place, rootfs.as_fd())?;
    let mut config = bundle::config("rootfs", &image.config, &user, &wishes)?;
    if let Some(hooks) = network::hooks(&place.container.network, &place.dir)? {
        config["hooks"] = hooks;
    }
    fs::write(place.dir.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    let command = bundle::arguments(&image.config.config, &wishes)?;
    let container = Container { command, ..place.container.clone() };
    let runtime_root = place.runtime_root.clone();
    Place { container, dir: place.dir.clone(), runtime_root }.save()
}

fn wishes(arguments: &Arguments, place: &Place) -> Result<Wishes, Failure> {
    let id = &place.container.id;
    let mut annotations = BTreeMap::new();
    for label in &arguments.label {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        annotations.insert(key.to_owned(), value.to_owned());
    }
    let milli = arguments.cpus.map(|cpus| (cpus * 1000.0) as u64);
    if milli == Some(0) {
        return Err("run: --cpus must be at least 0.001".into());
    }
    Ok(Wishes {
        entrypoint: arguments.entrypoint.clone(),
        command: arguments.command.clone(),
        env: environment(arguments)?,
        workdir: arguments.workdir.clone(),
        terminal: arguments.tty,
        read_only: arguments.read_only,
        memory: arguments.memory.as_deref().map(bytes).transpose()?,
        milli_cpus: milli,
        cap_add: arguments.cap_add.clone(),
        cap_drop: arguments.cap_drop.clone(),
        binds: Vec::new(),
        hostname: arguments.hostname.clone().unwrap_or_else(|| id[..12].to_owned()),
        host_network: place.container.network == "host",
        cgroup: format!("/hull-build/{id}"),
        annotations,
    })
}

fn environment(arguments: &Arguments) -> Result<Vec<String>, Failure> {
    let mut env = Vec::new();
    for path in &arguments.env_file {
        let text = fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))?;
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        env.extend(lines.map(str::to_owned));
    }
    env.extend(arguments.env.iter().cloned());
    // A key alone takes this process's value; without one it is left out.
    let full = |entry: String| match entry.contains('=') {
        true => Some(entry),
        false => std::env::var(&entry).ok().map(|value| format!("{entry}={value}")),
    };
    Ok(env.into_iter().filter_map(full).collect())
}

/// Bytes with Docker's units.
fn bytes(text: &str) -> Result<i64, String> {
    let lower = text.to_lowercase();
    let number = lower.trim_end_matches('b');
    let (digits, shift) = match number.chars().last() {
        Some('k') => (&number[..number.len() - 1], 10),
        Some('m') => (&number[..number.len() - 1], 20),
        Some('g') => (&number[..number.len() - 1], 30),
        _ => (number, 0),
    };
    let count: i64 = digits.parse().map_err(|_| format!("{text:?} is no size such as 512m"))?;
    count
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("{text:?} is out of range"))
}

/// Volumes of the image (filled from it), volumes of the command line, and the files that name the host's network.
fn binds(
    store: &Store,
    arguments: &Arguments,
    image: &Image,
    place: &Place,
    rootfs: std::os::fd::BorrowedFd<'_>,
) -> Result<Vec<Bind>, Failure> {
    let wished: Vec<Bind> =
        arguments.volume.iter().map(|text| volume(store, text)).collect::<Result<_, Failure>>()?;
    let taken = |path: &str| wished.iter().any(|bind| bind.destination == path);
    let mut binds = Vec::new();
    for (count, destination) in image.config.config.volumes.keys().filter(|path| !taken(path)).enumerate() {
        let dir = place.dir.join("volumes").join(count.to_string());
        fs::create_dir_all(&dir)?;
        fill(rootfs, destination, &dir)?;
        binds.push(Bind {
            source: dir.display().to_string(),
            destination: destination.clone(),
            read_only: false,
        });
    }
    binds.extend(network::files(&place.container.network, &place.dir, &place.container.id)?);
    binds.extend(wished);
    Ok(binds)
}

/// Copies what the image has at a volume's place, owner and mode of the place included.
fn fill(rootfs: std::os::fd::BorrowedFd<'_>, destination: &str, dir: &Path) -> Result<(), Failure> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(source) = rustix::fs::openat2(rootfs, destination, flags, Mode::empty(), resolve) else {
        return Ok(());
    };
    let mut changes = vec![Change::put(read_entry(source.as_fd(), b"")?)];
    changes.extend(list(source.as_fd())?.into_iter().map(Change::put));
    changes.sort_by(hull_layer::order);
    let target = containers::open_directory(dir)?;
    let (reader, writer) = std::io::pipe()?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| {
            let mut archive = TarWriter::new(writer, TimeRule::Keep);
            pack(&changes, source.as_fd(), &mut archive).and_then(|_| archive.finish().map(drop))
        });
        let extracted = extract(reader, target.as_fd(), &Extractor::layer());
        packing.join().map_err(|_| "copying a volume ended early")??;
        Ok(extracted.map(drop)?)
    })
}

fn volume(store: &Store, text: &str) -> Result<Bind, Failure> {
    let refuse = || format!("run: volume {text:?} is not SOURCE:DESTINATION[:ro|rw]");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts[..] {
        [source, destination] => (source, destination, "rw"),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(refuse().into()),
    };
    let valid_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let source = match source.starts_with('/') {
        true => PathBuf::from(source),
        false if source.starts_with('.') || !source.chars().all(valid_name) || source.is_empty() => {
            return Err(refuse().into());
        }
        false => {
            let dir = store.dir().join("volumes").join(source);
            fs::create_dir_all(&dir)?;
            dir
        }
    };
    if !destination.starts_with('/') || !matches!(mode, "ro" | "rw") {
        return Err(refuse().into());
    }
    let source = source.display().to_string();
    Ok(Bind { source, destination: destination.to_owned(), read_only: mode == "ro" })
}

/// Runs the runtime with our own input and output, and ends with the container's code.
fn foreground(place: &Place, arguments: &Arguments) -> Outcome {
    let bundle = place.dir.display().to_string();
    let mut command = place.runtime(&["run", "--bundle", &bundle, &place.container.id]);
    if !arguments.interactive && !arguments.tty {
        command.stdin(Stdio::null());
    }
    let status = command.status().map_err(|e| format!("start {}: {e}", place.container.runtime.display()))?;
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    fs::write(place.dir.join("exits").join(&place.container.id), code.to_string())?;
    containers::unmount(&place.rootfs());
    if place.container.remove {
        place.remove(&host::open_store()?)?;
    }
    Ok(ExitCode::from(code as u8))
}

/// Starts a monitor, which creates the container and holds its output; then starts the container.
fn background(place: &Place) -> Outcome {
    let monitor = containers::program("hull-monitor").or_else(|| containers::program("conmon"));
    let monitor =
        monitor.ok_or("run: there is neither hull-monitor nor conmon to hold a detached container")?;
    let (reader, writer) = std::io::pipe()?;
    let status = monitor_command(place, &monitor, &writer)?.status();
    drop(writer);
    if !status.map_err(|e| format!("start {}: {e}", monitor.display()))?.success() {
        discard(place);
        return Err("run: the monitor could not be started".into());
    }
    if let Err(reason) = created(reader) {
        discard(place);
        return Err(format!("run: {reason}").into());
    }
    let output = place.ask(&["start", &place.container.id])?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        discard(place);
        return Err(format!("run: {said}").into());
    }
    println!("{}", place.container.id);
    Ok(ExitCode::SUCCESS)
}

/// Removes a container that never ran; the error that led here is the one to tell.
fn discard(place: &Place) {
    if let Ok(store) = host::open_store() {
        let _ = place.remove(&store);
    }
}

fn monitor_command(place: &Place, monitor: &Path, writer: &std::io::PipeWriter) -> Result<Command, Failure> {
    let path = |name: &str| place.dir.join(name).display().to_string();
    let id = &place.container.id;
    let mut command = Command::new(monitor);
    command.args(["--api-version", "1", "--cid", id, "--cuuid", id, "--name", &place.container.name]);
    command.arg("--runtime").arg(&place.container.runtime);
    command.arg(format!("--runtime-arg=--root={}", place.runtime_root.display()));
    command.args(["--bundle", &place.dir.display().to_string(), "--container-pidfile", &path("pid")]);
    command.args(["--exit-dir", &path("exits"), "--persist-dir", &place.dir.display().to_string()]);
    command.args([
        "--socket-dir-path",
        &place.dir.display().to_string(),
        "--log-path",
        &format!("k8s-file:{}", path("log")),
    ]);
    let config: Value = serde_json::from_slice(&fs::read(place.dir.join("config.json"))?)?;
    if config["process"]["terminal"] == true {
        command.arg("--terminal");
    }
    let own = std::env::current_exe()?;
    command.arg("--exit-command").arg(own);
    for argument in ["--root", &host::store_dir().display().to_string(), "after-exit", id] {
        command.args(["--exit-command-arg", argument]);
    }
    // The monitor writes to this pipe once the container is created: it must inherit it.
    rustix::io::fcntl_setfd(writer, rustix::io::FdFlags::empty())?;
    command.env("_OCI_SYNCPIPE", writer.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// Reads the monitor's line: the container's pid, or why there is none.
fn created(reader: impl Read) -> Result<(), String> {
    // The monitor keeps the pipe for what comes later: its first line is the answer.
    let mut line = String::new();
    let read = BufReader::new(reader.take(64 << 10)).read_line(&mut line);
    read.map_err(|e| format!("read the monitor's answer: {e}"))?;
    let answer: Value = serde_json::from_str(&line).unwrap_or(json!({}));
    let pid = answer["data"].as_i64().or(answer["pid"].as_i64()).unwrap_or(-1);
    match pid > 0 {
        true => Ok(()),
        false => {
            Err(answer["message"].as_str().unwrap_or("the container could not be created").trim().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_dockers_units() {
        for (text, count) in [("512m", 512 << 20), ("1g", 1 << 30), ("64kb", 64 << 10), ("7", 7), ("5B", 5)] {
            assert_eq!(bytes(text), Ok(count));
        }
        for bad in ["", "m", "-1", "0", "9999999999g", "1x"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_monitor_tells_a_pid_or_a_reason() {
        assert_eq!(created(&b"{\"data\": 12}\n"[..]), Ok(()));
        assert_eq!(
            created(&b"{\"data\": -1, \"message\": \"no such file\"}\n"[..]),
            Err("no such file".to_owned())
        );
        assert!(created(&b""[..]).is_err());
    }
}
