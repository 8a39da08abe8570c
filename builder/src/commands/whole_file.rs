//! Files for the user: written whole or not at all, and never in the place of what is no file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes a file beside its place and renames it, so that a failure leaves what was there; a link is replaced, not followed.
/// A device, a pipe or a descriptor (`/dev/null`, `/dev/stdout`) is written into: it would be gone from the machine else.
/// # Errors
/// Those of `fill`, and of making the file.
pub(crate) fn write_whole<E: From<Error>>(
    path: &Path,
    fill: impl FnOnce(&File) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    if is_stream(path) {
        let file = File::options().write(true).open(path).map_err(Error::io("open", path))?;
        return fill(&file);
    }
    let temporary = beside(path)?;
    let file = File::create_new(&temporary).map_err(Error::io("create", &temporary))?;
    let outcome = fill(&file)
        .and_then(|()| Ok(file.sync_all().map_err(Error::io("sync", &temporary))?))
        .and_then(|()| Ok(fs::rename(&temporary, path).map_err(Error::io("rename to", path))?));
    if outcome.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    outcome
}

/// Whether there is something that a file can't take the place of.
fn is_stream(path: &Path) -> bool {
    let is_special = |meta: fs::Metadata| !meta.is_file() && !meta.is_dir();
    let descriptors = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"];
    descriptors.iter().any(|place| path.starts_with(place)) || fs::metadata(path).is_ok_and(is_special)
}

fn beside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::fact(format!("{} is no file name", path.display())))?;
    Ok(path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id())))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileTypeExt;

    use super::*;

    fn write(path: &Path, text: &str) -> Result<()> {
        write_whole(path, |mut file| file.write_all(text.as_bytes()).map_err(Error::io("write", path)))
    }

    #[test]
    fn a_pipe_is_written_into_and_a_file_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let reading = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        write(&pipe, "to the pipe").unwrap();
        assert_eq!(reading.join().unwrap(), "to the pipe");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo(), "the pipe is still one");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "before").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        write(&link, "after").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "before", "a link is not followed");
        assert_eq!(fs::read_to_string(&link).unwrap(), "after");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing is left beside");
    }

    #[test]
    fn devices_and_descriptors_are_no_files() {
        for path in ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            assert!(is_stream(Path::new(path)), "{path}");
        }
        for path in ["/etc/passwd", "/tmp/nothing/is/here", "/dev/shm/nothing-is-here"] {
            assert!(!is_stream(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "before").unwrap();
        let outcome: Result<()> = write_whole(&file, |_| Err(Error::fact("no")));
        assert_eq!(outcome.unwrap_err().to_string(), "no");
        assert_eq!(fs::read_to_string(&file).unwrap(), "before");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
