//! Debian's registry with passwords, and with a server of tokens beside it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod distribution;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD as PLAIN, BASE64_URL_SAFE_NO_PAD as URL_SAFE};
use bed::{Bed, program};
use distribution::Real;
use serde_json::{Value, json};

#[test]
fn a_real_registry_with_passwords_serves_who_logged_in() {
    let bed = Bed::new();
    // bcrypt of "hunter2"
    let line = "me:$2b$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";
    fs::write(bed.path("htpasswd"), line).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: lab, path: {}}}}}\n", bed.path("htpasswd").display());
    let Some(real) = Real::with(&bed, &auth) else { return };
    bed.image("lab/a:1");
    let server = format!("127.0.0.1:{}", real.port);
    let name = format!("{server}/x/a:1");
    assert!(bed.fails(&["push", "lab/a:1", &name]).contains("401 not authorised"));
    assert!(bed.fails(&["login", "-u", "me", "-p", "wrong", &server]).contains("401"));
    bed.ok(&["login", "-u", "me", "-p", "hunter2", &server]);
    assert!(bed.ok(&["push", "lab/a:1", &name]).contains("2 blobs pushed"));
    bed.ok(&["rmi", "lab/a:1"]);
    bed.ok(&["pull", &name]);
    let found = bed.ok(&["search", "--format", "{{.Name}}", &format!("{server}/x")]);
    assert_eq!(found.trim(), format!("{server}/x/a"));
    bed.ok(&["logout", &server]);
    assert!(bed.fails(&["pull", &name]).contains("401 not authorised"));
}

/// Makes tokens as a registry's own server does: signed with a key whose certificate the registry trusts.
struct Tokens {
    key: String,
    certificate: String,
}

impl Tokens {
    fn new(bed: &Bed) -> Option<Self> {
        let openssl = program("openssl")?;
        let path = |name: &str| bed.path(name).display().to_string();
        let (key, certificate) = (path("key.pem"), path("cert.pem"));
        let mut command = Command::new(openssl);
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lab"]);
        let made = command.args(["-keyout", &key, "-out", &certificate]).stderr(Stdio::null()).status();
        assert!(made.unwrap().success());
        Some(Self { key, certificate })
    }

    /// A token for what is asked, less what nobody gets: only `x/` may be pushed to.
    fn token(&self, scopes: &[String]) -> String {
        let access: Vec<Value> = scopes
            .iter()
            .filter_map(|scope| {
                let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
                let may = |action: &&str| *action == "pull" || name.starts_with("x/");
                let actions: Vec<&str> = actions.split(',').filter(may).collect();
                Some(json!({"type": "repository", "name": name, "actions": actions}))
            })
            .collect();
        let pem = fs::read_to_string(&self.certificate).unwrap();
        let chain: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [chain]});
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let body = json!({"iss": "lab", "sub": "", "aud": "registry", "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": "1", "access": access});
        let text = format!("{}.{}", URL_SAFE.encode(head.to_string()), URL_SAFE.encode(body.to_string()));
        let mut command = Command::new("openssl");
        command.args(["dgst", "-sha256", "-sign", &self.key]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE.encode(child.wait_with_output().unwrap().stdout))
    }

    /// Gives tokens to everybody; who sends a credential gets none. The server's address.
    fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                let query = lines[0].split(['?', ' ']).nth(2).unwrap_or_default();
                let plain = |text: &str| text.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
                let scopes: Vec<String> = query
                    .split('&')
                    .filter_map(|part| part.strip_prefix("scope="))
                    .flat_map(|scope| plain(scope).split(['+', ' ']).map(str::to_owned).collect::<Vec<_>>())
                    .collect();
                let known = lines.iter().any(|line| line.to_lowercase().starts_with("authorization:"));
                let body =
                    if known { "{}".to_owned() } else { json!({"token": self.token(&scopes)}).to_string() };
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                // A client that hangs up asks again if it wants.
                drop(stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()));
            }
        });
        format!("http://{address}/token")
    }
}

#[test]
fn a_real_registry_takes_the_tokens_of_its_server() {
    let bed = Bed::new();
    let Some(tokens) = Tokens::new(&bed) else { return };
    let certificate = tokens.certificate.clone();
    let auth = format!(
        "auth: {{token: {{realm: {}, service: registry, issuer: lab, rootcertbundle: {certificate}}}}}\n",
        tokens.serve()
    );
    let Some(real) = Real::with(&bed, &auth) else { return };
    let id = bed.image("lab/a:1");
    let server = format!("127.0.0.1:{}", real.port);
    // What is known of another registry's user is nothing to this one's server.
    let known = json!({"auths": {&server: {"auth": PLAIN.encode("me:hunter2")}}});
    let name = format!("{server}/x/a:1");
    assert!(bed.ok(&["push", "lab/a:1", &name]).contains("2 blobs pushed"));
    let other = Bed::new();
    other.ok(&["pull", &name]);
    assert_eq!(other.ok(&["inspect", "-f", "{{.Id}}", &name]).trim(), id);
    let second = format!("{server}/x/b:1");
    assert!(
        bed.ok(&["push", "lab/a:1", &second]).contains("0 blobs pushed"),
        "mounted, with a token for both"
    );
    let refused = bed.fails(&["push", "lab/a:1", &format!("{server}/y/a:1")]);
    assert!(refused.contains("401 not authorised") || refused.contains("403"), "{refused}");
    fs::create_dir_all(other.path(".docker")).unwrap();
    fs::write(other.path(".docker/config.json"), known.to_string()).unwrap();
    // The server is of another origin: it gets no credential, and so gives its token.
    other.ok(&["pull", &second]);
}
