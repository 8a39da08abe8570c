//! Programs that are waited for no longer than they may take.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::time::Instant;

use hull_sys::poll;
use hull_sys::process::{Pid, pidfd_open};

/// Runs a program to its end; none where it did not end before `limit` and was killed.
pub(crate) fn status(command: &mut Command, limit: Instant) -> io::Result<Option<ExitStatus>> {
    wait(&mut command.spawn()?, limit)
}

/// Waits for a program's end; none where it did not come before `limit` and the program was killed.
pub(crate) fn wait(child: &mut Child, limit: Instant) -> io::Result<Option<ExitStatus>> {
    let process = pidfd_open(Pid::from_raw(child.id().cast_signed())).map_err(io::Error::other)?;
    if poll::wait_readable(std::os::fd::AsFd::as_fd(&process), Some(limit)).map_err(io::Error::other)? {
        return child.wait().map(Some);
    }
    // It may not end even by this (it waits for a disk): then nobody waits with it.
    child.kill()?;
    child.try_wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed_and_one_that_ends_tells_its_code() {
        let mut hangs = Command::new("sleep").arg("1000").spawn().unwrap();
        assert_eq!(wait(&mut hangs, Instant::now() + Duration::from_millis(20)).unwrap(), None);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&hangs.wait().unwrap()), Some(9));
        let limit = Instant::now() + Duration::from_secs(60);
        let ended = status(Command::new("sh").args(["-c", "exit 7"]), limit).unwrap();
        assert_eq!(ended.and_then(|status| status.code()), Some(7));
    }
}
