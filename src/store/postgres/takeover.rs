//! Events of another ledger into PostgreSQL, by COPY.

use std::fmt::Write as _;

use sqlx::Connection as _;

use super::super::takeover::{NOBODYS_EPOCH, somebody_else};
use super::super::{BUCKET, StoreError, StoredEvent};
use super::PostgresStore;
use super::rebuild::put_copied;

const COPY: &str =
    "COPY events (bucket, position, aggregate_type, aggregate_id, sequence, event_type, event_version,
                                 payload, metadata, recorded_at_ms) FROM STDIN";

impl PostgresStore {
    pub(in crate::store) async fn take_events(&self, events: &[StoredEvent]) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let mut connection = self.inner.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        let moved = sqlx::query(
            "UPDATE log_head SET position = $1, last_ms = $2, turn = turn + 1
             WHERE bucket = $3 AND position = $4 AND epoch = $5",
        )
        .bind(last.position)
        .bind(last.recorded_at_ms)
        .bind(BUCKET)
        .bind(first.position - 1)
        .bind(NOBODYS_EPOCH)
        .execute(&mut *transaction)
        .await?;
        if moved.rows_affected() != 1 {
            return Err(somebody_else());
        }
        let mut text = String::new();
        for event in events {
            put_line(&mut text, event);
        }
        let mut into = transaction.copy_in_raw(COPY).await?;
        match into.send(text.into_bytes()).await.map(|_| ()) {
            Ok(()) => into.finish().await?,
            Err(error) => {
                let _ = into.abort("the events could not be sent").await;
                return Err(error.into());
            }
        };
        Ok(transaction.commit().await?)
    }
}

/// JSON columns keep the text that COPY gives them.
fn put_line(text: &mut String, event: &StoredEvent) {
    let _ = write!(text, "{BUCKET}\t{}", event.position);
    for column in [&event.aggregate_type, &event.aggregate_id] {
        text.push('\t');
        put_copied(text, column);
    }
    let _ = write!(text, "\t{}", event.sequence);
    for column in [&event.event_type, &event.event_version, &event.payload, &event.metadata] {
        text.push('\t');
        put_copied(text, column);
    }
    let _ = writeln!(text, "\t{}", event.recorded_at_ms);
}
