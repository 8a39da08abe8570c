//! From a registry into the store: documents first, then blobs side by side, each checked, the name last.

use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hull_image::{BlobWriter, Descriptor, Digest, Document, Image, Platform, Reference, Store, media};

use super::endpoint::{self, redacted};
use super::wire::{Answer, backoff};
use super::{Client, Error, Options, Request, Result};
use crate::host;
use crate::progress::{Shown, Transfer, Transfers};
use crate::snapshot;

const MAX_MANIFEST: u64 = 4 << 20;
const THREADS: usize = 4;
const MAX_DEPTH: usize = 4;

/// What was pulled.
#[derive(Debug)]
pub(crate) struct Pulled {
    /// What the name leads to: a manifest, or an index of several platforms.
    pub(crate) descriptor: Descriptor,
    /// The image of the wanted platform.
    pub(crate) image: Image,
    /// How many blobs came over the wire.
    pub(crate) fetched: usize,
}

/// Pulls the image of one platform and names it: from a mirror if one has it, else from the registry.
pub(crate) fn pull(
    store: &Store,
    reference: &Reference,
    platform: Option<&Platform>,
    options: &Options,
) -> Result<Pulled> {
    for mirror in endpoint::mirrors(&reference.registry, options)? {
        let base = redacted(&mirror.base);
        match pull_from(store, reference, platform, &Client::at(mirror, options)?) {
            Ok(pulled) => return Ok(pulled),
            Err(error) => eprintln!("hull-build: notice: mirror {base} is passed over: {error}"),
        }
    }
    pull_from(store, reference, platform, &Client::connect(&reference.registry, options)?)
}

fn pull_from(
    store: &Store,
    reference: &Reference,
    platform: Option<&Platform>,
    client: &Client,
) -> Result<Pulled> {
    let scope = format!("repository:{}:pull", reference.repository);
    let transfers = Transfers::new(client.options().shown);
    let pull = Pull { store, client, reference, scope, transfers };
    let descriptor = pull.document(reference.version(), None)?;
    let fetched = pull.platform(&descriptor, platform.unwrap_or(&Platform::host()), 0)?;
    let image = store.image(&descriptor, platform)?;
    let found = image.config.platform();
    if let Some(wanted) = platform.filter(|wanted| found.fit(wanted).is_none()) {
        return Err(Error::Rule(format!("{} is for {found}, not for {wanted}", reference.familiar())));
    }
    store.put_image(reference, &descriptor)?;
    Ok(Pulled { descriptor, image, fetched })
}

/// What a name leads to in its registry.
pub(crate) struct Seen {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
    pub(crate) document: Document,
    /// Of an image: what it is for.
    pub(crate) platform: Option<Platform>,
}

/// Looks a name up, and keeps nothing; `store` is not written to.
pub(crate) fn look(store: &Store, reference: &Reference, options: &Options) -> Result<Seen> {
    let client = Client::connect(&reference.registry, options)?;
    let scope = format!("repository:{}:pull", reference.repository);
    let transfers = Transfers::new(Shown::Nothing);
    let pull = Pull { store, client: &client, reference, scope, transfers };
    let (descriptor, bytes, document) = pull.look(reference.version())?;
    let platform = match &document {
        Document::Manifest(manifest) => pull.platform_of(&manifest.config)?,
        Document::Index(_) => None,
    };
    Ok(Seen { descriptor, bytes, document, platform })
}

