//! Flags of every command that speaks to a registry.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::registry::{Credential, Options, Party, Secret};
use crate::spelling::truth;

/// How to reach a registry.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct RegistryArguments {
    /// Check certificates (=false: do not)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth)]
    tls_verify: Option<bool>,
    /// Directory with certificates (*.crt) to trust and our own (*.cert with *.key); may be repeated
    #[arg(long, value_name = "DIR")]
    cert_dir: Vec<PathBuf>,
    /// Speak plain HTTP to a registry that is not on this machine
    #[arg(long)]
    plain_http: bool,
    /// File with credentials
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// USER[:PASSWORD] for the registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    creds: Option<String>,
    /// How often a failed request is tried again
    #[arg(long, value_name = "N")]
    retry: Option<u32>,
    /// First pause before trying again, in milliseconds or with a unit
    #[arg(long, value_name = "TIME")]
    retry_delay: Option<String>,
    /// Ask this place first when pulling: of docker.io, or of a named registry
    #[arg(long, value_name = "[REGISTRY=]URL")]
    registry_mirror: Vec<String>,
    /// Accepted: there is no content trust
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = truth)]
    disable_content_trust: Option<bool>,
}

impl RegistryArguments {
    /// The options they mean.
    ///
    /// # Errors
    /// A delay that is no time.
    pub(crate) fn options(&self) -> Result<Options, String> {
        let default = Options::default();
        let credential = self.creds.as_ref().map(|text| {
            let (user, password) = text.split_once(':').unwrap_or((text, ""));
            Credential::Password { user: user.to_owned(), password: Secret::new(password.to_owned()) }
        });
        Ok(Options {
            tls_verify: self.tls_verify.unwrap_or(true),
            certificates: self.cert_dir.clone(),
            plain_http: self.plain_http,
            retries: self.retry.unwrap_or(default.retries),
            pause: self.retry_delay.as_deref().map_or(Ok(default.pause), delay)?,
            credential,
            party: Party::Named,
            auth_file: self.authfile.clone(),
            shown: default.shown,
            mirrors: self.registry_mirror.clone(),
        })
    }
}

fn delay(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => text.strip_suffix('s').map_or((text, 1), |number| (number, 1000)),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no time such as 500ms or 2s"))?;
    Ok(Duration::from_millis(number * unit))
}
