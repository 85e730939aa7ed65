//! Receipts of idempotency keys held against the events they stand for.
//!
//! A receipt is a row beside the log. The events of its append carry a hash of each receipt that it left
//! (`receipts_hash`), so none can be changed, lost or made up unseen. Kept of each are some 40 bytes.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;

use super::{Finding, Findings};
use crate::store::{RECEIPT_HASH_DIGITS, StoredEvent, StoredReceipt, receipts_hash};
use crate::value::hex;

/// An append leaves a receipt for its key, and one for an order's own number. A line that names more is none that a ledger
/// wrote, and shall not take the memory that it asks for.
const MAX_RECEIPTS: usize = 16;

/// What of metadata binds receipts.
#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    append_id: Cow<'a, str>,
    #[serde(borrow, default)]
    receipts_hash: Option<Cow<'a, str>>,
}

/// An append that left receipts.
struct Append {
    position: i64,
    events: i64,
    /// Its receipts, among those that are named.
    named: Range<usize>,
}

/// A receipt that events name.
struct Named {
    hash: [u8; 16],
    bound: bool,
}

/// The appends of the events, and the receipts that are still to be matched.
#[derive(Default)]
pub(super) struct Bindings {
    from: i64,
    to: i64,
    last_append: String,
    /// Whether the append that is being read left receipts.
    open: bool,
    appends: Vec<Append>,
    named: Vec<Named>,
}

impl Bindings {
    pub(super) fn new(from: i64, to: i64) -> Self {
        Self { from, to, ..Self::default() }
    }

    pub(super) fn see(&mut self, event: &StoredEvent, found: &mut Findings) {
        let Ok(metadata) = serde_json::from_str::<Metadata<'_>>(&event.metadata) else {
            let what = "its metadata does not tell which append it came with".to_owned();
            found.add(Finding::at("event", event.position, what));
            self.open = false;
            return;
        };
        if metadata.append_id == self.last_append.as_str() {
            if let Some(append) = self.appends.last_mut().filter(|_| self.open) {
                append.events += 1;
            }
            return;
        }
        self.last_append = metadata.append_id.into_owned();
        // The first events of a part may be the rest of an append whose receipts lie before it.
        let cut = event.position == self.from && self.from > 1;
        let hash = metadata.receipts_hash.filter(|_| !cut);
        self.open = hash.is_some();
        if let Some(hashes) = hash {
            let from = self.named.len();
            let hashes: Option<Vec<[u8; 16]>> =
                digits(&hashes).take(MAX_RECEIPTS + 1).map(hash_bytes).collect();
            if let Some(hashes) = hashes.filter(|hashes| (1..=MAX_RECEIPTS).contains(&hashes.len())) {
                self.named.extend(hashes.into_iter().map(|hash| Named { hash, bound: false }));
                let named = from..self.named.len();
                self.appends.push(Append { position: event.position, events: 1, named });
            } else {
                let what = "the hash of its receipts is none".to_owned();
                found.add(Finding::at("receipts", event.position, what));
                self.open = false;
            }
        }
    }

    pub(super) fn take(&mut self, receipt: &StoredReceipt, found: &mut Findings) {
        let mut tell = |what: &str| {
            let StoredReceipt { caller, operation, key, position, .. } = receipt;
            let what = format!("the receipt of {caller}, {operation}, key {key}: {what}");
            found.add(Finding::at("receipts", *position, what));
        };
        let place = self.appends.binary_search_by_key(&receipt.position, |append| append.position);
        let Some(append) = place.ok().and_then(|place| self.appends.get(place)) else {
            if receipt.position == self.from && self.from > 1 {
                return;
            }
            return tell("no append that begins there has left one");
        };
        let ends_by_to = |events: i64| append.position.saturating_add(events) <= self.to.saturating_add(1);
        let is_cut = append.position.saturating_add(append.events) > self.to;
        if append.events != receipt.event_count && (ends_by_to(receipt.event_count) || !is_cut) {
            let what =
                format!("it stands for {} events, the append has {}", receipt.event_count, append.events);
            tell(&what);
        }
        let hash = hash_of(receipt);
        let named = self.named.get_mut(append.named.clone()).unwrap_or_default();
        match named.iter_mut().find(|named| !named.bound && named.hash == hash) {
            Some(named) => named.bound = true,
            None => tell("it is not one that its append left"),
        }
    }

    pub(super) fn finish(self, found: &mut Findings) {
        for append in self.appends {
            let named = self.named.get(append.named).unwrap_or_default();
            if named.iter().any(|named| !named.bound) {
                let what = "a receipt that the append left is missing, or was changed".to_owned();
                found.add(Finding::at("receipts", append.position, what));
            }
        }
    }
}

fn hash_of(receipt: &StoredReceipt) -> [u8; 16] {
    let columns = [&receipt.caller, &receipt.operation, &receipt.key, &receipt.request_mac];
    hash_bytes(&receipts_hash(std::iter::once(columns.map(String::as_str)))).unwrap_or_default()
}

/// The digits of each receipt in turn; what is left over comes last.
fn digits(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(RECEIPT_HASH_DIGITS).map_or(rest.len(), |(at, _)| at);
        let (digits, behind) = rest.split_at_checked(end)?;
        rest = behind;
        (!digits.is_empty()).then_some(digits)
    })
}

/// 32 lower-case hexadecimal digits.
fn hash_bytes(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok()?.to_be_bytes();
    (hex(&number) == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in an event that names so many receipts.
    fn found_in(receipts: usize) -> Vec<&'static str> {
        let metadata = format!(r#"{{"append_id":"a","receipts_hash":"{}"}}"#, "0".repeat(32 * receipts));
        let event = StoredEvent {
            position: 1,
            aggregate_type: "shop".to_owned(),
            aggregate_id: "1".to_owned(),
            sequence: 1,
            event_type: "Opened".to_owned(),
            event_version: "1.0".to_owned(),
            payload: "{}".to_owned(),
            metadata,
            recorded_at_ms: 0,
        };
        let (mut bindings, mut found) = (Bindings::new(1, 1), Findings::default());
        bindings.see(&event, &mut found);
        assert!(bindings.named.len() <= MAX_RECEIPTS);
        bindings.finish(&mut found);
        found
            .list
            .into_iter()
            .map(|finding| if finding.what.contains("is none") { "none" } else { "missing" })
            .collect()
    }

    #[test]
    fn an_append_that_names_more_receipts_than_any_leaves_names_none() {
        assert_eq!(found_in(2), ["missing"]);
        assert_eq!(found_in(MAX_RECEIPTS), ["missing"]);
        for receipts in [0, MAX_RECEIPTS + 1, 10_000] {
            assert_eq!(found_in(receipts), ["none"], "{receipts}");
        }
    }
}
