//! Followers: what comes after the log or the calendar by itself, each from its own checkpoint.
//!
//! One place says which there are, how far each is, and whether it rests. A pause holds in every process and across starts,
//! and is heeded at the follower's next step. A checkpoint is moved only from where the follower took it, so that a reset is
//! not undone by one who was at work.

pub mod frame;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::atomic::AtomicI64;

use chrono::NaiveDate;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;

use crate::clock::{Clock, day_numbered};
use crate::ledger::Ledger;
use crate::metrics::{FollowerLabels, Metrics};
use crate::store::{BUCKET, Cell, Row, Statement, Store, StoreError, StoredEvent};

/// What a checkpoint counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Unix milliseconds.
    Instant,
    /// A local day, 20261123.
    Day,
    /// The last event's position.
    Position,
}

/// A follower.
#[derive(Debug)]
pub struct Follower {
    /// Its name, in its checkpoint, in metrics and on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    unit: Unit,
    /// Why it must not begin anew, where it must not.
    keeps: Option<&'static str>,
    /// Whether it is there only where somebody wants it: it is shown once it has begun.
    optional: bool,
}

/// Writes down ends and lapses.
pub static EXPIRY: Follower = Follower {
    name: "expiry",
    about: "writes down the ends of coupons and lapsed gifts",
    unit: Unit::Instant,
    keeps: None,
    optional: false,
};

/// Gives what birthdays earn.
pub static BIRTHDAY: Follower = Follower {
    name: "birthday",
    about: "gives what birthdays earn",
    unit: Unit::Day,
    keeps: Some(
        "it would begin with today, and the days that it has not come to yet would be given to nobody",
    ),
    optional: false,
};

/// Builds and signs the transparency log. Begun anew it makes every tile again; what is signed it must still come to.
pub static TLOG: Follower = Follower {
    name: "tlog",
    about: "builds and signs the transparency log",
    unit: Unit::Position,
    keeps: None,
    optional: false,
};

/// Publishes events to a stream of NATS, where the server was built and told to.
pub static NATS: Follower = Follower {
    name: "nats",
    about: "publishes events to a stream of NATS",
    unit: Unit::Position,
    keeps: Some("the stream itself says how far it is: an empty one is filled from the first event"),
    optional: true,
};

/// Folds the log into the statistics. Begun anew it counts everything again.
pub static STATISTICS: Follower = Follower {
    name: crate::store::statistics::FOLLOWER,
    about: "counts what happened, by day, definition, shop",
    unit: Unit::Position,
    keeps: None,
    optional: false,
};

/// Writes what members are told of the log into their inboxes. Begun anew it finds every reason told already.
pub static MESSAGES: Follower = Follower {
    name: "messages",
    about: "tells members what happened to their coupons",
    unit: Unit::Position,
    keeps: None,
    optional: false,
};

/// Writes that coupons end soon into the same. Begun anew it looks through today's coupons again.
pub static REMINDERS: Follower = Follower {
    name: "reminders",
    about: "tells members which coupons end soon",
    unit: Unit::Day,
    keeps: None,
    optional: false,
};

/// Every follower.
pub static ALL: [&Follower; 7] = [&EXPIRY, &BIRTHDAY, &TLOG, &STATISTICS, &MESSAGES, &REMINDERS, &NATS];

/// Why a follower was not told what it should.
#[derive(Debug, thiserror::Error)]
pub enum FollowerError {
    /// There is none of this name.
    #[error("there is no follower {0}: {known}", known = ALL.map(|follower| follower.name).join(", "))]
    Unknown(String),
    /// It must not begin anew.
    #[error("{0} cannot be reset: {1}")]
    Keeps(&'static str, &'static str),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a follower is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Rest, until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// Begin anew, where that does no harm.
    Reset,
}

impl Order {
    /// Its name on the command line and in paths.
    pub const NAMES: &'static [&'static str] = &["pause", "resume", "reset"];

    /// The one with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "pause" => Some(Self::Pause),
            "resume" => Some(Self::Resume),
            "reset" => Some(Self::Reset),
            _ => None,
        }
    }
}

/// How a follower stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it does.
    pub about: &'static str,
    /// How far it is: Unix milliseconds, a local day or a position; 0 = it has never begun.
    pub checkpoint: i64,
    /// How far it is behind, in seconds; of one that follows positions, in events; null = it has never begun.
    pub lag: Option<i64>,
    /// Whether it rests.
    pub paused: bool,
    /// What went wrong in its last run; empty = nothing.
    pub last_error: String,
    /// When, Unix milliseconds; 0 = never.
    pub error_at_ms: i64,
}

