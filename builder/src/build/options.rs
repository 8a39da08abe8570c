//! What the flags mean: each one read once, refused here when it makes no sense.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hull_image::Reference;
use hull_layer::Encoding;

use super::epoch::epoch;
use super::{output, source};
use crate::audit::Audit;
use crate::commands::build::{Arguments, LimitArguments};
use crate::dockerfile::mount::size;
use crate::error::{Error, Result};
use crate::execute::Settings;
use crate::graph;
use crate::pack::Packing;
use crate::registry;
use crate::secrets::{Granted, SecretSource};
use crate::spelling::truth;
use crate::steps::run::{Runner, Volume};
use crate::steps::sandbox::{self, Limits};
use crate::workspace::Workspace;

/// Flags that are taken but ask for what is not done yet: refused when silence would be wrong, else said.
pub(crate) fn refuse_nonsense(arguments: &Arguments) -> Result<()> {
    let accepted = &arguments.accepted;
    let later = [
        (!accepted.cache_from.is_empty(), "--cache-from"),
        (!accepted.cache_to.is_empty(), "--cache-to"),
        (!accepted.attest.is_empty(), "--attest"),
        (accepted.provenance.as_deref().is_some_and(|value| value != "false"), "--provenance"),
        (accepted.sbom.as_deref().is_some_and(|value| value != "false"), "--sbom"),
        (accepted.squash || accepted.squash_all, "--squash"),
        (!accepted.security_opt.is_empty(), "--security-opt"),
    ];
    for (_, flag) in later.iter().filter(|(given, _)| *given) {
        eprintln!("hull-build: {flag} is not done yet and has no effect");
    }
    match arguments.call.as_deref() {
        None | Some("build" | "check" | "outline" | "targets") => Ok(()),
        Some(other) => {
            Err(Error::fact(format!("--call {other} is not known: build, check, outline or targets")))
        }
    }
}

/// How the registries are spoken to that the image is for.
pub(crate) fn registry(arguments: &Arguments) -> Result<registry::Options> {
    arguments.registry.options().map_err(Error::fact)
}

/// How the registry of an image is spoken to that a Dockerfile names. Who wrote that may not choose to whom the flags'
/// credentials and trust go: they are for the registries that the command line names.
pub(crate) fn registry_of(arguments: &Arguments, reference: &Reference) -> Result<registry::Options> {
    let party = match output::registries(arguments).contains(&reference.registry) {
        true => registry::Party::Named,
        false => registry::Party::Other,
    };
    Ok(registry::Options { party, ..registry(arguments)? })
}

/// When a registry is asked for a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pull {
    /// Also when the store has it.
    Always,
    /// When the store has not.
    Missing,
    /// Not at all.
    Never,
}

/// `--pull`, a flag of Docker's and a policy of podman's.
pub(crate) fn pull(arguments: &Arguments) -> Result<Pull> {
    match arguments.accepted.pull.as_deref() {
        Some("always" | "newer" | "ifnewer") => Ok(Pull::Always),
        None | Some("missing" | "ifmissing") => Ok(Pull::Missing),
        Some("never") => Ok(Pull::Never),
        Some(word) => match truth(word) {
            Ok(true) => Ok(Pull::Always),
            Ok(false) => Ok(Pull::Missing),
            Err(_) => {
                Err(Error::fact(format!("--pull {word} is not known: always, newer, missing or never")))
            }
        },
    }
}

/// Whether nothing is to be built.
pub(crate) fn only_checks(arguments: &Arguments) -> bool {
    arguments.check || arguments.call.as_deref() == Some("check")
}

