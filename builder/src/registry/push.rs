//! From the store to a registry: blobs side by side, then configuration, manifests, and the tag last.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hull_image::{Descriptor, Document, Reference, Store};

use super::auth::encoded;
use super::transport::{accept, backoff, resolve};
use super::{Body, Client, Error, Options, Request, Result};

const MAX_MANIFEST: usize = 4 << 20;
const THREADS: usize = 4;
/// Blobs up to this size are sent in one request, in bytes.
const SMALL: u64 = 4 << 20;

/// Pushes what a descriptor leads to, and names it; tells how many blobs were sent.
///
/// `sources` are repositories of the same registry that blobs may be mounted from.
pub(crate) fn push(
    store: &Store,
    descriptor: &Descriptor,
    reference: &Reference,
    sources: &[String],
    options: &Options,
) -> Result<usize> {
    let client = Client::connect(&reference.registry, options)?;
    let scope = format!("repository:{}:pull,push", reference.repository);
    let push = Push { store, client: &client, reference, sources, scope, sent: AtomicUsize::new(0) };
    push.tree(descriptor, reference.tag.as_deref().unwrap_or(descriptor.digest.as_str()), 0)?;
    Ok(push.sent.into_inner())
}

struct Push<'a> {
    store: &'a Store,
    client: &'a Client,
    reference: &'a Reference,
    sources: &'a [String],
    scope: String,
    sent: AtomicUsize,
}

