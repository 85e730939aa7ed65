//! The log as lines: every event by position, as it is stored.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::followers::events_after;
use crate::store::{Store, StoreError, StoredEvent};

/// Which events are wanted: of these names, and of these streams; none named = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Events' names, as `Redeemed`.
    pub types: Vec<String>,
    /// `coupon`, or `coupon/439`.
    pub streams: Vec<String>,
}

impl Filter {
    /// Reads lists as `Redeemed,Issued` and `coupon,order/7`.
    #[must_use]
    pub fn parse(types: &str, streams: &str) -> Self {
        let words = |text: &str| {
            text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect()
        };
        Self { types: words(types), streams: words(streams) }
    }

    /// Whether this event is wanted.
    #[must_use]
    pub fn wants(&self, event: &StoredEvent) -> bool {
        let of_stream = |stream: &String| match stream.split_once('/') {
            Some((kind, id)) => event.aggregate_type == kind && event.aggregate_id == id,
            None => event.aggregate_type == *stream,
        };
        (self.types.is_empty() || self.types.contains(&event.event_type))
            && (self.streams.is_empty() || self.streams.iter().any(of_stream))
    }
}

/// What is asked of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Behind this position.
    pub after: i64,
    /// At most so many positions are looked at.
    pub limit: i64,
    /// Which of them are wanted.
    pub filter: Filter,
}

/// A part of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    /// One JSON object a line.
    pub lines: String,
    /// The last position that was looked at: where to go on.
    pub next_after: i64,
}

/// An event as one line of the feed and of exports.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    position: i64,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    sequence: i64,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    recorded_at_ms: i64,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// An event as a line, with payload and metadata byte for byte as they are stored.
///
/// # Errors
/// Where one of the two is no JSON on one line: this program never wrote that.
pub fn line(event: &StoredEvent) -> Result<String, StoreError> {
    let raw = |column: &str, text| match serde_json::from_str::<&RawValue>(text) {
        // The framing is by lines; and RawValue leaves out white space around the value, which would be lost.
        Ok(raw) if raw.get() == text && !text.contains('\n') => Ok(raw),
        _ => Err(corrupt(event, column, "no JSON on one line")),
    };
    let line = Line {
        position: event.position,
        stream: format!("{}/{}", event.aggregate_type, event.aggregate_id).into(),
        sequence: event.sequence,
        r#type: event.event_type.as_str().into(),
        version: event.event_version.as_str().into(),
        recorded_at_ms: event.recorded_at_ms,
        payload: raw("payload", &event.payload)?,
        metadata: raw("metadata", &event.metadata)?,
    };
    serde_json::to_string(&line).map_err(|error| corrupt(event, "payload", &error.to_string()))
}

/// The event of a line, where the line is byte for byte what [`line`] makes of it; None otherwise.
#[must_use]
pub fn event_of(text: &str) -> Option<StoredEvent> {
    let line: Line<'_> = serde_json::from_str(text).ok()?;
    if serde_json::to_string(&line).ok()? != text {
        return None;
    }
    let (aggregate_type, aggregate_id) = line.stream.split_once('/')?;
    Some(StoredEvent {
        position: line.position,
        aggregate_type: aggregate_type.to_owned(),
        aggregate_id: aggregate_id.to_owned(),
        sequence: line.sequence,
        event_type: line.r#type.into_owned(),
        event_version: line.version.into_owned(),
        payload: line.payload.get().to_owned(),
        metadata: line.metadata.get().to_owned(),
        recorded_at_ms: line.recorded_at_ms,
    })
}

fn corrupt(event: &StoredEvent, column: &str, what: &str) -> StoreError {
    StoreError::Corrupt {
        table: format!("events, position {}", event.position),
        column: column.to_owned(),
        what: what.to_owned(),
    }
}

/// Events behind a position, as lines.
pub async fn feed(store: &Store, asked: &Asked) -> Result<Lines, StoreError> {
    let events = events_after(store, asked.after, asked.limit).await?;
    let next_after = events.last().map_or(asked.after, |event| event.position);
    let mut lines = String::new();
    for event in events.iter().filter(|event| asked.filter.wants(event)) {
        let _ = writeln!(lines, "{}", line(event)?);
    }
    Ok(Lines { lines, next_after })
}
