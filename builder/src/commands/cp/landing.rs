//! PURE: where a copy lands, by Docker's rules.

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A directory with its name.
    Directory,
    /// What is in a directory: the source ends with `/.`.
    Contents,
    /// Anything else.
    File,
}

/// What is at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    Directory,
    Other,
}

/// Where the source goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landing {
    /// Into the destination, under its own name.
    Into,
    /// Into the destination, without its own name.
    Contents,
    /// To the destination's place and name.
    As,
}

/// Decides; `slash` says that the destination ends with one.
///
/// # Errors
/// Why it cannot go there.
pub(super) fn land(what: &What, there: There, slash: bool) -> Result<Landing, &'static str> {
    match (what, there) {
        (What::Contents, There::Directory) => Ok(Landing::Contents),
        (_, There::Directory) => Ok(Landing::Into),
        (What::File, There::Nothing) if slash => Err("there is no such directory"),
        (What::File, There::Other) if slash => Err("is no directory"),
        (What::File, _) | (_, There::Nothing) => Ok(Landing::As),
        (_, There::Other) => Err("a directory cannot replace something that is none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_land_where_docker_puts_them() {
        use There::{Directory, Nothing, Other};
        let rows = [
            (What::File, Nothing, false, Ok(Landing::As)),
            (What::File, Nothing, true, Err("there is no such directory")),
            (What::File, Directory, false, Ok(Landing::Into)),
            (What::File, Directory, true, Ok(Landing::Into)),
            (What::File, Other, false, Ok(Landing::As)),
            (What::File, Other, true, Err("is no directory")),
            (What::Directory, Nothing, false, Ok(Landing::As)),
            (What::Directory, Nothing, true, Ok(Landing::As)),
            (What::Directory, Directory, false, Ok(Landing::Into)),
            (What::Directory, Other, false, Err("a directory cannot replace something that is none")),
            (What::Contents, Nothing, false, Ok(Landing::As)),
            (What::Contents, Directory, true, Ok(Landing::Contents)),
            (What::Contents, Other, false, Err("a directory cannot replace something that is none")),
        ];
        for (what, there, slash, expected) in rows {
            assert_eq!(land(&what, there, slash), expected, "{what:?} {there:?} {slash}");
        }
    }
}
