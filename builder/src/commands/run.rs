//! `run`: a container of an image, in the foreground or under a monitor.

mod launch;
mod wishes;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use hull_image::{Image, Lock, Reference, Store, Tagged, chain_id};

use super::containers::{self, Place};
use super::record::Container;
use super::registry_options::RegistryArguments;
use super::{Outcome, network, ports, pull};
use crate::bundle;
use crate::directory::open_directory;
use crate::error::chain;
use crate::host;
use crate::ids;
use crate::progress::Shown;
use crate::registry;
use crate::rootless;
use crate::signals;
use crate::snapshot::{self, Layers};
use crate::steps::accounts::Accounts;
use launch::{background, foreground};
pub(crate) use launch::{complaint, hold, hold_exec, refusal_code};
use wishes::{binds, wishes};

type Failure = Box<dyn std::error::Error>;

/// Arguments of `run`.
#[derive(Args)]
#[command(
    disable_help_subcommand = true,
    subcommand_value_name = "IMAGE [COMMAND]...",
    subcommand_help_heading = "Image"
)]
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
    /// [ADDRESS:][HOST:]CONTAINER[/PROTOCOL], ports or ranges; without HOST a free one
    #[arg(short, long, value_name = "HOST:CONTAINER")]
    publish: Vec<String>,
    /// Publish each port that the image exposes, at a free one of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
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
    #[command(subcommand)]
    words: Words,
}

/// What follows the flags is no flag of ours, however it is spelt: to the parser it is a command of somebody else.
#[derive(Subcommand)]
enum Words {
    /// Name or id of the image; then command and arguments instead of the image's
    #[command(external_subcommand)]
    Image(Vec<String>),
}

impl Arguments {
    /// The image's name.
    fn image(&self) -> &str {
        let Words::Image(words) = &self.words;
        &words[0]
    }

    /// The command of the command line.
    fn command(&self) -> &[String] {
        let Words::Image(words) = &self.words;
        &words[1..]
    }
}

/// Runs the container and ends with its code; what goes wrong before it runs has Docker's code 125.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    start(arguments).or_else(|error| {
        eprintln!("hull-build: {}", chain(error.as_ref()));
        Ok(ExitCode::from(125))
    })
}

/// Makes the container and starts it.
fn start(arguments: &Arguments) -> Outcome {
    let store = host::open_store()?;
    let (_, image) = obtain(&store, arguments.image(), &arguments.pull, &arguments.registry)?;
    let runtime = containers::program(&arguments.runtime)
        .ok_or_else(|| format!("run: there is no runtime {}", arguments.runtime))?;
    // What may take long is done while a signal still ends this at once.
    snapshot::unpacked(&store, &Layers::of(&image))?;
    // Who is interrupted before the container runs leaves none behind.
    let signals = signals::hold()?;
    let (place, lock) = make(&store, arguments, &image, runtime)?;
    let prepared = prepare(&store, arguments, &image, &place);
    let came = signals.came();
    if came.is_some() || prepared.is_err() {
        drop(lock);
        // The first error is the one to tell.
        let _ = place.remove(&store);
        return prepared.map(|()| ExitCode::from(signals::ended_by(came.unwrap_or_default())));
    }
    // A long-lived container must not keep garbage collection from the store: its image is pinned.
    drop(store);
    match arguments.detach {
        true => {
            signals.release()?;
            background(&place, lock)
        }
        false => {
            drop(lock);
            foreground(&place, arguments, signals)
        }
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
        let options = registry::Options { shown: Shown::on_stderr(), ..flags.options()? };
        let pulled = registry::pull(store, &reference, None, &options)?;
        pull::finish(store, &pulled, &reference)?;
        return Ok(host::find_image(store, name, None)?);
    }
    Ok(found?)
}

