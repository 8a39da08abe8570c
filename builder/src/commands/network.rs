//! Networks of containers: CNI plug-ins called by hooks of the runtime, the host's network, or none.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use hull_sys::mount;
use serde_json::{Value, json};

use super::Outcome;
use super::ports::Port;
use super::record::{Container, unmount};
use crate::bundle::Bind;
use crate::host;
use crate::rootless::shared::is_entered;

type Failure = Box<dyn std::error::Error>;

const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
const SUBNET: &str = "10.89.57.0/24";

/// Arguments of the hook that the runtime calls.
#[derive(Args)]
pub(crate) struct Arguments {
    /// ADD or DEL
    verb: String,
    /// Directory of the container
    dir: PathBuf,
}

/// The network a container gets: the wished one, else the bridge where its plug-in is, else the host's.
///
/// # Errors
/// One that only root can make.
pub(crate) fn choose(wished: Option<&str>) -> Result<String, String> {
    Ok(match wished {
        Some(name) if is_entered() && !matches!(name, "host" | "none") => {
            return Err(format!(
                "only root can connect a container to network {name}: use --network host or none"
            ));
        }
        Some(name) => name.to_owned(),
        None if is_entered() => {
            eprintln!("hull-build: notice: only root can make a network: the container uses the host's");
            "host".to_owned()
        }
        None if plugin("bridge").is_some() && plugin("host-local").is_some() => "bridge".to_owned(),
        None => {
            eprintln!("hull-build: notice: there are no CNI plug-ins: the container uses the host's network");
            "host".to_owned()
        }
    })
}

/// The hooks that connect a container; none for `host` and `none`.
pub(crate) fn hooks(network: &str, ports: &[String], dir: &Path) -> Result<Option<Value>, Failure> {
    if matches!(network, "host" | "none") {
        return match ports.is_empty() {
            true => Ok(None),
            false => Err(format!("ports are not published with --network {network}").into()),
        };
    }
    configuration(network, ports)?;
    let own = std::env::current_exe()?;
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let root = host::store_dir();
    let hook = |verb: &str| {
        json!([{
            "path": own,
            "args": ["hull-build", "--root", root, "network-hook", verb, dir],
            "env": [format!("PATH={path}")],
            "timeout": 30,
        }])
    };
    Ok(Some(json!({"createRuntime": hook("ADD"), "poststop": hook("DEL")})))
}

/// `resolv.conf`, `hosts` and `hostname` of the container.
pub(crate) fn files(network: &str, dir: &Path, id: &str) -> std::io::Result<Vec<Bind>> {
    let hosts = match network {
        "host" => fs::read_to_string("/etc/hosts").unwrap_or_default(),
        _ => format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n127.0.1.1\t{}\n", &id[..12]),
    };
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut binds = Vec::new();
    for (name, text) in [("hosts", hosts), ("resolv.conf", resolv), ("hostname", format!("{}\n", &id[..12]))]
    {
        let path = dir.join(name);
        fs::write(&path, text)?;
        binds.push(Bind {
            source: path.display().to_string(),
            destination: format!("/etc/{name}"),
            read_only: false,
        });
    }
    Ok(binds)
}

