//! SQLite by hand: prepared statements in one transaction, the product's own settings and checkpoints.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use coupon_ledger::read_model::{REDEMPTIONS, WALLET};
use coupon_ledger::store::{Column, LiveTable};
use rusqlite::{CachedStatement, Connection, OpenFlags, params};

use super::sample::{self, CellOf, Sample, Samples};
use super::{Kind, MAX_WAL_BYTES, NARROW, Slots, Turns, migrate, round};
use crate::load::PLAIN;
use crate::measure::Round;
use crate::peers::Scattered;

const INSERT_EVENT: &str = "INSERT INTO events VALUES (0, ?1, 'coupon', ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

/// A database with coupons and one connection. Cheap to clone.
#[derive(Clone)]
pub struct Raw {
    inner: Arc<Inner>,
}

struct Inner {
    loaded: i64,
    samples: Samples,
    scattered: Scattered,
    wal: PathBuf,
    writer: Mutex<Writer>,
}

struct Writer {
    connection: Connection,
    turns: Turns,
}

impl Raw {
    /// Makes the product's tables in an empty folder, and fills them set by set with coupons in the product's shape:
    /// issued, opened by their holders, half of them with a receipt.
    pub async fn prepare(folder: &Path, loaded: i64) -> anyhow::Result<Self> {
        migrate(folder, None).await?;
        let path = folder.join("ledger.db");
        tokio::task::spawn_blocking(move || Self::load(&path, loaded)).await?
    }

