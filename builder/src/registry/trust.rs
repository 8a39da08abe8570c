//! Whose certificates a host may show, and which one it is shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::endpoint::Origin;
use super::{Error, Options, Party, Result};

/// Files with the certificates that a system trusts; the first that is there counts, `SSL_CERT_FILE` before all.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Directories with a folder `HOST[:PORT]` for each registry, whose `*.crt` are trusted and `*.cert` with `*.key` shown
/// (containers-certs.d(5)).
const FOLDERS: [&str; 3] = ["/etc/hull/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"];

/// The trust of one host that the registry at `home`, maybe itself, has led to: the system's authorities, the registry's and
/// the host's own. The registry's authorities count there too, as with other programs: token servers have no folder of
/// their own. Our certificate is shown to the host in whose folder it lies and to nobody else.
pub(super) fn tls(origin: &Origin, home: &Origin, options: &Options) -> Result<TlsConfig> {
    let own = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = own.into_iter().chain(BUNDLES.map(Into::into)).find(|path| path.is_file());
    let mut trusted = bundle.map_or(Ok(Vec::new()), |path| certificates(&path))?;
    let mut shown = None;
    // Who wrote a Dockerfile does not choose for whom the flags' trust is.
    let is_other = options.party == Party::Other;
    for folder in &options.certificates {
        fs::read_dir(folder)
            .map_err(|e| Error::Rule(format!("read certificates {}: {e}", folder.display())))?;
    }
    let shows = options.party == Party::Named && origin == home;
    let given = options.certificates.iter().filter(|_| !is_other).map(|folder| (folder.clone(), shows));
    let of_home = folders(home).into_iter().map(|folder| (folder, origin == home));
    let of_origin = folders(origin).into_iter().filter(|_| origin != home).map(|folder| (folder, true));
    for (folder, shows) in given.chain(of_home).chain(of_origin) {
        let (more, own) = in_folder(&folder)?;
        trusted.extend(more);
        shown = shown.or(own.filter(|_| shows));
    }
    let roots = match trusted.is_empty() {
        true => RootCerts::WebPki,
        false => RootCerts::Specific(Arc::new(trusted)),
    };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .client_cert(shown)
        .disable_verification(!options.tls_verify && !is_other)
        .build())
}

/// The folders of a host; a port that its scheme implies is not in their names.
fn folders(origin: &Origin) -> Vec<PathBuf> {
    let host = match origin.port {
        80 | 443 => origin.host.clone(),
        port => format!("{}:{port}", origin.host),
    };
    let user = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let user = user.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    let user = user.map(|config| config.join("containers/certs.d"));
    user.into_iter().chain(FOLDERS.map(PathBuf::from)).map(|folder| folder.join(&host)).collect()
}

/// The authorities in a folder, and the certificate to show with its key; a folder that is not there has none.
fn in_folder(folder: &Path) -> Result<(Vec<Certificate<'static>>, Option<ClientCert>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok((Vec::new(), None)) };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let (mut trusted, mut shown) = (Vec::new(), None);
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => trusted.extend(certificates(&path)?),
            Some("cert") if shown.is_none() => shown = Some(own(&path)?),
            _ => {}
        }
    }
    Ok((trusted, shown))
}

/// A certificate of ours, with the key beside it.
fn own(path: &Path) -> Result<ClientCert> {
    let key = path.with_extension("key");
    let refuse = |e: &dyn std::fmt::Display| Error::Rule(format!("read key {}: {e}", key.display()));
    let bytes = fs::read(&key).map_err(|e| refuse(&e))?;
    let key = PrivateKey::from_pem(&bytes).map_err(|e| refuse(&e))?;
    let chain = certificates(path)?;
    match chain.is_empty() {
        true => Err(Error::Rule(format!("read certificates {}: there is none in it", path.display()))),
        false => Ok(ClientCert::new_with_certs(&chain, key)),
    }
}

/// The certificates in a file; entries that are none are passed over, as every other reader of such bundles does.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let bytes =
        fs::read(path).map_err(|e| Error::Rule(format!("read certificates {}: {e}", path.display())))?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    Ok(parse_pem(&bytes).filter_map(certificate).collect())
}
