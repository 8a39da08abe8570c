//! Requests on the wire: the only place that makes an HTTP client, follows redirects, waits and tries again.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hull_image::Growing;
use ureq::http::{self, HeaderMap};
use ureq::{Agent, SendBody};

use super::endpoint::{Origin, redacted};
use super::{Error, Options, Result, Secret, later, trust};

const MAX_REDIRECTS: usize = 5;
const MAX_PAUSE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(15);
const STALL: Duration = Duration::from_secs(60);

/// What a request sends; all of it can be sent again.
#[derive(Debug)]
pub(crate) enum Body {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A part of a file; the place up to which it was sent is noted.
    File(File, Range<u64>, Arc<AtomicU64>),
    /// A part, which is written, of a blob that grows.
    Growing(Growing, Range<u64>),
}

impl Body {
    fn length(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, part, _) | Self::Growing(_, part) => part.end - part.start,
        }
    }

    /// All of it, from its beginning.
    fn reader(&self) -> Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::None => Box::new(std::io::empty()),
            Self::Bytes(bytes) => Box::new(&bytes[..]),
            Self::File(file, part, at) => {
                let mut file: &File = file;
                let found = file.seek(SeekFrom::Start(part.start));
                found.map_err(|e| Error::Rule(format!("rewind a blob: {e}")))?;
                Box::new(Counted { inner: file.take(part.end - part.start), place: part.start, at })
            }
            Self::Growing(blob, part) => Box::new(blob.part(part.clone())),
        })
    }
}

/// A reader that notes how far it has come.
struct Counted<'a, R> {
    inner: R,
    place: u64,
    at: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.place += count as u64;
        self.at.store(self.place, Ordering::Relaxed);
        Ok(count)
    }
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(super) method: &'static str,
    pub(super) url: String,
    headers: Vec<(&'static str, String)>,
    body: Body,
    /// Whether it may be sent again as it is when no answer came.
    pub(super) repeatable: bool,
    /// The header that proves who asks; dropped when a redirect leads to another origin.
    pub(crate) authorization: Option<Secret>,
    /// Whether the body proves who asks: no redirect to another origin is followed then.
    has_secret: bool,
}

impl Request {
    /// A request without headers and body.
    pub(crate) fn new(method: &'static str, url: &str) -> Self {
        let (headers, body) = (Vec::new(), Body::None);
        let (repeatable, has_secret) = (true, false);
        Self { method, url: url.to_owned(), headers, body, repeatable, authorization: None, has_secret }
    }

    /// Adds a body.
    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Adds a body that is for nobody else.
    pub(crate) fn secret_body(mut self, text: &Secret) -> Self {
        self.body = Body::Bytes(text.reveal().as_bytes().to_vec());
        self.has_secret = true;
        self
    }

    /// Says that a second one would not mean the same.
    pub(crate) fn only_once(mut self) -> Self {
        self.repeatable = false;
        self
    }

    /// Adds a header; its name in lower case.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.headers.push((name, value.into()));
    }
}

/// An answer, its body not yet read.
pub(crate) struct Answer {
    inner: http::Response<ureq::Body>,
    url: String,
}

impl Answer {
    /// The status code.
    pub(crate) fn code(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// Where it came from in the end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The first header of a name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// All headers of a name.
    pub(crate) fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let headers: &HeaderMap = self.inner.headers();
        headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
    }

    /// The body, as it comes.
    pub(crate) fn reader(&mut self) -> impl Read {
        self.inner.body_mut().as_reader()
    }

    /// The whole body, which may be at most `limit` bytes long.
    pub(crate) fn read_all(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let url = redacted(&self.url);
        let read = self.inner.body_mut().as_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| Error::Body { url: url.clone(), attempts: 1, source })?;
        match bytes.len() as u64 > limit {
            true => Err(Error::Rule(format!("{url}: the body is longer than {limit} bytes"))),
            false => Ok(bytes),
        }
    }
}