/// Runs as a hook: standard input is the container's state.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut text = String::new();
    std::io::stdin().lock().take(1 << 20).read_to_string(&mut text)?;
    let state: Value = serde_json::from_str(&text)?;
    let record = fs::read(arguments.dir.join("container.json"))?;
    let container: Container = serde_json::from_slice(&record)?;
    let list = configuration(&container.network, &container.ports)?;
    let connection = Connection { id: container.id, dir: arguments.dir.clone(), list };
    match (arguments.verb.as_str(), state["pid"].as_i64().unwrap_or(0)) {
        ("ADD", 1..) => connection.add(&format!("/proc/{}/ns/net", state["pid"]))?,
        ("DEL", _) => connection.remove()?,
        (verb, pid) => return Err(format!("network: {verb} of process {pid} means nothing").into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Disconnects a container whose runtime has not called the hook for it; usually there is nothing left to do.
pub(crate) fn disconnect(container: &Container, dir: &Path) -> Result<(), Failure> {
    if !namespace(dir).exists() {
        return Ok(());
    }
    let list = configuration(&container.network, &container.ports)?;
    Connection { id: container.id.clone(), dir: dir.to_owned(), list }.remove()
}

/// Where a container's network namespace is kept until its plug-ins have cleaned up.
pub(crate) fn namespace(dir: &Path) -> PathBuf {
    dir.join("netns")
}

/// A container's part of a network.
struct Connection {
    id: String,
    dir: PathBuf,
    list: List,
}

impl Connection {
    /// Connects the namespace; what a failed plug-in leaves is taken away again.
    fn add(&self, own: &str) -> Result<(), Failure> {
        // The plug-ins take away their rules only while the namespace is there, which it is no more when the container has ended.
        let kept = namespace(&self.dir);
        let target = fs::File::create(&kept)?;
        let tree = mount::open_tree(rustix::fs::CWD, own, true, false)?;
        mount::move_mount(tree.as_fd(), target.as_fd())?;
        let mut last = Value::Null;
        for plugin in &self.list.plugins {
            match self.call(plugin, "ADD", &last) {
                Ok(result) => last = result,
                Err(error) => {
                    // The first error is the one to tell.
                    let _ = self.remove();
                    return Err(error);
                }
            }
        }
        Ok(fs::write(self.dir.join("network.json"), last.to_string())?)
    }

    /// Disconnects, last plug-in first, all of them even if one fails; a second time does nothing.
    fn remove(&self) -> Result<(), Failure> {
        let last = fs::read(self.dir.join("network.json")).unwrap_or_default();
        let last = serde_json::from_slice(&last).unwrap_or_default();
        let mut outcome = Ok(());
        for plugin in self.list.plugins.iter().rev() {
            outcome = outcome.and(self.call(plugin, "DEL", &last).map(drop));
        }
        unmount(&namespace(&self.dir));
        for path in [namespace(&self.dir), self.dir.join("network.json")] {
            if outcome.is_ok() && path.exists() {
                fs::remove_file(path)?;
            }
        }
        outcome
    }

    fn call(&self, plugin: &Value, verb: &str, last: &Value) -> Result<Value, Failure> {
        let mut config = plugin.clone();
        config["name"] = json!(self.list.name);
        config["cniVersion"] = json!(self.list.version);
        if !last.is_null() {
            config["prevResult"] = last.clone();
        }
        call(&config, verb, &self.id, &namespace(&self.dir).display().to_string())
    }
}

/// A list of plug-ins.
struct List {
    name: String,
    version: String,
    plugins: Vec<Value>,
}

/// A network's name, version and plug-ins: our own bridge, or a list below `/etc/cni/net.d`.
fn configuration(network: &str, ports: &[String]) -> Result<List, Failure> {
    let mappings = ports
        .iter()
        .map(|text| Port::read(text).map(|port| port.mapping()))
        .collect::<Result<Vec<Value>, String>>()?;
    if network == "bridge" {
        let mut plugins = vec![json!({
            "type": "bridge", "bridge": "hull0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}]], "routes": [{"dst": "0.0.0.0/0"}]},
        })];
        if !mappings.is_empty() {
            plugins.push(json!({
                "type": "portmap", "capabilities": {"portMappings": true}, "snat": true,
                "runtimeConfig": {"portMappings": mappings},
            }));
        }
        return Ok(List { name: "hull-bridge".to_owned(), version: "0.4.0".to_owned(), plugins });
    }
    let entries =
        fs::read_dir("/etc/cni/net.d").map_err(|e| format!("network {network}: read /etc/cni/net.d: {e}"))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let Ok(config) = serde_json::from_slice::<Value>(&fs::read(&path).unwrap_or_default()) else {
            continue;
        };
        if config["name"] == network {
            let version = config["cniVersion"].as_str().unwrap_or("0.4.0").to_owned();
            let plugins = config["plugins"].as_array().cloned().unwrap_or_else(|| vec![config.clone()]);
            return Ok(List { name: network.to_owned(), version, plugins: with_ports(plugins, &mappings) });
        }
    }
    Err(format!("there is no CNI network {network} in /etc/cni/net.d").into())
}

/// Gives the ports to those plug-ins that say they can map them.
fn with_ports(mut plugins: Vec<Value>, mappings: &[Value]) -> Vec<Value> {
    for plugin in plugins.iter_mut().filter(|plugin| plugin["capabilities"]["portMappings"] == true) {
        plugin["runtimeConfig"] = json!({"portMappings": mappings});
    }
    plugins
}

fn plugin(name: &str) -> Option<PathBuf> {
    let valid = !name.is_empty() && !name.contains('/') && !name.starts_with(['-', '.']);
    PLUGINS.iter().filter(|_| valid).map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// Calls one plug-in as the CNI specification says: configuration in, result out.
fn call(config: &Value, verb: &str, id: &str, namespace: &str) -> Result<Value, Failure> {
    let kind = config["type"].as_str().unwrap_or_default();
    let program = plugin(kind).ok_or_else(|| format!("there is no CNI plug-in {kind}"))?;
    let mut child = Command::new(&program)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", namespace)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", PLUGINS.join(":"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("start {}: {e}", program.display()))?;
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    stdin.write_all(config.to_string().as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match output.status.success() {
        true => Ok(answer),
        false => {
            let said = answer["msg"]
                .as_str()
                .map_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned(), str::to_owned);
            Err(format!("CNI plug-in {kind}: {}", said.trim()).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_never_found_outside_their_directories() {
        for bad in ["", "../../bin/sh", "/bin/sh", "-x", "."] {
            assert_eq!(plugin(bad), None, "{bad}");
        }
    }
}
