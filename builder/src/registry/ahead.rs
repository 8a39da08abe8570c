//! Layers that are sent while they are still being compressed.
//!
//! The bytes go into an upload, which a registry shows to nobody. It becomes a blob when the image is pushed, and is
//! cancelled when no image comes of the build or the push has no use for it. Nothing that goes wrong here fails anything:
//! the push sends what is missing, or all of it, as it would have without.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use hull_image::{Announce, Descriptor, Growing, Reference};

use super::upload::{Repository, Upload};
use super::{Body, Client, Options};

/// Most layers that are sent at once while they grow: others are sent by the push.
const MOST: usize = 4;
/// Bytes that a request waits for. With a length it is read by registries in large pieces, which halves what it costs them
/// (of a body in chunks no more than a chunk); and what one brought is put on the disk while the next part is compressed.
const LEAST: u64 = 32 << 20;
/// Most bytes of a request, all of which must be sent before an upload can be cancelled.
const MOST_AT_ONCE: u64 = 128 << 20;
/// How long a build waits for registries to hear that uploads are cancelled.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Uploads of layers to one repository that begin before the image is there.
pub(crate) struct Ahead(Arc<Shared>);

struct Shared {
    target: Reference,
    options: Options,
    /// Made with the first layer; nothing where the registry can't be reached, which the push will tell.
    client: OnceLock<Option<Client>>,
    streams: Mutex<Vec<Stream>>,
}

/// A layer on its way; the thread gives its upload, if there is one, and whether all of the layer is in it.
struct Stream {
    layer: Growing,
    thread: JoinHandle<Option<Begun>>,
}

/// What became of a layer that was sent.
pub(super) struct Begun {
    pub(super) upload: Upload,
    pub(super) is_whole: bool,
}

impl Ahead {
    /// For an image that will be pushed to `target`; nothing is sent or asked before a large layer comes.
    pub(crate) fn new(target: Reference, options: Options) -> Self {
        let (client, streams) = (OnceLock::new(), Mutex::default());
        Self(Arc::new(Shared { target, options, client, streams }))
    }

    /// Whom to tell of layers that grow.
    pub(crate) fn announce(&self) -> Announce {
        let shared = Arc::clone(&self.0);
        Arc::new(move |layer: &Growing| Shared::begin(&shared, layer))
    }

    /// Whether what is sent is in the repository of this name.
    pub(crate) fn is_to(&self, name: &Reference) -> bool {
        let target = &self.0.target;
        (&target.registry, &target.repository) == (&name.registry, &name.repository)
    }

    /// What was sent of a layer, waiting for the rest of it to be.
    pub(super) fn take(&self, blob: &Descriptor) -> Option<Begun> {
        let is_it = |stream: &Stream| stream.layer.descriptor().is_some_and(|of| of.digest == blob.digest);
        let mut streams = self.0.streams.lock().expect("no thread panics with it");
        let index = streams.iter().position(is_it)?;
        let stream = streams.swap_remove(index);
        drop(streams);
        stream.thread.join().expect("sending doesn't panic")
    }
}

impl Drop for Ahead {
    /// Cancels what nobody took.
    fn drop(&mut self) {
        let streams = std::mem::take(&mut *self.0.streams.lock().expect("no thread panics with it"));
        if streams.is_empty() {
            return;
        }
        streams.iter().for_each(|stream| stream.layer.give_up());
        let (shared, (done, ended)) = (Arc::clone(&self.0), channel());
        std::thread::spawn(move || {
            let begun = streams.into_iter().filter_map(|stream| stream.thread.join().ok().flatten());
            begun.for_each(|begun| shared.cancel(&begun.upload));
            // The build has stopped waiting.
            let _ = done.send(());
        });
        // A registry that isn't told, because it doesn't answer, forgets uploads in its own time.
        let _ = ended.recv_timeout(LAST_WORDS);
    }
}

impl Shared {
    /// Begins to send a layer, unless enough are on their way.
    fn begin(self: &Arc<Self>, layer: &Growing) {
        let mut streams = self.streams.lock().expect("no thread panics with it");
        if streams.iter().filter(|stream| !stream.thread.is_finished()).count() < MOST {
            let (shared, sent) = (Arc::clone(self), layer.clone());
            let thread = std::thread::spawn(move || shared.send(sent));
            streams.push(Stream { layer: layer.clone(), thread });
        }
    }

    /// Sends a layer to its end, part by part, each when it is written.
    fn send(&self, layer: Growing) -> Option<Begun> {
        let client = self.client.get_or_init(|| Client::connect(&self.target.registry, &self.options).ok());
        let repository = Repository::new(client.as_ref()?, &self.target.repository);
        let mut upload = repository.begin().ok()?;
        while let Some(reached) = layer.reaches(upload.sent, LEAST) {
            let end = reached.min(upload.sent + MOST_AT_ONCE);
            if end == upload.sent {
                return Some(Begun { upload, is_whole: true });
            }
            let body = Body::Growing(layer.clone(), upload.sent..end);
            if repository.append(&mut upload, body, end).is_err() {
                break;
            }
        }
        Some(Begun { upload, is_whole: false })
    }

    fn cancel(&self, upload: &Upload) {
        if let Some(client) = self.client.get().and_then(Option::as_ref) {
            Repository::new(client, &self.target.repository).abort(upload);
        }
    }
}
