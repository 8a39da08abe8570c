//! `login`: keep a credential for a registry, after the registry has taken it.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::Outcome;
use super::registry_options::RegistryArguments;
use crate::registry::{self, AuthFile, Client, Credential, Options, Request, Secret};

/// Arguments of `login`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The registry
    #[arg(default_value = "docker.io")]
    server: String,
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password; others on this machine can see it: use --password-stdin
    #[arg(short, long)]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    registry: RegistryArguments,
}

/// Checks and stores the credential.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let server = normal(&arguments.server);
    let user = match &arguments.username {
        Some(user) => user.clone(),
        None => ask("Username: ")?,
    };
    let password = password(arguments)?;
    let mut options = arguments.registry.options()?;
    options.credential = Some(Credential::Password { user: user.clone(), password: password.clone() });
    check(server, &options)?;
    let mut file = AuthFile::read(&path(&options)?)?;
    let helped = file.put(server, &user, &password)?;
    if !helped {
        eprintln!("hull-build: warning: the password is kept unencrypted; a credential helper avoids that");
    }
    println!("Login Succeeded");
    Ok(ExitCode::SUCCESS)
}

/// The file that login and logout write: the given one, else Docker's.
pub(crate) fn path(options: &Options) -> Result<PathBuf, String> {
    let usual = registry::docker_file()
        .ok_or("login: neither DOCKER_CONFIG nor HOME says where credentials are kept");
    options.auth_file.clone().map_or(usual.map_err(str::to_owned), Ok)
}

/// A registry's name as images have it.
pub(crate) fn normal(server: &str) -> &str {
    let bare = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

fn check(server: &str, options: &Options) -> registry::Result<()> {
    let client = Client::connect(server, options)?;
    client.send(Request::new("GET", &client.url("/v2/")), "").map(drop)
}

fn password(arguments: &Arguments) -> Result<Secret, String> {
    match (&arguments.password, arguments.password_stdin) {
        (Some(_), true) => Err("login: --password and --password-stdin exclude each other".to_owned()),
        (Some(password), false) => {
            eprintln!("hull-build: warning: a password on the command line can be seen by others");
            Ok(Secret::new(password.clone()))
        }
        (None, true) => {
            let mut text = String::new();
            let read = io::stdin().lock().take(1 << 16).read_to_string(&mut text);
            read.map_err(|e| format!("read the password: {e}"))?;
            Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
        (None, false) => ask_unseen("Password: "),
    }
}

/// Asks at the terminal and shows nothing of what is typed.
fn ask_unseen(prompt: &str) -> Result<Secret, String> {
    let mut keys = io::stdin().lock();
    if !keys.is_terminal() {
        return Err("login: give the password with --password-stdin".to_owned());
    }
    let hidden =
        hull_sys::tty::raw_mode(keys.as_fd()).map_err(|e| format!("login: hide the password: {e}"))?;
    eprint!("{prompt}");
    let typed = typed(&mut keys);
    drop(hidden);
    eprintln!();
    String::from_utf8(typed?).map(Secret::new).map_err(|_| "login: the password is no text".to_owned())
}

/// What was typed up to the end of a line; a terminal that hides it corrects and interrupts nothing by itself.
fn typed(keys: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let mut key = [0];
    loop {
        let count = keys.read(&mut key).map_err(|e| format!("read the password: {e}"))?;
        match key[0] {
            _ if count == 0 => return Err("login: cancelled".to_owned()),
            b'\r' | b'\n' => return Ok(line),
            INTERRUPT | QUIT => return Err("login: cancelled".to_owned()),
            END if line.is_empty() => return Err("login: cancelled".to_owned()),
            END => {}
            ERASE | BACKSPACE => {
                let is_inner = |byte: u8| byte & 0xc0 == 0x80;
                while line.pop().is_some_and(is_inner) {}
            }
            KILL => line.clear(),
            other if line.len() < LONGEST => line.push(other),
            _ => {}
        }
    }
}

/// Keys of a terminal, by the characters they send.
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL: u8 = 0x15;
const QUIT: u8 = 0x1c;
const ERASE: u8 = 0x7f;
/// Longest password that is typed, in bytes.
const LONGEST: usize = 4096;

fn ask(prompt: &str) -> Result<String, String> {
    if !io::stdin().is_terminal() {
        return Err("login: give the user with --username".to_owned());
    }
    print!("{prompt}");
    io::stdout().flush().map_err(|e| e.to_string())?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|e| e.to_string())?;
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_correct_and_cancel_what_is_typed() {
        let line = |keys: &[u8]| typed(&mut &*keys).ok().map(|bytes| String::from_utf8(bytes).unwrap());
        for (keys, expected) in [
            (&b"secret\rrest"[..], Some("secret")),
            (b"\n", Some("")),
            (b"sex\x7f\x08cret\r", Some("scret")),
            ("a\u{e9}\x7fb\r".as_bytes(), Some("ab")),
            (b"\x7f\x7fx\r", Some("x")),
            (b"wrong\x15right\r", Some("right")),
            (b"se\x03cret\r", None),
            (b"\x04", None),
            (b"a\x04\r", Some("a")),
            (b"unfinished", None),
        ] {
            assert_eq!(line(keys).as_deref(), expected, "{keys:?}");
        }
    }
}
