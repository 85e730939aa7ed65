//! Receipts: each stands for events that name it, and each that events name is there.

use std::collections::BTreeMap;

use super::{Finding, LOG_PIECE, MAX_FINDINGS, Piece, Totals, VerifyError, Worker, piece_of};
use crate::store::{BUCKET, Cell, RECEIPT_HASH_DIGITS, Row, Statement, Store, StoreError, receipts_hash};

const RECEIPTS: &str = "receipts";

/// How many receipts are read at a time.
const PIECE: i64 = 2_000;

/// Pieces of the log in which lost receipts are looked for at a time.
const LOST_PIECES: usize = 20;

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

/// All receipts, as one piece.
pub(super) fn whole() -> Piece {
    Piece::Receipts { after: Key::default(), until: end() }
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
    // Read after them: what was written since the start is left to the next run, and what lies beyond stands for nothing.
    let head = worker.store.head().await?;
    rows.retain(|row| row.int(4) <= worker.position || row.int(4) > head);
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
            Ok(()) => *totals.receipts_met.entry(piece_of(row.int(4))).or_default() += 1,
            Err(what) => {
                let key = [0, 1, 2].map(|column| row.text(column)).join(" ");
                totals.find(Finding::new(row.int(4), RECEIPTS, key, what));
            }
        }
    }
    Ok(totals)
}

/// What is wrong with a receipt: its events are one whole append, which names it.
fn check_one(row: &Row, events: &[Row]) -> Result<(), &'static str> {
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
    let hashes = own.get("receipts_hash").map(String::as_bytes).unwrap_or_default();
    let hash = hash_of(row);
    let named = hashes.chunks(RECEIPT_HASH_DIGITS).any(|named| named == hash.as_bytes());
    if named { Ok(()) } else { Err("its events do not name it") }
}

fn hash_of(row: &Row) -> String {
    receipts_hash(std::iter::once([row.text(0), row.text(1), row.text(2), row.text(3)]))
}

/// As many receipts were found as the events name; where they were not, the events are named whose receipt is gone.
pub(super) async fn check_numbers(
    store: &Store,
    position: i64,
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    let Totals { receipts_named: named, receipts_met: met, .. } = &*totals;
    let in_piece = |numbers: &BTreeMap<i64, i64>, piece| numbers.get(&piece).copied().unwrap_or_default();
    let mut uneven: Vec<i64> = named.keys().chain(met.keys()).copied().collect();
    uneven.retain(|piece| in_piece(named, *piece) != in_piece(met, *piece));
    uneven.sort_unstable();
    uneven.dedup();
    let (named, met) = (named.values().sum::<i64>(), met.values().sum::<i64>());
    let mut lost_num = 0;
    for pieces in uneven.chunks(LOST_PIECES) {
        for position in lost(store, position, pieces).await?.into_values() {
            let what = "the receipt that its event names is not there";
            totals.find(Finding::new(position, RECEIPTS, format!("of position {position}"), what));
            lost_num += 1;
        }
        if lost_num >= MAX_FINDINGS as i64 {
            break;
        }
    }
    if named - met != lost_num {
        let what = format!("the events name {named}, and {met} of them are there");
        totals.find(Finding::new(0, RECEIPTS, "all rows", what));
    }
    Ok(())
}

/// The receipts that the events of these pieces of the log name and that are not there: by their hashes, the first event
/// that names each. They have no index by position: all are walked.
async fn lost(store: &Store, position: i64, pieces: &[i64]) -> Result<BTreeMap<String, i64>, VerifyError> {
    let mut lost = BTreeMap::new();
    let sql = "SELECT position, CAST(metadata AS TEXT) FROM events
               WHERE bucket = $1 AND position > $2 AND position <= $3 ORDER BY position";
    for piece in pieces {
        let (after, until) = (piece * LOG_PIECE, ((piece + 1) * LOG_PIECE).min(position));
        for event in store.query(Statement::new(sql, [BUCKET, after, until].map(Cell::from))).await? {
            let metadata: BTreeMap<String, String> = serde_json::from_str(event.text(1)).unwrap_or_default();
            let hashes = metadata.get("receipts_hash").map(String::as_bytes).unwrap_or_default();
            for hash in hashes.chunks(RECEIPT_HASH_DIGITS) {
                lost.entry(String::from_utf8_lossy(hash).into_owned()).or_insert(event.int(0));
            }
        }
    }
    let sql = "SELECT caller, operation, key, request_mac FROM receipts
               WHERE bucket = $1 AND (caller, operation, key) > ($2, $3, $4)
               ORDER BY bucket, caller, operation, key LIMIT $5";
    let mut after = Key::default();
    while !lost.is_empty() {
        let mut asked = parameters(&[&after]);
        asked.push(PIECE.into());
        let mut rows = store.query(Statement::new(sql, asked)).await?;
        for row in &rows {
            lost.remove(&hash_of(row));
        }
        let Some(last) = rows.last_mut() else { break };
        after = [0, 1, 2].map(|column| last.take_text(column));
    }
    Ok(lost)
}
