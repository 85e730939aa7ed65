//! The embedded engine: SQLite in the data folder.
//!
//! Exactly one connection writes or checkpoints, on one thread, in one process: an OS lock on a file beside the
//! database sees to that. Readers are read-only and never checkpoint. That also keeps clear of SQLite's WAL-reset bug
//! (fixed in 3.51.3), which needs two connections that write or checkpoint. Everything written is a bounded job of
//! that thread, appends first. An I/O error on write or commit ends the process: what is on disk is then unknown, and
//! the next start reads it.

mod live;
mod queue;
mod rebuild;
mod replay;
mod scratch;
mod takeover;
mod wal;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, Connection, OpenFlags, params, types::ValueRef};

use super::admission::{Known, Plan, Questions, admit, take_for_granted};
use queue::{Next, Queue};
pub use rebuild::Rebuilder;
use wal::{Wal, checkpoint};

use super::connect::OpenError;
use super::{
    Append, AppendError, Appended, BUCKET, Cell, EPOCH, Look, Outcome, Phases, Row, Statement, StoreError,
    StoredEvent, migrate,
};
use crate::clock::Clock;

/// The WAL is written back whenever so many of its frames (4 KiB) are not in the database yet: commands wait for it on
/// the one writing connection, so it must be short rather than rare …
const CHECKPOINT_FRAMES: u32 = 1_000;
/// … or so many, when nobody waits …
const IDLE_CHECKPOINT_FRAMES: u32 = 100;
/// … and has not for this long …
const IDLE_AFTER: Duration = Duration::from_millis(100);
/// … and where readers have kept it from being used again from its start, in any case when it is longer than this.
const MAX_WAL_FRAMES: u32 = 48 << 10;

/// How long a reader that keeps the WAL from being used again is then left alone.
const RESTART_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The embedded engine. Cheap to clone.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Arc<Queue>,
    readers: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Whether somebody makes live tables anew: in this process, because no other writes.
    rebuilding: Arc<AtomicBool>,
    /// Held until the last thread is gone; the operating system frees it however the process ends.
    lock: Mutex<Option<File>>,
}

impl SqliteStore {
    /// Takes the data folder, opens the database in it and brings it up to date.
    pub fn open(folder: &Path, now_ms: i64) -> Result<Self, OpenError> {
        let lock = hold_folder(folder)?;
        let path = folder.join("ledger.db");
        let mut writer = connect(&path, READ_WRITE)?;
        prepare_writer(&mut writer)?;
        migrate::sqlite(&mut writer, now_ms)?;
        let writer = (writer, Some(Wal::of(&path)?));
        Self::start(Some(writer), || open_reader(&path), Some(lock))
    }

    /// Opens the database of a folder for reading; a server may be running on it.
    pub fn open_read_only(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join("ledger.db");
        if !path.exists() {
            return Err(OpenError::NoLedger(folder.display().to_string()));
        }
        Self::open_copy(&path)
    }

    /// Opens a file that holds a ledger for reading alone.
    pub fn open_copy(path: &Path) -> Result<Self, OpenError> {
        Self::start(None, || open_reader(path), None)
    }

