//! What happened: the events of a stream, or of whoever caused them, each with who, through what, and what it changed.
//!
//! Everything is read from the log and folded here; no live row is asked. Memory is that of one page and its streams,
//! however long the log is. An event that cannot be read is an error that names its place, never a gap in a history.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::kinds::Kind;
use crate::clock::Zone;
use crate::entity::CorruptEvent;
use crate::read_model::readings::readings_of;
use crate::reading::Person;
use crate::refusals::RefusalsEvent;
use crate::store::{BUCKET, Statement, Store, StoreError, StoredEvent, StreamId};

/// How many positions one statement looks through for a caller's events: a bounded read transaction each.
const SLAB: i64 = 5_000;

/// Why a history cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event cannot be understood.
    #[error("corrupt event: {0}")]
    Corrupt(#[from] Box<CorruptEvent>),
}

/// A field of a stream's state that an event changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `redemptions[0].reversed_at_ms`
    pub path: String,
    /// What it held; null = it was not there.
    pub before: Value,
    /// What it holds; null = it is there no more.
    pub after: Value,
}

/// One event of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its place in the log.
    pub position: i64,
    /// `coupon/439`
    pub stream: String,
    /// Its place in its stream, from 1.
    pub sequence: i64,
    /// The event's name.
    pub r#type: String,
    /// The version of its shape.
    pub version: String,
    /// Unix milliseconds.
    pub recorded_at_ms: i64,
    /// The same in the merchant's zone: `2018-11-24 10:31:41`.
    pub recorded_at: String,
    /// Who: `member:439`, `employee:1000`, `operator` …
    pub caller: Option<String>,
    /// The request that it came with.
    pub request_id: Option<String>,
    /// The key under which the request was made.
    pub idempotency_key: Option<String>,
    /// What caused it: the request, or a job.
    pub causation_id: Option<String>,
    /// What it all belongs to.
    pub correlation_id: Option<String>,
    /// What happened, in words.
    pub words: String,
    /// What of the stream's state it changed; empty for a first event, which made all of it.
    pub changes: Vec<Change>,
    /// The state before; null before the first event.
    pub before: Value,
    /// The state after.
    pub after: Value,
}

/// Which part of the log is meant: behind one position, up to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Behind this position.
    pub after: i64,
    /// Up to this one.
    pub until: i64,
}

impl Span {
    fn holds(self, position: i64) -> bool {
        self.after < position && position <= self.until
    }
}

/// The events of one stream that lie in a part of the log, at most so many; an unknown stream has none.
pub async fn of_stream(
    store: &Store,
    (kind, id): (&'static Kind, i64),
    span: Span,
    limit: usize,
    zone: Zone,
) -> Result<Vec<Entry>, HistoryError> {
    let mut stream = store.load_one(StreamId { kind: kind.name, id }).await?;
    stream.retain(|event| event.position <= span.until);
    let wanted: BTreeSet<i64> =
        stream.iter().map(|event| event.position).filter(|at| span.holds(*at)).take(limit).collect();
    tell(kind, &stream, &wanted, zone)
}

/// Who has read somebody's personal data, in a part of the log, at most so many. Found by the live rows, so that the log is
/// not walked; told from the events.
pub async fn of_readers(
    store: &Store,
    person: Person,
    span: Span,
    limit: usize,
    zone: Zone,
) -> Result<Vec<Entry>, HistoryError> {
    let until = if span.until == i64::MAX { last_position(store).await? } else { span.until };
    let limit = limit.try_into().unwrap_or(i64::MAX);
    let found = readings_of(store, person, (span.after, until), limit).await?;
    let found: Vec<_> =
        found.into_iter().map(|(position, id)| (position, "reading".to_owned(), id)).collect();
    tell_each(store, &found, zone).await
}

/// A part of what somebody did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deeds {
    /// The events, in order.
    pub entries: Vec<Entry>,
    /// The last position that was looked at: where to go on.
    pub next_after: i64,
}

