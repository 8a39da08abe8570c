//! Names of the errors that callers tell apart (errno(3)); [`crate::SysError::is`] takes them.

pub use libc::{
    EACCES, EAGAIN, EBUSY, ECONNREFUSED, ECONNRESET, EEXIST, EFBIG, EILSEQ, EINVAL, EIO, EISDIR, ELOOP,
    ENOENT, ENOMEM, ENOSPC, ENOSYS, ENOTDIR, ENXIO, EPERM, EPIPE, ESRCH, ETXTBSY,
};
