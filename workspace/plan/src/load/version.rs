//! Which `ociVersion` is accepted: semantic versions of major 1 (config.md, specification version).

use super::tree::Node;
use crate::refusal::Refusal;
use alloc::format;

/// Refuses a document whose `ociVersion` is missing, malformed or of another major version.
pub(super) fn check(document: &Node) -> Result<(), Refusal> {
    let Some(version) = document.get("ociVersion").filter(|version| **version != Node::Null) else {
        return Err(Refusal::new("", "ociVersion is missing"));
    };
    let Some(version) = version.text() else {
        return Err(Refusal::new("/ociVersion", "invalid type: expected a string"));
    };
    match major(version) {
        Some("1") => Ok(()),
        Some(other) => Err(Refusal::new("/ociVersion", format!("major version {other} is not supported"))
            .hint("1.0.0 up to 1.3.0 and every later 1.x are accepted")),
        None => Err(Refusal::new("/ociVersion", format!("{version:?} is not a semantic version (1.2.0)"))),
    }
}

/// The major number, when the whole string is a semantic version (semver.org 2.0.0, items 2, 9 and 10).
fn major(version: &str) -> Option<&str> {
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let mut numbers = core.split('.');
    let major = numbers.next().filter(|number| is_number(number))?;
    let others_fit = numbers.clone().count() == 2 && numbers.all(is_number);
    let extras_fit = pre.into_iter().chain(build).all(|extra| extra.split('.').all(is_identifier));
    (others_fit && extras_fit).then_some(major)
}

fn is_number(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn of(version: &'static str) -> Node<'static> {
        Node::Object(vec![("ociVersion".into(), Node::Text(version.into()))])
    }

    #[test]
    fn every_semantic_version_of_major_1_is_accepted() {
        for version in ["1.0.0", "1.0.0-rc5", "1.0.2-dev", "1.2.0", "1.3.0", "1.99.0", "1.2.0+build.7"] {
            assert_eq!(check(&of(version)), Ok(()), "{version}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_pointer() {
        for version in
            ["", "1", "1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0+", "1.0.0 ", "0.9.0", "2.0.0", "11.0.0"]
        {
            let refusal = check(&of(version)).expect_err(version);
            assert_eq!(refusal.field, "/ociVersion", "{version}");
        }
        assert_eq!(check(&Node::Object(vec![])).map_err(|refusal| refusal.field), Err("".into()));
        let number = Node::Object(vec![("ociVersion".into(), Node::Unsigned(1))]);
        assert_eq!(check(&number).map_err(|refusal| refusal.field), Err("/ociVersion".into()));
    }
}