    fn load(path: &Path, loaded: i64) -> anyhow::Result<Self> {
        let connection = Connection::open(path)?;
        // As the product's writer has them.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA recursive_triggers = ON;
             PRAGMA wal_autocheckpoint = 0;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -65536;",
        )?;
        connection.set_prepared_statement_cache_capacity(32);
        let samples = Samples::take()?;
        let at_ms = samples.at_ms;
        let metadata = format!(
            "replace('{}', 'member:0', 'member:' || g)",
            sample::metadata("member:0", "member", 0, None)
        );
        let series = format!(
            "WITH RECURSIVE s (g) AS (SELECT 1 WHERE {loaded} > 0 UNION ALL SELECT g + 1 FROM s WHERE g < {loaded})"
        );
        let event = |sample: &Sample, before: i64, sequence: i64| {
            format!(
                "{series} INSERT INTO events SELECT 0, {before} + g, 'coupon', CAST(g AS TEXT), {sequence}, '{}', '{}',
                 {}, {metadata}, {at_ms} FROM s",
                sample.event_type,
                sample.event_version,
                sample.payload_sql("CAST(g AS TEXT)"),
            )
        };
        let names: Vec<&str> = WALLET.columns.iter().copied().map(Column::name).collect();
        let statements = [
            "BEGIN".to_owned(),
            event(&samples.issued, 0, 1),
            event(&samples.viewed, loaded, 2),
            format!(
                "{series} INSERT INTO wallet_v1 (bucket, {}) SELECT 0, {} FROM s",
                names.join(", "),
                samples.viewed.wallet_sql("g")
            ),
            format!("{series} INSERT INTO member_counts_v1 SELECT 0, g, {PLAIN}, 1 FROM s"),
            format!(
                "{series} INSERT INTO receipts SELECT 0, 'member:' || g, 'couponinfo', 'load-' || g, '{0}{0}',
                 {loaded} + g, 1 FROM s WHERE g % 2 = 0",
                sample::hex(1)
            ),
            format!("INSERT INTO stock_v1 VALUES (0, {PLAIN}, -1, {loaded})"),
            format!("UPDATE log_head SET position = 2 * {loaded}, last_ms = {at_ms}"),
            format!("{NARROW} WITHOUT ROWID"),
            format!("{series} INSERT INTO narrow SELECT 0, g, 'viewed' FROM s"),
            "COMMIT".to_owned(),
            "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
        ];
        connection.execute_batch(&statements.join(";\n"))?;
        let inner = Inner {
            loaded,
            samples,
            scattered: Scattered::new(loaded),
            wal: path.with_extension("db-wal"),
            writer: Mutex::new(Writer { connection, turns: Turns::default() }),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Batches of one kind on one connection, one after the other, checkpoints included; times are a batch's.
    pub async fn round(&self, kind: Kind, batch: usize, duration: Duration) -> anyhow::Result<Round> {
        self.repeat(duration, batch, move |inner, writer| inner.write(writer, kind, batch)).await
    }

    /// One at a time: the stream is read, then one transaction writes what a redeem writes.
    pub async fn load_and_write(&self, duration: Duration) -> anyhow::Result<Round> {
        let one = |inner: &Inner, writer: &mut Writer| {
            let coupon = inner.scattered.at(writer.turns.redeem).to_string();
            let mut events = 0;
            {
                let mut load = writer.connection.prepare_cached(
                    "SELECT position, sequence, event_type, event_version, payload, metadata, recorded_at_ms FROM events
                     WHERE aggregate_type = 'coupon' AND aggregate_id = ?1 AND bucket = 0 ORDER BY sequence",
                )?;
                let mut rows = load.query([&coupon])?;
                while let Some(row) = rows.next()? {
                    std::hint::black_box(row.get::<_, String>(4)?);
                    events += 1;
                }
            }
            ensure!(events >= 2, "coupon {coupon} has {events} events");
            inner.write(writer, Kind::Redeem, 1)
        };
        self.repeat(duration, 1, one).await
    }

    async fn repeat(
        &self,
        duration: Duration,
        each: usize,
        one: impl Fn(&Inner, &mut Writer) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Round> {
        let inner = self.inner.clone();
        let on_its_thread = move || {
            let mut writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let started = Instant::now();
            let mut micros = Vec::new();
            while started.elapsed() < duration {
                let begun = Instant::now();
                one(&inner, &mut writer)?;
                if std::fs::metadata(&inner.wal).map_or(0, |file| file.len()) > MAX_WAL_BYTES {
                    writer.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
                }
                micros.push(begun.elapsed().as_micros() as u32);
            }
            Ok(round(micros.len() * each, started, micros))
        };
        tokio::task::spawn_blocking(on_its_thread).await?
    }
}

impl Inner {
    fn write(&self, writer: &mut Writer, kind: Kind, count: usize) -> anyhow::Result<()> {
        let Writer { connection, turns } = writer;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let head: i64 = connection
            .prepare_cached("SELECT position FROM log_head WHERE bucket = 0")?
            .query_row([], |row| row.get(0))?;
        let slots =
            Slots { position: head + 1, streams: turns.take(kind, &self.scattered, self.loaded, count) };
        connection
            .prepare_cached("UPDATE log_head SET position = ?1, last_ms = ?2 WHERE bucket = 0")?
            .execute((head + count as i64, self.samples.at_ms))?;
        match kind {
            Kind::Redeem => {
                self.events(connection, &self.samples.redeemed, &slots, true)?;
                self.receipts(connection, &slots)?;
                self.live(connection, &WALLET, &slots, |_, coupon| self.samples.redeemed.wallet(coupon))?;
                self.live(connection, &REDEMPTIONS, &slots, |position, coupon| {
                    self.samples.redeemed.redemption(coupon, position)
                })?;
            }
            Kind::Issue => {
                self.events(connection, &self.samples.issued, &slots, false)?;
                self.counters(connection, &slots)?;
                self.live(connection, &WALLET, &slots, |_, coupon| self.samples.issued.wallet(coupon))?;
            }
            Kind::Expire => {
                self.events(connection, &self.samples.expired, &slots, false)?;
                self.live(connection, &WALLET, &slots, |_, coupon| self.samples.expired.wallet(coupon))?;
            }
            Kind::TwoRows => {
                self.events(connection, &self.samples.redeemed, &slots, true)?;
                let mut upsert = connection.prepare_cached(
                    "INSERT INTO narrow VALUES (0, ?1, ?2)
                     ON CONFLICT (bucket, coupon_id) DO UPDATE SET state = excluded.state",
                )?;
                for (position, (coupon, _)) in (slots.position..).zip(&slots.streams) {
                    upsert.execute((coupon, format!("redeemed-{position}")))?;
                }
            }
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn events(
        &self,
        connection: &Connection,
        sample: &Sample,
        slots: &Slots,
        member: bool,
    ) -> anyhow::Result<()> {
        let mut insert = connection.prepare_cached(INSERT_EVENT)?;
        for (position, (coupon, sequence)) in (slots.position..).zip(&slots.streams) {
            let metadata = if member {
                let key = format!("redeem-{position}");
                sample::metadata(&sample::caller(*coupon), "member", position, Some(&key))
            } else {
                sample::metadata("system", "system", position, None)
            };
            insert.execute(params![
                position,
                coupon.to_string(),
                sequence,
                sample.event_type,
                sample.event_version,
                sample.payload(*coupon, position),
                metadata,
                self.samples.at_ms,
            ])?;
        }
        Ok(())
    }

    fn receipts(&self, connection: &Connection, slots: &Slots) -> anyhow::Result<()> {
        let mut insert =
            connection.prepare_cached("INSERT INTO receipts VALUES (0, ?1, 'auditcoupon', ?2, ?3, ?4, 1)")?;
        for (position, (coupon, _)) in (slots.position..).zip(&slots.streams) {
            let (key, mac) = (format!("redeem-{position}"), sample::hex(position).repeat(2));
            insert.execute((sample::caller(*coupon), key, mac, position))?;
        }
        Ok(())
    }

    fn counters(&self, connection: &Connection, slots: &Slots) -> anyhow::Result<()> {
        let mut insert = connection
            .prepare_cached("INSERT INTO receipts VALUES (0, 'system', 'issue', ?1, ?2, ?3, ?4)")?;
        let (key, mac) = (format!("run-{}", slots.position), sample::hex(slots.position).repeat(2));
        insert.execute((key, mac, slots.position, slots.streams.len()))?;
        let mut stock = connection.prepare_cached(
            "INSERT INTO stock_v1 VALUES (0, ?1, -1, ?2)
             ON CONFLICT (bucket, definition_id) DO UPDATE SET stock = excluded.stock, issued = excluded.issued",
        )?;
        stock.execute((PLAIN, slots.streams.last().map_or(0, |(coupon, _)| *coupon)))?;
        let mut upsert = connection.prepare_cached(
            "INSERT INTO member_counts_v1 VALUES (0, ?1, ?2, 2)
             ON CONFLICT (bucket, member_id, definition_id) DO UPDATE SET issued = excluded.issued",
        )?;
        for (member, _) in &slots.streams {
            upsert.execute((member, PLAIN))?;
        }
        Ok(())
    }

    /// Upserts of whole rows.
    fn live<'a, I: Iterator<Item = CellOf<'a>>>(
        &self,
        connection: &Connection,
        table: &LiveTable,
        slots: &Slots,
        row: impl Fn(i64, i64) -> I,
    ) -> anyhow::Result<()> {
        let mut upsert = connection.prepare_cached(&upsert_sql(table))?;
        for (position, (coupon, _)) in (slots.position..).zip(&slots.streams) {
            for (place, cell) in (1..).zip(row(position, *coupon)) {
                bind(&mut upsert, place, cell)?;
            }
            upsert.raw_execute()?;
        }
        Ok(())
    }
}

fn upsert_sql(table: &LiveTable) -> String {
    let names: Vec<_> = table.columns.iter().copied().map(Column::name).collect();
    let places: Vec<_> = (1..=names.len()).map(|place| format!("?{place}")).collect();
    let (keys, rest) = names.split_at(table.key_columns);
    let updates: Vec<_> = rest.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "INSERT INTO {} (bucket, {}) VALUES (0, {}) ON CONFLICT (bucket, {}) DO UPDATE SET {}",
        table.name,
        names.join(", "),
        places.join(", "),
        keys.join(", "),
        updates.join(", ")
    )
}

fn bind(statement: &mut CachedStatement<'_>, place: usize, cell: CellOf<'_>) -> rusqlite::Result<()> {
    match cell {
        CellOf::Int(value) => statement.raw_bind_parameter(place, value),
        CellOf::Text(text) => statement.raw_bind_parameter(place, text),
    }
}

/// Reads the rows of a ledger's log in order, up to so many, undecoded.
pub async fn read_rows(path: PathBuf, limit: i64) -> anyhow::Result<Round> {
    let read = move || {
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -32768;")?;
        let started = Instant::now();
        let mut statement = connection.prepare(
            "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                    recorded_at_ms
             FROM events WHERE bucket = 0 ORDER BY position LIMIT ?1",
        )?;
        let mut rows = statement.query([limit])?;
        let mut done = 0;
        while let Some(row) = rows.next()? {
            // Every column is fetched, none is copied.
            for column in 0..9 {
                std::hint::black_box(row.get_ref(column)?);
            }
            done += 1;
        }
        Ok(round(done, started, Vec::new()))
    };
    tokio::task::spawn_blocking(read).await?
}
