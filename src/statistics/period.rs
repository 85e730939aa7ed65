//! Periods of local days.

use chrono::{Datelike as _, Days, Months, NaiveDate};

use crate::clock::{day_number, day_numbered};

/// How fine a range of days is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grain {
    /// Each day.
    Day,
    /// Each week, from Monday on.
    Week,
    /// Each month.
    Month,
    /// Each quarter of a year.
    Quarter,
    /// Each year.
    Year,
    /// All of it at once.
    #[default]
    All,
}

impl Grain {
    /// Their names.
    pub const NAMES: &'static [&'static str] = &["day", "week", "month", "quarter", "year", "all"];

    /// The one with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "quarter" => Self::Quarter,
            "year" => Self::Year,
            "all" => Self::All,
            _ => return None,
        })
    }

    /// The first day of what lies behind the period that a day is in; None = there is no such day.
    fn behind(self, day: NaiveDate) -> Option<NaiveDate> {
        let months_on = |first_month: u32, months: u32| {
            NaiveDate::from_ymd_opt(day.year(), first_month, 1)?.checked_add_months(Months::new(months))
        };
        match self {
            Self::Day => day.checked_add_days(Days::new(1)),
            Self::Week => {
                day.checked_add_days(Days::new(u64::from(7 - day.weekday().num_days_from_monday())))
            }
            Self::Month => months_on(day.month(), 1),
            Self::Quarter => months_on(day.month0() / 3 * 3 + 1, 3),
            Self::Year => months_on(1, 12),
            Self::All => None,
        }
    }
}

/// Some days one after the other, both ends of it in it: 20261129.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    /// The first.
    pub start: i64,
    /// The last.
    pub end: i64,
}

/// The periods of a range of days; the first and the last may be cut. None where there are more than `most`.
#[must_use]
pub fn periods((first, last): (NaiveDate, NaiveDate), grain: Grain, most: usize) -> Option<Vec<Period>> {
    let mut periods = Vec::new();
    let mut start = first;
    while start <= last {
        if periods.len() == most {
            return None;
        }
        let behind = grain.behind(start).filter(|behind| *behind <= last);
        let end = behind.and_then(|behind| behind.checked_sub_days(Days::new(1))).unwrap_or(last);
        periods.push(Period { start: day_number(start), end: day_number(end) });
        let Some(next) = behind else { break };
        start = next;
    }
    Some(periods)
}

/// How many days there are from one to another, both given as 20261129 and counted; 0 where one is none.
pub(super) fn days_between(first: i64, last: i64) -> usize {
    let days =
        day_numbered(first).zip(day_numbered(last)).map_or(0, |(first, last)| (last - first).num_days() + 1);
    usize::try_from(days).unwrap_or_default()
}

/// A period as whole months, the first and the last of them as 202611, and the days before and behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    pub days: Vec<(i64, i64)>,
    pub months: Option<(i64, i64)>,
}

impl Period {
    pub(super) fn split(self) -> Split {
        let Self { start, end } = self;
        let first = if start % 100 == 1 { start / 100 } else { next_month(start / 100) };
        let behind = if is_last_of_month(end) { next_month(end / 100) } else { end / 100 };
        if first >= behind {
            return Split { days: vec![(start, end)], months: None };
        }
        // No month has a day 0: it stands for the end of the month before, and for the beginning of its own.
        let around = [(start, first * 100), (behind * 100, end)];
        let days = around.into_iter().filter(|(first, last)| first <= last).collect();
        let last = if behind % 100 == 1 { behind - 89 } else { behind - 1 };
        Split { days, months: Some((first, last)) }
    }
}

fn next_month(month: i64) -> i64 {
    if month % 100 == 12 { month + 89 } else { month + 1 }
}

/// Whether a day, given as 20261130, is its month's last.
fn is_last_of_month(day: i64) -> bool {
    day_numbered(day).is_some_and(|day| day.succ_opt().is_none_or(|next| next.day() == 1))
}

/// Numbers as the rows of a VALUES; PostgreSQL takes its type from the casts.
pub(super) fn values<const COLUMNS: usize>(rows: impl IntoIterator<Item = [i64; COLUMNS]>) -> String {
    let row = |numbers: [i64; COLUMNS]| {
        format!("({})", numbers.map(|number| format!("CAST({number} AS BIGINT)")).join(", "))
    };
    rows.into_iter().map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_its_periods_without_gaps() {
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        let told = |first: &str, last: &str, grain| {
            let periods = periods((day(first), day(last)), grain, 100)?;
            Some(periods.into_iter().map(|period| (period.start, period.end)).collect::<Vec<_>>())
        };
        let range = |grain| told("2026-11-28", "2027-01-02", grain).unwrap();
        assert_eq!(range(Grain::All), [(20_261_128, 20_270_102)]);
        assert_eq!(range(Grain::Year), [(20_261_128, 20_261_231), (20_270_101, 20_270_102)]);
        assert_eq!(range(Grain::Quarter), range(Grain::Year));
        assert_eq!(
            range(Grain::Month),
            [(20_261_128, 20_261_130), (20_261_201, 20_261_231), (20_270_101, 20_270_102)]
        );
        assert_eq!(range(Grain::Week)[..2], [(20_261_128, 20_261_129), (20_261_130, 20_261_206)]);
        assert_eq!(range(Grain::Day).len(), 36);
        assert_eq!(told("2026-11-29", "2026-11-28", Grain::Day), Some(Vec::new()));
        assert_eq!(told("2026-01-01", "2027-01-01", Grain::Day), None);
        assert_eq!(periods((day("2026-11-28"), NaiveDate::MAX), Grain::All, 1).unwrap().len(), 1);
    }

    #[test]
    fn a_period_is_whole_months_and_the_days_around_them() {
        let told = |start: i64, end: i64| {
            let Split { days, months } = Period { start, end }.split();
            (days, months)
        };
        assert_eq!(told(20_261_102, 20_261_130), (vec![(20_261_102, 20_261_130)], None));
        assert_eq!(told(20_261_115, 20_261_215), (vec![(20_261_115, 20_261_215)], None));
        assert_eq!(told(20_261_101, 20_261_130), (vec![], Some((202_611, 202_611))));
        assert_eq!(
            told(20_261_115, 20_270_210),
            (vec![(20_261_115, 20_261_200), (20_270_200, 20_270_210)], Some((202_612, 202_701)))
        );
        assert_eq!(told(20_251_201, 20_260_115), (vec![(20_260_100, 20_260_115)], Some((202_512, 202_512))));
        assert_eq!(told(20_240_201, 20_240_229), (vec![], Some((202_402, 202_402))));
        assert_eq!(told(20_240_201, 20_240_228), (vec![(20_240_201, 20_240_228)], None));
        let (days, months) = told(10_101, 99_991_231);
        assert_eq!((days, months), (vec![], Some((101, 999_912))), "all that can be asked for");
    }
}
