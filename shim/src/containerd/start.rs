//! `start`: answer with the address of the pod's shim, and start it when there is none yet.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_sys::errno::EAGAIN;
use hull_sys::process::{self, Child};
use hull_sys::socket;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::api::{Any, BootstrapParams, BootstrapResult, Options};
use crate::bundle::{Bundle, options_from, write_private};
use crate::spawn::Program;

use super::flags::Flags;

/// Where shims' sockets are.
const SOCKET_DIR: &str = "/run/containerd/s";
/// Largest standard input that is read.
const STDIN_LIMIT: u64 = 4 << 20;
/// A shim that is there takes a connection at once, unless it is stuck and many wait for it.
const PATIENCE: Duration = Duration::from_millis(500);
/// Longest path of a socket that clients can connect to.
const PATH_LIMIT: usize = 106;
/// The newest version of the Task service that is served; the older one is, on the same socket.
const NEWEST: i32 = 3;
const PROTOCOL: &str = "ttrpc";
/// The descriptor under which the daemon finds its socket.
pub const LISTENER: i32 = 3;

/// In which form the caller of `start` reads the answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The address alone: containerd 1.6, which knows nothing else.
    #[default]
    Bare,
    /// JSON, for the newest version of the Task service that the caller knows.
    Json(i32),
    /// A protobuf message, as the caller sent one: containerd 2.3.
    Protobuf,
}

/// The answer as JSON.
#[derive(serde::Serialize)]
struct Answer<'a> {
    version: i32,
    address: &'a str,
    protocol: &'a str,
}

/// What the caller of `start` sent on standard input and in the environment.
#[derive(Debug, Default, PartialEq)]
struct Caller {
    form: Form,
    /// Where it wants the socket.
    socket_dir: Option<String>,
    /// Runtime options, if any.
    options: Option<Any>,
}

/// Prints the address.
pub fn start(flags: &Flags) -> Result<(), String> {
    let mut input = Vec::new();
    std::io::stdin()
        .take(STDIN_LIMIT)
        .read_to_end(&mut input)
        .map_err(|error| format!("read standard input: {error}"))?;
    let newest = std::env::var("MAX_SHIM_VERSION").ok().and_then(|version| version.parse().ok());
    let caller = Caller::read(&input, &flags.id, newest);
    let directory = std::env::current_dir().map_err(|error| format!("find the bundle: {error}"))?;
    let bundle = Bundle::new(directory);
    let config = bundle.config().map_err(|error| format!("read config.json: {error}"))?;
    let socket_dir = caller.socket_dir.as_deref().unwrap_or(SOCKET_DIR);
    let path = socket_path(socket_dir, &flags.address, &flags.namespace, config.group(&flags.id))?;
    if !somebody_listens(&path) {
        let options = options_from(caller.options.as_ref()).unwrap_or_default();
        start_daemon(flags, &bundle, &path, &options)?;
    }
    let address = format!("unix://{}", path.display());
    write_private(&bundle.file("address"), address.as_bytes())
        .map_err(|error| format!("write address: {error}"))?;
    let answer = caller.form.answer(address);
    std::io::stdout().write_all(&answer).map_err(|error| format!("print the address: {error}"))
}

impl Form {
    /// containerd names the newest version that it takes from 1.7 on; 1.6 would take JSON for an address.
    fn of_version(newest: Option<i32>) -> Self {
        newest.filter(|version| *version >= 2).map_or(Self::Bare, |version| Self::Json(version.min(NEWEST)))
    }

    fn answer(self, address: String) -> Vec<u8> {
        match self {
            Self::Bare => address.into_bytes(),
            Self::Json(version) => {
                let answer = Answer { version, address: &address, protocol: PROTOCOL };
                serde_json::to_vec(&answer).expect("a number and two texts are JSON")
            }
            Self::Protobuf => {
                BootstrapResult { version: NEWEST, address, protocol: PROTOCOL.to_owned() }.encode_to_vec()
            }
        }
    }
}

