//! Names of signals, as kill(1) and container managers write them.

/// Names without `SIG`, at the place of their number. Linux has the same numbers on x86_64 and aarch64.
const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const ALIASES: [(&str, i32); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// The real-time range that C libraries leave to programs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal given as `SIGTERM`, `TERM`, `15`, `RTMIN+3` or `SIGRTMAX-1`, in any case; none for others.
pub fn signal_number(text: &str) -> Option<i32> {
    if text.bytes().next()?.is_ascii_digit() {
        return text.parse().ok().filter(|number| (1..=RTMAX).contains(number));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return real_time(RTMIN, offset, '+');
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return real_time(RTMAX, offset, '-');
    }
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, number)| *number);
    alias.or_else(|| (1..32).find(|number| NAMES[*number as usize] == name))
}

fn real_time(base: i32, offset: &str, sign: char) -> Option<i32> {
    let distance: i32 = match offset.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None if offset.is_empty() => 0,
        None => return None,
    };
    let number = if sign == '+' { base.checked_add(distance)? } else { base.checked_sub(distance)? };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// The name of a signal, such as `SIGTERM` or `SIGRTMIN+3`; the number itself for one without a name.
pub fn signal_name(number: i32) -> String {
    match number {
        1..=31 => format!("SIG{}", NAMES[number as usize]),
        RTMIN => "SIGRTMIN".to_owned(),
        RTMAX => "SIGRTMAX".to_owned(),
        35..RTMAX => format!("SIGRTMIN+{}", number - RTMIN),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_signals_agree() {
        let cases = [
            ("SIGTERM", Some(15)),
            ("TERM", Some(15)),
            ("term", Some(15)),
            ("15", Some(15)),
            ("KILL", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMIN", Some(34)),
            ("RTMAX-1", Some(63)),
            ("RTMAX", Some(64)),
            ("CLD", Some(17)),
            ("64", Some(64)),
            ("0", None),
            ("65", None),
            ("", None),
            ("SIG", None),
            ("RTMIN+31", None),
            ("RTMIN-1", None),
            ("RTMIN++1", None),
            ("RTMAX+1", None),
            ("-9", None),
            ("9x", None),
            ("+9", None),
            ("NOPE", None),
            ("99999999999999", None),
        ];
        for (text, number) in cases {
            assert_eq!(signal_number(text), number, "{text}");
        }
        for number in (1..=31).chain(34..=64) {
            assert_eq!(signal_number(&signal_name(number)), Some(number), "{number}");
        }
        assert_eq!(signal_name(33), "33");
    }
}
