//! The end of the log, watched for all who wait for what comes next: one look at the head serves them all.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::store::{Store, StoreError};

/// How often the head is looked at while somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The log's end, as it was a moment ago.
pub struct Tail {
    store: Store,
    seen: Mutex<Option<(Instant, i64)>>,
}

impl Tail {
    /// The end of this log.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, seen: Mutex::new(None) }
    }

    /// Waits until there is an event behind this position.
    pub async fn beyond(&self, position: i64) -> Result<(), StoreError> {
        while self.head().await? <= position {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn head(&self) -> Result<i64, StoreError> {
        let mut seen = self.seen.lock().await;
        if let Some((at, head)) = *seen
            && at.elapsed() < LOOK_EVERY
        {
            return Ok(head);
        }
        let head = self.store.head().await?;
        *seen = Some((Instant::now(), head));
        Ok(head)
    }
}