impl Caller {
    /// Recognises containerd 2.3 by its parameters. An `Any`, which older ones send, decodes as parameters too, with
    /// the type for the name: only the right name tells them apart.
    fn read(input: &[u8], id: &str, newest: Option<i32>) -> Self {
        if let Ok(params) = BootstrapParams::decode(input)
            && params.instance_id == id
            && !params.containerd_version.is_empty()
        {
            let is_options = |any: &Any| any.name().ends_with(".Options");
            return Self {
                form: Form::Protobuf,
                socket_dir: Some(params.socket_dir).filter(|dir| dir.starts_with('/')),
                options: params
                    .extensions
                    .into_iter()
                    .filter_map(|extension| extension.value)
                    .find(is_options),
            };
        }
        let options = Any::decode(input).ok().filter(|any| !any.type_url.is_empty());
        Self { form: Form::of_version(newest), options, socket_dir: None }
    }
}

/// The socket of a pod, as every shim computes it.
fn socket_path(dir: &str, address: &str, namespace: &str, group: &str) -> Result<PathBuf, String> {
    let joined = format!("{}/{namespace}/{group}", address.trim_end_matches('/'));
    let digest = Sha256::digest(joined.as_bytes());
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = Path::new(dir).join(name);
    if path.as_os_str().len() > PATH_LIMIT {
        return Err(format!("socket path {} is longer than {PATH_LIMIT} bytes", path.display()));
    }
    Ok(path)
}

/// A shim that takes nobody, because it hangs or has no descriptor left, is there all the same.
fn somebody_listens(path: &Path) -> bool {
    match socket::connect_stream_within(path, PATIENCE) {
        Ok(_) => true,
        Err(error) => error.is(EAGAIN),
    }
}

fn start_daemon(flags: &Flags, bundle: &Bundle, path: &Path, options: &Options) -> Result<(), String> {
    schedule_apart()?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    make_private(directory).map_err(|error| format!("make {}: {error}", directory.display()))?;
    let Some(listener) = listen(path)? else { return Ok(()) };
    let own = std::env::current_exe().map_err(|error| format!("find the shim's own program: {error}"))?;
    let mut args = vec![own.to_string_lossy().into_owned()];
    let socket = path.to_string_lossy();
    for (flag, value) in [
        ("-namespace", &*flags.namespace),
        ("-id", &*flags.id),
        ("-address", &*flags.address),
        ("-socket", &*socket),
    ] {
        args.extend([flag.to_owned(), value.to_owned()]);
    }
    let mut program = Program::new(own, args).fd(listener.as_fd(), LISTENER);
    program.directory = Some(bundle.dir.clone());
    program.dies_with_us = false;
    let started = program.start().map_err(|error| format!("start the shim: {error}")).and_then(|child| {
        place(&child, options).inspect_err(|_| {
            // It has no client yet.
            let _ = process::kill(child.pid, 9);
        })
    });
    if started.is_err() {
        // The next start, and the delete action, would find a socket of nobody's.
        let _ = fs::remove_file(path);
    }
    started
}

/// With `sched_core` in containerd's configuration nothing else runs on a processor's sibling while the shim or its containers
/// run (PR_SCHED_CORE in prctl(2)): what we start inherits it.
fn schedule_apart() -> Result<(), String> {
    use rustix::thread::{CoreSchedulingScope, create_core_scheduling_cookie};
    if std::env::var_os("SCHED_CORE").is_none_or(|value| value.is_empty()) {
        return Ok(());
    }
    create_core_scheduling_cookie(rustix::process::getpid(), CoreSchedulingScope::ThreadGroup)
        .map_err(|errno| format!("enable core scheduling: {errno}"))
}

