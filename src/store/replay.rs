//! Reading the log stream by stream.

use super::{Store, StoreError};

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
    /// All decimal ids, cut where their first three digits change: parts that are read side by side, and few enough
    /// rows each to be held at a time.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut ranges = Vec::with_capacity(999);
        for prefix in 1..=999_i64 {
            let from = prefix.to_string();
            // A prefix of one or two digits stands for itself alone; "100" for every id that begins with it.
            let until = if prefix < 100 { format!("{from}0") } else { format!("{from}:") };
            ranges.push(Self { from, until });
        }
        ranges
    }
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
}

#[cfg(test)]
mod tests {
    use super::IdRange;

    #[test]
    fn every_id_is_in_exactly_one_range() {
        let ranges = IdRange::all();
        for id in (1..2_000_i64).chain([9_999_999, 1_000_000, (1 << 53) - 1]) {
            let id = id.to_string();
            let within = ranges.iter().filter(|range| range.from <= id && id < range.until).count();
            assert_eq!(within, 1, "{id}");
        }
    }
}