/// Sends requests, without deciding who asks.
pub(crate) struct Wire {
    home: Origin,
    /// A client for each origin that was spoken to: none is shown what belongs to another.
    agents: Mutex<Vec<(Origin, Agent)>>,
    options: Options,
}

impl Wire {
    /// A client for the registry at `home`, and for wherever that leads.
    pub(crate) fn new(home: &Origin, options: &Options) -> Result<Self> {
        let agents = Mutex::new(vec![(home.clone(), agent(home, home, options)?)]);
        Ok(Self { home: home.clone(), agents, options: options.clone() })
    }

    /// The client for the origin of a URL.
    fn agent(&self, url: &str) -> Result<Agent> {
        let origin = Origin::of(url)?;
        let mut agents = self.agents.lock().expect("no thread panics with it");
        if let Some((_, agent)) = agents.iter().find(|(known, _)| *known == origin) {
            return Ok(agent.clone());
        }
        let agent = agent(&origin, &self.home, &self.options)?;
        agents.push((origin, agent.clone()));
        Ok(agent)
    }

    /// Sends a request whose refusal is an error.
    pub(crate) fn send_alone(&self, request: &Request) -> Result<Answer> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let outcome = self.follow(request, attempt);
            match self.pause(&outcome, attempt) {
                Some(pause) => std::thread::sleep(pause),
                None => return accept(outcome?, request.method, attempt),
            }
        }
    }

    /// Sends once and follows redirects: with the credential only as long as the origin stays the same.
    pub(crate) fn follow(&self, request: &Request, attempt: u32) -> Result<Answer> {
        let first = Origin::of(&request.url)?;
        let mut url = request.url.clone();
        let mut authorization = request.authorization.as_ref();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.once(request, &url, authorization, attempt)?;
            if !matches!(answer.code(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer.header("location").unwrap_or_default();
            let next = resolve(&url, location)?;
            let origin = Origin::of(&next)?;
            origin.check_led_from(&first, &url)?;
            if origin != first {
                if request.has_secret {
                    let text = format!("{}: leads elsewhere, where no secret is sent", redacted(&url));
                    return Err(Error::Rule(text));
                }
                authorization = None;
            }
            url = next;
        }
        Err(Error::Rule(format!("{}: redirects more than {MAX_REDIRECTS} times", redacted(&request.url))))
    }

    fn once(
        &self,
        request: &Request,
        url: &str,
        authorization: Option<&Secret>,
        attempt: u32,
    ) -> Result<Answer> {
        let mut builder = http::Request::builder().method(request.method).uri(url);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(secret) = authorization {
            builder = builder.header("authorization", secret.reveal());
        }
        // A request of these methods has a body, if only an empty one: its length must be told.
        let sends = matches!(request.method, "POST" | "PUT" | "PATCH");
        if sends {
            builder = builder.header("content-length", request.body.length());
        }
        let mut source = request.body.reader()?;
        let refuse = |e: http::Error| Error::Rule(format!("{}: {e}", redacted(url)));
        let agent = self.agent(url)?;
        let outcome = match sends {
            true => agent.run(builder.body(SendBody::from_reader(&mut source)).map_err(refuse)?),
            false => agent.run(builder.body(()).map_err(refuse)?),
        };
        let failed = |source| Error::Unreachable {
            method: request.method,
            url: redacted(url),
            attempts: attempt,
            source: Box::new(source),
        };
        Ok(Answer { inner: outcome.map_err(failed)?, url: url.to_owned() })
    }

    /// How long to wait before trying again; `None` when the outcome stands.
    pub(crate) fn pause(&self, outcome: &Result<Answer>, attempt: u32) -> Option<Duration> {
        if attempt > self.options.retries {
            return None;
        }
        let wanted = match outcome {
            Ok(answer) if matches!(answer.code(), 429 | 500 | 502 | 503 | 504) => {
                answer.header("retry-after").and_then(|text| later::pause(text, answer.header("date")))
            }
            Err(Error::Unreachable { source, .. }) if !is_final(source) => None,
            _ => return None,
        };
        Some(wanted.unwrap_or_else(|| backoff(self.options.pause, attempt)).min(MAX_PAUSE))
    }

    /// The options it was made with.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }
}

