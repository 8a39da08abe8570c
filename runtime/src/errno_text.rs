//! The text of an errno (errno(3)).

/// The text in the words that managers match on: those of glibc, lowercase, which are Go's too.
pub fn errno_text(errno: i32) -> String {
    if let Ok(index) = OTHERS.binary_search_by_key(&errno, |(number, _)| *number) {
        return OTHERS[index].1.to_owned();
    }
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Where musl, which this program is linked with, has other words or none. By number (asm-generic/errno.h).
const OTHERS: &[(i32, &str)] = &[
    (5, "input/output error"),                                 // EIO
    (10, "no child processes"),                                // ECHILD
    (12, "cannot allocate memory"),                            // ENOMEM
    (16, "device or resource busy"),                           // EBUSY
    (18, "invalid cross-device link"),                         // EXDEV
    (24, "too many open files"),                               // EMFILE
    (25, "inappropriate ioctl for device"),                    // ENOTTY
    (29, "illegal seek"),                                      // ESPIPE
    (33, "numerical argument out of domain"),                  // EDOM
    (34, "numerical result out of range"),                     // ERANGE
    (35, "resource deadlock avoided"),                         // EDEADLK
    (36, "file name too long"),                                // ENAMETOOLONG
    (40, "too many levels of symbolic links"),                 // ELOOP
    (44, "channel number out of range"),                       // ECHRNG
    (45, "level 2 not synchronized"),                          // EL2NSYNC
    (46, "level 3 halted"),                                    // EL3HLT
    (47, "level 3 reset"),                                     // EL3RST
    (48, "link number out of range"),                          // ELNRNG
    (49, "protocol driver not attached"),                      // EUNATCH
    (50, "no CSI structure available"),                        // ENOCSI
    (51, "level 2 halted"),                                    // EL2HLT
    (52, "invalid exchange"),                                  // EBADE
    (53, "invalid request descriptor"),                        // EBADR
    (54, "exchange full"),                                     // EXFULL
    (55, "no anode"),                                          // ENOANO
    (56, "invalid request code"),                              // EBADRQC
    (57, "invalid slot"),                                      // EBADSLT
    (59, "bad font file format"),                              // EBFONT
    (62, "timer expired"),                                     // ETIME
    (64, "machine is not on the network"),                     // ENONET
    (65, "package not installed"),                             // ENOPKG
    (66, "object is remote"),                                  // EREMOTE
    (68, "advertise error"),                                   // EADV
    (69, "srmount error"),                                     // ESRMNT
    (70, "communication error on send"),                       // ECOMM
    (73, "RFS specific error"),                                // EDOTDOT
    (75, "value too large for defined data type"),             // EOVERFLOW
    (76, "name not unique on network"),                        // ENOTUNIQ
    (78, "remote address changed"),                            // EREMCHG
    (79, "can not access a needed shared library"),            // ELIBACC
    (80, "accessing a corrupted shared library"),              // ELIBBAD
    (81, ".lib section in a.out corrupted"),                   // ELIBSCN
    (82, "attempting to link in too many shared libraries"),   // ELIBMAX
    (83, "cannot exec a shared library directly"),             // ELIBEXEC
    (84, "invalid or incomplete multibyte or wide character"), // EILSEQ
    (85, "interrupted system call should be restarted"),       // ERESTART
    (86, "streams pipe error"),                                // ESTRPIPE
    (87, "too many users"),                                    // EUSERS
    (88, "socket operation on non-socket"),                    // ENOTSOCK
    (90, "message too long"),                                  // EMSGSIZE
    (95, "operation not supported"),                           // EOPNOTSUPP
    (98, "address already in use"),                            // EADDRINUSE
    (99, "cannot assign requested address"),                   // EADDRNOTAVAIL
    (101, "network is unreachable"),                           // ENETUNREACH
    (102, "network dropped connection on reset"),              // ENETRESET
    (103, "software caused connection abort"),                 // ECONNABORTED
    (106, "transport endpoint is already connected"),          // EISCONN
    (107, "transport endpoint is not connected"),              // ENOTCONN
    (108, "cannot send after transport endpoint shutdown"),    // ESHUTDOWN
    (109, "too many references: cannot splice"),               // ETOOMANYREFS
    (110, "connection timed out"),                             // ETIMEDOUT
    (113, "no route to host"),                                 // EHOSTUNREACH
    (115, "operation now in progress"),                        // EINPROGRESS
    (117, "structure needs cleaning"),                         // EUCLEAN
    (118, "not a XENIX named type file"),                      // ENOTNAM
    (119, "no XENIX semaphores available"),                    // ENAVAIL
    (120, "is a named type file"),                             // EISNAM
    (122, "disk quota exceeded"),                              // EDQUOT
    (130, "owner died"),                                       // EOWNERDEAD
    (132, "operation not possible due to RF-kill"),            // ERFKILL
    (133, "memory page has hardware error"),                   // EHWPOISON
];

#[cfg(test)]
mod tests {
    use super::{OTHERS, errno_text};

    #[test]
    fn the_words_are_those_that_managers_know() {
        for (errno, text) in [
            (1, "operation not permitted"),
            (2, "no such file or directory"),
            (5, "input/output error"),
            (12, "cannot allocate memory"),
            (13, "permission denied"),
            (16, "device or resource busy"),
            (24, "too many open files"),
            (26, "text file busy"),
            (34, "numerical result out of range"),
            (36, "file name too long"),
            (40, "too many levels of symbolic links"),
            (95, "operation not supported"),
            (110, "connection timed out"),
        ] {
            assert_eq!(errno_text(errno), text, "{errno}");
        }
        assert!(OTHERS.is_sorted_by_key(|(number, _)| *number), "it is searched");
    }
}