/// How all of them stand.
pub async fn standings(store: &Store, clock: &Clock, today: NaiveDate) -> Result<Vec<Standing>, StoreError> {
    let sql = "SELECT n.name, n.value, n.paused, n.last_error, n.error_at_ms, (SELECT position FROM log_head WHERE bucket = $1)
               FROM (SELECT $2 AS name,
                       COALESCE((SELECT value FROM checkpoints WHERE bucket = $1 AND name = $2), 0) AS value,
                       COALESCE((SELECT paused FROM followers WHERE bucket = $1 AND name = $2), 0) AS paused,
                       COALESCE((SELECT last_error FROM followers WHERE bucket = $1 AND name = $2), '') AS last_error,
                       COALESCE((SELECT error_at_ms FROM followers WHERE bucket = $1 AND name = $2), 0) AS error_at_ms) AS n";
    let sets = ALL.iter().map(|follower| vec![BUCKET.into(), follower.name.into()]).collect();
    let found = store.query_each(sql, sets).await?;
    let now_ms = clock.now_ms();
    let is_there = |(follower, rows): &(&&'static Follower, Vec<Row>)| {
        !follower.optional || rows.first().is_some_and(|row| row.int(1) > 0 || row.int(2) == 1)
    };
    let standing = |(follower, rows): (&&'static Follower, Vec<Row>)| {
        let empty = Row(Vec::new());
        let row = rows.first().unwrap_or(&empty);
        let checkpoint = row.int(1);
        Standing {
            name: follower.name.into(),
            about: follower.about,
            checkpoint,
            lag: lag(follower.unit, checkpoint, now_ms, today, row.int(5)),
            paused: row.int(2) == 1,
            last_error: row.text(3).to_owned(),
            error_at_ms: row.int(4),
        }
    };
    Ok(ALL.iter().zip(found).filter(is_there).map(standing).collect())
}

fn lag(unit: Unit, checkpoint: i64, now_ms: i64, today: NaiveDate, head: i64) -> Option<i64> {
    match unit {
        _ if checkpoint == 0 && unit != Unit::Position => None,
        Unit::Instant => Some((now_ms - checkpoint).max(0) / 1_000),
        Unit::Day => {
            let day = day_numbered(checkpoint)?;
            Some((today - day).num_days().max(0) * 86_400)
        }
        Unit::Position => Some((head - checkpoint).max(0)),
    }
}

/// Shows in the metrics how all of them stand.
pub async fn measure(ledger: &Ledger) -> Result<(), StoreError> {
    for standing in standings(ledger.store(), ledger.clock(), ledger.now().day).await? {
        let Some(follower) = ALL.iter().find(|follower| follower.name == standing.name) else { continue };
        let counts_events = follower.unit == Unit::Position;
        let follower = FollowerLabels { follower: follower.name };
        let metrics = ledger.metrics();
        metrics.follower_paused.get_or_create(&follower).set(i64::from(standing.paused));
        // In seconds; one that follows positions knows better how old what it has not seen is.
        let seconds = standing.lag.filter(|_| !counts_events);
        if let Some(lag) = seconds {
            metrics.follower_lag.get_or_create(&follower).set(lag);
        }
    }
    Ok(())
}

/// How each follower stood when it was last measured, a line each: `statistics: 0 s behind`. Asks no database.
#[must_use]
pub fn measured(metrics: &Metrics) -> String {
    ALL.iter().fold(String::new(), |mut lines, follower| {
        let labels = FollowerLabels { follower: follower.name };
        let is = |gauges: &Family<FollowerLabels, Gauge<i64, AtomicI64>>| {
            gauges.get(&labels).is_some_and(|gauge| gauge.get() == 1)
        };
        let Some(lag) = metrics.follower_lag.get(&labels).map(|lag| lag.get()) else { return lines };
        let paused = if is(&metrics.follower_paused) { ", paused" } else { "" };
        let failed = if is(&metrics.follower_failed) { ", stopped by an error" } else { "" };
        let _ = writeln!(lines, "{}: {lag} s behind{paused}{failed}", follower.name);
        lines
    })
}

/// Tells a follower what to do.
pub async fn order(ledger: &Ledger, name: &str, order: Order) -> Result<(), FollowerError> {
    let follower = ALL.iter().find(|follower| follower.name == name);
    let follower = follower.ok_or_else(|| FollowerError::Unknown(name.to_owned()))?;
    let statement = match (order, follower.keeps) {
        (Order::Reset, Some(why)) => return Err(FollowerError::Keeps(follower.name, why)),
        (Order::Reset, None) => Statement::new(
            "DELETE FROM checkpoints WHERE bucket = $1 AND name = $2",
            [BUCKET.into(), follower.name.into()],
        ),
        (Order::Pause | Order::Resume, _) => Statement::new(
            "INSERT INTO followers (bucket, name, paused, last_error, error_at_ms) VALUES ($1, $2, $3, '', 0)
             ON CONFLICT (bucket, name) DO UPDATE SET paused = excluded.paused",
            [BUCKET.into(), follower.name.into(), (order == Order::Pause).into()],
        ),
    };
    ledger.store().write(vec![statement]).await?;
    tracing::info!(follower = follower.name, ?order, "told");
    Ok(())
}

