//! Where a registry is: scheme, host, port.

use std::net::{IpAddr, ToSocketAddrs};

use super::{Error, Options, Party, Result};

/// Scheme, host and port: what a credential belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// `http` or `https`.
    pub(crate) scheme: String,
    /// Host in lower case, with brackets if it is an IPv6 address.
    pub(crate) host: String,
    /// Port, also when the scheme implies it.
    pub(crate) port: u16,
}

impl Origin {
    /// The origin of a URL.
    ///
    /// # Errors
    /// A URL without host, with a user in it, or of another scheme.
    pub(crate) fn of(url: &str) -> Result<Self> {
        let refuse = |reason| Error::Rule(format!("URL {} {reason}", redacted(url)));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| refuse("has no scheme"))?;
        let implied = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return Err(refuse("is neither http nor https")),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(refuse("has a user in it"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| refuse("has an invalid port"))?)
            }
            _ => (authority, implied),
        };
        match host.is_empty() {
            true => Err(refuse("has no host")),
            false => Ok(Self { scheme: scheme.to_owned(), host: host.to_lowercase(), port }),
        }
    }

    /// True for this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        let bare = self.host.trim_matches(['[', ']']);
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Refuses what no server may lead to with an answer from `url`: plain HTTP when it was reached by HTTPS, and this
    /// machine when it isn't on it.
    pub(crate) fn check_led_from(&self, first: &Self, url: &str) -> Result<()> {
        if first.scheme == "https" && self.scheme != "https" {
            return Err(Error::Rule(format!("{}: leads from https to http", redacted(url))));
        }
        match self != first && self.is_inside() && !first.is_inside() {
            true => Err(Error::Rule(format!("{}: leads into this machine", redacted(url)))),
            false => Ok(()),
        }
    }

    /// True when any address of the host is this machine or its own link, where only insiders may be sent.
    pub(crate) fn is_inside(&self) -> bool {
        let bare = self.host.trim_matches(['[', ']']);
        // An IPv6 address may stand for one of IPv4: ::ffff:127.0.0.1.
        let inside = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
            IpAddr::V6(v6) => {
                v6.is_loopback() || (v6.segments()[0] & 0xffc0) == 0xfe80 || v6.is_unspecified()
            }
        };
        match (bare, self.port).to_socket_addrs() {
            Ok(mut addresses) => addresses.any(|address| inside(address.ip())),
            Err(_) => self.is_loopback(),
        }
    }
}

/// A registry as it is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The name people use, such as `docker.io`: what credentials are filed under.
    pub(crate) name: String,
    /// `scheme://host[:port]`.
    pub(crate) base: String,
    /// The origin of `base`.
    pub(crate) origin: Origin,
    /// True when credentials may go there.
    pub(crate) may_authenticate: bool,
}

impl Endpoint {
    /// The places that may serve a registry, in the order to be tried: a loopback host also by plain HTTP.
    pub(crate) fn candidates(registry: &str, options: &Options) -> Result<Vec<Self>> {
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let make = |scheme: &str, may_authenticate: bool| -> Result<Self> {
            let base = format!("{scheme}://{host}");
            Ok(Self { name: registry.to_owned(), origin: Origin::of(&base)?, base, may_authenticate })
        };
        if options.plain_http && options.party != Party::Other {
            return Ok(vec![make("http", true)?]);
        }
        let secure = make("https", true)?;
        match secure.origin.is_loopback() {
            true => Ok(vec![make("http", true)?, secure]),
            false => Ok(vec![secure]),
        }
    }
}

/// The mirrors of a registry, in their order; nobody's credentials go there.
pub(crate) fn mirrors(registry: &str, options: &Options) -> Result<Vec<Endpoint>> {
    let mut found = Vec::new();
    for text in &options.mirrors {
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains("://") => (name, url),
            _ => ("docker.io", text.as_str()),
        };
        let origin = Origin::of(url)?;
        if origin.scheme == "http" && !origin.is_loopback() && !options.plain_http {
            return Err(Error::Rule(format!("mirror {}: is not reached by https", redacted(url))));
        }
        let base = url.trim_end_matches('/').to_owned();
        if name == registry {
            found.push(Endpoint { name: registry.to_owned(), base, origin, may_authenticate: false });
        }
    }
    Ok(found)
}

/// A URL as it may be shown: without user, and without a query, which may be a token.
pub(crate) fn redacted(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(Origin::of("https://A.b/x").unwrap(), Origin::of("https://a.B:443/y?z").unwrap());
        assert_ne!(Origin::of("https://a").unwrap(), Origin::of("http://a").unwrap());
        assert_ne!(Origin::of("https://a").unwrap(), Origin::of("https://a:444").unwrap());
        assert_eq!(Origin::of("http://[::1]:5000/v2").unwrap().port, 5000);
        for bad in ["a", "ftp://a", "https://u@a", "https://", "https://a:99999", "file:///etc/passwd"] {
            assert!(Origin::of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_or_by_flag() {
        let schemes = |registry: &str, options: &Options| {
            let all = Endpoint::candidates(registry, options).unwrap();
            all.into_iter().map(|endpoint| endpoint.origin.scheme).collect::<Vec<_>>()
        };
        let options = Options::default();
        for (registry, expected) in [
            ("r.example", vec!["https"]),
            ("localhost:5000", vec!["http", "https"]),
            ("127.0.0.9", vec!["http", "https"]),
            ("[::1]:5", vec!["http", "https"]),
        ] {
            assert_eq!(schemes(registry, &options), expected, "{registry}");
        }
        let plain = Options { plain_http: true, ..Options::default() };
        assert_eq!(schemes("r.example", &plain), ["http"]);
        let other = Options { party: Party::Other, ..plain };
        assert_eq!(schemes("r.example", &other), ["https"]);
    }

    #[test]
    fn no_server_leads_to_plain_http_or_into_this_machine() {
        let leads = |from: &str, to: &str| {
            let (from_origin, to) = (Origin::of(from).unwrap(), Origin::of(to).unwrap());
            to.check_led_from(&from_origin, from).map_err(|error| error.to_string())
        };
        for (from, to, why) in [
            ("https://192.0.2.1", "https://192.0.2.2", None),
            ("http://192.0.2.1", "https://192.0.2.2", None),
            ("https://192.0.2.1", "http://192.0.2.1", Some("from https to http")),
            ("https://192.0.2.1", "https://127.0.0.1", Some("into this machine")),
            ("http://192.0.2.1", "http://[::ffff:169.254.169.254]", Some("into this machine")),
            ("http://127.0.0.1:1", "http://127.0.0.1:2", None),
        ] {
            let said = leads(from, to).err();
            let fits = said.as_deref().zip(why).is_some_and(|(said, why)| said.contains(why));
            assert!(fits || said.is_none() && why.is_none(), "{from} to {to}: {said:?}");
        }
    }

    #[test]
    fn shown_urls_have_neither_user_nor_query() {
        assert_eq!(redacted("https://u:p@h:1/p?token=t#f"), "https://h:1/p");
        assert_eq!(redacted("nonsense?x=y"), "nonsense");
    }

    #[test]
    fn hosts_inside_are_known_by_address() {
        for (url, inside) in [
            ("http://127.0.0.1", true),
            ("http://169.254.169.254/", true),
            ("http://[fe80::1]", true),
            ("http://[::1]:5", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://[::ffff:169.254.169.254]", true),
            ("http://[::ffff:192.0.2.1]", false),
            ("http://192.0.2.1", false),
        ] {
            assert_eq!(Origin::of(url).unwrap().is_inside(), inside, "{url}");
        }
    }
}
