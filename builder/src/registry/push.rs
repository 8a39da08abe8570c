//! From the store to a registry: blobs side by side, then configuration, manifests, and the tag last.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hull_image::{Descriptor, Document, Reference, Store};

use super::ahead::Ahead;
use super::auth::encoded;
use super::upload::{Repository, Upload, may_go_on};
use super::wire::{accept, backoff, resolve};
use super::{Body, Client, Error, Options, Request, Result};
use crate::progress::{Shown, Transfer, Transfers};

const MAX_MANIFEST: usize = 4 << 20;
const THREADS: usize = 4;

/// Pushes what a descriptor leads to, and names it; tells how many blobs were sent.
///
/// `sources` are repositories of the same registry that blobs may be mounted from; `ahead` may have sent some of this
/// repository's blobs.
pub(crate) fn push(
    store: &Store,
    descriptor: &Descriptor,
    reference: &Reference,
    (sources, ahead): (&[String], Option<&Ahead>),
    options: &Options,
) -> Result<usize> {
    let client = Client::connect(&reference.registry, options)?;
    let repository = Repository::new(&client, &reference.repository);
    let ahead = ahead.filter(|ahead| ahead.is_to(reference));
    let transfers = Transfers::new(options.shown);
    let push = Push { store, repository, reference, sources, ahead, sent: AtomicUsize::new(0), transfers };
    push.tree(descriptor, reference.tag.as_deref().unwrap_or(descriptor.digest.as_str()), 0)?;
    Ok(push.sent.into_inner())
}

struct Push<'a> {
    store: &'a Store,
    repository: Repository<'a>,
    reference: &'a Reference,
    sources: &'a [String],
    ahead: Option<&'a Ahead>,
    sent: AtomicUsize,
    transfers: Transfers,
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
                // Few bytes, of which nothing is shown.
                self.blob(&manifest.config, &mut Transfers::new(Shown::Nothing).begin(&manifest.config, ""))?;
            }
        }
        self.document(descriptor, version)
    }

    /// An image of an index that the store lacks must be in the repository already.
    fn expect(&self, entry: &Descriptor) -> Result<()> {
        let path = format!("manifests/{}", entry.digest);
        let mut request = Request::new("HEAD", &self.repository.url(&path));
        request.set("accept", entry.media_type.clone());
        let (answer, tried) = self.repository.send_any(request)?;
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
        let url = self.repository.url(&format!("manifests/{version}"));
        let mut request = Request::new("PUT", &url).body(Body::Bytes(bytes));
        request.set("content-type", descriptor.media_type.clone());
        self.repository.send(request).map(drop)
    }

    fn send_all(&self, layers: &[Descriptor]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..THREADS.min(layers.len()) {
                scope.spawn(|| {
                    while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut transfer = self.transfers.begin(layer, "Preparing");
                        if let Err(error) = self.blob(layer, &mut transfer) {
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
    fn blob(&self, blob: &Descriptor, transfer: &mut Transfer) -> Result<()> {
        let url = self.repository.url(&format!("blobs/{}", blob.digest));
        let (answer, tried) = self.repository.send_any(Request::new("HEAD", &url))?;
        match answer.code() {
            200 => {
                transfer.ends("Layer already exists");
                return Ok(());
            }
            404 => {}
            _ => drop(accept(answer, "HEAD", tried)?),
        }
        transfer.now("Pushing", blob.size);
        if self.finish_ahead(blob, transfer) {
            transfer.ends("Pushed");
            return Ok(());
        }
        let source = self.sources.iter().find(|source| **source != self.reference.repository);
        match source.map(|source| self.mount(blob, source)).transpose()? {
            Some(Mounted::Yes) => {
                transfer.ends(format!("Mounted from {}", source.map_or("", String::as_str)));
                return Ok(());
            }
            // The registry began an upload instead: it is used.
            Some(Mounted::No(upload)) => self.upload(blob, upload, transfer)?,
            None => self.upload(blob, self.repository.begin()?, transfer)?,
        }
        transfer.ends("Pushed");
        Ok(())
    }

    /// Makes a blob of what was sent of it before; false when it is to be sent as if nothing had been.
    fn finish_ahead(&self, blob: &Descriptor, transfer: &Transfer) -> bool {
        let Some(begun) = self.ahead.and_then(|ahead| ahead.take(blob)) else { return false };
        let upload = match begun.is_whole {
            true => Some(begun.upload.clone()),
            false => self.repository.progress(&begun.upload, blob.size),
        };
        let send_rest = |mut upload| self.repository.send_rest(self.store, blob, &mut upload, transfer);
        let done = upload.is_some_and(|upload| send_rest(upload).is_ok());
        match done {
            true => drop(self.sent.fetch_add(1, Ordering::Relaxed)),
            // If it is the registry's fault, sending it in the usual way tells so.
            false => self.repository.abort(&begun.upload),
        }
        done
    }

    fn mount(&self, blob: &Descriptor, source: &str) -> Result<Mounted> {
        let query = format!("?mount={}&from={}", encoded(blob.digest.as_str()), encoded(source));
        let request = Request::new("POST", &self.repository.url(&format!("blobs/uploads/{query}")));
        // Who may push here need not be allowed to read there: then it is sent.
        let scope = format!("{} repository:{source}:pull", self.repository.scope);
        let (answer, tried) = self.repository.client.send_any(request, &scope)?;
        match answer.code() {
            201 => Ok(Mounted::Yes),
            // Nor is every registry able to, and some refuse in place of beginning an upload.
            400..500 => Ok(Mounted::No(self.repository.begin()?)),
            _ => {
                let answer = accept(answer, "POST", tried)?;
                let location = resolve(answer.url(), answer.header("location").unwrap_or_default())?;
                Ok(Mounted::No(Upload { location, sent: 0 }))
            }
        }
    }

    /// Sends a blob; of an upload that broke, only what the registry lacks.
    fn upload(&self, blob: &Descriptor, mut upload: Upload, transfer: &Transfer) -> Result<()> {
        for attempt in 1.. {
            match self.repository.send_rest(self.store, blob, &mut upload, transfer) {
                Ok(()) => break,
                Err(error) if attempt > self.repository.client.options().retries || !may_go_on(&error) => {
                    self.repository.abort(&upload);
                    return Err(error);
                }
                Err(_) => std::thread::sleep(backoff(self.repository.client.options().pause, attempt)),
            }
            upload = match self.repository.progress(&upload, blob.size) {
                Some(upload) => upload,
                None => {
                    self.repository.abort(&upload);
                    self.repository.begin()?
                }
            };
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

enum Mounted {
    Yes,
    No(Upload),
}
