//! Images between tools: built by hull-build and run by the managers, built by buildah and run by hull-build.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_integration::containerd::Containerd;
use hull_integration::docker::Docker;
use hull_integration::image;
use hull_integration::podman::Podman;
use hull_testkit::call::eventually;
use hull_testkit::gate::{self, program, root};
use hull_testkit::place::{self, unique};
use hull_testkit::{Outcome, Scratch, call, needs, runtime};

const LIMIT: Duration = Duration::from_secs(90);
const IMAGE: &str = "localhost/lab/built:1";
/// What the image's command prints: a file of a layer, a variable, the user.
const PRINTS: &str = "from a RUN value 7";

/// hull-build with a store of its own.
struct Builder {
    place: Scratch,
}

impl Builder {
    fn new() -> Self {
        Self { place: Scratch::new("images") }
    }

    fn call(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(place::program("hull-build"));
        command.env("HULL_ROOT", self.place.join("store")).env("HOME", self.place.path());
        command.env("HULL_BUILD_RUNTIME", runtime::under_test()).stdin(Stdio::null());
        call(command.args(arguments), LIMIT)
    }

    /// A context with a Dockerfile and the root file system of the test kit.
    fn context(&self, from: &str) -> PathBuf {
        let context = self.place.join("context");
        fs::create_dir_all(&context).expect("make the context");
        fs::rename(image::tarball(&self.place), context.join("bb.tar")).expect("move the root file system");
        let text = format!(
            "FROM {from}\nADD bb.tar /\nRUN printf 'from a RUN' > /said && mkdir /none && rmdir /none && chown 7 /said\n\
             ENV KEY=value\nUSER 7\nCMD [\"/bin/sh\", \"-c\", \"echo $(cat /said) $KEY $(id -u)\"]\n"
        );
        fs::write(context.join("Dockerfile"), text).expect("write the Dockerfile");
        context
    }

    /// Builds the image and saves it: the archive, and the image's id.
    fn built(&self) -> (String, String) {
        let context = self.context("scratch");
        self.call(&["build", "-q", "-t", IMAGE, &context.display().to_string()]).done();
        let archive = self.place.join("built.tar").display().to_string();
        self.call(&["save", "-o", &archive, IMAGE]).done();
        (archive, self.call(&["inspect", "-f", "{{.Id}}", IMAGE]).text().trim().to_owned())
    }

    /// Builds the image, compressed in this way, for a registry: its name there, and the image's id.
    fn built_for(&self, registry: &Registry, compression: &str) -> (String, String) {
        let context = self.context("scratch");
        let name = format!("127.0.0.1:{}/lab/{compression}:1", registry.port);
        let context = context.display().to_string();
        self.call(&["build", "-q", "--compression", compression, "-t", &name, &context]).done();
        let id = self.call(&["inspect", "-f", "{{.Id}}", &name]).text().trim().to_owned();
        (name, id)
    }

    /// The same, pushed there.
    fn pushed(&self, registry: &Registry, compression: &str) -> (String, String) {
        let built = self.built_for(registry, compression);
        self.call(&["push", "-q", &built.0]).done();
        built
    }

    /// Runs the image under the runtime under test.
    fn runs(&self, name: &str) {
        let runtime = runtime::under_test();
        let runtime = runtime.to_str().expect("UTF-8");
        let outcome = self.call(&["run", "--rm", "--network", "none", "--runtime", runtime, name]);
        assert_eq!(outcome.text().trim(), PRINTS);
        self.call(&["fsck"]).done();
    }
}

#[test]
fn podman_loads_and_runs_what_was_built() {
    needs!(root(), program("podman"), program("busybox"), gate::cgroup_v1());
    let (builder, podman) = (Builder::new(), Podman::start());
    let (archive, id) = builder.built();
    podman.call(&["load", "-q", "-i", &archive]).done();
    assert_eq!(podman.call(&["inspect", "-f", "sha256:{{.Id}}", "--type", "image", IMAGE]).text().trim(), id);
    let options =
        ["run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"];
    assert_eq!(
        podman.call(&[&options[..], &["--cgroups", "disabled", IMAGE]].concat()).text().trim(),
        PRINTS
    );
}

#[test]
fn podman_pulls_and_runs_what_was_pushed() {
    needs!(root(), program("podman"), program("docker-registry"), program("busybox"), gate::cgroup_v1());
    let podman = Podman::start();
    for compression in ["gzip", "zstd"] {
        let builder = Builder::new();
        let registry = Registry::start(builder.place.path());
        let (name, id) = builder.pushed(&registry, compression);
        podman.call(&["pull", "-q", "--tls-verify=false", &name]).done();
        let inspected = podman.call(&["inspect", "-f", "sha256:{{.Id}}", "--type", "image", &name]);
        assert_eq!(inspected.text().trim(), id, "{compression}");
        let options = ["run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit"];
        let outcome =
            podman.call(&[&options[..], &["nproc=4096:4096", "--cgroups", "disabled", &name]].concat());
        assert_eq!(outcome.text().trim(), PRINTS, "{compression}");
    }
}

