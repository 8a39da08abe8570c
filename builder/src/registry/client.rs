//! Conversations with one registry: how it is reached, and who asks.

use super::auth::Authority;
use super::endpoint::{Endpoint, Origin};
use super::wire::{Answer, Request, Wire, accept};
use super::{Error, Options, Party, Result};

/// Speaks to one registry with its authority.
pub(crate) struct Client {
    wire: Wire,
    authority: Authority,
    endpoint: Endpoint,
}

impl Client {
    /// Finds out how the registry can be reached: of several candidates the first that speaks the protocol.
    pub(crate) fn connect(registry: &str, options: &Options) -> Result<Self> {
        let mut last = None;
        let candidates = Endpoint::candidates(registry, options)?;
        let alone = candidates.len() == 1;
        for endpoint in candidates {
            let client = Self::at(endpoint, options)?;
            if alone {
                return Ok(client);
            }
            let probe = Request::new("GET", &format!("{}/v2/", client.endpoint.base));
            match client.wire.follow(&probe, 1) {
                // A server that wants TLS answers 400 to plain HTTP.
                Ok(answer) if answer.code() != 400 => return Ok(client),
                Ok(_) => {}
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Rule(format!("{registry}: speaks neither http nor https"))))
    }

    /// Speaks to this place, whatever it is.
    pub(crate) fn at(endpoint: Endpoint, options: &Options) -> Result<Self> {
        // Who is not told who asks is not shown a certificate that tells it.
        let party = if endpoint.may_authenticate { options.party } else { Party::Mirror };
        let wire = Wire::new(&endpoint.origin, &Options { party, ..options.clone() })?;
        Ok(Self { wire, authority: Authority::new(endpoint.clone(), options.clone()), endpoint })
    }

    /// The URL of a path below the registry's root.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoint.base)
    }

    /// The options it was made with.
    pub(crate) fn options(&self) -> &Options {
        self.wire.options()
    }

    /// Sends a request for a scope; a refusal is an error.
    pub(crate) fn send(&self, request: Request, scope: &str) -> Result<Answer> {
        let method = request.method;
        let (answer, attempts) = self.send_any(request, scope)?;
        accept(answer, method, attempts)
    }

    /// Sends a request for a scope, whatever the answer; authorises when challenged, tries again when that may help.
    pub(crate) fn send_any(&self, mut request: Request, scope: &str) -> Result<(Answer, u32)> {
        let origin = Origin::of(&request.url)?;
        // What is elsewhere, the registry named: the place of an upload, the next page of a list.
        origin.check_led_from(&self.endpoint.origin, &self.endpoint.base)?;
        let own = origin == self.endpoint.origin;
        let mut challenged = false;
        let mut attempt = 0;
        loop {
            attempt += 1;
            request.authorization = if own { self.authority.header(scope) } else { None };
            let outcome = self.wire.follow(&request, attempt);
            if let Ok(answer) = &outcome
                && answer.code() == 401
                && own
                && Origin::of(answer.url())? == self.endpoint.origin
                && !challenged
            {
                challenged = true;
                self.authority.forget(scope);
                if self.authority.answer(&self.wire, answer, scope)? {
                    continue;
                }
            }
            match self.wire.pause(&outcome, attempt).filter(|_| request.repeatable) {
                Some(pause) => std::thread::sleep(pause),
                None => return outcome.map(|answer| (answer, attempt)),
            }
        }
    }
}