/// The tags of a repository, in the registry's order.
pub(crate) fn tags(client: &Client, reference: &Reference) -> Result<Vec<String>> {
    let scope = format!("repository:{}:pull", reference.repository);
    let mut url = client.url(&format!("/v2/{}/tags/list?n=1000", reference.repository));
    let mut tags = Vec::new();
    for _ in 0..1000 {
        let mut answer = client.send(Request::new("GET", &url), &scope)?;
        let next = answer.header("link").and_then(next_page).map(str::to_owned);
        let from = answer.url().to_owned();
        let page: serde_json::Value = serde_json::from_slice(&answer.read_all(MAX_MANIFEST)?)
            .map_err(|_| Error::Rule(format!("{}: is no list of tags", redacted(&from))))?;
        let found = page["tags"].as_array().into_iter().flatten();
        tags.extend(found.filter_map(|tag| tag.as_str().map(str::to_owned)));
        match next {
            Some(next) => url = super::wire::resolve(&from, &next)?,
            None => return Ok(tags),
        }
    }
    Err(Error::Rule(format!("{}: the list of tags does not end", reference.repository)))
}

/// `<URL>; rel="next"`.
pub(crate) fn next_page(link: &str) -> Option<&str> {
    let (url, rest) = link.strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then_some(url)
}

struct Pull<'a> {
    store: &'a Store,
    client: &'a Client,
    reference: &'a Reference,
    scope: String,
    transfers: Transfers,
}

