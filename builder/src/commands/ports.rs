//! Published ports of containers (`-p`, `-P`), in the forms that Docker takes.

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;

use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

/// One port of the host that leads to one of the container; as it is written down, `[ADDRESS:]HOST:CONTAINER/PROTOCOL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    address: Option<IpAddr>,
    host: u16,
    container: u16,
    protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// Where the host's side of a wish may be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// Any port that is free.
    Any,
    /// The first that is free of these.
    FirstOf(RangeInclusive<u16>),
    Exactly(u16),
}

/// One port of a container that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    address: Option<IpAddr>,
    host: Host,
    container: u16,
    protocol: Protocol,
}

/// The ports that a container publishes: those of `wishes` (`[ADDRESS:][HOST:]CONTAINER[/PROTOCOL]`, each a port or a range) and
/// each of `exposed`, an image's `PORT[-PORT][/PROTOCOL]`, at a free one. No port of the host is given that `others`, the
/// living containers with their ports, or a process of the host has.
pub(crate) fn publish(
    wishes: &[String],
    exposed: &[&str],
    others: &[(String, Vec<Port>)],
) -> Result<Vec<Port>, Failure> {
    let mut given: Vec<Port> = Vec::new();
    let free = |wish: &Wish, host: u16, given: &[Port]| {
        let port = Port { address: wish.address, host, container: wish.container, protocol: wish.protocol };
        if given.iter().any(|other| port.collides(other)) {
            return Err(format!("port {port} is published twice"));
        }
        let holder = others.iter().find(|(_, ports)| ports.iter().any(|other| port.collides(other)));
        match holder {
            Some((name, _)) => Err(format!("port {port} is published by container {name}")),
            None => port.bind().map(|host| Port { host, ..port.clone() }),
        }
    };
    let wished = wishes.iter().map(|text| expand(text)).collect::<Result<Vec<_>, _>>()?;
    let exposed = exposed.iter().map(|text| expand(text)).collect::<Result<Vec<_>, _>>()?;
    for wish in wished.into_iter().chain(exposed).flatten() {
        let port = match wish.host.clone() {
            Host::Exactly(host) => free(&wish, host, &given)?,
            // The kernel chooses one that nobody listens on; another container's may be among them.
            Host::Any => (0..64)
                .find_map(|_| {
                    let port = free(&wish, 0, &given).ok()?;
                    free(&wish, port.host, &given).ok()
                })
                .ok_or_else(|| format!("there is no free port for {}/{}", wish.container, wish.protocol))?,
            Host::FirstOf(mut range) => {
                let shown = format!("{}-{}", range.start(), range.end());
                range.find_map(|host| free(&wish, host, &given).ok()).ok_or_else(|| {
                    format!("none of the ports {shown} is free for {}/{}", wish.container, wish.protocol)
                })?
            }
        };
        given.push(port);
    }
    Ok(given)
}

/// Makes sure that ports which a container had before can be its own again.
pub(crate) fn claim(ports: &[Port], others: &[(String, Vec<Port>)]) -> Result<(), Failure> {
    let wishes: Vec<String> = ports.iter().map(Port::to_string).collect();
    publish(&wishes, &[], others).map(drop)
}

/// Ports as they were written down.
pub(crate) fn read(texts: &[String]) -> Result<Vec<Port>, String> {
    texts.iter().map(|text| Port::read(text)).collect()
}

