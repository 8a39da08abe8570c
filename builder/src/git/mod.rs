//! Git repositories as contexts and as sources of ADD: `https://host/name.git#ref:directory`, fetched by the `git`
//! program, which reads no configuration and runs no hook.

mod fetch;

use crate::error::{Error, Result};

/// A repository, and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    /// What git is given.
    remote: String,
    /// A branch, a tag or a commit; the remote's own choice without one.
    reference: Option<String>,
    /// A directory below the root.
    directory: Option<String>,
}

impl Repository {
    /// Whether a text means a repository: by its scheme, or by `.git` at the end of its path.
    pub(crate) fn is_meant(text: &str) -> bool {
        let plain = text.split('#').next().unwrap_or(text);
        let has = |schemes: &[&str]| schemes.iter().any(|scheme| plain.starts_with(scheme));
        has(&["git://", "ssh://", "git@", "github.com/"])
            || has(&["http://", "https://"]) && plain.trim_end_matches('/').ends_with(".git")
    }

    /// Reads `URL[#[REF][:DIRECTORY]]`.
    ///
    /// # Errors
    /// A part that git could take for an option, a directory outside, or a name that no reference can have.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::fact(format!("the repository {}: {what}", hidden(text)));
        let (remote, fragment) = text.split_once('#').unwrap_or((text, ""));
        let remote = match remote.strip_prefix("github.com/") {
            Some(path) => format!("https://github.com/{path}"),
            None => remote.to_owned(),
        };
        let host = remote.split_once("://").map_or(remote.as_str(), |(_, rest)| rest);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if host.starts_with('-') || remote.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong("git could take it for an option"));
        }
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let is_name = |name: &str| {
            let odd = |c: char| c.is_control() || " ~^?*[\\".contains(c);
            !name.starts_with('-') && !name.contains("..") && !name.contains("@{") && !name.contains(odd)
        };
        if !is_name(reference) {
            return Err(wrong("no reference has this name"));
        }
        if directory.split('/').any(|part| part == "..") || directory.contains('\0') {
            return Err(wrong("the directory is outside of it"));
        }
        let some = |text: &str| Some(text.trim_matches('/').to_owned()).filter(|text| !text.is_empty());
        Ok(Self { remote, reference: some(reference), directory: some(directory) })
    }

    /// The commit, when it is named in full.
    fn commit(&self) -> Option<&str> {
        self.reference.as_deref().filter(|name| is_commit(name))
    }
}

impl std::fmt::Display for Repository {
    /// As it was written, without the user's name and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hidden(&self.remote))?;
        match (&self.reference, &self.directory) {
            (None, None) => Ok(()),
            (reference, None) => write!(f, "#{}", reference.as_deref().unwrap_or_default()),
            (reference, Some(directory)) => {
                write!(f, "#{}:{directory}", reference.as_deref().unwrap_or_default())
            }
        }
    }
}

/// A URL without the user's name and password.
fn hidden(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}/{path}")
}

/// Whether a text is a commit's full name: SHA-1 or SHA-256.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_repository_is_seen_from_its_name() {
        for (text, wanted) in [
            ("https://host/name.git", true),
            ("https://host/name.git#main:sub", true),
            ("http://host/name.git/", true),
            ("git://host/name", true),
            ("git@host:path", true),
            ("ssh://git@host/path", true),
            ("github.com/owner/name", true),
            ("https://host/archive.tar.gz", false),
            ("https://host/x?y=.git", true),
            ("https://host/page#x.git", false),
            ("directory.git", false),
        ] {
            assert_eq!(Repository::is_meant(text), wanted, "{text}");
        }
    }

    #[test]
    fn references_and_directories_are_read() {
        let parts = |text: &str| {
            let repository = Repository::parse(text).unwrap();
            (repository.remote, repository.reference, repository.directory)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parts("git://h/r"), ("git://h/r".into(), None, None));
        assert_eq!(parts("git://h/r#v1"), ("git://h/r".into(), some("v1"), None));
        assert_eq!(parts("git@h:r#:a/b/"), ("git@h:r".into(), None, some("a/b")));
        assert_eq!(
            parts("github.com/o/r#main:d"),
            ("https://github.com/o/r".into(), some("main"), some("d"))
        );
    }

    #[test]
    fn what_git_could_misread_is_refused() {
        for text in [
            "git://-oProxyCommand=x/r",
            "ssh://-oProxyCommand=touch/r",
            "git@-host:r",
            "ssh://user@-host/r",
            "https://h/r.git#-upload-pack=x",
            "https://h/r.git#a..b",
            "https://h/r.git#a b",
            "https://h/r.git#main:../../etc",
            "https://h/r.git#main:a/../..",
            "https://h/r .git",
            "https://h/r\n.git",
        ] {
            assert!(Repository::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn passwords_are_never_shown() {
        let repository = Repository::parse("https://user:secret@host/r.git#main:d").unwrap();
        assert_eq!(repository.to_string(), "https://host/r.git#main:d");
        let refused = Repository::parse("https://user:secret@host/r.git#-x").unwrap_err().to_string();
        assert!(!refused.contains("secret"), "{refused}");
    }
}