#[test]
fn containerd_pulls_and_runs_what_was_pushed() {
    needs!(root(), program("containerd"), program("ctr"), program("docker-registry"), program("busybox"));
    let containerd = Containerd::start();
    let runtime = runtime::under_test();
    let runtime = runtime.to_str().expect("UTF-8");
    for compression in ["gzip", "zstd"] {
        let builder = Builder::new();
        let registry = Registry::start(builder.place.path());
        let (name, _) = builder.pushed(&registry, compression);
        containerd.ctr(&["image", "pull", "--plain-http", &name]).done();
        let outcome = containerd.ctr(&["run", "--rm", "--runc-binary", runtime, &name, &unique("pulled")]);
        assert_eq!(outcome.text().trim(), PRINTS, "{compression}");
    }
}

#[test]
fn docker_pulls_and_runs_what_was_pushed() {
    needs!(root(), program("dockerd"), program("docker"), program("docker-registry"), program("busybox"));
    needs!(gate::cgroup_v1());
    let (builder, docker) = (Builder::new(), Docker::start());
    // The daemon has a network of its own: the registry is there, too.
    let url = |port: u16| format!("http://127.0.0.1:{port}/v2/");
    let up = |port| docker.beside(&["curl", "-fsS", &url(port)]).code == 0;
    let registry = Registry::start_by(docker.beside_command(), builder.place.path(), up);
    let (name, id) = builder.built_for(&registry, "gzip");
    let store = format!("HULL_ROOT={}", builder.place.join("store").display());
    let program = place::program("hull-build").display().to_string();
    docker.beside(&["env", &store, &program, "push", "-q", &name]).done();
    docker.call(&["pull", "-q", &name]).done();
    assert_eq!(docker.call(&["inspect", "-f", "{{.Id}}", &name]).text().trim(), id);
    assert_eq!(docker.call(&["run", "--rm", "--network", "none", &name]).text().trim(), PRINTS);
}

#[test]
fn containerd_imports_and_runs_what_was_built() {
    needs!(root(), program("containerd"), program("ctr"), program("podman"), program("busybox"));
    let (builder, containerd) = (Builder::new(), Containerd::start());
    let (archive, _) = builder.built();
    containerd.ctr(&["image", "import", &archive]).done();
    let runtime = runtime::under_test();
    let runtime = runtime.to_str().expect("UTF-8");
    let name = unique("built");
    let outcome = containerd.ctr(&["run", "--rm", "--runc-binary", runtime, IMAGE, &name]);
    assert_eq!(outcome.text().trim(), PRINTS);
}

#[test]
fn docker_loads_and_runs_what_was_built() {
    needs!(root(), program("dockerd"), program("docker"), program("busybox"), gate::cgroup_v1());
    let (builder, docker) = (Builder::new(), Docker::start());
    let (archive, id) = builder.built();
    docker.call(&["load", "-q", "-i", &archive]).done();
    assert_eq!(docker.call(&["inspect", "-f", "{{.Id}}", IMAGE]).text().trim(), id);
    assert_eq!(docker.call(&["run", "--rm", "--network", "none", IMAGE]).text().trim(), PRINTS);
    // And back: what Docker saves is loaded, the same image.
    let back = docker.path("back.tar").display().to_string();
    docker.call(&["save", "-o", &back, IMAGE]).done();
    let other = Builder::new();
    other.call(&["load", "-q", "-i", &back]).done();
    assert_eq!(other.call(&["inspect", "-f", "{{.Id}}", IMAGE]).text().trim(), id);
    other.runs(IMAGE);
}

