//! Replay on PostgreSQL: scans on connections of the pool, the rebuild by COPY on one of its own.

use std::fmt::Write as _;

use futures::TryStreamExt as _;
use sqlx::{Executor as _, PgConnection, Row as _};

use super::super::replay::{
    COUNT_ISSUED, COUNT_MEMBERS, EventRef, IdRange, SCAN, Visitor, by_table, stock_rows,
};
use super::super::{BUCKET, Cell, Column, LiveRow, StoreError};
use super::{PostgresStore, lock_head};

impl PostgresStore {
    pub(in crate::store) async fn scan<V: Visitor>(
        &self,
        kind: &'static str,
        range: IdRange,
        mut visitor: V,
    ) -> Result<V, StoreError> {
        let query = sqlx::query(SCAN).bind(kind).bind(range.from).bind(range.until).bind(BUCKET);
        let mut rows = query.fetch(&self.inner.pool);
        while let Some(row) = rows.try_next().await? {
            visitor.meet(EventRef {
                position: row.try_get(0)?,
                aggregate_type: kind,
                aggregate_id: row.try_get(1)?,
                sequence: row.try_get(2)?,
                event_type: row.try_get(3)?,
                event_version: row.try_get(4)?,
                payload: row.try_get(5)?,
            });
        }
        drop(rows);
        Ok(visitor)
    }

    pub(in crate::store) async fn begin_rebuild(
        &self,
        tables: &[&'static str],
    ) -> Result<Rebuilding, StoreError> {
        let mut connection = self.connect_writer().await?;
        lock_head(&mut connection).await?;
        // Whole tables are read and written here: the settings for single rows would be in the way.
        connection
            .execute(
                "SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on;
                 SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL maintenance_work_mem = '128MB'",
            )
            .await?;
        let mut indexes = Vec::new();
        for table in tables {
            // The primary key as well: rows come in the order of the log, and one sorted build is cheaper than a search for
            // the place of each.
            let found: Vec<(String, String)> = sqlx::query_as(
                "SELECT CASE WHEN k.oid IS NULL THEN format('DROP INDEX %I', c.relname)
                             ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', i.indrelid::regclass, k.conname) END,
                        CASE WHEN k.oid IS NULL THEN pg_get_indexdef(i.indexrelid)
                             ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', i.indrelid::regclass, k.conname,
                                         pg_get_constraintdef(k.oid)) END
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid
                 WHERE i.indrelid = $1::text::regclass ORDER BY i.indisprimary DESC, c.relname",
            )
            .bind(table)
            .fetch_all(&mut connection)
            .await?;
            for (drop, create) in found {
                connection.execute(drop.as_str()).await?;
                indexes.push(create);
            }
        }
        let all = tables.join(", ");
        connection.execute(format!("TRUNCATE {all}, member_counts_v1, stock_v1").as_str()).await?;
        Ok(Rebuilding { connection, indexes })
    }
}

/// A rebuild under way.
pub struct Rebuilding {
    connection: PgConnection,
    indexes: Vec<String>,
}

impl Rebuilding {
    pub(in crate::store) async fn insert(&mut self, rows: &[LiveRow]) -> Result<(), StoreError> {
        for (table, rows) in by_table(rows) {
            let names: Vec<&str> = table.columns.iter().copied().map(Column::name).collect();
            let copy = format!("COPY {} (bucket, {}) FROM STDIN", table.name, names.join(", "));
            let mut into = self.connection.copy_in_raw(&copy).await?;
            let sent = into.send(copy_text(&rows).into_bytes()).await.map(|_| ());
            match sent {
                Ok(()) => into.finish().await?,
                Err(error) => {
                    let _ = into.abort("the rows could not be sent").await;
                    return Err(error.into());
                }
            };
        }
        Ok(())
    }

    pub(in crate::store) async fn finish(mut self, stock: Vec<(i64, Option<i64>)>) -> Result<(), StoreError> {
        for index in &self.indexes {
            self.connection.execute(index.as_str()).await?;
        }
        self.connection.execute(COUNT_MEMBERS).await?;
        let issued = self.connection.fetch_all(COUNT_ISSUED).await?;
        let issued: Vec<(i64, i64)> = issued
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, sqlx::Error>>()?;
        for row in stock_rows(&stock, &issued) {
            let insert =
                "INSERT INTO stock_v1 (bucket, definition_id, stock, issued) VALUES ($1, $2, $3, $4)";
            let query = row.iter().fold(sqlx::query(insert), |query, value| query.bind(*value));
            query.execute(&mut self.connection).await?;
        }
        self.connection.execute("COMMIT").await?;
        self.connection.execute("ANALYZE wallet_v1").await?;
        Ok(())
    }
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