    /// Starts the threads. A writer without a WAL to look at never checkpoints.
    fn start(
        writer: Option<(Connection, Option<Wal>)>,
        open_reader: impl Fn() -> Result<Connection, OpenError>,
        lock: Option<File>,
    ) -> Result<Self, OpenError> {
        let mut threads = Vec::new();
        let (writes, reads) = (Arc::new(Queue::default()), Arc::new(Queue::default()));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map_err(|source| OpenError::Folder { path: name.to_owned(), source })
        };
        if let Some((connection, wal)) = writer {
            let queue = writes.clone();
            threads.push(spawn(
                "ledger-writer",
                Box::new(move || write_loop(connection, &queue, wal.as_ref())),
            )?);
        } else {
            writes.close();
        }
        let readers = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
        for _ in 0..readers {
            let connection = open_reader()?;
            let queue = reads.clone();
            threads.push(spawn("ledger-reader", Box::new(move || read_loop(connection, &queue)))?);
        }
        let inner = Inner {
            writer: writes,
            readers: reads,
            threads: Mutex::new(threads),
            rebuilding: Arc::default(),
            lock: Mutex::new(lock),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(super) async fn events_after(
        &self,
        position: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.inner
            .readers
            .run(false, move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
                            metadata, recorded_at_ms
                     FROM events WHERE bucket = ?1 AND position > ?2 ORDER BY position LIMIT ?3",
                )?;
                let rows = statement.query_map((BUCKET, position, limit), read_event)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await?
    }

    pub(super) async fn query(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        let Statement { sql, parameters, .. } = statement;
        self.inner.readers.run(false, move |connection| rows(connection, sql, &parameters)).await?
    }

    /// A read that a command waits for: ahead of pages.
    pub(super) async fn query_first(&self, statement: Statement) -> Result<Vec<Row>, StoreError> {
        let Statement { sql, parameters, .. } = statement;
        self.inner.readers.run(true, move |connection| rows(connection, sql, &parameters)).await?
    }

    pub(super) async fn query_each(
        &self,
        sql: &'static str,
        sets: Vec<Vec<Cell>>,
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        let each = move |connection: &mut Connection| {
            sets.iter().map(|parameters| rows(connection, sql, parameters)).collect()
        };
        self.inner.readers.run(false, each).await?
    }

    pub(super) async fn look_at_each<T: Send + 'static>(
        &self,
        looks: Vec<Look>,
        mut gathered: T,
        take: fn(&mut T, usize, Row) -> Result<(), StoreError>,
    ) -> Result<T, StoreError> {
        let look = move |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            for (place, Look { sql, parameters }) in looks.iter().enumerate() {
                each_row(&transaction, sql, parameters, |row| take(&mut gathered, place, row))?;
            }
            Ok(gathered)
        };
        self.inner.readers.run(false, look).await?
    }

    pub(super) async fn write(&self, statements: Vec<Statement>) -> Result<Vec<Vec<Row>>, StoreError> {
        self.inner
            .writer
            .run(false, move |connection| {
                let mut answers = Vec::with_capacity(statements.len());
                let done = in_transaction(connection, |connection| {
                    for statement in &statements {
                        let found = rows(connection, statement.sql, &statement.parameters)?;
                        let failed = statement.must_return && found.is_empty();
                        answers.push(found);
                        if failed {
                            return Err(StoreError::RolledBack);
                        }
                    }
                    Ok(())
                });
                match done {
                    Ok(()) | Err(StoreError::RolledBack) => Ok(answers),
                    Err(error) => Err(error),
                }
            })
            .await?
    }

    pub(super) async fn append(
        &self,
        gather: impl FnOnce() -> Arc<[Append]> + Send + 'static,
        clock: Clock,
    ) -> Result<Appended, AppendError> {
        let unavailable = |error| AppendError::Unavailable(Arc::new(error));
        self.inner
            .writer
            .run(true, move |connection| append(connection, &gather(), clock.now_ms()))
            .await
            .map_err(unavailable)?
    }

    pub(super) async fn wipe(&self, rewrite: bool) -> Result<bool, StoreError> {
        let wipe = move |connection: &mut Connection| {
            // It takes as much room again as the database has, on disk and not in memory. Where there is none, everything
            // stays as it was.
            let vacuum = "PRAGMA temp_store = FILE; VACUUM; PRAGMA temp_store = MEMORY;";
            if let Some(error) = rewrite.then(|| connection.execute_batch(vacuum).err()).flatten() {
                tracing::warn!(%error, "VACUUM failed: unused space may still hold what was deleted before");
            }
            checkpoint(connection, "TRUNCATE")
        };
        self.inner.writer.run(false, wipe).await
    }

    pub(super) async fn close(&self) {
        self.inner.writer.close();
        self.inner.readers.close();
        let inner = self.inner.clone();
        let joined = tokio::task::spawn_blocking(move || {
            let threads = std::mem::take(&mut *inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
            for thread in threads {
                let _ = thread.join();
            }
            inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "closing the database failed");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.writer.close();
        self.readers.close();
    }
}

fn folder_error(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::Folder { path: path.display().to_string(), source }
}

/// Takes a data folder, made where there is none, for as long as the file is held.
pub fn hold_folder(folder: &Path) -> Result<File, OpenError> {
    crate::config::make_folder(folder).map_err(|source| folder_error(folder, source))?;
    let path = folder.join("ledger.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| folder_error(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            folder: folder.display().to_string(),
            holder: crate::config::running_server(folder)
                .map(|server| format!(" by the server at {} (process {})", server.url, server.pid))
                .unwrap_or_default(),
        }),
        Err(TryLockError::Error(source)) => Err(folder_error(&path, source)),
    }
}

