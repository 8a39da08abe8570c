//! Single actions of the probe, each answered by a text, or by `!` and the name of the errno.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{FileType, Mode};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Carries out the actions, which are parted by `+`.
#[must_use]
pub fn all(words: &[String]) -> Value {
    let actions = words.split(|word| word == "+");
    let words = actions.map(|action| action.iter().map(String::as_str).collect::<Vec<_>>());
    words.map(|words| answer(one(&words))).map(Value::String).collect()
}

fn answer(done: io::Result<String>) -> String {
    done.unwrap_or_else(|error| match error.raw_os_error() {
        Some(number) => format!("!{:?}", nix::errno::Errno::from_raw(number)),
        None => format!("!{error}"),
    })
}

fn one(words: &[&str]) -> io::Result<String> {
    match words {
        ["read", path] => Ok(fs::read_to_string(path)?.trim_end().to_owned()),
        ["write", path, text] => OpenOptions::new().write(true).open(path).and_then(|mut file| {
            io::Write::write_all(&mut file, text.as_bytes())?;
            Ok(String::new())
        }),
        ["make", path] => OpenOptions::new().create(true).append(true).open(path).map(nothing),
        ["open", path] => OpenOptions::new().read(true).open(path).map(nothing),
        ["open-write", path] => OpenOptions::new().write(true).open(path).map(nothing),
        ["list", path] => list(path),
        ["stat", path] => stat(path),
        ["link", path] => fs::read_link(path).map(|to| to.to_string_lossy().into_owned()),
        ["mkdir", path] => fs::create_dir(path).map(nothing),
        ["chmod", path, mode] => {
            Ok(rustix::fs::chmod(*path, Mode::from_raw_mode(octal(mode)?)).map(nothing)?)
        }
        ["mknod", path, kind, major, minor] => mknod(path, kind, number(major)?, number(minor)?),
        ["mount", path] => mount(path, "tmpfs"),
        ["bind", from, to] => Ok(rustix::mount::mount_bind(*from, *to).map(nothing)?),
        ["run", path] => {
            std::process::Command::new(path).args(["exit", "0"]).status().map(|status| status.to_string())
        }
        ["statfs", path] => Ok(format!("{:#x}", rustix::fs::statfs(*path)?.f_type)),
        _ => own(words),
    }
}

/// Actions that show the process itself.
fn own(words: &[&str]) -> io::Result<String> {
    match words {
        ["getcwd"] => std::env::current_dir().map(|path| path.to_string_lossy().into_owned()),
        ["uname"] => Ok(rustix::system::uname().machine().to_string_lossy().into_owned()),
        ["clock", "monotonic"] => Ok(clock_gettime(ClockId::Monotonic).tv_sec.to_string()),
        ["clock", "boottime"] => Ok(clock_gettime(ClockId::Boottime).tv_sec.to_string()),
        ["lseek", path, at] => {
            fs::File::open(path)?.seek(SeekFrom::Start(number(at)?)).map(|at| at.to_string())
        }
        ["getpriority", pid] => {
            let pid = i32::try_from(number(pid)?).ok().and_then(rustix::process::Pid::from_raw);
            Ok(rustix::process::getpriority_process(pid)?.to_string())
        }
        ["hostname", name] => Ok(rustix::system::sethostname(name.as_bytes()).map(nothing)?),
        ["terminal"] => Ok(terminal().to_string()),
        ["report"] => Ok(hull_testkit::probe::look().to_string()),
        ["ids"] => {
            Ok(format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()))
        }
        _ => Err(io::Error::other(format!("no such action: {}", words.join(" ")))),
    }
}

fn nothing<T>(_: T) -> String {
    String::new()
}

fn number(word: &str) -> io::Result<u64> {
    word.parse().map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn octal(word: &str) -> io::Result<u32> {
    u32::from_str_radix(word, 8).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn list(path: &str) -> io::Result<String> {
    let names = fs::read_dir(path)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names.join(" "))
}

/// Kind, mode, owner, and for devices the number: `char 1:3 666 0:0`.
fn stat(path: &str) -> io::Result<String> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let device = || format!("{}:{} ", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let kind = match () {
        () if kind.is_symlink() => "link ".to_owned(),
        () if kind.is_char_device() => format!("char {}", device()),
        () if kind.is_block_device() => format!("block {}", device()),
        () if kind.is_fifo() => "fifo ".to_owned(),
        () if kind.is_dir() => "directory ".to_owned(),
        () => "file ".to_owned(),
    };
    Ok(format!("{kind}{:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid()))
}

fn mknod(path: &str, kind: &str, major: u64, minor: u64) -> io::Result<String> {
    let kind = if kind == "b" { FileType::BlockDevice } else { FileType::CharacterDevice };
    let part = |number: u64| u32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let device = rustix::fs::makedev(part(major)?, part(minor)?);
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(0o666), device).map(nothing)?)
}

fn mount(path: &str, kind: &str) -> io::Result<String> {
    let none = rustix::mount::MountFlags::empty();
    Ok(rustix::mount::mount(kind, Path::new(path), kind, none, Option::<&CString>::None.map(|data| &**data))
        .map(nothing)?)
}

/// Which of the standard streams are terminals, and the size of the first.
fn terminal() -> Value {
    let streams = [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()];
    let size = rustix::termios::tcgetwinsize(io::stdin()).ok().map(|size| [size.ws_row, size.ws_col]);
    json!({ "streams": streams, "size": size, "name": fs::read_link("/proc/self/fd/0").ok() })
}
