//! When a server that is busy wants to be asked again: `Retry-After`, in seconds or as a moment (RFC 9110, 10.2.3).

use std::time::Duration;

use crate::host;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The pause that the header asks for. A moment is counted from the `Date` of the same answer, as the clocks of the two ends
/// may differ; one that has passed is no pause.
pub(super) fn pause(text: &str, date: Option<&str>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = date.and_then(moment).unwrap_or_else(host::now);
    Some(Duration::from_secs(u64::try_from(moment(text)? - now).unwrap_or(0)))
}

/// Seconds since 1970 of a date in one of the three forms that must be understood (RFC 9110, 5.6.7).
pub(crate) fn moment(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|word| !word.is_empty()).collect();
    let (day, month, year, time) = match words[..] {
        [_, day, month, year, time, "GMT"] => (day, month, year, time),
        [_, month, day, time, year] => (day, month, year, time),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let (day, year): (u8, u16) = (day.parse().ok()?, year.parse().ok()?);
    // Two digits, which no server has sent for long: of a year more than 50 years ahead the one in the past is meant.
    let year = match year {
        0..70 => 2000 + year,
        70..100 => 1900 + year,
        _ => year,
    };
    host::parse_rfc3339(&format!("{year:04}-{month:02}-{day:02}T{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_told_in_seconds_or_by_a_moment_in_three_forms() {
        let date = "Sun, 06 Nov 1994 08:49:07 GMT";
        for (text, seconds) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(30)),
            ("Sun Nov  6 08:49:37 1994", Some(30)),
            ("Mon, 07 Nov 1994 08:49:07 GMT", Some(86_400)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("Sun, 06 Nox 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("", None),
        ] {
            assert_eq!(pause(text, Some(date)), seconds.map(Duration::from_secs), "{text}");
        }
        let (year, own) = (3_153_600_000, "Sun, 06 Nov 2994 08:49:37 GMT");
        assert!(pause(own, None).is_some_and(|pause| pause.as_secs() > year), "from now on");
    }
}
