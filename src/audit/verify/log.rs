//! The events by position: none missing, none out of order, each readable and what was hashed when it was written.

use std::collections::BTreeMap;

use super::{Finding, Totals, VerifyError, Worker, piece_of, reviews, tree};
use crate::audit::leaf;
use crate::entity::KINDS;
use crate::store::{RECEIPT_HASH_DIGITS, Store, StoreError, StoredEvent};

const EVENTS: &str = "events";

/// Looks at the events behind `after`, up to `until`.
pub(super) async fn check(worker: &Worker, after: i64, until: i64) -> Result<Totals, VerifyError> {
    let mut totals = Totals::default();
    // The one before as well: order and appends do not stop at a piece's edge.
    let events = read(&worker.store, (after - 1).max(0), until, &mut totals).await?;
    let reviewed = events.iter().filter(|event| event.position > after && event.event_type == "Evaluated");
    let reviewed: Vec<StoredEvent> = reviewed.cloned().collect();
    let mut events = events.into_iter().peekable();
    let mut before = events.next_if(|event| event.position == after);
    let mut expected = after + 1;
    let mut hashes = Vec::with_capacity((until - after) as usize);
    for event in events {
        for missing in expected..event.position {
            // An unreadable one is told already.
            if !totals.findings.iter().any(|finding| finding.position == missing) {
                totals.find(Finding::new(missing, EVENTS, row(missing), "there is no such event"));
            }
        }
        expected = event.position + 1;
        totals.events += 1;
        check_event(&event, before.as_ref(), &mut totals);
        hashes.push((event.position, leaf::hash(&event)));
        before = Some(event);
    }
    for missing in expected..=until {
        if !totals.findings.iter().any(|finding| finding.position == missing) {
            totals.find(Finding::new(missing, EVENTS, row(missing), "there is no such event"));
        }
    }
    tree::check_leaves(worker, after, until, &hashes, &mut totals).await?;
    if let Err(error) = reviews::check_there(worker, &reviewed, &mut totals).await {
        totals.find(error.told("reviews", format!("of position {} to {until}", after + 1))?);
    }
    Ok(totals)
}

fn row(position: i64) -> String {
    format!("position {position}")
}

/// The events behind a position, up to another. Where one cannot be read as what its columns hold, it is found by itself.
async fn read(
    store: &Store,
    after: i64,
    until: i64,
    totals: &mut Totals,
) -> Result<Vec<StoredEvent>, StoreError> {
    match store.events_after(after, until - after).await {
        Err(error) if error.is_statement_error() => {}
        // A position that was moved beyond the piece is missing here and met there.
        found => return Ok(found?.into_iter().filter(|event| event.position <= until).collect()),
    }
    let mut events = Vec::new();
    for position in after..until {
        match store.events_after(position, 1).await {
            Ok(found) => events.extend(found.into_iter().filter(|event| event.position == position + 1)),
            Err(error) if error.is_statement_error() => {
                totals.find(Finding::new(position + 1, EVENTS, row(position + 1), error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(events)
}

fn check_event(event: &StoredEvent, before: Option<&StoredEvent>, totals: &mut Totals) {
    let mut wrong =
        |what: String| totals.find(Finding::new(event.position, EVENTS, row(event.position), what));
    if !KINDS.contains(&event.aggregate_type.as_str()) {
        wrong(format!("there are no streams of the kind {}", event.aggregate_type));
    }
    let id = event.aggregate_id.parse::<i64>();
    if !id.is_ok_and(|id| id > 0 && id.to_string() == event.aggregate_id) {
        wrong(format!("{} is no id of a stream", event.aggregate_id));
    }
    if before.is_some_and(|before| before.recorded_at_ms > event.recorded_at_ms) {
        wrong("it was recorded before the event in front of it".to_owned());
    }
    let Ok(metadata) = serde_json::from_str::<BTreeMap<String, String>>(&event.metadata) else {
        return wrong("its metadata is no flat map of texts".to_owned());
    };
    let same_append = before.is_some_and(|before| {
        serde_json::from_str::<BTreeMap<String, String>>(&before.metadata)
            .is_ok_and(|before| before.get("append_id") == metadata.get("append_id"))
    });
    if same_append {
        if before.is_some_and(|before| before.metadata != event.metadata) {
            wrong("its metadata is not that of its append".to_owned());
        }
    } else if let Some(hashes) = metadata.get("receipts_hash") {
        let named = totals.receipts_named.entry(piece_of(event.position)).or_default();
        *named += (hashes.len() / RECEIPT_HASH_DIGITS) as i64;
    }
}
