//! From the store to a registry: blobs side by side, then configuration, manifests, and the tag last.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hull_image::{Descriptor, Document, Reference, Store};

use super::auth::encoded;
use super::transport::{accept, resolve};
use super::{Body, Client, Error, Options, Request, Result};

const MAX_MANIFEST: usize = 4 << 20;
const THREADS: usize = 4;

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
            401 | 403 => Ok(Mounted::No(self.begin()?)),
            _ => {
                let answer = accept(answer, "POST", tried)?;
                Ok(Mounted::No(resolve(answer.url(), answer.header("location").unwrap_or_default())?))
            }
        }
    }

    /// One upload for each try: what is left of a broken one is the registry's to forget, after it was told.
    fn upload(&self, blob: &Descriptor, begun: Option<String>) -> Result<()> {
        let mut begun = begun;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let location = match begun.take() {
                Some(location) => location,
                None => self.begin()?,
            };
            let outcome = self.put(blob, &location);
            let again = matches!(&outcome, Err(error) if matches!(error.code(), None | Some(404 | 416)));
            match outcome {
                Ok(()) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(Error::Store(error)) => return Err(error.into()),
                Err(_) if again && attempt <= self.client.options().retries => self.abort(&location),
                Err(error) => {
                    self.abort(&location);
                    return Err(error);
                }
            }
        }
    }

    fn begin(&self) -> Result<String> {
        let url = self.client.url(&format!("/v2/{}/blobs/uploads/", self.reference.repository));
        let answer = self.client.send(Request::new("POST", &url), &self.scope)?;
        resolve(answer.url(), answer.header("location").unwrap_or_default())
    }

    fn put(&self, blob: &Descriptor, location: &str) -> Result<()> {
        let join = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{join}digest={}", encoded(blob.digest.as_str()));
        let file = self.store.blob(blob)?;
        let mut request = Request::new("PUT", &url).body(Body::File(file, blob.size));
        request.set("content-type", "application/octet-stream");
        self.client.send(request, &self.scope).map(drop)
    }

    /// Tells the registry that an upload is given up; the upload itself has already failed, so its answer is not awaited twice.
    fn abort(&self, location: &str) {
        let _ = self.client.send_any(Request::new("DELETE", location), &self.scope);
    }
}

enum Mounted {
    Yes,
    No(String),
}
