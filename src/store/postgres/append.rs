//! One batch into the log: in one statement where nobody else writes, under the head's lock where somebody may.
//!
//! The head counts its turns. The short way: as long as the turn is the one that this connection left, nobody else has
//! written, and what was known then is known now. One statement takes that turn by compare-and-set and writes
//! everything; the log's own keys guard versions and receipts. It is its own transaction: one round trip, one flush.
//! Whatever it did not write for certain goes the long way, and so does every batch of which something is refused.
//!
//! The long way: begin and lock the head, ask what must be known (in a statement of its own: within one statement the
//! snapshot would be older than the lock), write everything, COMMIT. There, too, what the keys guard is asked only where
//! taking it for granted has failed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

use super::super::admission::{Known, Plan, PlannedEvent, Questions, admit, take_for_granted};
use super::super::{
    Append, AppendError, Appended, EPOCH, MAX_CLOCK_SKEW_MS, Outcome, Phases, StoreError, StreamId,
};
use super::batch::{Expected, know, write_plan};
use super::{PostgresStore, bound, is_dead_connection, undone};
use crate::clock::Clock;

/// How many streams that are only read a connection knows the versions of; beyond it, it starts anew.
const MAX_KNOWN: usize = 10_000;

/// A skew that no clock has: the check is made already, or a test holds the hand.
const ANY_SKEW_MS: i64 = i64::MAX / 4;

/// A connection that writes the log, and what it knows of it.
struct Writer {
    connection: PgConnection,
    /// The head as its last append left it.
    left: Option<Head>,
    /// Whether nobody else wrote between its last two appends: the short way is worth a try.
    alone: bool,
    /// Versions, at the turn it left, of streams that decisions read and do not append to: definitions, shops.
    versions: HashMap<StreamId, i64>,
}

#[derive(Clone, Copy)]
pub(super) struct Head {
    turn: i64,
    pub(super) position: i64,
    last_ms: i64,
    epoch: i64,
    database_ms: i64,
}

impl Head {
    fn after(self, plan: &Plan<'_>) -> Self {
        Self { turn: self.turn + 1, position: plan.head, last_ms: plan.recorded_at_ms, ..self }
    }
}

/// Planned once per connection.
pub(super) const PREPARE_LOCK: &str = "PREPARE lock_head AS
    SELECT turn, position, last_ms, epoch, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM log_head WHERE bucket = 0 FOR UPDATE";

/// Begins a transaction and takes the lock in one round trip. What is read under the lock must be asked in a later
/// statement. A connection whose lock failed is to be dropped, which ends its transaction.
pub(super) async fn lock_head(connection: &mut PgConnection) -> Result<Head, sqlx::Error> {
    let row = connection.fetch_one("BEGIN; EXECUTE lock_head").await?;
    Ok(Head {
        turn: row.try_get(0)?,
        position: row.try_get(1)?,
        last_ms: row.try_get(2)?,
        epoch: row.try_get(3)?,
        database_ms: row.try_get(4)?,
    })
}

/// Appends one batch after the other, on a connection of its own that it keeps.
pub struct Appender {
    store: PostgresStore,
    idle: Option<Writer>,
}

impl Appender {
    pub(super) fn new(store: PostgresStore) -> Self {
        Self { store, idle: None }
    }

    /// Gathers a batch when the head is there, and appends it.
    pub(in super::super) async fn append(
        &mut self,
        gather: impl FnOnce() -> Arc<[Append]>,
        clock: &Clock,
    ) -> Result<Appended, AppendError> {
        let begun = self.begin().await;
        let batch = gather();
        let mut begun = begun?;
        let outcome = begun.either_way(&batch, clock).await;
        // Only a connection that is known to be outside a transaction is used again; dropping one ends its own.
        if !matches!(outcome, Err(AppendError::Unavailable(_) | AppendError::Unknown { .. })) {
            self.idle = Some(begun.writer);
        }
        outcome
    }

    /// With the lock on the head, or without where nobody else writes.
    async fn begin(&mut self) -> Result<Begun, AppendError> {
        let mut since = Instant::now();
        let mut writer = match self.idle.take() {
            Some(writer) => writer,
            None => self.store.new_writer().await?,
        };
        let locked = if writer.alone { None } else { Some(self.store.lock(&mut writer).await?) };
        Ok(Begun { store: self.store.clone(), writer, locked, lock: Phases::lap(&mut since) })
    }

