//! How the end is told: exit files, written whole, then the exit command.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io::{Error, Write};
use std::os::fd::AsFd;
use std::path::Path;

use hull_sys::process::{self, CStrings};
use hull_sys::{fd, signal};

use crate::spawn::own_environment;

use super::args::Args;

/// Writes the exit code where the manager looks for it. What fails is tried again for a while: a code that is not
/// written is lost.
pub fn write_exit_files(args: &Args, code: i32) {
    const ATTEMPTS: u32 = 50;
    let files = [
        args.persist_dir.as_ref().map(|directory| directory.join("exit")),
        args.exit_dir.as_ref().map(|directory| directory.join(&args.container)),
    ];
    for file in files.into_iter().flatten() {
        for _ in 0..ATTEMPTS {
            if write_whole(&file, code).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// A reader sees the whole number or no file.
fn write_whole(path: &Path, code: i32) -> Result<(), Error> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let written = fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(code.to_string().as_bytes()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The write's own error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Marks that the container lost a process for lack of memory.
pub fn write_oom_files(args: &Args) {
    let places = [Some(&args.bundle), args.persist_dir.as_ref()];
    for directory in places.into_iter().flatten() {
        // The exit code tells as well; a mark that cannot be written stops nothing.
        let _ = fs::File::create(directory.join("oom"));
    }
}

/// Runs the exit command, if there is one, to its end.
pub fn run_exit_command(args: &Args) -> Result<(), String> {
    let Some(command) = &args.exit_command else { return Ok(()) };
    if args.exit_delay > 0 {
        std::thread::sleep(std::time::Duration::from_secs(args.exit_delay));
    }
    let text = |text: &str| CString::new(text).map_err(|_| "exit command with a NUL byte".to_owned());
    let words = std::iter::once(command).chain(&args.exit_command_args);
    let words = CStrings::new(words.map(|word| text(word)).collect::<Result<_, _>>()?);
    let environment = own_environment().filter_map(|pair| CString::new(pair).ok()).collect();
    let (path, environment) = (text(command)?, CStrings::new(environment));
    let failed = |error: hull_sys::SysError| format!("exit command {command}: {error}");
    // It may start the container again, and what it starts is not ours to reap.
    process::set_child_subreaper(false).map_err(failed)?;
    let child = process::spawn_program(|| {
        let started = || -> hull_sys::Result<Infallible> {
            signal::reset_dispositions()?;
            signal::unblock_all()?;
            fd::mark_cloexec_from(3)?;
            Err(process::execve(&path, &words, &environment))
        };
        match started() {
            Ok(never) => match never {},
            Err(_) => process::exit_now(1),
        }
    });
    // How it ends is not how the container ended: podman's fails when somebody removes the container at the same time.
    process::wait(child.map_err(failed)?.pidfd.as_fd()).map_err(failed)?;
    Ok(())
}
