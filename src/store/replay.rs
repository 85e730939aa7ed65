//! Reading the log stream by stream.

use futures::Stream;

use super::{BUCKET, Statement, Store, StoreError};

/// Streams of one range.
const STREAMS_AT_A_TIME: i64 = 2_000;

/// An event as it is met in passing.
#[derive(Clone, Copy, Debug)]
pub struct EventRef<'a> {
    /// Its place in the log.
    pub position: i64,
    /// The aggregate's type.
    pub aggregate_type: &'a str,
    /// The aggregate's id.
    pub aggregate_id: &'a str,
    /// Its place in its stream.
    pub sequence: i64,
    /// The event's name.
    pub event_type: &'a str,
    /// The version of its shape.
    pub event_version: &'a str,
    /// The very bytes that were serialised.
    pub payload: &'a str,
}

/// Whoever meets events one after the other.
pub trait Visitor: Send + 'static {
    /// The next one.
    fn meet(&mut self, event: EventRef<'_>);
}

/// A part of the ids of one kind, from the first up to but without the last, as texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first.
    pub from: String,
    /// Behind the last.
    pub until: String,
}

impl IdRange {
    /// One stream alone.
    #[must_use]
    pub fn of(id: &str) -> Self {
        Self { from: id.to_owned(), until: behind(id) }
    }
}

/// The first text behind an id: both engines compare bytes, and none that PostgreSQL can hold lies between.
fn behind(id: &str) -> String {
    format!("{id}\u{1}")
}

/// One index walk.
pub(super) const SCAN: &str =
    "SELECT position, aggregate_id, sequence, event_type, event_version, CAST(payload AS TEXT)
     FROM events WHERE aggregate_type = $1 AND aggregate_id >= $2 AND aggregate_id < $3 AND bucket = $4
     ORDER BY aggregate_type, aggregate_id, sequence";

impl Store {
    /// Meets every event of one kind in a range of ids, stream by stream, each stream in order. Returns the visitor.
    pub async fn scan<V: Visitor>(
        &self,
        kind: &'static str,
        range: IdRange,
        visitor: V,
    ) -> Result<V, StoreError> {
        match self {
            Self::Sqlite(store) => store.scan(kind, range, visitor).await,
            Self::Postgres(store) => store.scan(kind, range, visitor).await,
        }
    }

    /// Every id of a kind behind one, in ranges of so many streams that each can be held at a time, however many there are.
    /// Ids that are no numbers are in them too: whoever folds their streams must meet them.
    pub fn ranges(
        &self,
        kind: &'static str,
        after_id: &str,
    ) -> impl Stream<Item = Result<IdRange, StoreError>> + Send + use<> {
        let from = if after_id.is_empty() { String::new() } else { behind(after_id) };
        self.ranges_from(kind, &from)
    }

    /// The same from where a range begins.
    pub fn ranges_from(
        &self,
        kind: &'static str,
        from: &str,
    ) -> impl Stream<Item = Result<IdRange, StoreError>> + Send + use<> {
        futures::stream::unfold((self.clone(), Some(from.to_owned())), move |(store, from)| async move {
            let from = from?;
            let sql = "SELECT aggregate_id FROM events
                       WHERE aggregate_type = $1 AND aggregate_id >= $2 AND sequence = 1 AND bucket = $3
                       ORDER BY aggregate_type, aggregate_id LIMIT 1 OFFSET $4";
            let cells = [kind.into(), from.as_str().into(), BUCKET.into(), STREAMS_AT_A_TIME.into()];
            match store.query(Statement::new(sql, cells)).await {
                Ok(mut rows) => {
                    let next = rows.first_mut().map(|row| row.take_text(0));
                    let until = next.clone().unwrap_or_else(|| char::MAX.to_string());
                    Some((Ok(IdRange { from, until }), (store, next)))
                }
                Err(error) => Some((Err(error), (store, None))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;
    use crate::store::{Scratch, StoredEvent};

    #[tokio::test]
    async fn every_id_is_in_exactly_one_range() {
        let scratch = Scratch::in_memory().await.unwrap();
        let mut ids: Vec<String> = (1..=4_500).map(|id: i64| id.to_string()).collect();
        ids.extend(["9007199254740991", "12!", "0x7", "~", "é"].map(str::to_owned));
        let event = |(position, id): (i64, &String)| StoredEvent {
            position,
            aggregate_type: "shop".to_owned(),
            aggregate_id: id.clone(),
            sequence: 1,
            event_type: "Opened".to_owned(),
            event_version: "1.0".to_owned(),
            payload: "{}".to_owned(),
            metadata: "{}".to_owned(),
            recorded_at_ms: 0,
        };
        scratch.put_events((1..).zip(&ids).map(event).collect()).await.unwrap();
        let store = scratch.store();
        let ranges: Vec<IdRange> = store.ranges("shop", "").try_collect().await.unwrap();
        assert_eq!(ranges.len(), 3);
        let behind: Vec<IdRange> = store.ranges("shop", "12").try_collect().await.unwrap();
        for id in &ids {
            let within = |ranges: &[IdRange]| {
                ranges.iter().filter(|range| range.from <= *id && *id < range.until).count()
            };
            assert_eq!(within(&ranges), 1, "{id}");
            assert_eq!(within(&behind), usize::from(id.as_str() > "12"), "{id}");
            assert_eq!(within(&[IdRange::of(id)]), 1, "{id}");
        }
        scratch.close().await;
    }
}