impl Push<'_> {
    /// Pushes what a document names, then the document itself under `version`.
    fn tree(&self, descriptor: &Descriptor, version: &str, depth: usize) -> Result<()> {
        match self.store.document(descriptor)? {
            Document::Index(_) if depth > 3 => {
                return Err(Error::Rule("indexes are nested too deep".to_owned()));
            }
            Document::Index(index) => {
                for entry in &index.manifests {
                    if !self.store.has_blob(entry) {
                        self.expect(entry)?;
                        continue;
                    }
                    self.tree(entry, entry.digest.as_str(), depth + 1)?;
                }
            }
            Document::Manifest(manifest) => {
                self.send_all(&manifest.layers)?;
                self.blob(&manifest.config)?;
            }
        }
        self.document(descriptor, version)
    }

    /// An image of an index that the store lacks must be in the repository already.
    fn expect(&self, entry: &Descriptor) -> Result<()> {
        let path = format!("/v2/{}/manifests/{}", self.reference.repository, entry.digest);
        let mut request = Request::new("HEAD", &self.client.url(&path));
        request.set("accept", entry.media_type.clone());
        let (answer, tried) = self.client.send_any(request, &self.scope)?;
        if answer.code() != 404 {
            return accept(answer, "HEAD", tried).map(drop);
        }
        let of = entry.platform.as_ref().map_or_else(String::new, |platform| format!(" for {platform}"));
        let (digest, name) = (&entry.digest, self.reference.familiar_name());
        Err(Error::Rule(format!(
            "the image {digest}{of} is neither in the store nor in {name}: push it there first"
        )))
    }

    fn document(&self, descriptor: &Descriptor, version: &str) -> Result<()> {
        let bytes = self.store.read_blob(descriptor, MAX_MANIFEST)?;
        let url = self.client.url(&format!("/v2/{}/manifests/{version}", self.reference.repository));
        let mut request = Request::new("PUT", &url).body(Body::Bytes(bytes));
        request.set("content-type", descriptor.media_type.clone());
        self.client.send(request, &self.scope).map(drop)
    }

    fn send_all(&self, layers: &[Descriptor]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..THREADS.min(layers.len()) {
                scope.spawn(|| {
                    while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.blob(layer) {
                            failure.lock().expect("no thread panics with it").get_or_insert(error);
                            next.store(layers.len(), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        failure.into_inner().expect("no thread panics with it").map_or(Ok(()), Err)
    }

    /// Sends a blob unless the registry has it or can mount it.
    fn blob(&self, blob: &Descriptor) -> Result<()> {
        let path = format!("/v2/{}/blobs/{}", self.reference.repository, blob.digest);
        let (answer, tried) =
            self.client.send_any(Request::new("HEAD", &self.client.url(&path)), &self.scope)?;
        match answer.code() {
            200 => return Ok(()),
            404 => {}
            _ => drop(accept(answer, "HEAD", tried)?),
        }
        let source = self.sources.iter().find(|source| **source != self.reference.repository);
        match source.map(|source| self.mount(blob, source)).transpose()? {
            Some(Mounted::Yes) => Ok(()),
            // The registry began an upload instead: it is used.
            Some(Mounted::No(location)) => self.upload(blob, Some(location)),
            None => self.upload(blob, None),
        }
    }

    fn mount(&self, blob: &Descriptor, source: &str) -> Result<Mounted> {
        let path = format!("/v2/{}/blobs/uploads/", self.reference.repository);
        let query = format!("?mount={}&from={}", encoded(blob.digest.as_str()), encoded(source));
        let request = Request::new("POST", &self.client.url(&(path + &query)));
        // Who may push here need not be allowed to read there: then it is sent.
        let scope = format!("{} repository:{source}:pull", self.scope);
        let (answer, tried) = self.client.send_any(request, &scope)?;
        match answer.code() {
            201 => Ok(Mounted::Yes),
            401 | 403 => Ok(Mounted::No(self.begin()?.location)),
            _ => {
                let answer = accept(answer, "POST", tried)?;
                Ok(Mounted::No(resolve(answer.url(), answer.header("location").unwrap_or_default())?))
            }
        }
    }

    /// Sends a blob; of an upload that broke, only what the registry lacks.
    fn upload(&self, blob: &Descriptor, begun: Option<String>) -> Result<()> {
        let mut upload = match begun {
            Some(location) => Upload { location, sent: 0 },
            None => self.begin()?,
        };
        for attempt in 1.. {
            match self.send_rest(blob, &mut upload) {
                Ok(()) => break,
                Err(error) if attempt > self.client.options().retries || !may_go_on(&error) => {
                    self.abort(&upload.location);
                    return Err(error);
                }
                Err(_) => std::thread::sleep(backoff(self.client.options().pause, attempt)),
            }
            upload = match self.progress(&upload, blob.size) {
                Some(upload) => upload,
                None => {
                    self.abort(&upload.location);
                    self.begin()?
                }
            };
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn begin(&self) -> Result<Upload> {
        let url = self.client.url(&format!("/v2/{}/blobs/uploads/", self.reference.repository));
        let answer = self.client.send(Request::new("POST", &url), &self.scope)?;
        let location = resolve(answer.url(), answer.header("location").unwrap_or_default())?;
        Ok(Upload { location, sent: 0 })
    }

    /// Sends what is left of a blob and closes the upload: a small one at once, else in a request of its own, of which
    /// registries keep what came before it broke.
    fn send_rest(&self, blob: &Descriptor, upload: &mut Upload) -> Result<()> {
        let mut left = upload.sent..blob.size;
        if upload.sent > 0 || blob.size > SMALL {
            if !left.is_empty() {
                let body = Body::File(self.store.blob(blob)?, left);
                let mut request = Request::new("PATCH", &upload.location).body(body).only_once();
                request.set("content-type", "application/octet-stream");
                if upload.sent > 0 {
                    request.set("content-range", format!("{}-{}", upload.sent, blob.size - 1));
                }
                let answer = self.client.send(request, &self.scope)?;
                upload.location = resolve(answer.url(), answer.header("location").unwrap_or_default())?;
                upload.sent = blob.size;
            }
            left = blob.size..blob.size;
        }
        let join = if upload.location.contains('?') { '&' } else { '?' };
        let url = format!("{}{join}digest={}", upload.location, encoded(blob.digest.as_str()));
        let body = if left.is_empty() { Body::None } else { Body::File(self.store.blob(blob)?, left) };
        let mut request = Request::new("PUT", &url).body(body);
        request.set("content-type", "application/octet-stream");
        self.client.send(request, &self.scope).map(drop)
    }

    /// Asks how much of an upload arrived; nothing when it is gone, empty, or more than there is.
    fn progress(&self, upload: &Upload, size: u64) -> Option<Upload> {
        let answer = self.client.send(Request::new("GET", &upload.location), &self.scope).ok()?;
        let last: u64 = answer.header("range")?.rsplit('-').next()?.trim().parse().ok()?;
        let location = match answer.header("location") {
            Some(location) => resolve(answer.url(), location).ok()?,
            None => upload.location.clone(),
        };
        // 0-0 is said of nothing, too.
        (last > 0 && last < size).then_some(Upload { location, sent: last + 1 })
    }

    /// Tells the registry that an upload is given up; the upload itself has already failed, so its answer is not awaited twice.
    fn abort(&self, location: &str) {
        let _ = self.client.send_any(Request::new("DELETE", location), &self.scope);
    }
}

/// An upload that was begun.
struct Upload {
    location: String,
    /// How many bytes the registry has, in its own words.
    sent: u64,
}

/// Whether more of the same upload, or a new one, may mend this.
fn may_go_on(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Body { .. } => true,
        Error::Refused { code, .. } => matches!(code, 404 | 408 | 416 | 429 | 500..=599),
        _ => false,
    }
}

enum Mounted {
    Yes,
    No(String),
}
