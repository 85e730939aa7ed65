//! Time: the one place that reads the wall clock, and the merchant's calendar.
//!
//! Everything deeper is given a [`Moment`]; a local day is computed here and nowhere else. A local day is not 24 hours
//! everywhere, so days are never added up in milliseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Timelike};
use chrono_tz::Tz;

/// Where the current time comes from: the system, or a test that holds the hand of the clock.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The operating system's clock.
    #[default]
    System,
    /// A clock that stands still until it is set, in Unix milliseconds.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `at_ms` (Unix milliseconds) until [`Clock::set`].
    #[must_use]
    pub fn manual(at_ms: i64) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(at_ms)))
    }

    /// Unix milliseconds now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now_ms(&self) -> i64 {
        match self {
            Self::System => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as i64),
            Self::Manual(at) => at.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock; a system clock stays as it is.
    pub fn set(&self, at_ms: i64) {
        if let Self::Manual(at) = self {
            at.store(at_ms, Ordering::SeqCst);
        }
    }

    /// Whether this is the operating system's clock, and so comparable with the database's.
    #[must_use]
    pub fn is_system(&self) -> bool {
        matches!(self, Self::System)
    }
}

/// An instant together with what the merchant's calendar says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Unix milliseconds.
    pub ms: i64,
    /// The local day.
    pub day: NaiveDate,
    /// Monday = 1 … Sunday = 7.
    pub weekday: u8,
}

/// The merchant's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(pub Tz);

impl Default for Zone {
    fn default() -> Self {
        Self(chrono_tz::Asia::Shanghai)
    }
}

impl Zone {
    /// What the merchant's calendar says of an instant.
    #[must_use]
    pub fn moment(self, ms: i64) -> Moment {
        let local = self.local(ms);
        Moment { ms, day: local.date(), weekday: local.weekday().number_from_monday() as u8 }
    }

    /// The first instant of a local day, in Unix milliseconds. Where midnight does not exist (a zone that moves its
    /// clocks forward at 00:00) the day begins at the first instant that does.
    #[must_use]
    pub fn day_starts_at_ms(self, day: NaiveDate) -> i64 {
        let midnight = day.and_time(NaiveTime::MIN);
        (0..=48)
            .find_map(|half_hours| {
                let wall = midnight + chrono::Duration::minutes(30 * half_hours);
                self.0.from_local_datetime(&wall).earliest()
            })
            .map_or_else(|| midnight.and_utc().timestamp_millis(), |start| start.timestamp_millis())
    }

    /// The first instant after a local day: a coupon is valid through the whole of its end date.
    #[must_use]
    pub fn day_ends_at_ms(self, day: NaiveDate) -> i64 {
        self.day_starts_at_ms(day.checked_add_days(Days::new(1)).unwrap_or(day))
    }

    /// `2018-11-24 10:31:41`
    #[must_use]
    pub fn date_time(self, ms: i64) -> String {
        self.local(ms).format("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// `2018年11月27 11:44:03`, as the manual's auditcouponinfo prints it.
    #[must_use]
    pub fn date_time_chinese(self, ms: i64) -> String {
        self.local(ms).format("%Y年%m月%d %H:%M:%S").to_string()
    }

    /// The instant of a local wall-clock time, the earlier one where it happens twice.
    #[must_use]
    pub fn instant_ms(self, wall: NaiveDateTime) -> i64 {
        self.0.from_local_datetime(&wall).earliest().map_or_else(
            || self.day_starts_at_ms(wall.date()) + i64::from(wall.num_seconds_from_midnight()) * 1000,
            |at| at.timestamp_millis(),
        )
    }

    /// What the local clock shows, as if it were UTC's: for formats that count local time and know no zone.
    #[must_use]
    pub fn local_ms(self, ms: i64) -> i64 {
        self.local(ms).and_utc().timestamp_millis()
    }

    fn local(self, ms: i64) -> NaiveDateTime {
        let utc = DateTime::from_timestamp_millis(ms).unwrap_or_default();
        utc.with_timezone(&self.0).naive_local()
    }
}

/// A day as the read models store it: `20181101`.
#[must_use]
pub fn day_number(day: NaiveDate) -> i64 {
    i64::from(day.year()) * 10_000 + i64::from(day.month()) * 100 + i64::from(day.day())
}

/// `20181101` as `2018-11-01`; the empty string for 0, which stands for no day.
#[must_use]
pub fn day_text(number: i64) -> String {
    if number == 0 {
        return String::new();
    }
    format!("{:04}-{:02}-{:02}", number / 10_000, number / 100 % 100, number % 100)
}

/// `20181101` as a day; None where it is none.
#[must_use]
pub fn day_numbered(number: i64) -> Option<NaiveDate> {
    let part = |number: i64| u32::try_from(number % 100).ok();
    let year = i32::try_from(number / 10_000).ok()?;
    NaiveDate::from_ymd_opt(year, part(number / 100)?, part(number)?)
}

/// `2018-11-01` as a day of the years 1900 to 9999: the oldest member was born then. Nothing else is accepted.
#[must_use]
pub fn parse_day(text: &str) -> Option<NaiveDate> {
    if text.len() != 10 {
        return None;
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|day| (1900..=9999).contains(&day.year()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        parse_day(text).unwrap()
    }

    #[test]
    fn a_number_is_the_day_that_it_was_made_of() {
        for text in ["1900-01-01", "2024-02-29", "2026-11-30", "9999-12-31"] {
            assert_eq!(day_numbered(day_number(day(text))), Some(day(text)));
        }
        for number in [0, -20_261_130, 20_260_230, 20_261_301, i64::MAX] {
            assert_eq!(day_numbered(number), None, "{number}");
        }
    }

    #[test]
    fn a_local_day_is_not_always_24_hours() {
        let berlin = Zone(chrono_tz::Europe::Berlin);
        let hours = |d: &str| (berlin.day_ends_at_ms(day(d)) - berlin.day_starts_at_ms(day(d))) / 3_600_000;
        assert_eq!((hours("2026-03-28"), hours("2026-03-29"), hours("2026-10-25")), (24, 23, 25));
    }

    #[test]
    fn a_day_without_midnight_begins_at_its_first_instant() {
        let beirut = Zone(chrono_tz::Asia::Beirut);
        let start = beirut.day_starts_at_ms(day("2026-03-29"));
        assert_eq!(beirut.date_time(start), "2026-03-29 01:00:00");
        assert_eq!(beirut.date_time(start - 1), "2026-03-28 23:59:59");
    }

    #[test]
    fn days_keep_their_number_and_text() {
        assert_eq!(day_number(day("2024-02-29")), 20_240_229);
        assert_eq!(day_text(20_240_229), "2024-02-29");
        assert_eq!(day_text(0), "");
        assert_eq!(
            (parse_day("2023-02-29"), parse_day("2023-2-9"), parse_day("0001-01-01")),
            (None, None, None)
        );
    }

    #[test]
    fn monday_is_one_and_sunday_is_seven() {
        let shanghai = Zone::default();
        let weekday = |d: &str| shanghai.moment(shanghai.day_starts_at_ms(day(d))).weekday;
        assert_eq!((weekday("2026-11-23"), weekday("2026-11-29")), (1, 7));
    }
}
