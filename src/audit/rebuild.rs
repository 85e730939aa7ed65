//! Rebuild: live tables and counters made anew from the log beside those in use, compared with them, and put in their place.
//!
//! Hides how: streams are folded as of the position where it began, in small transactions that each say how far they came;
//! then streams that have moved since are folded again, until what is left is small; the rest, and the swap, is one
//! transaction under the head's lock. Promises that every answer meanwhile comes from whole tables, that a rebuild killed at
//! any instant goes on where it was, and that the report names every row that was not what the log gives. It must never take
//! a row from the table that it replaces, and never skip an event it cannot read.

mod compare;
mod coupon;
mod fold;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use futures::StreamExt as _;

use compare::{Found, Moved, settle};
pub use coupon::{CouponReport, repair_coupon, repair_coupon_reading};
use fold::{Digests, Moves, add_between, kind_of};
pub use record::{Cells, Difference, Rebuild, Report, State, TableReport, Wrong};

use super::kinds::{KINDS, Stream, Written, made_by};
use crate::clock::Clock;
use crate::entity::{CorruptEvent, id_of};
use crate::ledger::Ledger;
use crate::read_model::LIVE_TABLES;
use crate::replay::ReplayError;
use crate::store::rebuild::{Change, MEMBER_COUNTS, NEW, OLD, STOCK, Swap, Swapped, key_of};
use crate::store::{IdRange, LiveTable, Rebuilder, Store, StoreError, StoredEvent, StreamId};

/// How many differing rows a report lists; it counts them all.
pub const LISTED: usize = 100;

/// How many parts of the log are read while one is written.
const PARTS_AHEAD: usize = 2;

/// Rows of one transaction: on SQLite appends wait for it, on PostgreSQL nobody does.
const ROWS_BESIDE_APPENDS: usize = 400;
const ROWS_ALONE: usize = 10_000;

/// Events that are caught up with in one transaction.
const EVENTS_AT_A_TIME: i64 = 400;

/// Events that are left to the swap at first; each try that meets more leaves it twice as many.
const LEFT_TO_THE_SWAP: i64 = 64;

/// How often the swap is tried.
const SWAPS: u32 = 12;

/// Why live tables could not be made anew.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Somebody is at it.
    #[error("another rebuild of this ledger is under way: wait for its end")]
    Busy,
    /// The tables of an earlier one are there.
    #[error("what an earlier rebuild replaced is still kept ({0}): look at it, then drop it with --drop-old")]
    OldKept(String),
    /// No such table.
    #[error("there is no read model {0}: all, or one of {known}", known = names(&everything()))]
    NoSuchModel(String),
    /// No such coupon.
    #[error("the log has no coupon {0}")]
    NoSuchCoupon(i64),
    /// A role that may not.
    #[error("this database role may not make or replace the live tables: rebuild as their owner ({0})")]
    NotOwner(StoreError),
    /// No room.
    #[error(
        "the disk is full: the live tables are as they were; make room, and rebuild again to go on ({0})"
    )]
    DiskFull(StoreError),
    /// A stream that this program knows nothing of.
    #[error("position {position} belongs to a stream of an unknown kind, {kind}: a newer program wrote it")]
    UnknownStream {
        /// Where it lies.
        position: i64,
        /// What it calls itself.
        kind: String,
    },
    /// An event that cannot be understood; it is never skipped.
    #[error("corrupt event: {0}")]
    Corrupt(#[from] Box<CorruptEvent>),
    /// The tables were never free, or the log never still enough.
    #[error("the new tables are ready, but the old ones were in use all the time: rebuild again to go on")]
    NeverFree,
    /// The coupon moved all the time.
    #[error("coupon {0} was changed all the time: try again")]
    NeverStill(i64),
    /// The database.
    #[error(transparent)]
    Store(StoreError),
}

