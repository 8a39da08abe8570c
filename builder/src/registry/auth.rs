//! Tokens: what a challenge asks for, got once and kept as long as it lasts.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::challenge::{self, Challenge};
use super::credentials::{self, Credential, Secret};
use super::endpoint::{Endpoint, Origin};
use super::wire::{Answer, Request, Wire};
use super::{Error, Options, Result};

/// Parent domains with one label before a country's are no one's own.
const SHARED_SUFFIXES: [&str; 8] = ["co", "com", "org", "net", "ac", "gov", "edu", "or"];

/// What authorises requests to one registry.
pub(crate) struct Authority {
    endpoint: Endpoint,
    options: Options,
    headers: Mutex<HashMap<String, (Secret, Instant)>>,
}

impl Authority {
    /// Nothing is asked for until the registry challenges.
    pub(crate) fn new(endpoint: Endpoint, options: Options) -> Self {
        Self { endpoint, options, headers: Mutex::new(HashMap::new()) }
    }

    /// The `Authorization` header for a scope, if one was got before and still lasts.
    pub(crate) fn header(&self, scope: &str) -> Option<Secret> {
        let headers = self.headers.lock().ok()?;
        let (header, end) = headers.get(scope)?;
        (*end > Instant::now()).then(|| header.clone())
    }

    /// Answers a challenge; false when there is nothing to answer with.
    pub(crate) fn answer(&self, wire: &Wire, answer: &Answer, scope: &str) -> Result<bool> {
        let challenges: Vec<Challenge> =
            answer.headers("www-authenticate").flat_map(challenge::parse).collect();
        let credential = match self.endpoint.may_authenticate {
            true => credentials::find(&self.endpoint.name, &self.options)?,
            false => None,
        };
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
            let (token, lasts) = self.token(wire, bearer, credential.as_ref(), scope)?;
            self.keep(scope, Secret::new(format!("Bearer {}", token.reveal())), lasts);
            return Ok(true);
        }
        let basic = challenges.iter().any(|challenge| challenge.scheme == "basic");
        match credential.as_ref().and_then(Credential::basic) {
            Some(header) if basic => {
                self.keep(scope, header, Duration::from_secs(3600));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Forgets what a scope was authorised with: the registry refused it.
    pub(crate) fn forget(&self, scope: &str) {
        if let Ok(mut headers) = self.headers.lock() {
            headers.remove(scope);
        }
    }

    fn keep(&self, scope: &str, header: Secret, lasts: Duration) {
        if let Ok(mut headers) = self.headers.lock() {
            headers.insert(scope.to_owned(), (header, Instant::now() + lasts));
        }
    }

    fn token(
        &self,
        wire: &Wire,
        challenge: &Challenge,
        credential: Option<&Credential>,
        scope: &str,
    ) -> Result<(Secret, Duration)> {
        let parameter = |name: &str| challenge.parameters.get(name).map(String::as_str);
        let realm = parameter("realm")
            .ok_or_else(|| Error::Rule("the registry's challenge has no realm".to_owned()))?;
        let origin = self.check_realm(realm)?;
        let credential = credential.filter(|_| self.trusts(&origin));
        let service = parameter("service").unwrap_or_default();
        let scope = if scope.is_empty() { parameter("scope").unwrap_or_default() } else { scope };
        let mut request = match credential {
            Some(Credential::Identity(token)) => {
                let form = format!(
                    "grant_type=refresh_token&service={}&scope={}&client_id=hull-build&refresh_token={}",
                    encoded(service),
                    encoded(scope),
                    encoded(token.reveal())
                );
                let mut request = Request::new("POST", realm).secret_body(&Secret::new(form));
                request.set("content-type", "application/x-www-form-urlencoded");
                request
            }
            other => {
                let join = if realm.contains('?') { '&' } else { '?' };
                let scopes: String =
                    scope.split(' ').map(|scope| format!("&scope={}", encoded(scope))).collect();
                let url = format!("{realm}{join}service={}{scopes}", encoded(service));
                let mut request = Request::new("GET", &url);
                request.authorization = other.and_then(Credential::basic);
                request
            }
        };
        request.set("accept", "application/json");
        let mut answer = wire.send_alone(&request)?;
        let body: Value = serde_json::from_slice(&answer.read_all(1 << 20)?)
            .map_err(|_| Error::Rule("the token server's answer is no JSON".to_owned()))?;
        let token =
            body["token"].as_str().or(body["access_token"].as_str()).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| Error::Rule("the token server's answer has no token".to_owned()))?;
        let seconds = body["expires_in"].as_u64().unwrap_or(60).clamp(10, 3600);
        Ok((Secret::new(token.to_owned()), Duration::from_secs(seconds * 9 / 10)))
    }

    /// A token server must be reached by HTTPS, unless the registry itself is spoken to in plain HTTP.
    fn check_realm(&self, realm: &str) -> Result<Origin> {
        let origin = Origin::of(realm)?;
        if origin.scheme != "https" && self.endpoint.origin.scheme == "https" {
            return Err(Error::Rule(
                "the token server named by the registry is not reached by https".to_owned(),
            ));
        }
        if origin.is_inside() && !self.endpoint.origin.is_inside() {
            return Err(Error::Rule(
                "the token server named by the registry is inside this machine".to_owned(),
            ));
        }
        Ok(origin)
    }

    /// Credentials go to a token server of the registry's own host or domain only (CVE-2026-24845).
    fn trusts(&self, realm: &Origin) -> bool {
        let registry = &self.endpoint.origin;
        if realm == registry {
            return true;
        }
        realm.scheme == "https" && registry.scheme == "https" && same_owner(&registry.host, &realm.host)
    }
}

/// True for hosts below one parent domain that is not a country's.
fn same_owner(registry: &str, realm: &str) -> bool {
    if registry == realm {
        return true;
    }
    let Some((_, parent)) = registry.split_once('.') else { return false };
    let labels: Vec<&str> = parent.split('.').collect();
    let shared = labels.len() < 2
        || (labels.len() == 2 && labels[1].len() == 2 && SHARED_SUFFIXES.contains(&labels[0]));
    let is_address = registry.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    !shared && !is_address && (realm == parent || realm.ends_with(&format!(".{parent}")))
}

/// Percent-encodes all but unreserved characters.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes()
        .map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_in_the_registrys_own_domain() {
        for (registry, realm, own) in [
            ("registry-1.docker.io", "auth.docker.io", true),
            ("registry.gitlab.com", "gitlab.com", true),
            ("ghcr.io", "ghcr.io", true),
            ("ghcr.io", "evil.io", false),
            ("r.example.com", "r.example.com.evil.org", false),
            ("r.example.com", "evilexample.com", false),
            ("example.co.uk", "evil.co.uk", false),
            ("10.0.0.1", "evil.0.0.1", false),
            ("localhost", "evil.example", false),
        ] {
            assert_eq!(same_owner(registry, realm), own, "{registry} and {realm}");
        }
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("repository:a/b:pull,push é"), "repository%3Aa%2Fb%3Apull%2Cpush%20%C3%A9");
    }
}