    pub(in super::super) async fn close(self) {
        if let Some(writer) = self.idle {
            let _ = writer.connection.close().await;
        }
    }
}

impl PostgresStore {
    async fn new_writer(&self) -> Result<Writer, AppendError> {
        let connection = self.connect_writer().await.map_err(undone)?;
        Ok(Writer { connection, left: None, alone: false, versions: HashMap::new() })
    }

    /// Locks the head. Where the connection died while it lay idle, nothing was written on it, and a new one may try.
    async fn lock(&self, writer: &mut Writer) -> Result<Head, AppendError> {
        let locked = match lock_head(&mut writer.connection).await {
            Err(error) if is_dead_connection(&error) => {
                *writer = self.new_writer().await?;
                lock_head(&mut writer.connection).await
            }
            locked => locked,
        };
        locked.map_err(|error| undone(error.into()))
    }
}

/// An append that was begun. Dropped unfinished, it is rolled back with its connection.
struct Begun {
    store: PostgresStore,
    writer: Writer,
    locked: Option<Head>,
    lock: Duration,
}

impl Begun {
    async fn either_way(&mut self, batch: &[Append], clock: &Clock) -> Result<Appended, AppendError> {
        let tried = match (self.locked, self.writer.left) {
            (None, Some(left)) => self.short_way(left, batch, clock).await?,
            _ => match self.long_way(true, batch, clock).await {
                // What was taken for granted may be wrong: once more with everything asked.
                Err(AppendError::Rejected(_)) => None,
                other => return other,
            },
        };
        match tried {
            Some(appended) => Ok(appended),
            None => self.long_way(false, batch, clock).await,
        }
    }

    /// None where nothing was written and the long way will tell why.
    async fn short_way(
        &mut self,
        left: Head,
        batch: &[Append],
        clock: &Clock,
    ) -> Result<Option<Appended>, AppendError> {
        let mut phases = Phases { lock: self.lock, ..Phases::default() };
        let mut since = Instant::now();
        // What is written beside takes statements of its own, and so a transaction.
        if batch.iter().any(|append| append.epoch != EPOCH || append.writes_beside()) {
            return Ok(None);
        }
        let (mut known, mut questions) = take_for_granted(batch);
        questions.streams.retain(|stream| match self.writer.versions.get(stream) {
            Some(version) => {
                known.versions.insert(*stream, *version);
                false
            }
            None => true,
        });
        let connection = &mut self.writer.connection;
        if !questions.is_empty() {
            let Ok(answers) = know(connection, &questions).await else {
                return Ok(None);
            };
            self.writer.versions.extend(answers.versions.iter().map(|(stream, version)| (*stream, *version)));
            known.extend(answers);
        }
        let now_ms = clock.now_ms();
        let (plan, outcomes) = admit(batch, known, left.position, now_ms.max(left.last_ms));
        phases.check = Phases::lap(&mut since);
        if !all_committed(&outcomes) {
            return Ok(None);
        }
        let max_skew_ms = if clock.is_system() { MAX_CLOCK_SKEW_MS } else { ANY_SKEW_MS };
        let expected = Expected { turn: left.turn, now_ms, max_skew_ms };
        match write_plan(connection, &plan, expected).await {
            Ok(true) => {
                phases.write = Phases::lap(&mut since);
                let head = left.after(&plan);
                self.writer.leave(head, &plan.events);
                Ok(Some(Appended { outcomes, phases }))
            }
            Ok(false) => Ok(None),
            Err(error) if wrote_nothing(&error) => Ok(None),
            Err(error) => Err(AppendError::Unknown { head: left.position, source: Arc::new(error.into()) }),
        }
    }

