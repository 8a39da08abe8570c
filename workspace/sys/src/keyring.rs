//! Session keyrings (keyctl(2)).

use crate::raw::{check, check_unit, with_path};
use crate::{Result, SysError};
use rustix::path::Arg;

const KEYCTL_JOIN_SESSION_KEYRING: u32 = 1;
const KEYCTL_SETPERM: u32 = 5;
const KEYCTL_DESCRIBE: u32 = 6;

/// Makes and joins a new session keyring called `name`, or joins one of that name it may search, and gives its serial
/// number.
pub fn join_session_keyring(name: impl Arg) -> Result<i32> {
    with_path("keyctl", name, |name| {
        // SAFETY: `name` ends in NUL and outlives the call.
        let returned = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
        Ok(check("keyctl(JOIN_SESSION_KEYRING)", returned)? as i32)
    })
}

/// The key's permission mask, as `KEY_POS_*`, `KEY_USR_*` and so on of keyctl_setperm(3).
pub fn permissions(key: i32) -> Result<u32> {
    describe(key)?
        .split(';')
        .nth(3)
        .and_then(|mask| u32::from_str_radix(mask, 16).ok())
        .ok_or(SysError::new("keyctl(DESCRIBE)", libc::EBADMSG))
}

/// Sets the key's permission mask.
pub fn set_permissions(key: i32, mask: u32) -> Result<()> {
    // SAFETY: three numbers, no memory.
    let returned = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key, mask) };
    check_unit("keyctl(SETPERM)", returned)
}

/// The kernel's text on the key: `type;uid;gid;permissions;description`.
pub fn describe(key: i32) -> Result<String> {
    // Type and description are limited to 32 and 4095 bytes by the kernel.
    let mut text = vec![0u8; 4352];
    // SAFETY: the kernel writes no more than the length we give.
    let returned =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, key, text.as_mut_ptr(), text.len()) };
    // The length counts the final NUL.
    let len = check("keyctl(DESCRIBE)", returned)? as usize;
    text.truncate(len.saturating_sub(1));
    Ok(String::from_utf8_lossy(&text).into_owned())
}