/// When a member's last coupon of a definition ends. The plus: by the member, not by the latest end of everybody's down to his.
const LATEST_END: &str = "SELECT COALESCE(MAX(+ends_at_ms), 0) FROM wallet_v1
     WHERE bucket = ?1 AND member_id = ?2 AND definition_id = ?3 AND issued_to = ?2 AND voided = 0";

/// Makes the file where there is none.
const READ_WRITE: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_CREATE);

/// Opens a connection that one thread uses at a time, and that plans a statement once: where there are partial indexes SQLite
/// would look at the values too, and plan the statement anew for each of them.
fn connect(path: impl AsRef<Path>, flags: OpenFlags) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

fn prepare_writer(connection: &mut Connection) -> Result<(), OpenError> {
    connection.busy_timeout(Duration::from_millis(200))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA recursive_triggers = ON;
         PRAGMA secure_delete = ON;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -65536;",
    )?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::UnsafeSetting { setting: "journal_mode".to_owned(), value: mode });
    }
    Ok(())
}

fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -32768; PRAGMA temp_store = MEMORY;")?;
    Ok(connection)
}

fn read_loop(mut connection: Connection, queue: &Queue) {
    loop {
        match queue.next(Duration::from_secs(60)) {
            Next::Job(job) => job(&mut connection),
            Next::Idle => {}
            Next::Closed => return,
        }
    }
}

fn write_loop(mut connection: Connection, queue: &Queue, wal: Option<&Wal>) {
    // Frames in the WAL, and how many of them are not in the database yet.
    let frames = || wal.map_or((0, 0), Wal::frames);
    let mut restart_from = Instant::now();
    loop {
        match queue.next(IDLE_AFTER) {
            Next::Job(job) => {
                job(&mut connection);
                let (frames, pending) = frames();
                if frames > MAX_WAL_FRAMES && Instant::now() >= restart_from {
                    // A backup reads for as long as it takes: commands must not wait for it each time.
                    if !checkpoint(&connection, "RESTART") {
                        restart_from = Instant::now() + RESTART_AGAIN_AFTER;
                    }
                } else if pending > CHECKPOINT_FRAMES {
                    checkpoint(&connection, "PASSIVE");
                }
            }
            Next::Idle if frames().1 > IDLE_CHECKPOINT_FRAMES => {
                checkpoint(&connection, "PASSIVE");
            }
            Next::Idle => {}
            Next::Closed => {
                if wal.is_some() {
                    checkpoint(&connection, "TRUNCATE");
                }
                return;
            }
        }
    }
}

/// After a failed write nobody knows what is on disk: nothing may be answered from memory any more.
fn end_process_on_io_error(error: &rusqlite::Error) {
    use rusqlite::ErrorCode as Code;
    let Some(code) = error.sqlite_error_code() else {
        return;
    };
    if matches!(
        code,
        Code::SystemIoFailure | Code::DiskFull | Code::DatabaseCorrupt | Code::NotADatabase | Code::ReadOnly
    ) {
        let what = "the database cannot be written; the server ends so that nothing false is answered";
        tracing::error!(%error, what);
        // A command has no log.
        if !tracing::dispatcher::has_been_set() {
            let said =
                format!("coupon-ledger: the database cannot be written: {error}; nothing is half done");
            // It ends in any case, also where this cannot be said.
            let _ = writeln!(std::io::stderr(), "{said}");
        }
        std::process::exit(2);
    }
}