/// Whether a follower rests.
pub async fn is_paused(ledger: &Ledger, follower: &Follower) -> Result<bool, StoreError> {
    let sql = "SELECT paused FROM followers WHERE bucket = $1 AND name = $2";
    let rows = ledger.store().query(Statement::new(sql, [BUCKET.into(), follower.name.into()])).await?;
    Ok(rows.first().is_some_and(|row| row.int(0) == 1))
}

/// Writes down how a run ended: an error, or none. That it cannot be written is logged; the run is over either way.
pub async fn note(ledger: &Ledger, follower: &Follower, error: Option<String>) {
    let statement = match error {
        Some(error) => Statement::new(
            "INSERT INTO followers (bucket, name, paused, last_error, error_at_ms) VALUES ($1, $2, 0, $3, $4)
             ON CONFLICT (bucket, name) DO UPDATE SET last_error = excluded.last_error, error_at_ms = excluded.error_at_ms",
            [BUCKET.into(), follower.name.into(), error.into(), ledger.clock().now_ms().into()],
        ),
        None => Statement::new(
            "UPDATE followers SET last_error = '' WHERE bucket = $1 AND name = $2 AND last_error <> ''",
            [BUCKET.into(), follower.name.into()],
        ),
    };
    if let Err(error) = ledger.store().write(vec![statement]).await {
        tracing::warn!(follower = follower.name, %error, "how the follower stands could not be written down");
    }
}

/// How far a follower has come; 0 = it has never begun.
pub async fn checkpoint(store: &Store, follower: &Follower) -> Result<i64, StoreError> {
    let sql = "SELECT value FROM checkpoints WHERE bucket = $1 AND name = $2";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), follower.name.into()])).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

/// Moves a checkpoint from where the follower took it; one that was moved or reset meanwhile stays as it is.
pub async fn move_checkpoint(
    ledger: &Ledger,
    follower: &Follower,
    from: i64,
    to: i64,
) -> Result<(), StoreError> {
    ledger.store().write(vec![moved(follower, from, to)]).await?;
    Ok(())
}

/// The same as a statement, for a follower whose work is of the same transaction; it returns nothing where the checkpoint is
/// no longer where the follower took it.
pub(crate) fn moved(follower: &Follower, from: i64, to: i64) -> Statement {
    let (begin, go_on) = (
        "INSERT INTO checkpoints (bucket, name, value) VALUES ($1, $2, $3) ON CONFLICT (bucket, name) DO NOTHING
         RETURNING value",
        "UPDATE checkpoints SET value = $3 WHERE bucket = $1 AND name = $2 AND value = $4 RETURNING value",
    );
    let mut cells: Vec<Cell> = vec![BUCKET.into(), follower.name.into(), to.into()];
    let sql = if from == 0 { begin } else { go_on };
    cells.extend((from != 0).then_some(from.into()));
    Statement::new(sql, cells)
}

/// An event is not where it must be: whoever went on behind it would have skipped it. The same words for as long as it is.
fn missing(position: i64) -> StoreError {
    StoreError::Corrupt {
        table: "events".to_owned(),
        column: "position".to_owned(),
        what: format!("{position} is missing"),
    }
}

/// So many events that follow a position one by one, up to the first that is missing; an error where that is the very next.
pub(crate) async fn events_after(
    store: &Store,
    after: i64,
    limit: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    // Read before them: what it counts is there, or was taken away.
    let head = store.head().await?;
    gapless(after, head, store.events_after(after, limit).await?).ok_or_else(|| missing(after + 1))
}

/// Those that follow one by one; None where the next is not there, and the log ends further than that.
pub(crate) fn gapless(after: i64, head: i64, mut events: Vec<StoredEvent>) -> Option<Vec<StoredEvent>> {
    let follows = |(event, expected): &(&StoredEvent, i64)| event.position == *expected;
    let number = events.iter().zip(after + 1..).take_while(follows).count();
    events.truncate(number);
    (number > 0 || head <= after).then_some(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_in_seconds_or_in_events() {
        let today = NaiveDate::from_ymd_opt(2026, 11, 23).unwrap();
        let lag = |unit, checkpoint| lag(unit, checkpoint, 50_000, today, 9);
        assert_eq!(lag(Unit::Instant, 20_000), Some(30));
        assert_eq!(lag(Unit::Instant, 60_000), Some(0));
        assert_eq!(lag(Unit::Day, 20_261_121), Some(172_800));
        assert_eq!(lag(Unit::Position, 4), Some(5));
        assert_eq!((lag(Unit::Instant, 0), lag(Unit::Day, 0), lag(Unit::Position, 0)), (None, None, Some(9)));
    }
}
