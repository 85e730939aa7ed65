//! Receipts of idempotency keys held against the events they stand for.
//!
//! A receipt is a row beside the log. The events of its append carry a hash of all receipts that it left
//! (`receipts_hash`), so none can be changed, lost or made up unseen. Kept of each such append are 32 bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Finding, Findings};
use crate::audit::export::StoredReceipt;
use crate::store::{StoredEvent, receipts_hash};
use crate::value::hex;

/// An append leaves the receipt of its request's key, and perhaps that of what can be done once only.
const MOST_RECEIPTS: usize = 3;

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
    /// Receipts that are not the only one of their append, by position.
    several: BTreeMap<i64, Vec<StoredReceipt>>,
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
        if let Some(hash) = hash {
            if let Some(hash) = hash_bytes(&hash) {
                self.appends.push(Append { position: event.position, events: 1, hash, bound: false });
            } else {
                let what = "the hash of its receipts is none".to_owned();
                found.add(Finding::at("receipts", event.position, what));
                self.open = false;
            }
        }
    }

    pub(super) fn take(&mut self, receipt: StoredReceipt, found: &mut Findings) {
        let mut tell = |what: &str| {
            let StoredReceipt { caller, operation, key, position, .. } = &receipt;
            let what = format!("the receipt of {caller}, {operation}, key {key}: {what}");
            found.add(Finding::at("receipts", *position, what));
        };
        let place = self.appends.binary_search_by_key(&receipt.position, |append| append.position);
        let Some(append) = place.ok().and_then(|place| self.appends.get_mut(place)) else {
            if receipt.position == self.from && self.from > 1 {
                return;
            }
            return tell("no append that begins there has left one");
        };
        let ends_here = receipt.position.saturating_add(receipt.event_count) <= self.to + 1;
        if append.events != receipt.event_count && (ends_here || append.position + append.events <= self.to) {
            let what =
                format!("it stands for {} events, the append has {}", receipt.event_count, append.events);
            tell(&what);
        }
        if !append.bound && hash_of(&[&receipt]) == append.hash {
            append.bound = true;
        } else {
            self.several.entry(receipt.position).or_default().push(receipt);
        }
    }

    pub(super) fn finish(mut self, found: &mut Findings) {
        for (position, receipts) in std::mem::take(&mut self.several) {
            let place = self.appends.binary_search_by_key(&position, |append| append.position);
            let append = place.ok().and_then(|place| self.appends.get_mut(place));
            let Some(append) = append.filter(|append| !append.bound && binds(append.hash, &receipts)) else {
                let what = "its receipts are not those that the append left".to_owned();
                found.add(Finding::at("receipts", position, what));
                continue;
            };
            append.bound = true;
        }
        for append in self.appends.iter().filter(|append| !append.bound) {
            let what = "the receipt that the append left is missing, or was changed".to_owned();
            found.add(Finding::at("receipts", append.position, what));
        }
    }
}

/// Whether these are all receipts of an append, in whichever order it left them.
fn binds(hash: [u8; 16], receipts: &[StoredReceipt]) -> bool {
    fn any_order<'a>(hash: [u8; 16], taken: &mut Vec<&'a StoredReceipt>, left: &[&'a StoredReceipt]) -> bool {
        if left.is_empty() {
            return hash_of(taken) == hash;
        }
        (0..left.len()).any(|place| {
            let mut left = left.to_vec();
            taken.push(left.remove(place));
            let binds = any_order(hash, taken, &left);
            taken.pop();
            binds
        })
    }
    receipts.len() <= MOST_RECEIPTS && any_order(hash, &mut Vec::new(), &receipts.iter().collect::<Vec<_>>())
}

fn hash_of(receipts: &[&StoredReceipt]) -> [u8; 16] {
    let columns = receipts.iter().map(|receipt| {
        [&receipt.caller, &receipt.operation, &receipt.key, &receipt.request_mac].map(String::as_str)
    });
    hash_bytes(&receipts_hash(columns)).unwrap_or_default()
}

/// 32 lower-case hexadecimal digits.
fn hash_bytes(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok()?.to_be_bytes();
    (hex(&number) == text).then_some(number)
}
