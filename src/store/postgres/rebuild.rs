//! Rebuild on PostgreSQL: COPY into tables that nobody else knows yet, on a connection of its own.
//!
//! An advisory lock of that connection says that somebody rebuilds, so it ends with him, however he ends. The swap takes the
//! head first, because a writer on the long way holds it and then asks for tables; one on the short way holds tables and asks
//! for the head, so its turn is passed before. Whatever still stands in the way is given up to after a moment, and tried again.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Executor as _, Row as _};

use super::super::rebuild::{
    Change, Comparison, NEW, OLD, RowKey, Swap, Swapped, by_table, differences_sql, is_counter, nearer,
    part_sql, touched,
};
use super::super::{
    BUCKET, Cell, Column, LiveRow, LiveTable, Statement, StoreError, StoredEvent, StreamId, migrate,
};
use super::reads::{bound, read_row};
use super::{PostgresStore, lock_head};

/// Whoever holds it rebuilds.
const ONLY: i64 = 7_201_340_220;

/// Whole tables are read and written here: the settings for single rows would be in the way, and nobody waits.
const SETTINGS: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = '60s';
    SET enable_seqscan = on; SET enable_hashjoin = on; SET enable_mergejoin = on; SET plan_cache_mode = auto;
    SET maintenance_work_mem = '128MB'";

/// A turn that has passed: what a writer knew is known no longer, and no statement waits for the head with tables in its hands.
const PASS_TURN: &str = "UPDATE log_head SET turn = turn + 1 WHERE bucket = 0";

/// How often the tables are asked for, and how long a try may hold up members at first and at most: always less than the
/// second after which the database would break a deadlock, perhaps at a member's cost.
const TRIES: u32 = 12;
const FIRST_PATIENCE_MS: u64 = 100;
const MOST_PATIENCE_MS: u64 = 800;

/// How long an autovacuum is waited for, which the database ends within a second or so. Nobody waits behind this.
const VACUUM_PATIENCE_MS: u64 = 5_000;

const EVENT: &str =
    "SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload::text,
                            metadata::text, recorded_at_ms FROM events";

/// Who rebuilds.
pub struct Rebuilder {
    connection: PgConnection,
}

impl PostgresStore {
    pub(in crate::store) async fn rebuilder(&self) -> Result<Option<Rebuilder>, StoreError> {
        let mut connection = self.connect_writer().await?;
        connection.execute(SETTINGS).await?;
        let only: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(ONLY)
            .fetch_one(&mut connection)
            .await?;
        Ok(only.then_some(Rebuilder { connection }))
    }

    pub(in crate::store) async fn is_rebuilding(&self) -> Result<bool, StoreError> {
        // As pg_locks shows an advisory lock on one number: its upper half, and its lower.
        let sql = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
                                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                                  AND classid = ($1 >> 32)::int8::oid AND objid = ($1 & 4294967295)::int8::oid)";
        Ok(sqlx::query_scalar(sql).bind(ONLY).fetch_one(&self.inner.pool).await?)
    }

    pub(in crate::store) async fn repair<E: From<StoreError> + Send + 'static>(
        &self,
        stream: StreamId,
        keys: Vec<RowKey>,
        decide: impl FnOnce(Vec<StoredEvent>, Vec<Option<Vec<Cell>>>) -> Result<Change, E> + Send + 'static,
    ) -> Result<(), E> {
        let mut connection = self.connect_writer().await?;
        lock_head(&mut connection).await.map_err(StoreError::from)?;
        let events = of_stream(&mut connection, stream.kind, &stream.id.to_string()).await?;
        let mut found = Vec::with_capacity(keys.len());
        for key in &keys {
            found.push(row_at(&mut connection, key).await?);
        }
        // Where it is refused, the transaction ends with the connection.
        let change = decide(events, found)?;
        write_change(&mut connection, "", &change).await?;
        connection.execute(PASS_TURN).await.map_err(StoreError::from)?;
        connection.execute("COMMIT").await.map_err(StoreError::from)?;
        Ok(())
    }
}

