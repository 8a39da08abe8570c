//! Lexical work on paths; nothing is looked up.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// `path` without empty, `.` and `..` components, absolute; `..` stops at the root.
pub(crate) fn clean(path: &str) -> String {
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    format!("/{}", components.join("/"))
}

/// `path` below `base` unless it is absolute, cleaned.
pub(crate) fn absolute(base: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{base}/{path}")) }
}

/// True when `path` is `directory` or lies below it; both are clean.
pub(crate) fn is_within(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What of `path` lies below `directory`, as a path from there; none for `directory` itself, the root, and what is
/// elsewhere. Both are absolute and clean.
#[must_use]
pub fn below(path: &str, directory: &str) -> Option<String> {
    let rest = path.strip_prefix(directory).filter(|rest| rest.starts_with('/'))?;
    Some(String::from(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_without_leaving_the_root() {
        for (path, cleaned) in [
            ("/", "/"),
            ("", "/"),
            ("/a//b/./c/", "/a/b/c"),
            ("/a/../../b", "/b"),
            ("relative", "/relative"),
            ("/..", "/"),
            ("/a/..b/...", "/a/..b/..."),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        assert_eq!(absolute("/bundle", "rootfs"), "/bundle/rootfs");
        assert_eq!(absolute("/bundle", "../other"), "/other");
        assert_eq!(absolute("/bundle", "/else/./x"), "/else/x");
    }

    #[test]
    fn a_path_below_is_given_from_there() {
        assert_eq!(below("/b/rootfs/mnt/x", "/b/rootfs").as_deref(), Some("/mnt/x"));
        for (path, directory) in
            [("/b/rootfs", "/b/rootfs"), ("/b/rootfs2/x", "/b/rootfs"), ("/x", "/"), ("/", "/b")]
        {
            assert_eq!(below(path, directory), None, "{path} {directory}");
        }
    }

    #[test]
    fn a_longer_name_is_not_within() {
        assert!(is_within("/proc", "/proc"));
        assert!(is_within("/proc/self", "/proc"));
        assert!(!is_within("/process", "/proc"));
        assert!(!is_within("/", "/proc"));
    }
}