impl From<ReplayError> for RebuildError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Store(error) => error.into(),
            ReplayError::Corrupt(corrupt) => corrupt.into(),
        }
    }
}

impl From<StoreError> for RebuildError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Postgres(sqlx::Error::Database(error)) => error.code().map(|code| code.to_string()),
            StoreError::Sqlite(error) => match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DiskFull) => Some("53100".to_owned()),
                _ => None,
            },
            _ => None,
        };
        match code.as_deref() {
            Some("42501") => Self::NotOwner(error),
            Some("53100") => Self::DiskFull(error),
            _ => Self::Store(error),
        }
    }
}

/// Every table that a rebuild makes.
fn everything() -> Vec<&'static LiveTable> {
    LIVE_TABLES.iter().copied().chain([&STOCK, &MEMBER_COUNTS]).collect()
}

fn names(tables: &[&LiveTable]) -> String {
    tables.iter().map(|table| table.name).collect::<Vec<_>>().join(",")
}

/// The tables that are meant by names with or without their versions, parted by commas; `all` is every one.
pub fn tables(models: &str) -> Result<Vec<&'static LiveTable>, RebuildError> {
    let unversioned = |table: &LiveTable| table.name.rsplit_once("_v").map_or(table.name, |(name, _)| name);
    let find = |model: &str| {
        let meant = |table: &&LiveTable| table.name == model || unversioned(table) == model;
        everything().into_iter().find(meant).ok_or_else(|| RebuildError::NoSuchModel(model.to_owned()))
    };
    let mut found = match models {
        "all" => everything(),
        _ => models.split(',').map(find).collect::<Result<Vec<_>, _>>()?,
    };
    found.sort_by_key(|table| table.name);
    found.dedup_by_key(|table| table.name);
    Ok(found)
}

/// Rebuilds from beginning to end; `models` as for [`tables`]. What an earlier rebuild kept is dropped first.
pub async fn rebuild(ledger: &Ledger, models: &str) -> Result<Report, RebuildError> {
    Running::begin(ledger.store(), ledger.clock(), models, true).await?.run().await
}

/// The rebuild with a number, and whether somebody is at work on one just now.
pub async fn look(store: &Store, id: i64) -> Result<Option<(Rebuild, bool)>, RebuildError> {
    // Asked first: what is told of one that has ended is how it ended.
    let somebody = store.is_rebuilding().await?;
    // Whoever is at work is so on the last one.
    let last = Rebuild::read(store, None).await?.map(|last| last.id);
    let rebuild = Rebuild::read(store, Some(id)).await?;
    Ok(rebuild.map(|rebuild| (rebuild, somebody && last == Some(id))))
}

/// Drops what rebuilds have kept, and what an unfinished one has left; returns the names of the tables.
pub async fn drop_old(store: &Store) -> Result<Vec<String>, RebuildError> {
    let mut rebuilder = store.rebuilder().await?.ok_or(RebuildError::Busy)?;
    let dropped = drop_kept(store, &mut rebuilder, &everything(), &[OLD, NEW]).await;
    rebuilder.release().await;
    dropped
}

