//! Receipts: each stands for events that name it, and each that events name is there.

use std::collections::BTreeMap;

use super::{Finding, Piece, Totals, VerifyError, Worker};
use crate::store::{BUCKET, Cell, RECEIPT_HASH_DIGITS, Row, Statement, Store, StoreError, receipts_hash};

const RECEIPTS: &str = "receipts";

/// How many receipts are read at a time.
const PIECE: i64 = 2_000;

/// Caller, operation and key.
pub(super) type Key = [String; 3];

/// Behind every key: no text begins with a larger character.
fn end() -> Key {
    [char::MAX.to_string(), String::new(), String::new()]
}

fn parameters(keys: &[&Key]) -> Vec<Cell> {
    let texts = keys.iter().flat_map(|key| key.iter()).map(|text| Cell::from(text.as_str()));
    std::iter::once(BUCKET.into()).chain(texts).collect()
}

/// All receipts, cut into pieces.
pub(super) async fn pieces(store: &Store) -> Result<Vec<Piece>, StoreError> {
    let sql = "SELECT caller, operation, key FROM receipts
               WHERE bucket = $1 AND (caller, operation, key) > ($2, $3, $4)
               ORDER BY caller, operation, key LIMIT 1 OFFSET $5";
    let mut pieces = Vec::new();
    let mut after = Key::default();
    loop {
        let mut asked = parameters(&[&after]);
        asked.push(PIECE.into());
        let found = store.query(Statement::new(sql, asked)).await?;
        let until = found.into_iter().next().map(|mut row| [0, 1, 2].map(|column| row.take_text(column)));
        let last = until.is_none();
        let until = until.unwrap_or_else(end);
        pieces.push(Piece::Receipts { after: after.clone(), until: until.clone() });
        if last {
            return Ok(pieces);
        }
        after = until;
    }
}

/// Looks at the receipts behind one key, up to another.
pub(super) async fn check(worker: &Worker, after: &Key, until: &Key) -> Result<Totals, VerifyError> {
    let sql = "SELECT caller, operation, key, request_mac, position, event_count FROM receipts
               WHERE bucket = $1 AND (caller, operation, key) > ($2, $3, $4) AND (caller, operation, key) <= ($5, $6, $7)
               ORDER BY caller, operation, key";
    let mut rows = worker.store.query(Statement::new(sql, parameters(&[after, until]))).await?;
    rows.retain(|row| row.int(4) <= worker.position);
    // The first and the last event, and those on either side of them.
    let around = "SELECT position, CAST(metadata AS TEXT) FROM events
                  WHERE bucket = $1 AND position IN ($2 - 1, $2, $3, $3 + 1) ORDER BY position";
    let sets = rows.iter().map(|row| {
        let last = row.int(4).saturating_add(row.int(5)).saturating_sub(1);
        [BUCKET, row.int(4), last].map(Cell::from).to_vec()
    });
    let found = worker.store.query_each(around, sets.collect()).await?;
    let mut totals = Totals { receipts: rows.len() as u64, ..Totals::default() };
    for (row, events) in rows.iter().zip(&found) {
        match check_one(row, events) {
            Ok(named) => totals.receipts_met += i64::from(named),
            Err(what) => {
                let key = [0, 1, 2].map(|column| row.text(column)).join(" ");
                totals.find(Finding::new(row.int(4), RECEIPTS, key, what));
            }
        }
    }
    Ok(totals)
}

/// Whether its events name it; those of an older program named only the key.
fn check_one(row: &Row, events: &[Row]) -> Result<bool, &'static str> {
    let (first, last) = (row.int(4), row.int(4).saturating_add(row.int(5)).saturating_sub(1));
    let at = |position: i64| -> Option<BTreeMap<String, String>> {
        let event = events.iter().find(|event| event.int(0) == position)?;
        serde_json::from_str(event.text(1)).ok()
    };
    let (Some(own), Some(own_last)) = (at(first), at(last)) else {
        return Err("there are no such events");
    };
    let append_id = own.get("append_id");
    let of_append = |position: i64| at(position).is_some_and(|map| map.get("append_id") == append_id);
    if own_last.get("append_id") != append_id || of_append(first - 1) || of_append(last + 1) {
        return Err("its events are not those of one append");
    }
    let Some(hashes) = own.get("receipts_hash") else {
        let named = own.get("idempotency_key").is_some_and(|key| key == row.text(2));
        return if named || row.text(1) == "order_no" { Ok(false) } else { Err("its events do not name it") };
    };
    let hash = receipts_hash(std::iter::once([row.text(0), row.text(1), row.text(2), row.text(3)]));
    let named = hashes.as_bytes().chunks(RECEIPT_HASH_DIGITS).any(|named| named == hash.as_bytes());
    if named { Ok(true) } else { Err("it is not the receipt that its events name") }
}