impl Pull<'_> {
    /// Fetches a manifest or index by tag or digest into the store.
    fn document(&self, version: &str, expected: Option<&Descriptor>) -> Result<Descriptor> {
        if let Some(descriptor) = expected.filter(|descriptor| self.store.has_blob(descriptor)) {
            return Ok(descriptor.clone());
        }
        let (descriptor, bytes, _) = self.look(version)?;
        if let Some(expected) = expected {
            agree(&expected.digest, &descriptor.digest)?;
        }
        self.store.put_expected_blob(&descriptor, &mut &bytes[..])?;
        Ok(descriptor)
    }

    /// Reads and checks a manifest or index.
    fn look(&self, version: &str) -> Result<(Descriptor, Vec<u8>, Document)> {
        let url = self.client.url(&format!("/v2/{}/manifests/{version}", self.reference.repository));
        let mut request = Request::new("GET", &url);
        let accepted = [media::OCI_INDEX, media::OCI_MANIFEST, media::DOCKER_LIST, media::DOCKER_MANIFEST];
        request.set("accept", accepted.join(", "));
        let mut answer = self.client.send(request, &self.scope)?;
        let announced = answer.header("content-type").unwrap_or_default().to_owned();
        let said = answer.header("docker-content-digest").map(str::to_owned);
        let bytes = answer.read_all(MAX_MANIFEST)?;
        let document = Document::parse(&bytes, &announced)?;
        let mut descriptor = Descriptor::of(media_type(&document, &announced), &bytes);
        self.check(&mut descriptor, &bytes, version, said.as_deref())?;
        Ok((descriptor, bytes, document))
    }

    /// What a configuration is for; nothing for what is no image's.
    fn platform_of(&self, config: &Descriptor) -> Result<Option<Platform>> {
        let url = self.client.url(&format!("/v2/{}/blobs/{}", self.reference.repository, config.digest));
        let bytes = self.client.send(Request::new("GET", &url), &self.scope)?.read_all(MAX_MANIFEST)?;
        let mut hasher =
            hull_image::Hasher::for_digest(&config.digest).ok_or_else(|| unverifiable(&config.digest))?;
        hasher.update(&bytes);
        agree(&config.digest, &hasher.finish())?;
        Ok(hull_image::ImageConfig::parse(&bytes).ok().map(|config| config.platform()))
    }

    /// The digest asked for must be the body's, by whichever algorithm; the one the registry announces as well.
    fn check(
        &self,
        descriptor: &mut Descriptor,
        bytes: &[u8],
        version: &str,
        said: Option<&str>,
    ) -> Result<()> {
        let of = |digest: &Digest| {
            let mut hasher = hull_image::Hasher::for_digest(digest)?;
            hasher.update(bytes);
            Some(hasher.finish())
        };
        if let Ok(asked) = version.parse::<Digest>() {
            agree(&asked, &of(&asked).ok_or_else(|| unverifiable(&asked))?)?;
            descriptor.digest = asked;
        }
        if let Some(Ok(said)) = said.map(str::parse::<Digest>)
            && let Some(found) = of(&said)
        {
            agree(&said, &found)?;
        }
        Ok(())
    }

    /// Fetches all that the image of one platform needs; tells how many blobs came.
    fn platform(&self, descriptor: &Descriptor, wanted: &Platform, depth: usize) -> Result<usize> {
        match self.store.document(descriptor)? {
            Document::Index(_) if depth >= MAX_DEPTH => {
                Err(Error::Rule("indexes are nested too deep".to_owned()))
            }
            Document::Index(index) => {
                let missing =
                    || Error::Rule(format!("{} has no image for {wanted}", self.reference.familiar()));
                let entry = index.select(wanted).ok_or_else(missing)?;
                let found = self.document(entry.digest.as_str(), Some(entry))?;
                self.platform(&found, wanted, depth + 1)
            }
            Document::Manifest(manifest) => {
                let missing = |blob: &&Descriptor| !self.store.has_blob(blob);
                let config: Vec<&Descriptor> = std::iter::once(&manifest.config).filter(missing).collect();
                // It comes first: it says what the layers are to be when they are unpacked.
                let unseen = Transfers::new(Shown::Nothing);
                self.fetch_all(&config, &unseen, &|_, _| {})?;
                for layer in manifest.layers.iter().filter(|layer| !missing(layer)) {
                    self.transfers.begin(layer, "Already exists").ends("Already exists");
                }
                let ids = self.diff_ids(&manifest.config);
                let mut layers: Vec<&Descriptor> = manifest.layers.iter().filter(missing).collect();
                layers.sort_by_key(|layer| &layer.digest);
                layers.dedup_by_key(|layer| &layer.digest);
                // In the order of the manifest: the base is needed first.
                layers.sort_by_key(|layer| {
                    manifest.layers.iter().position(|other| other.digest == layer.digest)
                });
                let unpacker = host::unpacker(self.store);
                self.fetch_all(&layers, &self.transfers, &|arrived, transfer| {
                    transfer.now("Extracting", 0);
                    let position = manifest.layers.iter().position(|layer| layer.digest == arrived.digest);
                    let index = position.filter(|_| host::may_unpack());
                    // What fails here fails once more, and is told, when the image is unpacked.
                    index.iter().for_each(|index| drop(unpacker.unpack_one(&manifest.layers, &ids, *index)));
                    transfer.ends("Pull complete");
                })?;
                snapshot::tell(unpacker.left_out());
                Ok(config.len() + layers.len())
            }
        }
    }

    /// What a configuration says the layers are; nothing if it is no image's.
    fn diff_ids(&self, config: &Descriptor) -> Vec<Digest> {
        let bytes = self.store.read_blob(config, MAX_MANIFEST as usize);
        let config = bytes.and_then(|bytes| hull_image::ImageConfig::parse(&bytes));
        config.map(|config| config.rootfs.diff_ids).unwrap_or_default()
    }

    /// Fetches blobs side by side; `arrived` is told of each while others are on their way.
    fn fetch_all(
        &self,
        blobs: &[&Descriptor],
        transfers: &Transfers,
        arrived: &(dyn Fn(&Descriptor, &mut Transfer) + Sync),
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..THREADS.min(blobs.len()) {
                scope.spawn(|| {
                    while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut transfer = transfers.begin(blob, "Downloading");
                        match self.fetch(blob, &transfer.counter()) {
                            Ok(()) => arrived(blob, &mut transfer),
                            Err(error) => {
                                failure.lock().expect("no thread panics with it").get_or_insert(error);
                                next.store(blobs.len(), Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        failure.into_inner().expect("no thread panics with it").map_or(Ok(()), Err)
    }

    /// Fetches a blob; one lock keeps two processes from fetching the same one.
    fn fetch(&self, blob: &Descriptor, at: &AtomicU64) -> Result<()> {
        let _lock = self.store.lock(&format!("blob-{}", blob.digest.encoded()))?;
        if self.store.has_blob(blob) {
            return Ok(());
        }
        let outcome = self.fetch_once(blob, at);
        match outcome {
            // Parts of two different bodies may have been put together: a whole one tells.
            Err(Error::Store(hull_image::Error::Mismatch { .. })) => self.fetch_once(blob, at),
            other => other,
        }
    }

    /// Fetches a blob, going on where a broken body ended.
    fn fetch_once(&self, blob: &Descriptor, at: &AtomicU64) -> Result<()> {
        let mut writer = self.store.expected_blob_writer(blob)?;
        let url = self.client.url(&format!("/v2/{}/blobs/{}", self.reference.repository, blob.digest));
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut request = Request::new("GET", &url);
            let offset = writer.size();
            if offset > 0 {
                request.set("range", format!("bytes={offset}-"));
            }
            let (mut answer, tried) = self.client.send_any(request, &self.scope)?;
            if offset > 0 && answer.code() == 416 {
                writer.restart()?;
                continue_or_fail(attempt, self.client.options().retries, &url)?;
                continue;
            }
            if !continues(&answer, offset) {
                writer.restart()?;
            }
            answer = super::wire::accept(answer, "GET", tried)?;
            match copy(&mut answer.reader(), &mut writer, at) {
                Ok(()) if writer.size() == blob.size => {
                    writer.finish(&blob.media_type)?;
                    return Ok(());
                }
                Ok(()) => {}
                // Too long, or the disk is full: nothing that asking again would mend.
                Err(Copy::Write(e)) => return Err(Error::Store(hull_image::Error::Stream(e))),
                Err(Copy::Read(source)) if attempt > self.client.options().retries => {
                    return Err(Error::Body { url: redacted(&url), attempts: attempt, source });
                }
                Err(Copy::Read(_)) => {}
            }
            continue_or_fail(attempt, self.client.options().retries, &url)?;
            std::thread::sleep(backoff(self.client.options().pause, attempt));
        }
    }
}

/// True when the body begins where the last one ended.
fn continues(answer: &Answer, offset: u64) -> bool {
    let start = || {
        let range = answer.header("content-range")?.strip_prefix("bytes ")?;
        range.split('-').next()?.trim().parse::<u64>().ok()
    };
    offset == 0 || answer.code() == 206 && start() == Some(offset)
}

fn continue_or_fail(attempt: u32, retries: u32, url: &str) -> Result<()> {
    match attempt > retries {
        true => {
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the body ends early");
            Err(Error::Body { url: redacted(url), attempts: attempt, source })
        }
        false => Ok(()),
    }
}

enum Copy {
    Read(io::Error),
    Write(io::Error),
}

fn copy(from: &mut impl Read, to: &mut BlobWriter<'_>, at: &AtomicU64) -> std::result::Result<(), Copy> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        at.store(to.size(), Ordering::Relaxed);
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).map_err(Copy::Write)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Copy::Read(e)),
        }
    }
}

fn media_type<'a>(document: &'a Document, announced: &'a str) -> &'a str {
    let inside = match document {
        Document::Manifest(manifest) => manifest.media_type.as_deref(),
        Document::Index(index) => index.media_type.as_deref(),
    };
    let plain = announced.split(';').next().unwrap_or_default().trim();
    let default = match document {
        Document::Manifest(_) => media::OCI_MANIFEST,
        Document::Index(_) => media::OCI_INDEX,
    };
    let known = media::is_manifest(plain) || media::is_index(plain);
    inside.unwrap_or(if known { plain } else { default })
}

fn agree(expected: &Digest, found: &Digest) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => {
            let reason = format!("content is {found}");
            Err(Error::Store(hull_image::Error::Mismatch { digest: expected.clone(), reason }))
        }
    }
}

fn unverifiable(digest: &Digest) -> Error {
    Error::Rule(format!("digest {digest} cannot be verified here"))
}
