//! The time of day, for people who watch.

use std::time::SystemTime;

/// Now, in UTC: `2026-11-21T21:36:05.123Z`.
#[expect(clippy::disallowed_methods, reason = "tells a person when something was seen")]
pub(crate) fn time_of_day() -> String {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    format(since_epoch.unwrap_or_default().as_millis())
}

/// A moment, in milliseconds since 1970, in UTC.
pub(crate) fn moment(ms: u64) -> String {
    format(ms.into())
}

fn format(ms: u128) -> String {
    let seconds = ms / 1000;
    let (year, month, day) = date(seconds / 86_400);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        ms % 1000
    )
}

/// The date that many days after 1970-01-01, by eras of 400 years that begin on a first of March.
const fn date(days: u128) -> (u128, u128, u128) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_795_296_965_123, "2026-11-21T21:36:05.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(format(ms), text);
        }
    }
}