/// What the graph is resolved with.
pub(crate) fn graph(arguments: &Arguments, epoch: u64) -> Result<graph::Options> {
    let machine = rustix::system::uname();
    let native = graph::native_platform(&machine.machine().to_string_lossy());
    check_platform(arguments, &native)?;
    let mut options = graph::Options {
        build_args: build_args(arguments)?,
        target: arguments.target.clone(),
        platform: native,
        labels: pairs("--label", &arguments.label)?,
        epoch,
        unset_env: arguments.unsetenv.clone(),
        unset_labels: arguments.unsetlabel.clone(),
        ..graph::Options::default()
    };
    options.build_args.remove(graph::EPOCH);
    for given in &arguments.build_context {
        let (name, value) = named_context(given)?;
        let image = value.strip_prefix("docker-image://").unwrap_or(value);
        match context_kind(value)? {
            ContextKind::Image => drop(options.images.insert(name, image.to_owned())),
            _ => drop(options.directories.insert(name)),
        }
    }
    for granted in arguments.allow.iter().flat_map(|list| list.split(',')) {
        match granted {
            "network.host" => options.allow_host_network = true,
            "security.insecure" => options.allow_insecure = true,
            // Grants of buildx to its daemon, which would reach files and agents of the client: here there is none.
            "ssh" => {}
            files if files == "fs" || files.starts_with("fs.") || files.starts_with("fs=") => {}
            other => return Err(Error::fact(format!("unknown entitlement \"{other}\""))),
        }
    }
    options.allow_host_network |= arguments.network.as_deref() == Some("host");
    Ok(options)
}

fn check_platform(arguments: &Arguments, native: &str) -> Result<()> {
    let is_native = |platform: &str| {
        platform == native
            || platform == native.replace("amd64", "x86_64")
            || Some(platform) == native.strip_prefix("linux/")
            || (native == "linux/arm64" && platform == "linux/arm64/v8")
    };
    match arguments.platform.iter().find(|platform| !is_native(platform)) {
        None => Ok(()),
        Some(platform) => Err(Error::fact(format!(
            "platform {platform} can't be built here: only {native} can, there is no emulation"
        ))),
    }
}

/// `name=value` of --build-context.
pub(crate) fn named_context(given: &str) -> Result<(String, &str)> {
    let (name, value) = given
        .split_once('=')
        .ok_or_else(|| Error::fact(format!("--build-context \"{given}\" must be name=value")))?;
    Ok((graph::context_name(name), value))
}

/// What a context given by name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContextKind {
    Image,
    Directory,
    Remote,
}

/// Tells by the value of --build-context.
pub(crate) fn context_kind(value: &str) -> Result<ContextKind> {
    match value {
        _ if ["docker-image://", "oci-layout://"].iter().any(|scheme| value.starts_with(scheme)) => {
            Ok(ContextKind::Image)
        }
        _ if source::is_remote(value) => Ok(ContextKind::Remote),
        _ if value.contains("://") => {
            Err(Error::fact(format!("this kind of --build-context is not known: {value}")))
        }
        _ => Ok(ContextKind::Directory),
    }
}

/// The socket of the default agent, for git.
pub(crate) fn agent(arguments: &Arguments) -> Result<Option<PathBuf>> {
    Ok(granted(arguments)?.agents.remove("default"))
}

pub(crate) fn build_args(arguments: &Arguments) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for path in &arguments.build_arg_file {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        all.extend(
            lines
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
    }
    for given in &arguments.build_arg {
        match given.split_once('=') {
            Some((name, value)) => drop(all.insert(name.to_owned(), value.to_owned())),
            None => all.extend(std::env::var(given).ok().map(|value| (given.clone(), value))),
        }
    }
    Ok(all)
}

pub(crate) fn pairs(flag: &str, given: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name.is_empty() {
            true => Err(Error::fact(format!("{flag} \"{text}\" has no name"))),
            false => Ok((name.to_owned(), value.to_owned())),
        }
    };
    given.iter().map(pair).collect()
}

