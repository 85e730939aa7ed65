//! An event as a leaf of the transparency log: the exact bytes that are hashed.
//!
//! What is here is fixed for ever: a receipt that somebody keeps is checked against these bytes in many years.

use tlog_tiles::{Hash, record_hash};

use crate::entity::decode;
use crate::provenance::{ImportedFrom, Provenance, ProvenanceEvent};
use crate::store::{BUCKET, StoredEvent};

/// Says what the bytes are; another format would begin otherwise.
const FORMAT: &str = "coupon-ledger event 1";

/// Every column of an event, each behind its length as four bytes, big-endian; numbers as eight bytes, big-endian:
/// format, bucket, position, `aggregate_type`, `aggregate_id`, sequence, `event_type`, `event_version`, `recorded_at_ms`,
/// payload, metadata.
#[must_use]
pub fn bytes(event: &StoredEvent) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(192 + event.payload.len() + event.metadata.len());
    put(&mut bytes, FORMAT.as_bytes());
    put(&mut bytes, &BUCKET.to_be_bytes());
    put(&mut bytes, &event.position.to_be_bytes());
    put_contents(&mut bytes, event);
    bytes
}

fn put(bytes: &mut Vec<u8>, column: &[u8]) {
    bytes.extend_from_slice(&(column.len() as u32).to_be_bytes());
    bytes.extend_from_slice(column);
}

fn put_contents(bytes: &mut Vec<u8>, event: &StoredEvent) {
    for column in [
        event.aggregate_type.as_bytes(),
        event.aggregate_id.as_bytes(),
        &event.sequence.to_be_bytes(),
        event.event_type.as_bytes(),
        event.event_version.as_bytes(),
        &event.recorded_at_ms.to_be_bytes(),
        event.payload.as_bytes(),
        event.metadata.as_bytes(),
    ] {
        put(bytes, column);
    }
}

/// Whether an event is the note of an import, which begins a ledger that was taken over from an export. Digests of contents
/// leave it out, so that they are equal on both sides.
#[must_use]
pub fn is_import_note(event: &StoredEvent) -> bool {
    event.aggregate_type == "ledger" && event.event_type == "ImportedFrom"
}

/// What the note of an import says; None where the event is none.
#[must_use]
pub fn import_note(event: &StoredEvent) -> Option<ImportedFrom> {
    match decode::<Provenance>(event) {
        Ok(ProvenanceEvent::ImportedFrom(from)) => Some(from),
        _ => None,
    }
}

/// What an event says wherever it stands: its columns without bucket and position, each behind its length as in
/// [`bytes`].
#[must_use]
pub fn contents(event: &StoredEvent) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128 + event.payload.len() + event.metadata.len());
    put_contents(&mut bytes, event);
    bytes
}

/// The leaf's hash: RFC 6962, 2.1.
#[must_use]
pub fn hash(event: &StoredEvent) -> Hash {
    record_hash(&bytes(event))
}

/// The event of a leaf; None where the bytes are none of ours.
#[must_use]
pub fn event(bytes: &[u8]) -> Option<StoredEvent> {
    let mut rest = bytes;
    let mut take = || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let (column, behind) = behind.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = behind;
        Some(column)
    };
    if take()? != FORMAT.as_bytes() || take()? != BUCKET.to_be_bytes() {
        return None;
    }
    let number = |column: &[u8]| column.try_into().map(i64::from_be_bytes).ok();
    let text = |column: &[u8]| String::from_utf8(column.to_vec()).ok();
    let event = StoredEvent {
        position: number(take()?)?,
        aggregate_type: text(take()?)?,
        aggregate_id: text(take()?)?,
        sequence: number(take()?)?,
        event_type: text(take()?)?,
        event_version: text(take()?)?,
        recorded_at_ms: number(take()?)?,
        payload: text(take()?)?,
        metadata: text(take()?)?,
    };
    rest.is_empty().then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StoredEvent {
        StoredEvent {
            position: 7,
            aggregate_type: "coupon".to_owned(),
            aggregate_id: "439".to_owned(),
            sequence: 2,
            event_type: "Viewed".to_owned(),
            event_version: "1.0".to_owned(),
            payload: r#"{"Viewed":{"member_id":431,"at_ms":1}}"#.to_owned(),
            metadata: r#"{"caller":"member:431"}"#.to_owned(),
            recorded_at_ms: 1_543_026_701_000,
        }
    }

    /// Computed by hand with another program: nobody may change the format.
    #[test]
    fn a_leaf_hashes_as_it_always_has() {
        let hash = hash(&sample()).0;
        assert_eq!(
            crate::value::hex(&hash),
            "0a185d32e49a7ccb5daa99455500d90bb9cfecccaa4c272ab29796ee33087945"
        );
    }

    #[test]
    fn a_leaf_gives_its_event_back_and_no_other_bytes_do() {
        let leaf = bytes(&sample());
        assert_eq!(event(&leaf), Some(sample()));
        assert_eq!(event(&leaf[..leaf.len() - 1]), None);
        assert_eq!(event(&[leaf.as_slice(), b"x"].concat()), None);
        assert_eq!(event(b""), None);
        assert_eq!(event(&leaf[4..]), None);
    }

    #[test]
    fn no_two_events_share_their_bytes() {
        let (mut left, mut right) = (sample(), sample());
        left.event_type = "View".to_owned();
        left.event_version = "ed1.0".to_owned();
        right.event_type = "Viewed".to_owned();
        right.event_version = "1.0".to_owned();
        assert_ne!(bytes(&left), bytes(&right));
    }
}