/// The socket of a new shim; none when another container of the pod was faster. Containers of a pod may start at once: a
/// socket is removed as stale only if it was there first and nobody listens on it for a while.
fn listen(path: &Path) -> Result<Option<OwnedFd>, String> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let opened =
        fs::File::open(directory).map_err(|error| format!("open {}: {error}", directory.display()))?;
    let make = || socket::listen_stream_at(opened.as_fd(), name);
    let mut made = make();
    if made.is_err() && !somebody_will_listen(path) {
        // One at a time, or the second would remove what the first has just made.
        lock(&opened);
        if !somebody_listens(path) {
            // What cannot be removed is in the way again.
            let _ = fs::remove_file(path);
        }
        made = make();
    }
    match made {
        Ok(listener) => Ok(Some(listener)),
        Err(_) if somebody_will_listen(path) => Ok(None),
        Err(error) => Err(format!("listen on {}: {error}", path.display())),
    }
}

/// Takes turns with others that would remove a socket of `directory`, until it is closed; but not for long: one of them may
/// hang, and without its turn a start is as good as it was.
fn lock(directory: &fs::File) {
    const TRIES: u32 = 100;
    let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    for _ in 0..TRIES {
        if rustix::fs::flock(directory, operation).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A socket has a name shortly before somebody listens on it.
fn somebody_will_listen(path: &Path) -> bool {
    const LOOKS: u32 = 5;
    (0..LOOKS).any(|look| {
        if look > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        somebody_listens(path)
    })
}

/// A directory that only we may enter, also where an older one was more open.
fn make_private(directory: &Path) -> Result<(), std::io::Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}

/// Moves the daemon where the options want it, and lets the kernel prefer it to containerd as a victim.
fn place(child: &Child, options: &Options) -> Result<(), String> {
    let pid = child.pid.as_raw();
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let score = (own + 1).min(1000);
    // Without the right to lower a score it cannot be raised back later, but raising is always allowed.
    let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
    if options.shim_cgroup.is_empty() {
        return Ok(());
    }
    let inner = options.shim_cgroup.trim_start_matches('/');
    if inner.split('/').any(|part| part == "..") {
        return Err(format!("shim cgroup {inner} leaves the hierarchy"));
    }
    let mut hierarchies: Vec<PathBuf> = vec![PathBuf::from("/sys/fs/cgroup")];
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !unified {
        let entries = fs::read_dir("/sys/fs/cgroup").map_err(|error| format!("list cgroups: {error}"))?;
        hierarchies = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.join("cgroup.procs").exists())
            .collect();
    }
    for hierarchy in hierarchies {
        let directory = hierarchy.join(inner);
        let joined = fs::create_dir_all(&directory)
            .and_then(|()| if unified { Ok(()) } else { inherit_cpuset(&hierarchy, Path::new(inner)) })
            .and_then(|()| fs::write(directory.join("cgroup.procs"), pid.to_string()));
        joined.map_err(|error| format!("move the shim to {}: {error}", directory.display()))?;
    }
    Ok(())
}