/// How steps are carried out.
pub(crate) fn settings(arguments: &Arguments, place: &str) -> Result<Settings> {
    let level = arguments.compression_level;
    let encoding = match arguments.compression.as_str() {
        "gzip" => level.map_or(Encoding::DEFAULT, Encoding::Gzip),
        "zstd" => Encoding::Zstd(level.unwrap_or(3)),
        "uncompressed" | "none" => Encoding::Plain,
        other => {
            return Err(Error::fact(format!("unknown compression \"{other}\": gzip, zstd or uncompressed")));
        }
    };
    let epoch = (!arguments.keep_times).then(|| epoch(arguments));
    Ok(Settings {
        packing: Packing { epoch, encoding },
        no_cache_stages: arguments
            .no_cache_filter
            .iter()
            .flat_map(|list| list.split(','))
            .map(str::to_lowercase)
            .collect(),
        no_cache: arguments.no_cache,
        explain: arguments.explain,
        jobs: arguments.jobs,
        place: place.to_owned(),
        audit: arguments.audit_secrets.then(|| Audit::of(&granted(arguments)?)).transpose()?,
        secrets: granted(arguments)?,
        announce: None,
    })
}

/// Refuses secrets whose files cannot be read, before any step is done. As in BuildKit a variable may be missing that no
/// step asks for.
pub(crate) fn secrets(arguments: &Arguments) -> Result<()> {
    granted(arguments)?.secrets.iter().try_for_each(|(id, source)| source.check(id))
}

fn granted(arguments: &Arguments) -> Result<Granted> {
    let mut granted = Granted::default();
    for given in &arguments.secret {
        let field = |name: &str| {
            given.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let id = field("id").ok_or_else(|| Error::fact(format!("--secret \"{given}\" has no id")))?;
        let file = field("src").or_else(|| field("source"));
        let source = match (file, field("env"), field("type")) {
            (Some(file), None, _) => SecretSource::File(PathBuf::from(file)),
            (None, Some(name), _) | (Some(name), _, Some("env")) => SecretSource::Variable(name.to_owned()),
            // Neither: a variable of that name, else a file.
            (None, None, _) if std::env::var_os(id).is_some() => SecretSource::Variable(id.to_owned()),
            (None, None, _) => SecretSource::File(PathBuf::from(id)),
            (Some(_), Some(_), _) => {
                return Err(Error::fact(format!("--secret \"{given}\" has both a file and a variable")));
            }
        };
        granted.secrets.insert(id.to_owned(), source);
    }
    for given in &arguments.ssh {
        let (name, socket) = match given.split_once('=') {
            Some((name, socket)) => (name, PathBuf::from(socket)),
            None => {
                let socket = std::env::var_os("SSH_AUTH_SOCK");
                let socket =
                    socket.ok_or_else(|| Error::fact("--ssh needs SSH_AUTH_SOCK, or NAME=SOCKET"))?;
                (given.as_str(), PathBuf::from(socket))
            }
        };
        granted.agents.insert(name.to_owned(), socket);
    }
    Ok(granted)
}

/// What RUN is carried out with.
pub(crate) fn runner<'a>(arguments: &Arguments, workspace: &'a Workspace) -> Result<Runner<'a>> {
    let no_network = match arguments.network.as_deref() {
        None | Some("default" | "host") => false,
        Some("none") => true,
        Some(other) => {
            return Err(Error::fact(format!("unknown network \"{other}\": default, none or host")));
        }
    };
    let run_env = |given: &String| match given.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(given).ok().map(|value| (given.clone(), value)),
    };
    let host = |given: &String| {
        let pair = given.split_once('=').or_else(|| given.split_once(':'));
        let wrong = || Error::fact(format!("--add-host \"{given}\" must be NAME:ADDRESS"));
        let (name, address) = pair.ok_or_else(wrong)?;
        let address = match address.trim_matches(['[', ']']) {
            // Steps have the host's network: there it is this machine.
            "host-gateway" => "127.0.0.1",
            address => address,
        };
        address.parse::<std::net::IpAddr>().map_err(|_| wrong())?;
        Ok((name.to_owned(), address.to_owned()))
    };
    let limits = limits(&arguments.limits)?;
    Ok(Runner {
        workspace,
        runtime: program(&arguments.runtime)?,
        no_network,
        hosts: arguments.add_host.iter().map(host).collect::<Result<_>>()?,
        env: arguments.run_env.iter().filter_map(run_env).collect(),
        volumes: arguments.volume.iter().map(|text| volume(text)).collect::<Result<_>>()?,
        cgroup_parent: arguments.limits.cgroup_parent.clone(),
        seccomp: Some(seccomp(&limits)?),
        limits,
        count: std::sync::atomic::AtomicU64::new(0),
        guard: std::sync::OnceLock::new(),
    })
}