    async fn long_way(
        &mut self,
        granted: bool,
        batch: &[Append],
        clock: &Clock,
    ) -> Result<Appended, AppendError> {
        let before_commit = |error: sqlx::Error| undone(error.into());
        let mut since = Instant::now();
        let head = match self.locked.take() {
            Some(head) => head,
            None => self.store.lock(&mut self.writer).await?,
        };
        self.lock += Phases::lap(&mut since);
        let worked = self.work(head, granted, batch, clock).await;
        // What was known is known to be so no longer.
        self.writer.versions.clear();
        self.writer.alone = self.writer.left.is_some_and(|left| left.turn == head.turn);
        let connection = &mut self.writer.connection;
        match worked {
            Ok((appended, None)) => {
                connection.execute("ROLLBACK").await.map_err(before_commit)?;
                Ok(appended)
            }
            Ok((mut appended, Some(after))) => {
                let mut since = Instant::now();
                match connection.execute("COMMIT").await {
                    Ok(_) => {
                        appended.phases.commit = Phases::lap(&mut since);
                        self.writer.leave(after, &[]);
                        Ok(appended)
                    }
                    Err(error) => {
                        let error = StoreError::from(error);
                        // A constraint that speaks up in COMMIT is an answer; anything else leaves the outcome open.
                        if error.is_statement_error() {
                            return Err(AppendError::Rejected(Arc::new(error)));
                        }
                        Err(AppendError::Unknown { head: head.position, source: Arc::new(error) })
                    }
                }
            }
            Err(error) => {
                // The transaction has failed or refused: it must be ended before this connection is used again.
                match connection.execute("ROLLBACK").await {
                    Ok(_) => Err(error),
                    Err(rollback) => Err(AppendError::Unavailable(Arc::new(rollback.into()))),
                }
            }
        }
    }

    /// Everything between the lock and COMMIT: the outcomes, and the head as it will be if anything was written.
    async fn work(
        &mut self,
        head: Head,
        granted: bool,
        batch: &[Append],
        clock: &Clock,
    ) -> Result<(Appended, Option<Head>), AppendError> {
        let connection = &mut self.writer.connection;
        let mut phases = Phases { lock: self.lock, ..Phases::default() };
        let mut since = Instant::now();
        if head.epoch != EPOCH || batch.iter().any(|append| append.epoch != head.epoch) {
            return Err(AppendError::OldEpoch { found: head.epoch });
        }
        // Read only now: waiting for the lock is not an error of the clock.
        let now_ms = clock.now_ms();
        let skew_ms = now_ms - head.database_ms;
        if clock.is_system() && skew_ms.abs() > MAX_CLOCK_SKEW_MS {
            return Err(AppendError::ClockSkew(skew_ms));
        }
        let admit_by = |known| admit(batch, known, head.position, now_ms.max(head.last_ms));
        let (mut known, questions) =
            if granted { take_for_granted(batch) } else { (Known::default(), Questions::of(batch)) };
        if !questions.is_empty() {
            known.extend(know(connection, &questions).await.map_err(undone)?);
        }
        let (mut plan, mut outcomes) = admit_by(known);
        if granted && !all_committed(&outcomes) {
            // A refusal must not rest on what was taken for granted.
            let known = know(connection, &Questions::of(batch)).await.map_err(undone)?;
            (plan, outcomes) = admit_by(known);
        }
        phases.check = Phases::lap(&mut since);
        if plan.is_empty() {
            return Ok((Appended { outcomes, phases }, None));
        }
        let expected = Expected { turn: head.turn, now_ms, max_skew_ms: ANY_SKEW_MS };
        if !write_plan(connection, &plan, expected).await.map_err(|error| undone(error.into()))? {
            return Err(undone(StoreError::Corrupt {
                table: "log_head".to_owned(),
                column: "turn".to_owned(),
                what: "it moved under its lock".to_owned(),
            }));
        }
        for statement in &plan.beside {
            let written = bound(statement.sql, &statement.parameters).execute(&mut *connection).await;
            written.map_err(|error| undone(error.into()))?;
        }
        phases.write = Phases::lap(&mut since);
        Ok((Appended { outcomes, phases }, Some(head.after(&plan))))
    }
}

impl Writer {
    /// After an append: what was known stays known, but for what it moved.
    fn leave(&mut self, head: Head, events: &[PlannedEvent<'_>]) {
        self.left = Some(head);
        if self.versions.len() > MAX_KNOWN {
            self.versions.clear();
        }
        for event in events {
            if let Some(version) = self.versions.get_mut(&event.stream) {
                *version = event.sequence;
            }
        }
    }
}

fn all_committed(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Outcome::Committed { .. }))
}

/// Whether an error says that its statement, a transaction of its own, was rolled back.
fn wrote_nothing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            // 08 connection, 53 resources, 57P shutdown, 58 system, XX internal: these may come out of the commit.
            let code = error.code().unwrap_or_default();
            !["08", "53", "57P", "58", "XX"].iter().any(|class| code.starts_with(class))
        }
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}