/// Reserves the name and writes down what the container is; nobody else starts it before the lock is given up.
fn make(
    store: &Store,
    arguments: &Arguments,
    image: &Image,
    runtime: PathBuf,
) -> Result<(Place, Lock), Failure> {
    let _all = store.lock("containers")?;
    let id = containers::new_id()?;
    let name = arguments.name.clone().unwrap_or_else(|| format!("hull-{}", &id[..8]));
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() > 200 || name.starts_with(['.', '-']) || name.is_empty() || !name.chars().all(valid) {
        return Err(format!("run: {name:?} is no name for a container").into());
    }
    let others = containers::all(store)?;
    if others.iter().any(|other| other.container.name == name) {
        return Err(format!("run: the name {name} is in use").into());
    }
    let ports = publish(arguments, image, &others)?;
    let network = network::choose(arguments.network.as_deref())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let container = Container {
        id: id.clone(),
        name,
        image: arguments.image().to_owned(),
        image_id: image.id().to_string(),
        manifest: image.descriptor.digest.clone(),
        diff_ids: image.config.rootfs.diff_ids.clone(),
        created: now.as_secs().cast_signed(),
        created_nanos: now.subsec_nanos(),
        command: Vec::new(),
        runtime,
        stop_signal: image.config.config.stop_signal.clone().unwrap_or_else(|| "SIGTERM".to_owned()),
        remove: arguments.rm,
        network,
        ports,
        run: 0,
    };
    let dir = containers::dir(store).join(&id);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    let runtime_root = store.dir().join("run");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&runtime_root)?;
    let mut kept = vec![image.descriptor.digest.clone(), image.id().clone()];
    let ids = &image.config.rootfs.diff_ids;
    kept.extend((1..=ids.len()).filter_map(|count| chain_id(&ids[..count])));
    kept.extend(ids.iter().cloned());
    kept.extend(image.manifest.layers.iter().map(|layer| layer.digest.clone()));
    store.pin(&containers::pin(&id), &kept)?;
    let place = Place { container, dir, runtime_root };
    let lock = place.lock(store)?;
    place.save()?;
    Ok((place, lock))
}

/// The ports of the host that the container gets.
fn publish(arguments: &Arguments, image: &Image, others: &[Place]) -> Result<Vec<String>, Failure> {
    let exposed: Vec<&str> = match arguments.publish_all {
        true => image.config.config.exposed_ports.keys().map(String::as_str).collect(),
        false => Vec::new(),
    };
    if arguments.publish.is_empty() && exposed.is_empty() {
        return Ok(Vec::new());
    }
    if rootless::shared::is_entered() {
        return Err(
            "run: only root can publish a port: with --network host the container's are the host's".into()
        );
    }
    let given = ports::publish(&arguments.publish, &exposed, &containers::published(others)?)?;
    Ok(given.iter().map(ToString::to_string).collect())
}

/// Unpacks, mounts, and writes the configuration.
fn prepare(store: &Store, arguments: &Arguments, image: &Image, place: &Place) -> Result<(), Failure> {
    place.mount(store, &snapshot::unpacked(store, &Layers::of(image))?)?;
    let rootfs = open_directory(&place.rootfs())?;
    let accounts = Accounts::read(rootfs.as_fd())?;
    let asked = arguments.user.as_deref().unwrap_or(&image.config.config.user);
    let user = accounts.process_user(asked)?;
    ids::are_there(&user)?;
    let mut wishes = wishes(arguments, place)?;
    wishes.binds = binds(store, arguments, image, place, rootfs.as_fd())?;
    let mut config = bundle::config("rootfs", &image.config, &user, &wishes)?;
    if let Some(hooks) = network::hooks(&place.container.network, &place.container.ports, &place.dir)? {
        config["hooks"] = hooks;
    }
    fs::write(place.dir.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    let command = bundle::arguments(&image.config.config, &wishes)?;
    let container = Container { command, ..place.container.clone() };
    let runtime_root = place.runtime_root.clone();
    Place { container, dir: place.dir.clone(), runtime_root }.save()
}
