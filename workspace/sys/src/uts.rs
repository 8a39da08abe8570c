//! The names of a UTS namespace.

use crate::{Result, SysError};

/// Sets the host name of the caller's UTS namespace.
pub fn set_host_name(name: &[u8]) -> Result<()> {
    rustix::system::sethostname(name).map_err(SysError::from_rustix("sethostname"))
}

/// Sets the NIS domain name of the caller's UTS namespace.
pub fn set_domain_name(name: &[u8]) -> Result<()> {
    rustix::system::setdomainname(name).map_err(SysError::from_rustix("setdomainname"))
}
