//! As of when: a position of the log, or a time, as somebody writes it; and which event that means.
//!
//! What is named is named whole: a day counts to its end, a second to its last millisecond. The last event of a time is
//! searched by position, because recorded times never go back.

use chrono::{DateTime, NaiveDateTime};

use crate::clock::{Zone, parse_day};
use crate::refusal::Wrong;
use crate::store::{BUCKET, Statement, Store, StoreError};
use crate::value::MAX_ID;

/// The longest text that can be one.
pub const MAX_TEXT: usize = 40;

/// What somebody means by "as of".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Right after this event.
    Position(i64),
    /// Within this span: `[from, until)` in Unix milliseconds; the end of it counts.
    Time {
        /// Its first millisecond.
        from_ms: i64,
        /// Behind its last millisecond.
        until_ms: i64,
    },
}

/// A point of the log: everything up to it has happened, nothing behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// The last event that has happened.
    pub position: i64,
    /// What time it is then, Unix milliseconds: the time that was asked for, or when that event was recorded.
    pub at_ms: i64,
}

/// Why there is no such point.
#[derive(Debug, thiserror::Error)]
pub enum AtError {
    /// What was asked is wrong.
    #[error("{}", .0.text("it", crate::refusal::Language::English))]
    Wrong(Wrong),
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl At {
    /// Reads a position (`1200`), a local day (`2026-11-24`), a local time (`2026-11-24 10:31:41`), or an instant of
    /// RFC 3339 (`2026-11-24T02:31:41Z`), either with a fraction of a second or without.
    pub fn parse(text: &str, zone: Zone) -> Result<Self, Wrong> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let position = text.parse().ok().filter(|position| (1..=MAX_ID).contains(position));
            return position.map(Self::Position).ok_or(Wrong::OutOfRange { min: 1, max: MAX_ID });
        }
        if let Some(day) = parse_day(text) {
            let (from_ms, until_ms) = (zone.day_starts_at_ms(day), zone.day_ends_at_ms(day));
            return Ok(Self::Time { from_ms, until_ms });
        }
        let wall = |format| NaiveDateTime::parse_from_str(text, format).ok();
        let local = wall("%Y-%m-%d %H:%M:%S%.f").or_else(|| wall("%Y-%m-%dT%H:%M:%S%.f"));
        let from_ms = match DateTime::parse_from_rfc3339(text) {
            Ok(instant) => instant.timestamp_millis(),
            Err(_) => zone.instant_ms(local.ok_or(Wrong::NotAnInstant)?),
        };
        let span_ms = if text.contains('.') { 1 } else { 1_000 };
        Ok(Self::Time { from_ms, until_ms: from_ms + span_ms })
    }

    /// The point of the log that it means.
    pub async fn resolve(self, store: &Store, zone: Zone, now_ms: i64) -> Result<AsOf, AtError> {
        let last = last(store).await?;
        match self {
            Self::Position(position) => match recorded_at_ms(store, position).await? {
                Some(at_ms) => Ok(AsOf { position, at_ms }),
                None => Err(AtError::Wrong(Wrong::NoSuchPosition { last: last.position })),
            },
            Self::Time { from_ms, .. } if from_ms > now_ms => Err(AtError::Wrong(Wrong::InTheFuture)),
            Self::Time { until_ms, .. } => {
                let at_ms = (until_ms - 1).min(now_ms);
                let first_ms = recorded_at_ms(store, 1).await?;
                match first_ms {
                    None => Err(AtError::Wrong(Wrong::NoSuchPosition { last: 0 })),
                    Some(first_ms) if at_ms < first_ms => {
                        Err(AtError::Wrong(Wrong::BeforeTheLog { first: zone.date_time(first_ms) }))
                    }
                    Some(_) => Ok(AsOf { position: last_by(store, at_ms, last.position).await?, at_ms }),
                }
            }
        }
    }
}

impl AsOf {
    /// Everything that has happened up to now.
    pub async fn now(store: &Store, now_ms: i64) -> Result<Self, AtError> {
        let last = last(store).await?;
        Ok(Self { at_ms: now_ms.max(last.at_ms), ..last })
    }
}

/// The last event; position 0 where there is none.
async fn last(store: &Store) -> Result<AsOf, StoreError> {
    let sql = "SELECT position, recorded_at_ms FROM events WHERE bucket = $1 ORDER BY position DESC LIMIT 1";
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    Ok(rows
        .first()
        .map_or(AsOf { position: 0, at_ms: 0 }, |row| AsOf { position: row.int(0), at_ms: row.int(1) }))
}

async fn recorded_at_ms(store: &Store, position: i64) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT recorded_at_ms FROM events WHERE bucket = $1 AND position = $2";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), position.into()])).await?;
    Ok(rows.first().map(|row| row.int(0)))
}

/// The last position that was recorded at or before a time, between the first and `last`.
async fn last_by(store: &Store, at_ms: i64, last: i64) -> Result<i64, StoreError> {
    // Of `by` it is known that it was recorded by then, of `behind` that it was not, or does not exist.
    let (mut by, mut behind) = (1, last + 1);
    while behind - by > 1 {
        let middle = by + (behind - by) / 2;
        let Some(recorded_ms) = recorded_at_ms(store, middle).await? else {
            return Err(StoreError::Corrupt {
                table: "events".to_owned(),
                column: "position".to_owned(),
                what: format!("position {middle} is missing"),
            });
        };
        if recorded_ms <= at_ms {
            by = middle;
        } else {
            behind = middle;
        }
    }
    Ok(by)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> (i64, i64) {
        match At::parse(text, Zone::default()) {
            Ok(At::Time { from_ms, until_ms }) => (from_ms, until_ms),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_is_named_is_named_whole() {
        let second = 1_543_026_701_000;
        let (day, _) = span("2018-11-24");
        assert_eq!(span("2018-11-24"), (day, day + 86_400_000));
        for text in [
            "2018-11-24 10:31:41",
            "2018-11-24T10:31:41",
            "2018-11-24T02:31:41Z",
            "2018-11-24T04:31:41+02:00",
        ] {
            assert_eq!(span(text), (second, second + 1_000), "{text}");
        }
        for text in ["2018-11-24 10:31:41.25", "2018-11-24T02:31:41.250Z"] {
            assert_eq!(span(text), (second + 250, second + 251), "{text}");
        }
        assert_eq!(At::parse(" 1200 ", Zone::default()), Ok(At::Position(1_200)));
    }

    #[test]
    fn what_is_neither_a_position_nor_a_time_is_refused() {
        let wrong = |text| At::parse(text, Zone::default()).unwrap_err();
        for text in ["", "x", "-1", "1.5", "2018-02-30", "2018-11-24 25:00:00", "2018-11-24 10:31", "today"] {
            assert_eq!(wrong(text), Wrong::NotAnInstant, "{text}");
        }
        for text in ["0", "9007199254740992", "99999999999999999999"] {
            assert_eq!(wrong(text), Wrong::OutOfRange { min: 1, max: MAX_ID }, "{text}");
        }
    }
}
