//! Networks of containers: CNI plug-ins called by hooks of the runtime, the host's network, or none.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use serde_json::{Value, json};

use super::Outcome;
use crate::bundle::Bind;

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
pub(crate) fn choose(wished: Option<&str>) -> String {
    match wished {
        Some(name) => name.to_owned(),
        None if plugin("bridge").is_some() && plugin("host-local").is_some() => "bridge".to_owned(),
        None => {
            eprintln!("hull-build: notice: there are no CNI plug-ins: the container uses the host's network");
            "host".to_owned()
        }
    }
}

/// The hooks that connect a container; none for `host` and `none`.
pub(crate) fn hooks(network: &str, dir: &Path) -> Result<Option<Value>, Box<dyn std::error::Error>> {
    if matches!(network, "host" | "none") {
        return Ok(None);
    }
    configuration(network, &[])?;
    let own = std::env::current_exe()?;
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let root = super::host::store_dir();
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
    let record: Value = serde_json::from_slice(&fs::read(arguments.dir.join("container.json"))?)?;
    let ports: Vec<String> = serde_json::from_value(record["ports"].clone()).unwrap_or_default();
    let network = record["network"].as_str().unwrap_or_default();
    let id = record["id"].as_str().unwrap_or_default();
    let namespace = match (arguments.verb.as_str(), state["pid"].as_i64().unwrap_or(0)) {
        ("DEL", _) | (_, 0) => String::new(),
        (_, pid) => format!("/proc/{pid}/ns/net"),
    };
    let (name, version, plugins) = configuration(network, &ports)?;
    let mut last = Value::Null;
    let order: Vec<&Value> = match arguments.verb.as_str() {
        "DEL" => plugins.iter().rev().collect(),
        _ => plugins.iter().collect(),
    };
    if arguments.verb == "DEL" {
        last = serde_json::from_slice(&fs::read(arguments.dir.join("network.json")).unwrap_or_default())
            .unwrap_or_default();
    }
    for plugin in order {
        let mut config = plugin.clone();
        config["name"] = json!(name);
        config["cniVersion"] = json!(version);
        if !last.is_null() {
            config["prevResult"] = last.clone();
        }
        let answer = call(&config, &arguments.verb, id, &namespace)?;
        if arguments.verb == "ADD" {
            last = answer;
        }
    }
    if arguments.verb == "ADD" {
        fs::write(arguments.dir.join("network.json"), last.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A network's name, version and plug-ins: our own bridge, or a list below `/etc/cni/net.d`.
fn configuration(
    network: &str,
    ports: &[String],
) -> Result<(String, String, Vec<Value>), Box<dyn std::error::Error>> {
    if network == "bridge" {
        let mut plugins = vec![json!({
            "type": "bridge", "bridge": "hull0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}]], "routes": [{"dst": "0.0.0.0/0"}]},
        })];
        let mappings = ports.iter().map(|text| mapping(text)).collect::<Result<Vec<Value>, String>>()?;
        if !mappings.is_empty() {
            plugins.push(json!({
                "type": "portmap", "capabilities": {"portMappings": true}, "snat": true,
                "runtimeConfig": {"portMappings": mappings},
            }));
        }
        return Ok(("hull-bridge".to_owned(), "0.4.0".to_owned(), plugins));
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
            return Ok((network.to_owned(), version, plugins));
        }
    }
    Err(format!("there is no CNI network {network} in /etc/cni/net.d").into())
}

/// `[ADDRESS:]HOST:CONTAINER[/PROTOCOL]`.
fn mapping(text: &str) -> Result<Value, String> {
    let refuse = || format!("port {text:?} is not [ADDRESS:]HOST:CONTAINER[/tcp|udp]");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let parts: Vec<&str> = ports.rsplitn(3, ':').collect();
    let [container, host, address @ ..] = parts.as_slice() else { return Err(refuse()) };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(refuse);
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(refuse());
    }
    let mut mapping =
        json!({"hostPort": number(host)?, "containerPort": number(container)?, "protocol": protocol});
    if let [address] = address {
        mapping["hostIP"] = json!(address.trim_matches(['[', ']']));
    }
    Ok(mapping)
}

fn plugin(name: &str) -> Option<PathBuf> {
    let valid = !name.is_empty() && !name.contains('/') && !name.starts_with(['-', '.']);
    PLUGINS.iter().filter(|_| valid).map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// Calls one plug-in as the CNI specification says: configuration in, result out.
fn call(config: &Value, verb: &str, id: &str, namespace: &str) -> Result<Value, Box<dyn std::error::Error>> {
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
    fn ports_are_published_with_address_and_protocol() {
        assert_eq!(
            mapping("80:8080").unwrap(),
            json!({"hostPort": 80, "containerPort": 8080, "protocol": "tcp"})
        );
        assert_eq!(mapping("127.0.0.1:53:5353/udp").unwrap()["hostIP"], "127.0.0.1");
        assert_eq!(mapping("[::1]:1:2").unwrap()["hostIP"], "::1");
        for bad in ["80", "", "a:b", "0:1", "1:2/x", "70000:1", ":"] {
            assert!(mapping(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plugins_are_never_found_outside_their_directories() {
        for bad in ["", "../../bin/sh", "/bin/sh", "-x", "."] {
            assert_eq!(plugin(bad), None, "{bad}");
        }
    }
}