/// Ports that were written down, as `ps` shows them; what is none is shown as it is.
pub(crate) fn shown(texts: &[String]) -> String {
    let shown = |text: &String| Port::read(text).map_or_else(|_| text.clone(), |port| port.shown());
    texts.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// One wish for each port of the container's range.
fn expand(text: &str) -> Result<Vec<Wish>, String> {
    let refuse = || format!("port {text:?} is not [ADDRESS:][HOST:]CONTAINER[/tcp|udp|sctp]");
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = Protocol::read(protocol).ok_or_else(refuse)?;
    let (rest, container) = ports.rsplit_once(':').map_or((None, ports), |(rest, last)| (Some(rest), last));
    let container = range(container).ok_or_else(refuse)?;
    let (address, host) = match rest.map(|rest| rest.rsplit_once(':').unwrap_or(("", rest))) {
        None => (None, None),
        Some((address, host)) => {
            let address = match address.trim_start_matches('[').trim_end_matches(']') {
                "" => None,
                address => Some(address.parse().map_err(|_| refuse())?),
            };
            match host {
                "" => (address, None),
                host => (address, Some(range(host).ok_or_else(refuse)?)),
            }
        }
    };
    let hosts: Box<dyn Iterator<Item = Host>> = match host {
        None => Box::new(std::iter::repeat(Host::Any)),
        Some(host) if host.len() == container.len() => Box::new(host.map(Host::Exactly)),
        Some(host) if container.len() == 1 => Box::new(std::iter::once(Host::FirstOf(host))),
        Some(_) => return Err(format!("port {text:?}: the ranges are not equally long")),
    };
    Ok(container.zip(hosts).map(|(container, host)| Wish { address, host, container, protocol }).collect())
}

/// `PORT` or `FIRST-LAST`; there is no port 0.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0 && !text.starts_with('+'));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

impl Protocol {
    fn read(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl Port {
    /// Reads a port as it was written down.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        match expand(text)?.as_slice() {
            [Wish { address, host: Host::Exactly(host), container, protocol }] => {
                Ok(Self { address: *address, host: *host, container: *container, protocol: *protocol })
            }
            _ => Err(format!("port {text:?} is not one port of the host and one of the container")),
        }
    }

    /// As the plug-in portmap wants it.
    pub(crate) fn mapping(&self) -> Value {
        let mut mapping = json!({
            "hostPort": self.host, "containerPort": self.container, "protocol": self.protocol.to_string(),
        });
        if let Some(address) = self.address {
            mapping["hostIP"] = json!(address);
        }
        mapping
    }

    /// As `ps` shows it, in Docker's form.
    pub(crate) fn shown(&self) -> String {
        format!("{}->{}/{}", SocketAddr::new(self.listened(), self.host), self.container, self.protocol)
    }

    fn listened(&self) -> IpAddr {
        self.address.unwrap_or_else(|| [0, 0, 0, 0].into())
    }

    /// True when both want the same port of the same address.
    fn collides(&self, other: &Self) -> bool {
        self.host == other.host
            && self.protocol == other.protocol
            && (self.listened() == other.listened()
                || self.listened().is_unspecified()
                || other.listened().is_unspecified())
    }

    /// Tries whether a process of the host has the port, and says which it is: 0 stands for any. SCTP is not tried: the
    /// kernel may not have it.
    fn bind(&self) -> Result<u16, String> {
        let place = SocketAddr::new(self.listened(), self.host);
        let bound = match self.protocol {
            Protocol::Udp => UdpSocket::bind(place).and_then(|socket| socket.local_addr()),
            Protocol::Sctp if self.host != 0 => Ok(place),
            Protocol::Tcp | Protocol::Sctp => TcpListener::bind(place).and_then(|socket| socket.local_addr()),
        };
        bound.map(|at| at.port()).map_err(|error| format!("port {self} cannot be published: {error}"))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(to, "[{address}]:")?,
            Some(IpAddr::V4(address)) => write!(to, "{address}:")?,
            None => {}
        }
        write!(to, "{}:{}/{}", self.host, self.container, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(wishes: &[&str]) -> Result<Vec<String>, String> {
        let wishes: Vec<String> = wishes.iter().map(|text| (*text).to_owned()).collect();
        let ports = publish(&wishes, &[], &[]).map_err(|error| error.to_string())?;
        Ok(ports.iter().map(Port::to_string).collect())
    }

    /// A port of this address that nobody has at the moment.
    fn free() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn ports_are_read_with_address_and_protocol() {
        let port = |text: &str| Port::read(text).unwrap();
        assert_eq!(
            port("80:8080").mapping(),
            json!({"hostPort": 80, "containerPort": 8080, "protocol": "tcp"})
        );
        assert_eq!(port("80:8080").shown(), "0.0.0.0:80->8080/tcp");
        assert_eq!(port("127.0.0.1:53:5353/udp").mapping()["hostIP"], "127.0.0.1");
        assert_eq!(port("[::1]:1:2").mapping()["hostIP"], "::1");
        assert_eq!(port("[::1]:1:2").shown(), "[::1]:1->2/tcp");
        for text in ["80:8080/tcp", "127.0.0.1:53:5353/udp", "[::1]:1:2/sctp"] {
            assert_eq!(port(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for bad in
            ["", "a:b", "0:1", "0", "1:2/x", "70000:1", ":", "1-:2", "9-3", "host:1:2", "+1:2", "1:2:3:4"]
        {
            assert!(expand(bad).is_err(), "{bad}");
        }
        let uneven = expand("80-82:1-2").unwrap_err();
        assert!(uneven.contains("equally long"), "{uneven}");
        for one_of_many in ["80", "80-81:80-81", "127.0.0.1::80"] {
            assert!(Port::read(one_of_many).is_err(), "{one_of_many}");
        }
    }

    #[test]
    fn ports_of_the_host_are_found_where_none_is_named() {
        let ports =
            given(&["127.0.0.1::80", "127.0.0.1::80", "127.0.0.1::90-91/udp", "127.0.0.1::7/sctp"]).unwrap();
        let read: Vec<Port> = ports.iter().map(|text| Port::read(text).unwrap()).collect();
        assert_eq!(read.iter().map(|port| port.container).collect::<Vec<_>>(), [80, 80, 90, 91, 7]);
        assert!(read.iter().all(|port| port.host != 0), "{ports:?}");
        assert_ne!(read[0].host, read[1].host);
        let ports = publish(&[], &["80", "53/udp"], &[]).unwrap();
        assert_eq!(
            ports.iter().map(|port| (port.container, port.protocol)).collect::<Vec<_>>(),
            [(80, Protocol::Tcp), (53, Protocol::Udp)]
        );
    }

    #[test]
    fn ranges_lead_to_ranges_and_one_port_takes_the_first_free() {
        let wishes = expand("127.0.0.1:8000-8002:80-82/udp").unwrap();
        let pairs: Vec<_> = wishes.iter().map(|wish| (wish.host.clone(), wish.container)).collect();
        assert_eq!(pairs, [(Host::Exactly(8000), 80), (Host::Exactly(8001), 81), (Host::Exactly(8002), 82)]);
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = holder.local_addr().unwrap().port().min(65_000);
        let found = given(&[&format!("127.0.0.1:{first}-{}:80", first + 50)]).unwrap();
        assert!(Port::read(&found[0]).unwrap().host > first, "{found:?}");
        let none = given(&[&format!("127.0.0.1:{first}-{first}:80-80")]).unwrap_err();
        assert!(none.contains("in use"), "{none}");
    }

    #[test]
    fn a_port_is_published_once() {
        let port = free();
        let wanted = |text: &str, others: &[&str]| {
            let others = others.iter().map(|text| Port::read(text).unwrap()).collect();
            publish(&[text.replace('P', &port.to_string())], &[], &[("c".to_owned(), others)])
        };
        wanted("127.0.0.1:P:80", &["127.0.0.2:80:80"]).unwrap();
        let taken = format!("{port}:1");
        let error = wanted("127.0.0.1:P:80", &[&taken]).unwrap_err().to_string();
        assert!(error.contains("published by container c"), "{error}");
        wanted("127.0.0.1:P:80", &[&format!("{port}:1/udp")]).unwrap();
        let twice = given(&[&format!("127.0.0.1:{port}:1"), &format!("127.0.0.1:{port}:2")]).unwrap_err();
        assert!(twice.contains("published twice"), "{twice}");
        let holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!(wanted("127.0.0.1:P:80", &[]).unwrap_err().to_string().contains("in use"));
        drop(holder);
    }
}
