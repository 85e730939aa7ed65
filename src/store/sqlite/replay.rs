//! Replay on SQLite: scans on the reading threads, the rebuild on the writing one.

use rusqlite::{Connection, params};

use super::super::replay::{
    COUNT_ISSUED, COUNT_MEMBERS, EventRef, IdRange, SCAN, Visitor, by_table, stock_rows,
};
use super::super::{BUCKET, LiveRow, StoreError};
use super::{SqliteStore, bind, end_process_on_io_error, upsert_sql};

/// Where the indexes' own words wait while the tables are filled.
const INDEXES: &str = "temp.rebuilt_indexes";

impl SqliteStore {
    pub(in crate::store) async fn scan<V: Visitor>(
        &self,
        kind: &'static str,
        range: IdRange,
        mut visitor: V,
    ) -> Result<V, StoreError> {
        let scan = move |connection: &mut Connection| -> Result<V, StoreError> {
            let mut statement = connection.prepare_cached(SCAN)?;
            let mut rows = statement.query(params![kind, range.from, range.until, BUCKET])?;
            while let Some(row) = rows.next()? {
                let text = |column| -> Result<&str, StoreError> {
                    Ok(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?)
                };
                visitor.meet(EventRef {
                    position: row.get(0)?,
                    aggregate_type: kind,
                    aggregate_id: text(1)?,
                    sequence: row.get(2)?,
                    event_type: text(3)?,
                    event_version: text(4)?,
                    payload: text(5)?,
                });
            }
            Ok(visitor)
        };
        self.inner.readers.run(false, scan).await?
    }

    pub(in crate::store) async fn begin_rebuild(&self, tables: Vec<&'static str>) -> Result<(), StoreError> {
        self.rebuilding(move |connection| {
            connection.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {INDEXES} (sql TEXT); DELETE FROM {INDEXES}; BEGIN IMMEDIATE"
            ))?;
            for table in tables {
                let own = "FROM sqlite_master WHERE type = 'index' AND tbl_name = ?1 AND sql IS NOT NULL";
                connection.execute(&format!("INSERT INTO {INDEXES} SELECT sql {own}"), [table])?;
                let mut names = connection.prepare(&format!("SELECT name {own}"))?;
                let names: Vec<String> =
                    names.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
                for name in names {
                    connection.execute_batch(&format!("DROP INDEX {name}"))?;
                }
                connection.execute_batch(&format!("DELETE FROM {table}"))?;
            }
            connection.execute_batch("DELETE FROM member_counts_v1; DELETE FROM stock_v1")?;
            Ok(())
        })
        .await
    }

    pub(in crate::store) async fn insert_rebuilt(&self, rows: Vec<LiveRow>) -> Result<(), StoreError> {
        self.rebuilding(move |connection| {
            for (table, rows) in by_table(&rows) {
                let mut insert = connection.prepare_cached(&upsert_sql(table))?;
                for row in rows {
                    insert.raw_bind_parameter(1, BUCKET)?;
                    bind(&mut insert, 2, &row.cells)?;
                    insert.raw_execute()?;
                }
            }
            Ok(())
        })
        .await
    }

    pub(in crate::store) async fn finish_rebuild(
        &self,
        stock: Vec<(i64, Option<i64>)>,
    ) -> Result<(), StoreError> {
        self.rebuilding(move |connection| {
            let mut indexes = connection.prepare(&format!("SELECT sql FROM {INDEXES}"))?;
            let indexes: Vec<String> = indexes.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            for index in indexes {
                connection.execute_batch(&index)?;
            }
            connection.execute_batch(COUNT_MEMBERS)?;
            let mut issued = connection.prepare(COUNT_ISSUED)?;
            let issued: Vec<(i64, i64)> =
                issued.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
            let mut insert = connection.prepare(
                "INSERT INTO stock_v1 (bucket, definition_id, stock, issued) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for row in stock_rows(&stock, &issued) {
                insert.execute(row)?;
            }
            connection.execute_batch(&format!("COMMIT; DROP TABLE {INDEXES}"))?;
            Ok(())
        })
        .await
    }

    pub(in crate::store) async fn abandon_rebuild(&self) -> Result<(), StoreError> {
        self.rebuilding(|connection| {
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            connection.execute_batch(&format!("DROP TABLE IF EXISTS {INDEXES}"))?;
            Ok(())
        })
        .await
    }

    /// A step of the rebuild on the writing connection; after a failure nothing of it is left.
    async fn rebuilding(
        &self,
        step: impl FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let step = move |connection: &mut Connection| {
            let done = step(connection);
            if let Err(error) = &done {
                if let StoreError::Sqlite(error) = error {
                    end_process_on_io_error(error);
                }
                // Where the failed statement has ended the transaction itself, there is nothing to roll back.
                let _ = connection.execute_batch("ROLLBACK");
            }
            done
        };
        self.inner.writer.run(true, step).await?
    }
}
