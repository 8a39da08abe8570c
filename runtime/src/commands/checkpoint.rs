//! `hull checkpoint`.

use super::find;
use crate::checkpoint::{self, EMPTY_NAMESPACES, Request};
use crate::cli::CheckpointOptions;
use crate::criu::messages::{Options, PageServer};
use crate::error::{Code, Context, Error, Result};
use crate::globals::Globals;
use hull_sys::fs::OFlags;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

/// Saves a running container.
pub fn run(options: CheckpointOptions, globals: &Globals) -> Result<u8> {
    let named = |error: Error| error.within(format!("{} checkpoint failed", globals.name));
    let mut directory = find(&options.id, globals)?;
    let request = request(options).map_err(named)?;
    directory.lock()?;
    checkpoint::checkpoint(request, directory, globals).map_err(named)?;
    Ok(0)
}

fn request(options: CheckpointOptions) -> Result<Request> {
    let switches = Options {
        leave_running: Some(options.leave_running),
        tcp_established: Some(options.tcp_established),
        tcp_skip_in_flight: Some(options.tcp_skip_in_flight),
        link_remap: Some(options.link_remap),
        ext_unix_sk: Some(options.ext_unix_sk),
        shell_job: Some(options.shell_job),
        file_locks: Some(options.file_locks),
        lazy_pages: Some(options.lazy_pages),
        auto_dedup: Some(options.auto_dedup),
        manage_cgroups_mode: Some(cgroups_mode(&options.manage_cgroups_mode)?),
        empty_ns: Some(empty_namespaces(&options.empty_ns)?),
        ..Options::default()
    };
    Ok(Request {
        image_path: options.image_path,
        work_path: options.work_path,
        parent_path: options.parent_path,
        pre_dump: options.pre_dump,
        status: options.status_fd.filter(|fd| *fd >= 0).map(status_file).transpose()?,
        page_server: options.page_server.as_deref().map(page_server).transpose()?,
        switches,
    })
}

/// `criu_cg_mode` of the RPC.
pub fn cgroups_mode(name: &str) -> Result<i32> {
    match name {
        "ignore" => Ok(0),
        "soft" => Ok(3),
        "full" => Ok(4),
        "strict" => Ok(5),
        "" => Ok(6),
        other => Err(Error::new(Code::Usage, format!("invalid manage-cgroups-mode value {other:?}"))
            .hint("soft, full, strict or ignore")),
    }
}

/// A network namespace is always made empty: its interfaces are those of whoever made them.
pub fn empty_namespaces(kinds: &[String]) -> Result<u32> {
    match kinds.iter().find(|kind| *kind != "network") {
        None => Ok(EMPTY_NAMESPACES),
        Some(other) => Err(Error::new(Code::Usage, format!("namespace {other:?} is not supported"))
            .hint("--empty-ns takes network")),
    }
}

/// The open file behind a number that the caller passed, opened anew for writing: at once, or not at all where it is a
/// pipe that nobody reads any more.
fn status_file(number: i32) -> Result<File> {
    File::options()
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(format!("/proc/self/fd/{number}"))
        .context(|| format!("invalid --status-fd argument {number}"))
        .map_err(|error| error.code(Code::Usage))
}

fn page_server(text: &str) -> Result<PageServer> {
    let wrong = || Error::new(Code::Usage, "Use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bracketed.unwrap_or(address);
    if address.is_empty() || port.is_empty() || (bracketed.is_none() && address.contains(':')) {
        return Err(wrong());
    }
    let port: u16 = port.parse().map_err(|_| Error::new(Code::Usage, "Invalid port number"))?;
    Ok(PageServer { address: Some(address.to_owned()), port: Some(port.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        let parsed = |text| page_server(text).ok().map(|server| (server.address, server.port));
        assert_eq!(parsed("10.0.0.1:27"), Some((Some("10.0.0.1".into()), Some(27))));
        assert_eq!(parsed("[::1]:65535"), Some((Some("::1".into()), Some(65535))));
        for wrong in ["", "host", "host:", ":1", "::1:5", "host:65536", "host:x"] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn modes_have_the_numbers_of_the_rpc() {
        let numbers: Vec<_> =
            ["", "ignore", "soft", "full", "strict"].map(|name| cgroups_mode(name).ok()).into();
        assert_eq!(numbers, [Some(6), Some(0), Some(3), Some(4), Some(5)]);
        assert!(cgroups_mode("props").is_err());
    }
}
