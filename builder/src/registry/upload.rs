//! Uploads into one repository: begun, filled in order, closed with the blob's digest or given up.

use hull_image::{Descriptor, Digest, Store};

use super::auth::encoded;
use super::wire::{Answer, resolve};
use super::{Body, Client, Error, Request, Result};
use crate::progress::Transfer;

/// Blobs up to this size are sent in one request, in bytes.
const SMALL: u64 = 4 << 20;

/// A repository that is pushed to.
pub(super) struct Repository<'a> {
    pub(super) client: &'a Client,
    /// Its name in the registry.
    name: &'a str,
    /// What the right to push to it is called.
    pub(super) scope: String,
}

/// An upload that was begun.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    /// Where its next part goes.
    pub(super) location: String,
    /// How many bytes the registry has, in its own words.
    pub(super) sent: u64,
}

impl<'a> Repository<'a> {
    pub(super) fn new(client: &'a Client, name: &'a str) -> Self {
        Self { client, name, scope: format!("repository:{name}:pull,push") }
    }

    /// The URL of something in the repository.
    pub(super) fn url(&self, path: &str) -> String {
        self.client.url(&format!("/v2/{}/{path}", self.name))
    }

    /// Sends a request with the right to push; a refusal is an error.
    pub(super) fn send(&self, request: Request) -> Result<Answer> {
        self.client.send(request, &self.scope)
    }

    /// The same whatever the answer, with how often it was asked.
    pub(super) fn send_any(&self, request: Request) -> Result<(Answer, u32)> {
        self.client.send_any(request, &self.scope)
    }

    pub(super) fn begin(&self) -> Result<Upload> {
        let answer = self.send(Request::new("POST", &self.url("blobs/uploads/")))?;
        let location = resolve(answer.url(), answer.header("location").unwrap_or_default())?;
        Ok(Upload { location, sent: 0 })
    }

    /// Adds the part that ends before `end`, which the registry keeps even when something breaks later.
    pub(super) fn append(&self, upload: &mut Upload, body: Body, end: u64) -> Result<()> {
        let mut request = Request::new("PATCH", &upload.location).body(body).only_once();
        request.set("content-type", "application/octet-stream");
        // A first part needs no place, as Docker's client gives none.
        if upload.sent > 0 {
            request.set("content-range", format!("{}-{}", upload.sent, end - 1));
        }
        let answer = self.send(request)?;
        upload.location = resolve(answer.url(), answer.header("location").unwrap_or_default())?;
        upload.sent = end;
        Ok(())
    }

    /// Sends what is left of a blob and closes the upload: a small one at once, else in a request of its own, of which
    /// registries keep what came before it broke.
    pub(super) fn send_rest(
        &self,
        store: &Store,
        blob: &Descriptor,
        upload: &mut Upload,
        transfer: &Transfer,
    ) -> Result<()> {
        let file = |part| Ok::<_, Error>(Body::File(store.blob(blob)?, part, transfer.counter()));
        let mut left = upload.sent..blob.size;
        if upload.sent > 0 || blob.size > SMALL {
            if !left.is_empty() {
                self.append(upload, file(left)?, blob.size)?;
            }
            left = blob.size..blob.size;
        }
        let body = if left.is_empty() { Body::None } else { file(left)? };
        self.close(upload, &blob.digest, body)
    }

    /// Gives what was uploaded, and a last part, its digest.
    ///
    /// # Errors
    /// A registry that says that it has something else.
    fn close(&self, upload: &Upload, digest: &Digest, rest: Body) -> Result<()> {
        let join = if upload.location.contains('?') { '&' } else { '?' };
        let url = format!("{}{join}digest={}", upload.location, encoded(digest.as_str()));
        let mut request = Request::new("PUT", &url).body(rest);
        request.set("content-type", "application/octet-stream");
        let answer = self.send(request)?;
        match answer.header("docker-content-digest").map(str::parse::<Digest>) {
            Some(Ok(other)) if other.algorithm() == digest.algorithm() && other != *digest => {
                Err(Error::Rule(format!("the registry says that {digest} is {other}")))
            }
            _ => Ok(()),
        }
    }

    /// Asks how much of an upload arrived; nothing when it is gone, empty, or more than there is.
    pub(super) fn progress(&self, upload: &Upload, size: u64) -> Option<Upload> {
        let answer = self.send(Request::new("GET", &upload.location)).ok()?;
        let last: u64 = answer.header("range")?.rsplit('-').next()?.trim().parse().ok()?;
        let location = match answer.header("location") {
            Some(location) => resolve(answer.url(), location).ok()?,
            None => upload.location.clone(),
        };
        // 0-0 is said of nothing, too.
        (last > 0 && last < size).then_some(Upload { location, sent: last + 1 })
    }

    /// Tells the registry that an upload is given up; registries forget those that nobody tells of, later.
    pub(super) fn abort(&self, upload: &Upload) {
        let _ = self.send_any(Request::new("DELETE", &upload.location));
    }
}

/// Whether more of the same upload, or a new one, may mend this.
pub(super) fn may_go_on(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Body { .. } => true,
        Error::Refused { code, .. } => matches!(code, 404 | 408 | 416 | 429 | 500..=599),
        _ => false,
    }
}