fn event(row: &PgRow) -> Result<StoredEvent, sqlx::Error> {
    Ok(StoredEvent {
        position: row.try_get(0)?,
        aggregate_type: row.try_get(1)?,
        aggregate_id: row.try_get(2)?,
        sequence: row.try_get(3)?,
        event_type: row.try_get(4)?,
        event_version: row.try_get(5)?,
        payload: row.try_get(6)?,
        metadata: row.try_get(7)?,
        recorded_at_ms: row.try_get(8)?,
    })
}

async fn of_stream(
    connection: &mut PgConnection,
    kind: &str,
    id: &str,
) -> Result<Vec<StoredEvent>, StoreError> {
    let sql = format!(
        "{EVENT} WHERE aggregate_type = $1 AND aggregate_id = $2 AND bucket = {BUCKET} ORDER BY sequence"
    );
    let rows = sqlx::query(&sql).bind(kind).bind(id).fetch_all(connection).await?;
    Ok(rows.iter().map(event).collect::<Result<_, _>>()?)
}

/// The streams that events behind a position belong to.
async fn streams_behind(
    connection: &mut PgConnection,
    position: i64,
) -> Result<Vec<Vec<StoredEvent>>, StoreError> {
    let sql = format!("{EVENT} WHERE bucket = {BUCKET} AND position > $1 ORDER BY position");
    let rows = sqlx::query(&sql).bind(position).fetch_all(&mut *connection).await?;
    let events = rows.iter().map(event).collect::<Result<Vec<_>, _>>()?;
    let mut streams = Vec::new();
    for (kind, id) in touched(&events) {
        streams.push(of_stream(connection, &kind, &id).await?);
    }
    Ok(streams)
}

async fn row_at(connection: &mut PgConnection, key: &RowKey) -> Result<Option<Vec<Cell>>, StoreError> {
    let names: Vec<&str> = key.table.columns.iter().copied().map(Column::name).collect();
    let (keys, _) = names.split_at(key.table.key_columns.min(names.len()));
    let same: Vec<String> = keys.iter().zip(1..).map(|(name, place)| format!("{name} = ${place}")).collect();
    let sql = format!(
        "SELECT {} FROM {} WHERE bucket = {BUCKET} AND {}",
        names.join(", "),
        key.table.name,
        same.join(" AND ")
    );
    let parameters: Vec<Cell> = key.key.iter().copied().map(Cell::from).collect();
    let row = bound(&sql, &parameters).fetch_optional(connection).await?;
    Ok(row.map(|row| read_row(&row, 0)).transpose()?.map(|row| row.0))
}

/// Writes a change into the tables that have this behind their names.
async fn write_change(
    connection: &mut PgConnection,
    suffix: &str,
    change: &Change,
) -> Result<(), StoreError> {
    let mut gone: Vec<(&LiveTable, Vec<&RowKey>)> = Vec::new();
    for key in &change.gone {
        match gone.iter_mut().find(|(table, _)| std::ptr::eq(*table, key.table)) {
            Some((_, own)) => own.push(key),
            None => gone.push((key.table, vec![key])),
        }
    }
    for (table, keys) in gone {
        let names = table.columns.iter().take(table.key_columns).copied().map(Column::name);
        let names: Vec<&str> = names.collect();
        let arrays: Vec<String> = (1..=names.len()).map(|place| format!("${place}::bigint[]")).collect();
        let same: Vec<String> = names.iter().map(|name| format!("t.{name} = q.{name}")).collect();
        let sql = format!(
            "DELETE FROM {}{suffix} AS t USING unnest({}) AS q ({}) WHERE t.bucket = {BUCKET} AND {}",
            table.name,
            arrays.join(", "),
            names.join(", "),
            same.join(" AND ")
        );
        let column = |place: usize| -> Vec<i64> {
            keys.iter().map(|key| key.key.get(place).copied().unwrap_or_default()).collect()
        };
        let query = (0..names.len()).fold(sqlx::query(&sql), |query, place| query.bind(column(place)));
        query.execute(&mut *connection).await?;
    }
    for (table, rows) in by_table(&change.rows) {
        copy(connection, &format!("{}{suffix}", table.name), table, &rows).await?;
    }
    write_counters(connection, suffix, change).await
}

