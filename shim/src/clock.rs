//! Time as the protocols write it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::api::Timestamp;

/// Wall time that only moves forward: taken once from the clock, then counted by the monotonic one, so that a
/// clock that is set back cannot put an end before its start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Duration,
    since: Instant,
}

impl Clock {
    /// A clock that agrees with the wall clock now.
    pub fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall, since: Instant::now() }
    }

    /// The time now. Follows the wall clock forward (suspend, corrections) but never back.
    pub fn now(&mut self) -> Timestamp {
        let counted = self.wall + self.since.elapsed();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if wall > counted {
            *self = Self { wall, since: Instant::now() };
        }
        to_timestamp(wall.max(counted))
    }
}

fn to_timestamp(since_epoch: Duration) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since_epoch.subsec_nanos()).unwrap_or(0),
    }
}

/// RFC 3339 with nanoseconds, UTC: `2026-01-31T23:59:59.000000001Z`.
pub fn rfc3339(time: Timestamp) -> String {
    let days = time.seconds.div_euclid(86_400);
    let second = time.seconds.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", time.nanos)
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar: whole 400-year cycles, then
/// the year and the month counted from 1 March, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let cycle = shifted.div_euclid(146_097);
    let day_of_cycle = shifted.rem_euclid(146_097);
    let year_of_cycle =
        (day_of_cycle - day_of_cycle / 1460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_cycle + cycle * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (4_102_444_799, "2099-12-31T23:59:59.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
            (-1, "1969-12-31T23:59:59.000000007Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(rfc3339(Timestamp { seconds, nanos: 7 }), text);
        }
    }

    #[test]
    fn clock_never_goes_back() {
        // A clock that was taken an hour ahead of the wall, as after the wall was set back.
        let ahead = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
        let mut clock = Clock { wall: ahead, since: Instant::now() };
        let first = clock.now();
        assert!(first.seconds >= i64::try_from(ahead.as_secs()).unwrap());
        let second = clock.now();
        assert!((second.seconds, second.nanos) >= (first.seconds, first.nanos));
    }
}