async fn drop_kept(
    store: &Store,
    rebuilder: &mut Rebuilder,
    tables: &[&'static LiveTable],
    suffixes: &[&'static str],
) -> Result<Vec<String>, RebuildError> {
    let places = tables.iter().flat_map(|table| suffixes.iter().map(|suffix| (*table, *suffix)));
    let places: Vec<(&'static LiveTable, &'static str)> = places.collect();
    let all: Vec<String> = places.iter().map(|(table, suffix)| format!("{}{suffix}", table.name)).collect();
    let found = store.tables_among(&all).await?;
    let mut also = Vec::new();
    if suffixes.contains(&OLD) {
        let everything: Vec<String> =
            everything().iter().map(|table| format!("{}{OLD}", table.name)).collect();
        let mut kept = store.tables_among(&everything).await?;
        kept.retain(|name| !found.contains(name));
        also.extend(Rebuild::without_old(store, &kept).await?);
    }
    if suffixes.contains(&NEW) {
        also.push(Rebuild::move_all(State::Filling, State::GivenUp));
        also.push(Rebuild::move_all(State::Comparing, State::GivenUp));
    }
    rebuilder.drop_tables(&places, also).await?;
    Ok(found)
}

/// A rebuild under way, by this process.
pub struct Running {
    store: Store,
    clock: Clock,
    rebuilder: Rebuilder,
    now: Rebuild,
    /// Whether it was begun earlier and goes on.
    pub resumed: bool,
}

impl Running {
    /// Begins a rebuild, or goes on with the unfinished one of the same tables. An unfinished one of others, or of another
    /// program, is given up. With `drop_old`, what earlier ones kept of these tables is dropped.
    pub async fn begin(
        store: &Store,
        clock: &Clock,
        models: &str,
        drop_old: bool,
    ) -> Result<Self, RebuildError> {
        let tables = tables(models)?;
        let mut rebuilder = store.rebuilder().await?.ok_or(RebuildError::Busy)?;
        match Self::prepare(store, clock, &mut rebuilder, tables, drop_old).await {
            Ok((now, resumed)) => {
                Ok(Self { store: store.clone(), clock: clock.clone(), rebuilder, now, resumed })
            }
            Err(error) => {
                rebuilder.release().await;
                Err(error)
            }
        }
    }

    async fn prepare(
        store: &Store,
        clock: &Clock,
        rebuilder: &mut Rebuilder,
        tables: Vec<&'static LiveTable>,
        drop_old: bool,
    ) -> Result<(Rebuild, bool), RebuildError> {
        let beside = |suffix: &str| -> Vec<String> {
            tables.iter().map(|table| format!("{}{suffix}", table.name)).collect()
        };
        let kept = store.tables_among(&beside(OLD)).await?;
        if drop_old {
            drop_kept(store, rebuilder, &tables, &[OLD]).await?;
        } else if !kept.is_empty() {
            return Err(RebuildError::OldKept(kept.join(", ")));
        }
        let last = Rebuild::read(store, None).await?;
        let id = last.as_ref().map_or(0, |last| last.id) + 1;
        let same = |last: &Rebuild| {
            last.state.is_open() && names(&last.tables) == names(&tables) && last.made_by == made_by()
        };
        if let Some(last) = last.filter(same)
            && store.tables_among(&beside(NEW)).await?.len() == tables.len()
        {
            return Ok((last, true));
        }
        drop_kept(store, rebuilder, &everything(), &[NEW]).await?;
        let head = store.head().await?;
        let now = Rebuild {
            id,
            tables,
            state: State::Filling,
            begun_at_ms: clock.now_ms(),
            began_at: head,
            position: head,
            streams: 0,
            events: 0,
            report: None,
            failed: None,
            made_by: made_by(),
            kind: 0,
            after_id: String::new(),
            digests: Digests::default(),
        };
        rebuilder.create(&now.tables, id, vec![now.insert()]).await?;
        Ok((now, false))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> i64 {
        self.now.id
    }

    /// Brings it to its end. Why it could not be is written down too, for those who ask from elsewhere.
    pub async fn run(mut self) -> Result<Report, RebuildError> {
        let done = self.work().await;
        if let Err(error) = &done
            && let Err(unsaid) = self.store.write(vec![self.now.fail(error)]).await
        {
            tracing::warn!(%unsaid, "why the rebuild stopped could not be written down");
        }
        self.rebuilder.release().await;
        done
    }

    async fn work(&mut self) -> Result<Report, RebuildError> {
        if self.now.state == State::Filling {
            self.fill().await?;
            self.rebuilder.index(&self.now.tables).await?;
            self.now.state = State::Comparing;
        }
        self.catch_up().await?;
        let found = self.compare().await?;
        self.swap(found).await
    }

    async fn fill(&mut self) -> Result<(), RebuildError> {
        while let Some(kind) = KINDS.get(self.now.kind) {
            if kind.writes(&self.now.tables) {
                let (store, began_at) = (self.store.clone(), self.now.began_at);
                let ranges = store.ranges(kind.name, &self.now.after_id);
                let scan = |range: Result<IdRange, StoreError>| {
                    let store = store.clone();
                    async move { (kind.scan)(store, range?, began_at).await }
                };
                let mut parts = Box::pin(ranges.map(scan).buffered(PARTS_AHEAD));
                while let Some(streams) = parts.next().await {
                    self.put(streams?).await?;
                }
            }
            self.now.kind += 1;
            self.now.after_id.clear();
        }
        Ok(())
    }

    /// Writes streams into the new tables, whole ones in each transaction.
    async fn put(&mut self, streams: Vec<Stream>) -> Result<(), RebuildError> {
        let most = if self.store.is_shared() { ROWS_ALONE } else { ROWS_BESIDE_APPENDS };
        let mut streams = streams.into_iter().peekable();
        while streams.peek().is_some() {
            let tables = self.now.tables.clone();
            let mut moves = Moves::new(&tables, std::mem::take(&mut self.now.digests));
            let mut rows = 0;
            while rows < most
                && let Some(stream) = streams.next()
            {
                rows += stream.written.rows.len();
                self.now.streams += 1;
                self.now.events += stream.events;
                self.now.after_id = stream.id;
                moves.add(&Written::default(), stream.written);
            }
            self.now.digests = moves.digests;
            self.rebuilder.write(moves.change, vec![self.now.progress()]).await?;
        }
        Ok(())
    }

    /// Folds what has moved since, until little is left.
    async fn catch_up(&mut self) -> Result<(), RebuildError> {
        loop {
            let events = self.store.events_after(self.now.position, EVENTS_AT_A_TIME).await?;
            let Some(until) = events.last().map(|event| event.position) else { return Ok(()) };
            let streams = streams_of(&self.store, &events).await?;
            let tables = self.now.tables.clone();
            let mut moves = Moves::new(&tables, self.now.digests.clone());
            add_between(&mut moves, &streams, self.now.position, until)?;
            self.now.digests = moves.digests;
            self.now.position = until;
            self.rebuilder.write(moves.change, vec![self.now.progress()]).await?;
            if (events.len() as i64) < LEFT_TO_THE_SWAP {
                return Ok(());
            }
        }
    }

    async fn compare(&mut self) -> Result<Found, RebuildError> {
        let mut found = Found::default();
        for table in self.now.tables.clone() {
            let mut after: Option<Vec<i64>> = None;
            loop {
                let part = self.rebuilder.compare(table, after.clone()).await?;
                if part.head - self.now.position > EVENTS_AT_A_TIME {
                    self.catch_up().await?;
                    continue;
                }
                let moved = self.moved_since(table, part.head).await?;
                let Some(part_found) = settle(table, after.as_deref(), &part, &moved) else {
                    // A row that must have moved and has not, or was read between the two: look again, closer.
                    self.catch_up().await?;
                    continue;
                };
                found.add(table, part_found);
                match part.until {
                    Some(until) => after = Some(until),
                    None => break,
                }
            }
        }
        Ok(found)
    }

    /// How a table's rows have moved from where the new one is up to a position.
    async fn moved_since(&self, table: &'static LiveTable, head: i64) -> Result<Moved, RebuildError> {
        if head <= self.now.position {
            return Ok(Moved::default());
        }
        let mut events = self.store.events_after(self.now.position, head - self.now.position).await?;
        events.retain(|event| event.position <= head);
        let streams = streams_of(&self.store, &events).await?;
        let wanted = [table];
        let mut moves = Moves::new(&wanted, Digests::default());
        add_between(&mut moves, &streams, self.now.position, head)?;
        let change = moves.change;
        let mut moved = Moved::default();
        moved.rows.extend(change.gone.into_iter().map(|gone| (gone.key, None)));
        moved
            .rows
            .extend(change.rows.into_iter().map(|row| (key_of(row.table, &row.cells), Some(row.cells))));
        moved.stock = change.stock;
        moved.issued = change.issued.into_iter().map(|(key, by)| (vec![key], by)).collect();
        moved.issued.extend(change.member_counts.into_iter().map(|(key, by)| (vec![key.0, key.1], by)));
        Ok(moved)
    }

    async fn swap(&mut self, found: Found) -> Result<Report, RebuildError> {
        let mut most = LEFT_TO_THE_SWAP;
        for _ in 0..SWAPS {
            self.catch_up().await?;
            let swap = Swap { tables: self.now.tables.clone(), position: self.now.position, most };
            let (now, clock, found) = (self.now.clone(), self.clock.clone(), found.clone());
            let fold = move |streams: Vec<Vec<StoredEvent>>, head: i64| {
                let (change, now, report) = last_fold(now, &found, &streams, head, clock.now_ms())?;
                Ok::<_, RebuildError>((change, vec![now.progress(), now.end(&report, clock.now_ms())]))
            };
            match self.rebuilder.swap(swap, fold).await? {
                Swapped::Done { held, .. } => return self.tell(held.as_micros() as u64).await,
                Swapped::Behind => most *= 2,
            }
        }
        Err(RebuildError::NeverFree)
    }

    /// The report as it was written down with the swap, and now with how long that took.
    async fn tell(&self, held_us: u64) -> Result<Report, RebuildError> {
        let done = Rebuild::read(&self.store, Some(self.now.id)).await?;
        let Some((done, mut report)) =
            done.and_then(|mut done| done.report.take().map(|report| (done, report)))
        else {
            return Err(RebuildError::NeverFree);
        };
        report.held_us = held_us;
        self.store.write(vec![done.end(&report, done.begun_at_ms + report.took_ms)]).await?;
        Ok(report)
    }
}

/// What is written under the lock: the last streams that have moved, and what the rebuild came to.
fn last_fold(
    mut now: Rebuild,
    found: &Found,
    streams: &[Vec<StoredEvent>],
    head: i64,
    now_ms: i64,
) -> Result<(Change, Rebuild, Report), RebuildError> {
    let tables = now.tables.clone();
    let mut moves = Moves::new(&tables, std::mem::take(&mut now.digests));
    add_between(&mut moves, streams, now.position, head)?;
    now.digests = moves.digests;
    now.position = head;
    now.state = State::Swapped;
    let table_report = |table: &&LiveTable| {
        let new = now.digests.of(table);
        let (differences, taken_back) = found.by_table.get(table.name).copied().unwrap_or_default();
        TableReport {
            table: table.name.to_owned(),
            old_digest: format!("{:032x}", new.wrapping_add(taken_back)),
            new_digest: format!("{new:032x}"),
            differences,
        }
    };
    let report = Report {
        position: head,
        streams: now.streams,
        events: now.events,
        took_ms: now_ms - now.begun_at_ms,
        held_us: 0,
        tables: tables.iter().map(table_report).collect(),
        difference_count: found.by_table.values().map(|(count, _)| count).sum(),
        differences: found.listed.clone(),
    };
    Ok((moves.change, now, report))
}

/// The whole streams that events belong to.
async fn streams_of(store: &Store, events: &[StoredEvent]) -> Result<Vec<Vec<StoredEvent>>, RebuildError> {
    let mut streams = BTreeSet::new();
    for event in events {
        streams.insert(StreamId { kind: kind_of(event)?.name, id: id_of(event.as_ref())? });
    }
    let streams: Vec<StreamId> = streams.into_iter().collect();
    Ok(store.load(&streams).await?)
}