/// On version 1 a new cpuset has no processors and no memory, and no process may join it until it has
/// (cgroup-v1/cpusets.txt section 2): every level takes its parent's.
fn inherit_cpuset(hierarchy: &Path, inner: &Path) -> Result<(), std::io::Error> {
    let mut parent = hierarchy.to_owned();
    for part in inner.components() {
        let directory = parent.join(part);
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let file = directory.join(name);
            if file.exists() && fs::read_to_string(&file)?.trim().is_empty() {
                fs::write(&file, fs::read(parent.join(name))?)?;
            }
        }
        parent = directory;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Extension;

    #[test]
    fn caller_is_known_by_its_parameters_and_the_newest_version_it_names() {
        let options =
            Any::pack("containerd.runc.v1.Options", &Options { systemd_cgroup: true, ..Default::default() });
        let params = BootstrapParams {
            instance_id: "c1".into(),
            containerd_version: "2.3.4".into(),
            extensions: vec![Extension { value: Some(options.clone()) }],
            socket_dir: "/run/s".into(),
            ..BootstrapParams::default()
        };
        let caller = Caller::read(&params.encode_to_vec(), "c1", Some(2));
        let wanted = Caller {
            form: Form::Protobuf,
            socket_dir: Some("/run/s".into()),
            options: Some(options.clone()),
        };
        assert_eq!(caller, wanted);
        let result = BootstrapResult::decode(caller.form.answer("unix:///x".into()).as_slice()).unwrap();
        assert_eq!(
            (result.version, result.address.as_str(), result.protocol.as_str()),
            (3, "unix:///x", "ttrpc")
        );

        let older = |newest| Caller::read(&options.encode_to_vec(), "c1", newest);
        assert_eq!(older(None), Caller { options: Some(options.clone()), ..Caller::default() });
        assert_eq!(older(Some(2)).options, Some(options.clone()));
        assert_eq!(Caller::read(b"", "c1", None), Caller::default());
        assert_eq!(Caller::read(&params.encode_to_vec(), "c2", None).form, Form::Bare);
    }

    #[test]
    fn answer_has_the_form_that_the_caller_reads() {
        let forms =
            [(None, Form::Bare), (Some(1), Form::Bare), (Some(2), Form::Json(2)), (Some(9), Form::Json(3))];
        for (newest, form) in forms {
            assert_eq!(Form::of_version(newest), form);
        }
        assert_eq!(Form::Bare.answer("unix:///x".into()), b"unix:///x");
        let json = Form::Json(2).answer("unix:///x".into());
        assert_eq!(json, br#"{"version":2,"address":"unix:///x","protocol":"ttrpc"}"#);
    }

    #[test]
    fn one_of_many_starts_makes_the_socket() {
        const STARTS: usize = 8;
        let directory = std::env::temp_dir().join(format!("hull-shim-start-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("socket");
        for round in 0..40 {
            if round % 4 == 0 {
                // As a shim that was killed leaves it.
                drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            }
            let together = std::sync::Barrier::new(STARTS);
            let start = || {
                together.wait();
                let made = listen(&path).unwrap();
                together.wait();
                usize::from(made.is_some())
            };
            let made: usize = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..STARTS).map(|_| scope.spawn(start)).collect();
                starts.into_iter().map(|one| one.join().unwrap()).sum()
            });
            assert_eq!(made, 1, "round {round}");
            fs::remove_file(&path).unwrap();
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn shim_whose_queue_is_full_is_there() {
        use rustix::net::{
            AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with,
        };
        let directory = std::env::temp_dir().join(format!("hull-shim-full-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("socket");
        assert!(!somebody_listens(&path), "nothing is there");
        let address = SocketAddrUnix::new(&path).unwrap();
        let unix = |flags| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let listener = unix(SocketFlags::CLOEXEC);
        bind(&listener, &address).unwrap();
        assert!(!somebody_listens(&path), "nobody listens");
        rustix::net::listen(&listener, 1).unwrap();
        let waiting: Vec<_> = std::iter::repeat_with(|| unix(SocketFlags::NONBLOCK))
            .take_while(|client| connect(client, &address).is_ok())
            .collect();
        assert!(!waiting.is_empty() && waiting.len() < 10);
        assert!(somebody_listens(&path), "its queue is full");
        assert!(listen(&path).unwrap().is_none() && path.exists(), "its socket is not taken from it");
        drop(listener);
        assert!(!somebody_listens(&path), "it is gone");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn socket_names_are_those_of_every_shim() {
        let path = socket_path(SOCKET_DIR, "/run/containerd/containerd.sock", "default", "c1").unwrap();
        let digest = Sha256::digest(b"/run/containerd/containerd.sock/default/c1");
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(path, Path::new("/run/containerd/s").join(hex));
        assert!(socket_path(&"/long".repeat(10), "a", "b", "c").unwrap_err().contains("longer than 106"));
    }
}