/// What a caller did in a part of the log, in order. Returns with `limit` events, or when `look_at` positions have been
/// looked at or the part or the log has ended; `next_after` then tells whether there may be more.
pub async fn of_caller(
    store: &Store,
    caller: &str,
    span: Span,
    (limit, look_at): (usize, i64),
    zone: Zone,
) -> Result<Deeds, HistoryError> {
    let until = span.until.min(last_position(store).await?).min(span.after.saturating_add(look_at));
    let mut found: Vec<(i64, String, i64)> = Vec::new();
    let mut after = span.after;
    while after < until && found.len() < limit {
        let to = until.min(after.saturating_add(SLAB));
        let more = caused_by(store, caller, Span { after, until: to }, limit - found.len()).await?;
        let full = found.len() + more.len() == limit;
        found.extend(more);
        after = found.last().filter(|_| full).map_or(to, |(position, ..)| *position);
    }
    Ok(Deeds { entries: tell_each(store, &found, zone).await?, next_after: after })
}

/// The last event's position.
async fn last_position(store: &Store) -> Result<i64, StoreError> {
    let sql = "SELECT COALESCE(MAX(position), 0) FROM events WHERE bucket = $1";
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

/// Position and stream of what a caller caused.
async fn caused_by(
    store: &Store,
    caller: &str,
    span: Span,
    limit: usize,
) -> Result<Vec<(i64, String, i64)>, HistoryError> {
    // The database leaves out most; whether the text is the caller is read from the metadata itself.
    // What he was refused was written down by the ledger, with what others were.
    let sql = "SELECT position, aggregate_type, aggregate_id, CAST(metadata AS TEXT),
                      CASE WHEN aggregate_type = 'refusals' THEN CAST(payload AS TEXT) ELSE '' END
               FROM events
               WHERE bucket = $1 AND position > $2 AND position <= $3
                 AND (CAST(metadata AS TEXT) LIKE $4
                      OR aggregate_type = 'refusals' AND CAST(payload AS TEXT) LIKE $4)
               ORDER BY position";
    let parameters = [BUCKET.into(), span.after.into(), span.until.into(), format!("%{caller}%").into()];
    let mut caused = Vec::new();
    for row in store.query(Statement::new(sql, parameters)).await? {
        let position = row.int(0);
        let caused_it = metadata(position, row.text(3))?.get("caller").is_some_and(|by| by == caller);
        if caused_it || was_refused(row.text(4), caller) {
            let id = row.text(2).parse().map_err(|_| corrupt(position, "aggregate_id", "no number"))?;
            caused.push((position, row.text(1).to_owned(), id));
        }
        if caused.len() == limit {
            break;
        }
    }
    Ok(caused)
}

/// Whether these refusals name somebody; what cannot be read is met again, and named, when it is told.
fn was_refused(payload: &str, caller: &str) -> bool {
    match serde_json::from_str(payload) {
        Ok(RefusalsEvent::Gathered { refused, .. }) => refused.iter().any(|one| one.caller == caller),
        Err(_) => false,
    }
}

/// Tells events of many streams, each stream read once.
async fn tell_each(
    store: &Store,
    found: &[(i64, String, i64)],
    zone: Zone,
) -> Result<Vec<Entry>, HistoryError> {
    let mut streams: BTreeMap<StreamId, BTreeSet<i64>> = BTreeMap::new();
    for (position, kind, id) in found {
        let unknown = || corrupt(*position, "aggregate_type", "no kind of stream that this program knows");
        let kind = Kind::named(kind).ok_or_else(unknown)?.name;
        streams.entry(StreamId { kind, id: *id }).or_default().insert(*position);
    }
    let ids: Vec<StreamId> = streams.keys().copied().collect();
    let mut told = Vec::with_capacity(found.len());
    for ((stream, wanted), mut events) in streams.iter().zip(store.load(&ids).await?) {
        let last = wanted.last().copied().unwrap_or_default();
        events.retain(|event| event.position <= last);
        if let Some(kind) = Kind::named(stream.kind) {
            told.extend(tell(kind, &events, wanted, zone)?);
        }
    }
    told.sort_by_key(|entry| entry.position);
    Ok(told)
}

fn tell(
    kind: &Kind,
    stream: &[StoredEvent],
    wanted: &BTreeSet<i64>,
    zone: Zone,
) -> Result<Vec<Entry>, HistoryError> {
    let is_wanted = |event: &StoredEvent| wanted.contains(&event.position);
    let told = (kind.tell)(stream, zone, &is_wanted)?;
    let entry = |(event, telling): (&StoredEvent, super::kinds::Telling)| {
        let mut caused = metadata(event.position, &event.metadata)?;
        let mut changes = Vec::new();
        // A first event makes everything: what it made is the state after it.
        if !telling.before.is_null() {
            differences(String::new(), &telling.before, &telling.after, &mut changes);
        }
        Ok(Entry {
            position: event.position,
            stream: format!("{}/{}", event.aggregate_type, event.aggregate_id),
            sequence: telling.sequence,
            r#type: event.event_type.clone(),
            version: event.event_version.clone(),
            recorded_at_ms: event.recorded_at_ms,
            recorded_at: zone.date_time(event.recorded_at_ms),
            caller: caused.remove("caller"),
            request_id: caused.remove("request_id"),
            idempotency_key: caused.remove("idempotency_key"),
            causation_id: caused.remove("causation_id"),
            correlation_id: caused.remove("correlation_id"),
            words: telling.words,
            changes,
            before: telling.before,
            after: telling.after,
        })
    };
    stream.iter().filter(|event| is_wanted(event)).zip(told).map(entry).collect()
}

fn metadata(position: i64, text: &str) -> Result<BTreeMap<String, String>, HistoryError> {
    serde_json::from_str(text).map_err(|_| corrupt(position, "metadata", "no flat map of texts"))
}

fn corrupt(position: i64, column: &str, what: &str) -> HistoryError {
    HistoryError::Store(StoreError::Corrupt {
        table: format!("events, position {position}"),
        column: column.to_owned(),
        what: what.to_owned(),
    })
}

/// Walks both states to their leaves and notes those that differ; a part that is on one side only is walked there.
fn differences(path: String, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Object(_), Value::Object(_) | Value::Null) | (Value::Null, Value::Object(_)) => {
            let names =
                [before, after].into_iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys);
            let mut seen = BTreeSet::new();
            for name in names.filter(|name| seen.insert(name.as_str())) {
                let of = |state: &Value| state.get(name).cloned().unwrap_or_default();
                let dot = if path.is_empty() { "" } else { "." };
                differences(format!("{path}{dot}{name}"), &of(before), &of(after), changes);
            }
        }
        // A list of numbers is read whole; one of objects entry by entry.
        (Value::Array(_) | Value::Null, Value::Array(_)) | (Value::Array(_), Value::Null)
            if [before, after].into_iter().filter_map(Value::as_array).flatten().any(Value::is_object) =>
        {
            let length = |list: &Value| list.as_array().map_or(0, Vec::len);
            for number in 0..length(before).max(length(after)) {
                let of = |list: &Value| list.get(number).cloned().unwrap_or_default();
                differences(format!("{path}[{number}]"), &of(before), &of(after), changes);
            }
        }
        _ => changes.push(Change { path, before: before.clone(), after: after.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(before: &Value, after: &Value) -> Vec<String> {
        let mut changes = Vec::new();
        differences(String::new(), before, after, &mut changes);
        changes
            .iter()
            .map(|change| format!("{}: {} → {}", change.path, change.before, change.after))
            .collect()
    }

    #[test]
    fn a_change_is_told_leaf_by_leaf() {
        let before = json!({"a": 1, "gift": null, "same": [1], "held": {"439": {"read": false}}, "uses": []});
        let after = json!({"a": 2, "gift": {"number": 1}, "same": [1], "held": {"439": {"read": true}, "442": {}},
                           "uses": [{"id": 2, "reversed": 0}]});
        assert_eq!(
            changed(&before, &after),
            [
                "a: 1 → 2",
                "gift.number: null → 1",
                "held.439.read: false → true",
                "uses[0].id: null → 2",
                "uses[0].reversed: null → 0",
            ]
        );
        assert_eq!(changed(&json!({"days": [1, 2]}), &json!({"days": [1]})), ["days: [1,2] → [1]"]);
        assert_eq!(changed(&after, &after), Vec::<String>::new());
        assert_eq!(
            changed(&json!({"gift": {"number": 1}}), &json!({"gift": null})),
            ["gift.number: 1 → null"]
        );
    }
}