async fn write_counters(
    connection: &mut PgConnection,
    suffix: &str,
    change: &Change,
) -> Result<(), StoreError> {
    if !change.stock.is_empty() {
        let sql = format!(
            "INSERT INTO stock_v1{suffix} AS t (bucket, definition_id, stock, issued)
             SELECT {BUCKET}, q.id, q.stock, 0 FROM unnest($1::bigint[], $2::bigint[]) AS q (id, stock)
             ON CONFLICT (bucket, definition_id) DO UPDATE SET stock = excluded.stock"
        );
        let (keys, stock): (Vec<i64>, Vec<i64>) = change.stock.iter().unzip();
        sqlx::query(&sql).bind(keys).bind(stock).execute(&mut *connection).await?;
    }
    if !change.issued.is_empty() {
        let sql = format!(
            "INSERT INTO stock_v1{suffix} AS t (bucket, definition_id, stock, issued)
             SELECT {BUCKET}, q.id, 0, q.by FROM unnest($1::bigint[], $2::bigint[]) AS q (id, by)
             ON CONFLICT (bucket, definition_id) DO UPDATE SET issued = t.issued + excluded.issued"
        );
        let (keys, by): (Vec<i64>, Vec<i64>) = change.issued.iter().unzip();
        sqlx::query(&sql).bind(keys).bind(by).execute(&mut *connection).await?;
    }
    if !change.member_counts.is_empty() {
        let sql = format!(
            "INSERT INTO member_counts_v1{suffix} AS t (bucket, member_id, definition_id, issued)
             SELECT {BUCKET}, q.member_id, q.id, q.by
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS q (member_id, id, by)
             ON CONFLICT (bucket, member_id, definition_id) DO UPDATE SET issued = t.issued + excluded.issued"
        );
        let (keys, by): (Vec<(i64, i64)>, Vec<i64>) = change.member_counts.iter().unzip();
        let (members, definitions): (Vec<i64>, Vec<i64>) = keys.into_iter().unzip();
        sqlx::query(&sql).bind(members).bind(definitions).bind(by).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn copy(
    connection: &mut PgConnection,
    into: &str,
    table: &LiveTable,
    rows: &[&LiveRow],
) -> Result<(), StoreError> {
    let names: Vec<&str> = table.columns.iter().copied().map(Column::name).collect();
    let copy = format!("COPY {into} (bucket, {}) FROM STDIN", names.join(", "));
    let mut into = connection.copy_in_raw(&copy).await?;
    match into.send(copy_text(rows).into_bytes()).await.map(|_| ()) {
        Ok(()) => {
            into.finish().await?;
            Ok(())
        }
        Err(error) => {
            let _ = into.abort("the rows could not be sent").await;
            Err(error.into())
        }
    }
}

async fn run_all(connection: &mut PgConnection, statements: &[Statement]) -> Result<(), StoreError> {
    for statement in statements {
        bound(statement.sql, &statement.parameters).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Gives a new table the owner and the rights of the one that it is to replace, or of any live table where that is gone.
async fn take_after(connection: &mut PgConnection, table: &str) -> Result<(), StoreError> {
    let new = format!("{table}{NEW}");
    let orders: Vec<String> = sqlx::query_scalar(
        "WITH like_it AS (SELECT * FROM pg_class WHERE oid = COALESCE(to_regclass($1), to_regclass('receipts')))
         SELECT format('ALTER TABLE %I OWNER TO %I', $2, pg_get_userbyid(l.relowner)) FROM like_it l
         WHERE pg_get_userbyid(l.relowner) <> current_user
         UNION ALL
         SELECT format('GRANT %s ON %I TO %s', a.privilege_type, $2,
                       CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END)
         FROM like_it l, aclexplode(l.relacl) a WHERE a.grantee <> l.relowner",
    )
    .bind(table)
    .bind(&new)
    .fetch_all(&mut *connection)
    .await?;
    for order in orders {
        connection.execute(order.as_str()).await?;
    }
    Ok(())
}

/// `wallet_v1_by_end` → `wallet_v1_new_by_end`.
fn renamed(table: &str, suffix: &str, name: &str) -> String {
    format!("{table}{suffix}{}", name.strip_prefix(table).unwrap_or_default())
}

impl Rebuilder {
    /// Lets others rebuild.
    pub(in crate::store) async fn release(self) {
        // The lock ends with the connection in any case, but only once the database has seen that it is closed.
        let Self { mut connection } = self;
        for last in ["ROLLBACK", "SELECT pg_advisory_unlock_all()"] {
            if let Err(error) = connection.execute(last).await {
                tracing::debug!(%error, "the rebuild's connection");
            }
        }
        let _ = connection.close().await;
    }

    pub(in crate::store) async fn create(
        &mut self,
        tables: &[&'static LiveTable],
        also: Vec<Statement>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await?;
        for table in tables {
            let name = table.name;
            let made = migrate::definition(name, false, |own| renamed(name, NEW, own));
            for statement in made.iter().filter(|statement| !statement.contains(" INDEX ")) {
                transaction.execute(statement.as_str()).await?;
            }
            // Autovacuum would only stand in the way of the swap.
            let mut settle = format!("ALTER TABLE {name}{NEW} SET (autovacuum_enabled = off);");
            // The key of a table of rows is made once it is full: rows come in the order of the log, and one sorted build is
            // cheaper than a search for the place of each. Counters are added to from the start.
            if !is_counter(table) {
                let _ = write!(settle, "ALTER TABLE {name}{NEW} DROP CONSTRAINT {name}{NEW}_pkey;");
            }
            transaction.execute(settle.as_str()).await?;
            take_after(&mut transaction, name).await?;
        }
        run_all(&mut transaction, &also).await?;
        transaction.commit().await?;
        Ok(())
    }

    pub(in crate::store) async fn write(
        &mut self,
        change: &Change,
        also: Vec<Statement>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.connection.begin().await?;
        write_change(&mut transaction, NEW, change).await?;
        run_all(&mut transaction, &also).await?;
        transaction.commit().await?;
        Ok(())
    }

    pub(in crate::store) async fn index(&mut self, tables: &[&'static LiveTable]) -> Result<(), StoreError> {
        for table in tables {
            let name = table.name;
            let key = format!("{name}{NEW}_pkey");
            let has_key: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
                .bind(&key)
                .fetch_one(&mut self.connection)
                .await?;
            if !has_key {
                let columns = table.columns.iter().take(table.key_columns).copied().map(Column::name);
                let columns = columns.collect::<Vec<_>>().join(", ");
                let add =
                    format!("ALTER TABLE {name}{NEW} ADD CONSTRAINT {key} PRIMARY KEY (bucket, {columns})");
                self.connection.execute(add.as_str()).await?;
            }
            let made = migrate::definition(name, false, |own| renamed(name, NEW, own));
            for statement in made.iter().filter(|statement| statement.contains(" INDEX ")) {
                let statement = statement.replacen(" INDEX ", " INDEX IF NOT EXISTS ", 1);
                self.connection.execute(statement.as_str()).await?;
            }
            self.connection.execute(format!("ANALYZE {name}{NEW}").as_str()).await?;
        }
        Ok(())
    }

    pub(in crate::store) async fn compare(
        &mut self,
        table: &'static LiveTable,
        after: Option<&[i64]>,
    ) -> Result<Comparison, StoreError> {
        let mut snapshot = self.connection.begin().await?;
        // Each part is a range of the primary key, however little the planner knows of a table that is new.
        snapshot
            .execute(
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = off",
            )
            .await?;
        let head: i64 = sqlx::query_scalar("SELECT position FROM log_head WHERE bucket = $1")
            .bind(BUCKET)
            .fetch_one(&mut *snapshot)
            .await?;
        let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(table.name)
            .fetch_one(&mut *snapshot)
            .await?;
        let new = format!("{}{NEW}", table.name);
        let old = exists.then_some(table.name);
        let mut until = None;
        for from in [Some(new.as_str()), old].into_iter().flatten() {
            let sql = part_sql(from, table, after);
            let last = sqlx::query(&sql).persistent(false).fetch_optional(&mut *snapshot).await?;
            let last = last.map(|row| read_row(&row, 0)).transpose()?;
            let last = last.map(|row| (0..table.key_columns).map(|place| row.int(place)).collect());
            until = nearer(until, last);
        }
        let sql = differences_sql(old, &new, table, after, until.as_deref());
        let mut comparison = Comparison { until, head, ..Comparison::default() };
        for row in sqlx::query(&sql).persistent(false).fetch_all(&mut *snapshot).await? {
            let row = read_row(&row, 0)?;
            let side = row.int(0);
            comparison.take(table, side, row.0.into_iter().skip(1).collect());
        }
        snapshot.rollback().await?;
        Ok(comparison)
    }

    pub(in crate::store) async fn swap<E: From<StoreError> + Send + 'static>(
        &mut self,
        swap: Swap,
        fold: impl FnOnce(Vec<Vec<StoredEvent>>, i64) -> Result<(Change, Vec<Statement>), E> + Send + 'static,
    ) -> Result<Swapped, E> {
        let mut patience_ms = FIRST_PATIENCE_MS;
        for _ in 0..TRIES {
            if !self.lock_tables(&swap.tables, "SHARE UPDATE EXCLUSIVE", VACUUM_PATIENCE_MS).await? {
                continue;
            }
            let locked = lock_head(&mut self.connection).await;
            let begun = Instant::now();
            let head = locked.map_err(StoreError::from)?.position;
            if head - swap.position > swap.most {
                self.connection.execute("ROLLBACK").await.map_err(StoreError::from)?;
                return Ok(Swapped::Behind);
            }
            if self.lock_tables(&swap.tables, "ACCESS EXCLUSIVE", patience_ms).await? {
                return match self.swap_locked(&swap, head, fold).await {
                    Ok(()) => Ok(Swapped::Done { head, held: begun.elapsed() }),
                    Err(error) => {
                        // Already failed, it may be; the connection is not used again then.
                        let _ = self.connection.execute("ROLLBACK").await;
                        Err(error)
                    }
                };
            }
            // Whoever was in the way, or was held up, goes first.
            tokio::time::sleep(Duration::from_millis(patience_ms)).await;
            patience_ms = (patience_ms * 2).min(MOST_PATIENCE_MS);
        }
        Ok(Swapped::Behind)
    }

    /// Waits so long for all tables at most; false when that was not enough, and nothing is held. The weaker mode hinders
    /// neither pages nor appends, but ends an autovacuum and lets none begin; it is asked for first, in a transaction that
    /// begins with it.
    async fn lock_tables(
        &mut self,
        tables: &[&'static LiveTable],
        mode: &str,
        patience_ms: u64,
    ) -> Result<bool, StoreError> {
        if mode != "ACCESS EXCLUSIVE" {
            self.connection.execute(PASS_TURN).await?;
            self.connection.execute("BEGIN").await?;
        }
        let names: Vec<String> = tables.iter().map(|table| table.name.to_owned()).collect();
        let live: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM unnest($1::text[]) AS q (name) WHERE to_regclass(name) IS NOT NULL",
        )
        .bind(&names)
        .fetch_all(&mut self.connection)
        .await?;
        let mut lock = format!("SET LOCAL lock_timeout = {patience_ms};");
        if !live.is_empty() {
            let _ = write!(lock, "LOCK TABLE {} IN {mode} MODE", live.join(", "));
        }
        match self.connection.execute(lock.as_str()).await {
            Ok(_) => Ok(true),
            // 55P03: not in time. 40P01: somebody waited for us in turn.
            Err(sqlx::Error::Database(error))
                if ["55P03", "40P01"].contains(&error.code().unwrap_or_default().as_ref()) =>
            {
                self.connection.execute("ROLLBACK").await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn swap_locked<E: From<StoreError>>(
        &mut self,
        swap: &Swap,
        head: i64,
        fold: impl FnOnce(Vec<Vec<StoredEvent>>, i64) -> Result<(Change, Vec<Statement>), E>,
    ) -> Result<(), E> {
        let connection = &mut self.connection;
        let streams = streams_behind(connection, swap.position).await?;
        let (change, also) = fold(streams, head)?;
        write_change(connection, NEW, &change).await?;
        let renames = renames(connection, &swap.tables).await?;
        connection.execute(renames.as_str()).await.map_err(StoreError::from)?;
        run_all(connection, &also).await?;
        connection.execute(PASS_TURN).await.map_err(StoreError::from)?;
        connection.execute("COMMIT").await.map_err(StoreError::from)?;
        Ok(())
    }

    pub(in crate::store) async fn drop_tables(
        &mut self,
        tables: &[(&'static LiveTable, &'static str)],
        also: Vec<Statement>,
    ) -> Result<(), StoreError> {
        // One at a time: a statement that was planned before a swap asks once more for all the tables it knew, and must not
        // meet somebody who holds some of them and waits for the others.
        for (table, suffix) in tables {
            let drop = format!("DROP TABLE IF EXISTS {}{suffix}", table.name);
            self.connection.execute(drop.as_str()).await?;
        }
        let mut transaction = self.connection.begin().await?;
        run_all(&mut transaction, &also).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Every ALTER by which the live tables and their indexes become the old ones, and the new ones live.
async fn renames(connection: &mut PgConnection, tables: &[&'static LiveTable]) -> Result<String, StoreError> {
    let mut orders = String::new();
    for (from, to) in [("", OLD), (NEW, "")] {
        let names: Vec<String> = tables.iter().map(|table| format!("{}{from}", table.name)).collect();
        let found: Vec<(i64, String)> = sqlx::query_as(
            "SELECT q.place, c.relname::text FROM unnest($1::text[]) WITH ORDINALITY AS q (name, place)
             JOIN pg_class c ON c.oid = to_regclass(q.name)
               OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = to_regclass(q.name))
             ORDER BY q.place, c.relkind DESC",
        )
        .bind(&names)
        .fetch_all(&mut *connection)
        .await?;
        for (place, name) in found {
            let table = usize::try_from(place - 1).ok().and_then(|place| tables.get(place));
            let Some(table) = table.map(|table| table.name) else { continue };
            // An index of somebody else's stays with the table that it was made on, under its name.
            let Some(behind) = name.strip_prefix(&format!("{table}{from}")) else { continue };
            let what = if behind.is_empty() { "TABLE" } else { "INDEX" };
            let _ = write!(orders, "ALTER {what} \"{name}\" RENAME TO \"{table}{to}{behind}\";");
        }
        if from == NEW {
            for table in tables {
                let _ = write!(orders, "ALTER TABLE {} RESET (autovacuum_enabled);", table.name);
            }
        }
    }
    Ok(orders)
}

/// A text in COPY's text format.
pub(super) fn put_copied(into: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '\\' => into.push_str("\\\\"),
            '\t' => into.push_str("\\t"),
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            other => into.push(other),
        }
    }
}

/// Rows in COPY's text format.
fn copy_text(rows: &[&LiveRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let _ = write!(text, "{BUCKET}");
        for cell in &row.cells {
            text.push('\t');
            match cell {
                Cell::Int(value) => {
                    let _ = write!(text, "{value}");
                }
                Cell::Text(value) => put_copied(&mut text, value),
            }
        }
        text.push('\n');
    }
    text
}
