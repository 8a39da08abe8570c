//! WORKDIR: the directory is made if it is missing, and belongs to USER.

use std::os::fd::BorrowedFd;

use super::accounts::Accounts;
use super::place::{self, New};
use crate::error::Result;
use crate::graph::WorkdirAction;

/// Makes the directory.
pub(crate) fn make(root: BorrowedFd<'_>, workdir: &WorkdirAction) -> Result<()> {
    let owner = match workdir.user.as_str() {
        "" => (0, 0),
        user => {
            let user = Accounts::read(root)?.process_user(user)?;
            (user.uid, user.gid)
        }
    };
    place::directory(root, workdir.path.trim_matches('/').as_bytes(), New::of(owner), &mut Vec::new())?;
    Ok(())
}
