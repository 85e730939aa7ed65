//! Replay on SQLite: scans on the reading threads.

use rusqlite::{Connection, params};

use super::super::replay::{EventRef, IdRange, SCAN, Visitor};
use super::super::{BUCKET, StoreError};
use super::SqliteStore;

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
}