/// The filter of system calls for the capabilities that RUN has.
fn seccomp(limits: &Limits) -> Result<serde_json::Value> {
    let held = sandbox::capabilities(limits);
    let holds = |capability| {
        let name = serde_json::to_value(capability).unwrap_or_default();
        name.as_str().is_some_and(|name| held.iter().any(|known| known == name))
    };
    let profile = hull_seccomp::default_profile(holds, hull_seccomp::Arch::NATIVE);
    serde_json::to_value(&profile)
        .map_err(|e| Error::fact(format!("the seccomp profile can't be written: {e}")))
}

/// The runtime's path, found before anything of an image is touched.
fn program(name: &str) -> Result<PathBuf> {
    if name.contains('/') {
        return std::path::absolute(name).map_err(Error::io("resolve", name));
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = beside.into_iter().chain(std::env::split_paths(&path)).map(|place| place.join(name));
    // Without RUN none is needed: what is missing is said when it is.
    Ok(places.find(|place| place.is_file()).unwrap_or_else(|| PathBuf::from(name)))
}

fn volume(text: &str) -> Result<Volume> {
    let wrong =
        || Error::fact(format!("--volume \"{text}\" must be SOURCE:DESTINATION[:ro|rw], absolute paths"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, options) = match parts.as_slice() {
        [source, destination] => (source, destination, "ro"),
        [source, destination, options] => (source, destination, *options),
        _ => return Err(wrong()),
    };
    if !source.starts_with('/') || !destination.starts_with('/') || !matches!(options, "ro" | "rw") {
        return Err(wrong());
    }
    let destination = crate::pattern::path::clean(destination);
    Ok(Volume { source: PathBuf::from(source), destination, read_only: options == "ro" })
}

fn limits(given: &LimitArguments) -> Result<Limits> {
    let bytes = |flag: &str, text: &Option<String>| -> Result<Option<u64>> {
        let wrong = |text: &String| Error::fact(format!("{flag} \"{text}\" is no size like 512m"));
        text.as_ref().map(|text| size(text).ok_or_else(|| wrong(text))).transpose()
    };
    let signed = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    let swap = match given.memory_swap.as_deref() {
        Some("-1") => Some(-1),
        _ => signed(bytes("--memory-swap", &given.memory_swap)?),
    };
    let ulimit = |text: &String| {
        let wrong = || Error::fact(format!("--ulimit \"{text}\" must be NAME=SOFT[:HARD]"));
        let (name, values) = text.split_once('=').ok_or_else(wrong)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let number = |text: &str| if text == "-1" { Ok(u64::MAX) } else { text.parse().map_err(|_| wrong()) };
        Ok((name.to_owned(), number(soft)?, number(hard)?))
    };
    let capability = |name: &String| {
        let upper = name.to_uppercase();
        if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
    };
    Ok(Limits {
        memory: signed(bytes("--memory", &given.memory)?),
        memory_swap: swap,
        cpu_shares: given.cpu_shares,
        cpu_quota: given.cpu_quota,
        cpu_period: given.cpu_period,
        cpuset_cpus: given.cpuset_cpus.clone(),
        cpuset_mems: given.cpuset_mems.clone(),
        ulimits: given.ulimit.iter().map(ulimit).collect::<Result<_>>()?,
        shm_size: bytes("--shm-size", &given.shm_size)?,
        capabilities: given.cap_add.iter().map(capability).collect(),
    })
}
