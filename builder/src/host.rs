//! What every command needs from the host: the store, names of images, moments.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use hull_image::{Image, Platform, Store, Tagged};
use hull_layer::Unpacker;

use crate::dockerfile::mount;
use crate::error::Error;

static STORE: OnceLock<PathBuf> = OnceLock::new();
static LAYER_LIMIT: OnceLock<u64> = OnceLock::new();

/// Fixes the store's directory for this process; the first call counts.
pub(crate) fn set_store_dir(dir: Option<PathBuf>) {
    let from_environment = || std::env::var_os("HULL_ROOT").map(PathBuf::from);
    let dir = dir.or_else(from_environment).unwrap_or_else(hull_image::default_dir);
    // A second call would be a mistake of this program's own start; the first one then still holds for all.
    let _ = STORE.set(dir);
}

/// The store's directory: `--root`, else `HULL_ROOT`, else the default.
pub(crate) fn store_dir() -> PathBuf {
    STORE.get().cloned().unwrap_or_else(hull_image::default_dir)
}

/// What `--layer-limit` says, else `HULL_LAYER_LIMIT`.
///
/// # Errors
/// No number of bytes, or a second call.
pub(crate) fn set_layer_limit(text: Option<&str>) -> Result<(), String> {
    let flag = text.map(|text| ("--layer-limit", OsString::from(text)));
    let variable = || std::env::var_os("HULL_LAYER_LIMIT").map(|text| ("HULL_LAYER_LIMIT", text));
    let Some((from, text)) = flag.or_else(variable) else { return Ok(()) };
    let bytes = text.to_str().and_then(mount::size);
    let bytes = bytes.ok_or_else(|| format!("{from} {} is no number of bytes", text.display()))?;
    LAYER_LIMIT.set(bytes).map_err(|_| "the limit of layers is set twice".to_owned())
}

/// Unpacks layers of a store within the limits of this process.
pub(crate) fn unpacker(store: &Store) -> Unpacker<'_> {
    let unpacker = Unpacker::new(store);
    match LAYER_LIMIT.get() {
        Some(bytes) => unpacker.with_limit(*bytes),
        None => unpacker,
    }
}

/// Adds what takes more to an error of [`unpacker`] that tells of a limit.
pub(crate) fn with_hint(error: hull_layer::Error) -> Error {
    if error.is_limit() { Error::LargeLayer(error) } else { error.into() }
}

/// 64 random hexadecimal digits.
pub(crate) fn random_name() -> std::io::Result<String> {
    let mut bytes = [0u8; 32];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Opens the store.
pub(crate) fn open_store() -> hull_image::Result<Store> {
    Store::open(&store_dir())
}

/// Whether layers can be unpacked: by root, be it of a user namespace.
pub(crate) fn may_unpack() -> bool {
    rustix::process::geteuid().is_root()
}

/// An error for who is root neither of the host nor of a user namespace.
pub(crate) fn needs_root(to: &str) -> Result<(), String> {
    match may_unpack() {
        true => Ok(()),
        false => Err(format!("only root can {to}: unpack makes a bundle of plain files, which hull runs")),
    }
}

/// Finds one image by name or id, for a platform or the host's.
pub(crate) fn find_image(
    store: &Store,
    name: &str,
    platform: Option<&Platform>,
) -> hull_image::Result<(Tagged, Image)> {
    let tagged = store.find(name)?;
    let image = store.image(&tagged.descriptor, platform)?;
    Ok((tagged, image))
}

/// Seconds since 1970, now.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

/// The end of the year 9999, in seconds since 1970: the last moment that RFC 3339 can tell (5.6), and so an image.
pub(crate) const LAST_MOMENT: i64 = 253_402_300_799;

/// A moment as RFC 3339 text in UTC.
pub(crate) fn rfc3339(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date of a day count, in years that begin in March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Seconds since 1970 of RFC 3339 text; fractions are cut.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = match text.len() {
        10 => (0, 0, 0),
        _ => (number(11..13)?, number(14..16)?, number(17..19)?),
    };
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_era =
        year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * month + 2) / 5 + day - 1;
    let seconds = (era * 146_097 + day_of_era - 719_468) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(seconds - offset(text.get(19..).unwrap_or_default())?)
}

/// Seconds that the zone at the end of a moment is ahead of UTC.
fn offset(rest: &str) -> Option<i64> {
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    if matches!(zone, "" | "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let number = |text: &str, end| text.parse::<i64>().ok().filter(|number| (0..end).contains(number));
    Some(sign * (number(hours, 24)? * 3600 + number(minutes, 60)? * 60))
}

/// How long ago, as Docker says it.
pub(crate) fn ago(seconds: i64, now: i64) -> String {
    format!("{} ago", span((now - seconds).max(0)))
}

/// A span of time in its largest fitting unit, as Docker says it.
pub(crate) fn span(seconds: i64) -> String {
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        3600..5400 => "About an hour".to_owned(),
        5400..172_800 => format!("{} hours", (seconds + 1800) / 3600),
        172_800..1_209_600 => format!("{} days", seconds / 86_400),
        1_209_600..5_184_000 => format!("{} weeks", seconds / 604_800),
        5_184_000..63_072_000 => format!("{} months", seconds / 2_592_000),
        _ => format!("{} years", seconds / 31_536_000),
    }
}

/// Bytes in decimal units with three significant digits, as Docker shows sizes.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_go_through_text_and_back() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
            (LAST_MOMENT, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
            assert_eq!(parse_rfc3339(text), Some(seconds));
        }
        assert_eq!(
            parse_rfc3339("2024-01-01T02:00:00.123456789+02:00"),
            parse_rfc3339("2024-01-01T00:00:00Z")
        );
        assert_eq!(parse_rfc3339("2024-01-01"), parse_rfc3339("2024-01-01T00:00:00Z"));
        for wrong in
            ["yesterday", "", "2024-01-01T00:00:00+9223372036854775807:00", "2024-01-01T00:00:00+-1:00"]
        {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_and_spans_read_as_docker_writes_them() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (4_260_000, "4.26MB"),
            (77_800_000, "77.8MB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in
            [(0, "Less than a second"), (90, "About a minute"), (7200, "2 hours"), (200_000, "2 days")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