/// Runs work in a transaction. A failed commit is rolled back; an I/O error ends the process.
fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let outcome = connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(StoreError::from)
        .and_then(|()| work(connection))
        .and_then(|done| Ok(connection.execute_batch("COMMIT").map(|()| done)?));
    if let Err(error) = &outcome {
        if let StoreError::Sqlite(error) = error {
            end_process_on_io_error(error);
        }
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            end_process_on_io_error(&error);
        }
    }
    outcome
}

/// What the log's keys guard is taken for granted first, and asked where that was wrong.
fn append(connection: &mut Connection, batch: &[Append], now_ms: i64) -> Result<Appended, AppendError> {
    match try_append(connection, batch, now_ms, true) {
        Err(AppendError::Rejected(_)) => try_append(connection, batch, now_ms, false),
        other => other,
    }
}

fn try_append(
    connection: &mut Connection,
    batch: &[Append],
    now_ms: i64,
    granted: bool,
) -> Result<Appended, AppendError> {
    let mut old_epoch = None;
    let mut phases = Phases::default();
    let mut since = Instant::now();
    let outcomes = in_transaction(connection, |connection| {
        let (head, last_ms, epoch): (i64, i64, i64) = connection
            .prepare_cached("SELECT position, last_ms, epoch FROM log_head WHERE bucket = ?1")?
            .query_row([BUCKET], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        if epoch != EPOCH || batch.iter().any(|append| append.epoch != epoch) {
            old_epoch = Some(epoch);
            return Ok(Vec::new());
        }
        phases.lock = Phases::lap(&mut since);
        let admit_by = |known| admit(batch, known, head, now_ms.max(last_ms));
        let by_asking =
            || -> Result<_, StoreError> { Ok(admit_by(know(connection, &Questions::of(batch))?)) };
        let (plan, outcomes) = if granted {
            let (mut known, questions) = take_for_granted(batch);
            known.extend(know(connection, &questions)?);
            let admitted = admit_by(known);
            // A refusal must not rest on what was taken for granted.
            let all = admitted.1.iter().all(|outcome| matches!(outcome, Outcome::Committed { .. }));
            if all { admitted } else { by_asking()? }
        } else {
            by_asking()?
        };
        phases.check = Phases::lap(&mut since);
        if !plan.is_empty() {
            write_plan(connection, &plan)?;
        }
        phases.write = Phases::lap(&mut since);
        Ok(outcomes)
    });
    if let Some(found) = old_epoch {
        return Err(AppendError::OldEpoch { found });
    }
    let outcomes = outcomes.map_err(|error| {
        let statement = error.is_statement_error();
        let error = Arc::new(error);
        if statement { AppendError::Rejected(error) } else { AppendError::Unavailable(error) }
    })?;
    phases.commit = Phases::lap(&mut since);
    Ok(Appended { outcomes, phases })
}

fn know(connection: &Connection, questions: &Questions) -> Result<Known, StoreError> {
    let mut known = Known::default();
    let mut version = connection.prepare_cached(
        "SELECT COALESCE(MAX(sequence), 0) FROM events WHERE aggregate_type = ?1 AND aggregate_id = ?2 AND bucket = ?3",
    )?;
    for stream in &questions.streams {
        let found: i64 =
            version.query_row(params![stream.kind, stream.id.to_string(), BUCKET], |row| row.get(0))?;
        known.versions.insert(*stream, found);
    }
    let mut receipt = connection.prepare_cached(
        "SELECT 1 FROM receipts WHERE bucket = ?1 AND caller = ?2 AND operation = ?3 AND key = ?4",
    )?;
    for key in &questions.receipts {
        if receipt.exists(params![BUCKET, key.caller, key.operation, key.key])? {
            known.receipts.insert(key.clone());
        }
    }
    let mut stock = connection
        .prepare_cached("SELECT stock, issued FROM stock_v1 WHERE bucket = ?1 AND definition_id = ?2")?;
    for id in &questions.stock {
        let mut found = stock.query(params![BUCKET, id])?;
        if let Some(row) = found.next()? {
            known.stock.insert(*id, (row.get(0)?, row.get(1)?));
        }
    }
    let mut count = connection.prepare_cached(
        "SELECT issued FROM member_counts_v1 WHERE bucket = ?1 AND member_id = ?2 AND definition_id = ?3",
    )?;
    for key in &questions.member_counts {
        let mut found = count.query(params![BUCKET, key.0, key.1])?;
        if let Some(row) = found.next()? {
            known.member_counts.insert(*key, row.get(0)?);
        }
    }
    let mut latest = connection.prepare_cached(LATEST_END)?;
    for key in &questions.latest_ends {
        known.latest_ends.insert(*key, latest.query_row(params![BUCKET, key.0, key.1], |row| row.get(0))?);
    }
    let mut attempts = connection.prepare_cached(
        "SELECT at_ms FROM gift_attempts WHERE bucket = ?1 AND member_id = ?2 AND at_ms > ?3",
    )?;
    for (member_id, since) in &questions.attempts {
        let found = attempts.query_map(params![BUCKET, member_id, since], |row| row.get(0))?;
        known.attempts.insert(*member_id, found.collect::<Result<_, _>>()?);
    }
    Ok(known)
}

/// Lock order everywhere: heads, receipts, counters, rows. With one connection it costs nothing to keep.
fn write_plan(connection: &Connection, plan: &Plan<'_>) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE log_head SET position = ?1, last_ms = ?2 WHERE bucket = ?3")?
        .execute((plan.head, plan.recorded_at_ms, BUCKET))?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO events (bucket, position, aggregate_type, aggregate_id, sequence, event_type, event_version,
                             payload, metadata, recorded_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    for planned in &plan.events {
        let event = planned.event;
        insert.execute(params![
            BUCKET,
            planned.position,
            planned.stream.kind,
            planned.stream.id.to_string(),
            planned.sequence,
            event.event_type,
            event.event_version,
            event.payload,
            planned.append.metadata.as_ref(),
            plan.recorded_at_ms,
        ])?;
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO receipts (bucket, caller, operation, key, request_mac, position, event_count)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for receipt in &plan.receipts {
        let key = receipt.key;
        insert.execute(params![
            BUCKET,
            key.caller,
            key.operation,
            key.key,
            receipt.request_mac,
            receipt.position,
            receipt.event_count
        ])?;
    }
    let mut upsert = connection.prepare_cached(
        "INSERT INTO stock_v1 (bucket, definition_id, stock, issued) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (bucket, definition_id) DO UPDATE SET stock = excluded.stock, issued = excluded.issued",
    )?;
    for (definition_id, stock, issued) in &plan.stock {
        upsert.execute((BUCKET, definition_id, stock, issued))?;
    }
    let mut upsert = connection.prepare_cached(
        "INSERT INTO member_counts_v1 (bucket, member_id, definition_id, issued) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (bucket, member_id, definition_id) DO UPDATE SET issued = excluded.issued",
    )?;
    for (member_id, definition_id, issued) in &plan.member_counts {
        upsert.execute((BUCKET, member_id, definition_id, issued))?;
    }
    for (table, rows) in &plan.rows {
        live::upsert(connection, table.name, table, rows)?;
    }
    let mut insert = connection
        .prepare_cached("INSERT INTO gift_attempts (bucket, member_id, at_ms) VALUES (?1, ?2, ?3)")?;
    for (member_id, at_ms) in &plan.attempts {
        insert.execute((BUCKET, member_id, at_ms))?;
    }
    let mut insert =
        connection.prepare_cached("INSERT INTO reviews (coupon_id, salt, text) VALUES (?1, ?2, ?3)")?;
    for review in &plan.reviews {
        insert.execute((review.coupon_id, &review.salt, &review.text))?;
    }
    for statement in &plan.beside {
        rows(connection, statement.sql, &statement.parameters)?;
    }
    Ok(())
}

fn bind(statement: &mut CachedStatement<'_>, first: usize, cells: &[Cell]) -> Result<(), rusqlite::Error> {
    for (place, cell) in (first..).zip(cells) {
        match cell {
            Cell::Int(value) => statement.raw_bind_parameter(place, value)?,
            Cell::Text(value) => statement.raw_bind_parameter(place, value)?,
        }
    }
    Ok(())
}

fn rows(connection: &Connection, sql: &str, parameters: &[Cell]) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    each_row(connection, sql, parameters, |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

fn each_row(
    connection: &Connection,
    sql: &str,
    parameters: &[Cell],
    mut take: impl FnMut(Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut prepared = connection.prepare_cached(sql)?;
    // $1, $2 … are names to SQLite: their numbers follow the order of appearance, so they are bound by name.
    for (place, cell) in (1..).zip(parameters) {
        if let Some(index) = prepared.parameter_index(&format!("${place}"))? {
            bind(&mut prepared, index, std::slice::from_ref(cell))?;
        }
    }
    let columns = prepared.column_count();
    let mut found = prepared.raw_query();
    while let Some(row) = found.next()? {
        take(read_row(row, columns, sql)?)?;
    }
    Ok(())
}

fn read_row(row: &rusqlite::Row<'_>, columns: usize, sql: &str) -> Result<Row, StoreError> {
    let cells = (0..columns).map(|column| match row.get_ref(column)? {
        ValueRef::Integer(value) => Ok(Cell::Int(value)),
        ValueRef::Text(text) => Ok(Cell::Text(String::from_utf8_lossy(text).into_owned())),
        ValueRef::Null => Ok(Cell::Text(String::new())),
        ValueRef::Real(_) | ValueRef::Blob(_) => Err(StoreError::Corrupt {
            table: sql.chars().take(60).collect(),
            column: column.to_string(),
            what: "neither a number nor a text".to_owned(),
        }),
    });
    Ok(Row(cells.collect::<Result<_, _>>()?))
}

fn read_event(row: &rusqlite::Row<'_>) -> Result<StoredEvent, rusqlite::Error> {
    Ok(StoredEvent {
        position: row.get(0)?,
        aggregate_type: row.get(1)?,
        aggregate_id: row.get(2)?,
        sequence: row.get(3)?,
        event_type: row.get(4)?,
        event_version: row.get(5)?,
        payload: row.get(6)?,
        metadata: row.get(7)?,
        recorded_at_ms: row.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{LOAD, LOAD_BARE};
    use super::*;

    #[test]
    fn what_a_command_reads_is_found_by_its_key_in_a_statement_that_is_planned_once() {
        let mut connection = connect(":memory:", READ_WRITE).unwrap();
        migrate::sqlite(&mut connection, 0).unwrap();
        let plan = |sql: &str, given: &[&dyn rusqlite::ToSql]| -> String {
            let explain = format!("EXPLAIN QUERY PLAN {sql}");
            connection.query_row(&explain, given, |row| row.get("detail")).unwrap()
        };
        let latest = plan(LATEST_END, params![BUCKET, 439, 1]);
        assert!(latest.contains("(bucket=? AND member_id=?)"), "{latest}");
        for sql in [LOAD, LOAD_BARE] {
            let mut load = connection.prepare(sql).unwrap();
            let stream: [&dyn rusqlite::ToSql; 4] = [&"coupon", &"1", &BUCKET, &7];
            let given = &stream[..load.parameter_count()];
            let found = plan(sql, given);
            assert!(found.contains("(aggregate_type=? AND aggregate_id=?)"), "{found}");
            for _ in 1..10 {
                assert!(load.query(given).unwrap().next().unwrap().is_none());
            }
            assert_eq!(load.get_status(rusqlite::StatementStatus::RePrepare), 0, "{sql}");
        }
    }
}
