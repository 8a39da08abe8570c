//! Slash-separated paths as text, by Go's `path` rules: used for what Dockerfiles say, never to open anything.

/// The shortest equal path: no `.`, no `..` that can be resolved, no double or trailing slash.
pub(crate) fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if matches!(parts.last(), Some(last) if *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".into(),
        (false, rest) => rest,
    }
}

/// `path` seen from `directory`, absolute and clean.
pub(crate) fn absolute(directory: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("/{directory}/{path}")) }
}

/// Whether a text is the name of a file, and no path: of a heredoc's word nobody else has looked.
pub(crate) fn is_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(['/', '\0'])
}

/// A path below a root, without leading slash; empty for the root itself.
pub(crate) fn relative(path: &str) -> String {
    clean(&format!("/{path}"))[1..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        let rows = [
            ("a//b/", "a/b"),
            ("./a", "a"),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("", "."),
            ("/", "/"),
        ];
        for (path, wanted) in rows {
            assert_eq!(clean(path), wanted, "{path}");
        }
        assert_eq!(absolute("/x", "../y"), "/y");
        assert_eq!(relative("../../etc/./passwd"), "etc/passwd");
        assert_eq!(relative("."), "");
    }
}