/// Debian's registry on a port of its own.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    fn start(scratch: &Path) -> Self {
        let up = |port| TcpStream::connect(("127.0.0.1", port)).is_ok();
        Self::start_by(Command::new("env"), scratch, up)
    }

    /// Started by a command that runs the one in its arguments; `up` tells whether it answers at a port.
    fn start_by(mut command: Command, scratch: &Path, up: impl Fn(u16) -> bool) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("find a port");
        let port = free.local_addr().expect("the port has a number").port();
        drop(free);
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            scratch.join("registry").display()
        );
        let file = scratch.join("registry.yml");
        fs::write(&file, text).expect("write the registry's configuration");
        command.arg(gate::find("docker-registry").expect("the registry is installed"));
        command.arg("serve").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: command.spawn().expect("start the registry"), port };
        assert!(eventually(LIMIT, || up(port)), "the registry does not come up");
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has seen.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn what_buildah_built_is_pulled_built_upon_and_run() {
    needs!(root(), program("buildah"), program("docker-registry"), program("busybox"));
    let builder = Builder::new();
    let registry = Registry::start(builder.place.path());
    let context = builder.context("scratch").display().to_string();
    for format in ["oci", "docker"] {
        let name = format!("127.0.0.1:{}/lab/{format}:1", registry.port);
        let buildah = |arguments: &[&str]| {
            let mut command = Command::new("buildah");
            for (option, place) in [("--root", "buildah"), ("--runroot", "buildah-run")] {
                command.arg(option).arg(builder.place.join(place));
            }
            call(command.args(["--storage-driver", "vfs"]).args(arguments).stdin(Stdio::null()), LIMIT)
                .done();
        };
        buildah(&["bud", "-q", "--isolation", "chroot", "--format", format, "-t", &name, &context]);
        buildah(&["push", "-q", "--tls-verify=false", &name, &format!("docker://{name}")]);
        builder.call(&["pull", "-q", &name]).done();
        builder.runs(&name);
        let upon = builder.place.join(format!("upon-{format}"));
        fs::create_dir(&upon).expect("make a context");
        fs::write(
            upon.join("Dockerfile"),
            format!("FROM {name}\nUSER root\nRUN echo more >> /more\nUSER 7\n"),
        )
        .expect("write a Dockerfile");
        let child = format!("127.0.0.1:{}/lab/upon-{format}:1", registry.port);
        // The base comes from the registry by itself.
        builder.call(&["rmi", &name]).done();
        let built = builder.call(&["build", "-t", &child, &upon.display().to_string()]);
        built.done();
        assert!(built.stderr.contains(&format!("pulling {name}\n")), "{}", built.stderr);
        builder.runs(&child);
        builder.call(&["push", "-q", &child]).done();
        buildah(&["pull", "-q", "--tls-verify=false", &format!("docker://{child}")]);
    }
}

#[test]
fn skopeo_and_umoci_take_what_was_built() {
    needs!(root(), program("skopeo"), program("umoci"), program("busybox"));
    let builder = Builder::new();
    let (archive, id) = builder.built();
    let layout = builder.place.join("layout");
    let target = format!("oci:{}:1", layout.display());
    let skopeo =
        |arguments: &[&str]| call(Command::new("skopeo").args(arguments).stdin(Stdio::null()), LIMIT);
    for kind in ["oci-archive", "docker-archive"] {
        skopeo(&["copy", "-q", &format!("{kind}:{archive}"), &target]).done();
    }
    // A layout that a build writes is taken as it is, too.
    let own = builder.place.join("own");
    let output = format!("type=oci,tar=false,dest={}", own.display());
    let context = builder.place.join("context").display().to_string();
    builder.call(&["build", "-q", "-t", "lab/own:7", "-o", &output, &context]).done();
    let inspected = skopeo(&["inspect", "--config", "--raw", &format!("oci:{}", own.display())]);
    assert!(inspected.text().contains("KEY=value"));
    let again = format!("dir:{}", builder.place.join("again").display());
    skopeo(&["copy", "-q", "--preserve-digests", &format!("oci:{}", own.display()), &again]).done();
    let index = fs::read_to_string(own.join("index.json")).expect("read the layout's index");
    let tag =
        index.split("org.opencontainers.image.ref.name\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let image = format!("{}:{}", own.display(), tag.expect("the layout names its image"));
    let first = builder.place.join("first-bundle");
    call(Command::new("umoci").args(["unpack", "--image", &image]).arg(&first), LIMIT).done();
    let said = fs::read_to_string(first.join("rootfs/said"));
    assert_eq!(said.expect("read a file of the image"), "from a RUN");
    let store = format!("oci:{}:{IMAGE}", builder.place.join("store").display());
    let config = skopeo(&["inspect", "--config", "--raw", &store]);
    assert!(config.text().contains("KEY=value"), "{id}");
    let bundle = builder.place.join("bundle");
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image", &format!("{}:1", layout.display())]).arg(&bundle);
    call(&mut umoci, LIMIT).done();
    assert_eq!(
        fs::read_to_string(bundle.join("rootfs/said")).expect("read a file of the image"),
        "from a RUN"
    );
    let there = fs::metadata(bundle.join("rootfs/said")).expect("look at a file of the image");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&there), 7);
}
