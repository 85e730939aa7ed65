//! Events of another ledger into SQLite, on the writing connection.

use rusqlite::params;

use super::super::takeover::{NOBODYS_EPOCH, somebody_else};
use super::super::{BUCKET, StoreError, StoredEvent};
use super::{SqliteStore, in_transaction};

impl SqliteStore {
    pub(in crate::store) async fn take_events(&self, events: Vec<StoredEvent>) -> Result<(), StoreError> {
        let take = move |connection: &mut rusqlite::Connection| {
            in_transaction(connection, |connection| {
                let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
                let moved = connection
                    .prepare_cached(
                        "UPDATE log_head SET position = ?1, last_ms = ?2
                         WHERE bucket = ?3 AND position = ?4 AND epoch = ?5",
                    )?
                    .execute((
                        last.position,
                        last.recorded_at_ms,
                        BUCKET,
                        first.position - 1,
                        NOBODYS_EPOCH,
                    ))?;
                if moved != 1 {
                    return Err(somebody_else());
                }
                let mut insert = connection.prepare_cached(
                    "INSERT INTO events (bucket, position, aggregate_type, aggregate_id, sequence, event_type,
                                         event_version, payload, metadata, recorded_at_ms)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                )?;
                for event in &events {
                    insert.execute(params![
                        BUCKET,
                        event.position,
                        event.aggregate_type,
                        event.aggregate_id,
                        event.sequence,
                        event.event_type,
                        event.event_version,
                        event.payload,
                        event.metadata,
                        event.recorded_at_ms,
                    ])?;
                }
                Ok(())
            })
        };
        self.inner.writer.run(false, take).await?
    }
}
