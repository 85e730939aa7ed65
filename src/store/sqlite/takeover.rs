//! Events of another ledger into SQLite, on the writing connection.

use super::super::takeover::{NOBODYS_EPOCH, somebody_else};
use super::super::{BUCKET, StoreError, StoredEvent};
use super::scratch::insert_events;
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
                insert_events(connection, &events)
            })
        };
        self.inner.writer.run(false, take).await?
    }
}