/// A client that trusts what this origin, to which the registry at `home` led, needs; redirects are followed here, not by it.
fn agent(origin: &Origin, home: &Origin, options: &Options) -> Result<Agent> {
    let mut config = Agent::config_builder()
        .max_redirects(0)
        .http_status_as_error(false)
        .tls_config(trust::tls(origin, home, options)?)
        .user_agent(concat!("hull-build/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(STALL))
        .timeout_per_read(Some(STALL))
        .timeout_per_write(Some(STALL));
    if origin.is_loopback() {
        config = config.proxy(None);
    }
    Ok(config.build().into())
}

/// Errors that trying again cannot mend: a host without an address, a certificate that is not trusted.
fn is_final(error: &ureq::Error) -> bool {
    matches!(
        error,
        ureq::Error::HostNotFound | ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::BadUri(_)
    ) || matches!(error, ureq::Error::Io(e) if e.get_ref().is_some_and(|inner| inner.to_string().contains("certificate")))
}

/// Doubled each time, with a quarter of chance so that clients spread out.
pub(crate) fn backoff(first: Duration, attempt: u32) -> Duration {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    let base = first * 2u32.saturating_pow(attempt.saturating_sub(1).min(8));
    base + base.mul_f64(f64::from(nanos % 1000) / 4000.0)
}

/// Turns an answer that is no success into an error.
pub(crate) fn accept(mut answer: Answer, method: &'static str, attempts: u32) -> Result<Answer> {
    let code = answer.code();
    if (200..300).contains(&code) {
        return Ok(answer);
    }
    let meaning = match code {
        401 => "not authorised: log in, or the credential is wrong",
        403 => "denied: this user may not",
        404 => "not found",
        416 => "the range is not satisfiable",
        429 => "too many requests",
        _ => "refused",
    };
    let detail = answer.read_all(64 << 10).ok().and_then(|bytes| detail(&bytes)).unwrap_or_default();
    let (url, status) = (redacted(answer.url()), format!("{code} {meaning}"));
    Err(Error::Refused { method, url, status, detail, code, attempts })
}

/// The first message of a registry's error document.
fn detail(bytes: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let message = document["errors"][0]["message"].as_str()?;
    let shown: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(format!(": {shown}"))
}

/// The URL that a `Location` means, relative or absolute.
pub(crate) fn resolve(base: &str, location: &str) -> Result<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Ok(location.to_owned());
    }
    let (scheme, rest) = base.split_once("://").unwrap_or(("https", base));
    let host = rest.split('/').next().unwrap_or_default();
    match location {
        "" => Err(Error::Rule(format!("{}: redirects without telling where", redacted(base)))),
        _ if location.starts_with("//") => Ok(format!("{scheme}:{location}")),
        _ if location.starts_with('/') => Ok(format!("{scheme}://{host}{location}")),
        _ => {
            let path = rest.split(['?', '#']).next().unwrap_or_default();
            let dir = path.rsplit_once('/').map_or(host, |(dir, _)| dir);
            Ok(format!("{scheme}://{dir}/{location}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_relative_or_absolute() {
        for (location, expected) in [
            ("https://o/x?q=1", "https://o/x?q=1"),
            ("/v2/y?_state=z", "http://h:1/v2/y?_state=z"),
            ("y", "http://h:1/a/y"),
            ("//o/y", "http://o/y"),
        ] {
            assert_eq!(resolve("http://h:1/a/b?c=/d", location).unwrap(), expected);
        }
        assert!(resolve("http://h", "").is_err());
    }

    #[test]
    fn pauses_grow() {
        let first = Duration::from_millis(100);
        assert!(backoff(first, 1) >= first && backoff(first, 1) <= first * 5 / 4);
        assert!(backoff(first, 4) >= first * 8);
    }
}
