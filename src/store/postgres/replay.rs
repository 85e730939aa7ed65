//! Replay on PostgreSQL: scans on connections of the pool.

use futures::TryStreamExt as _;
use sqlx::Row as _;

use super::super::replay::{EventRef, IdRange, SCAN, Visitor};
use super::super::{BUCKET, StoreError};
use super::PostgresStore;

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
}
