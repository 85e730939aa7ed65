//! What no single stream tells: how many rows there are, counters, the head, ids, references, and what no event accounts
//! for.

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::Aggregate as _;

use super::rows::{column_list, key_of, key_words, once};
use super::{Finding, MAX_FINDINGS, Piece, Totals, VerifyError};
use crate::audit::kinds::Kind;
use crate::directory::next_behind;
use crate::entity::id_of;
use crate::member::Member;
use crate::office::Appointment;
use crate::provenance::Provenance;
use crate::read_model::LIVE_TABLES;
use crate::store::{
    BUCKET, Cell, EPOCH, LiveTable, Row, Statement, Store, StoreError, StoredEvent, StreamId,
};

/// Rows of one bounded read.
const PIECE: i64 = 5_000;

/// Events that the sums are brought over at a time.
const CAUGHT_UP_AT_A_TIME: i64 = 2_000;

/// Rows without events are looked for in so many at a time.
const WALK: i64 = 500;

/// Whose rows a live table holds: the kind of stream, and the column of its id.
fn owner(table: &LiveTable) -> Option<(&'static str, usize)> {
    let [kind] = table.written_by else { return None };
    let id = format!("{kind}_id");
    let column = table.columns.iter().position(|column| column.name() == id)?;
    Some((kind, column))
}

/// How many rows each table has and the head, each against the sums of the streams at that very instant.
pub(super) async fn check_counts(
    store: &Store,
    at: &mut i64,
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    check_head(store, totals).await?;
    for table in LIVE_TABLES {
        // One statement is one instant, and a short one: tables are counted one by one.
        let sql = once(table.name, "count", || {
            let name = table.name;
            format!(
                "SELECT position, (SELECT COUNT(*) FROM {name} WHERE bucket = $1) FROM log_head WHERE bucket = $1"
            )
        });
        let looked = async {
            let counted = store.query_whole(Statement::new(sql, [BUCKET.into()])).await?;
            let Some(counted) = counted.first() else { return Ok(()) };
            catch_up(store, at, counted.int(0), totals).await?;
            let (rows, expected) =
                (counted.int(1), totals.rows_at.get(table.name).copied().unwrap_or_default());
            if rows != expected {
                let what = format!("it has {rows} rows, the events give {expected}");
                totals.find(Finding::new(0, table.name, "all rows", what));
            }
            // One that is missing must not make up for one that was slipped in, as where a row was moved.
            let missing = totals.missing_at.get(table.name).copied().unwrap_or_default();
            if rows != expected - missing {
                find_orphans(store, table, totals).await?;
            }
            Ok::<_, VerifyError>(())
        };
        if let Err(error) = looked.await {
            totals.find(error.told(table.name, "all rows".to_owned())?);
        }
    }
    Ok(())
}

/// Brings the sums from one position to another: what the streams gave that were touched between, and what they give. A
/// bounded part at a time, however much has come meanwhile.
async fn catch_up(store: &Store, at: &mut i64, to: i64, totals: &mut Totals) -> Result<(), VerifyError> {
    while *at < to {
        let mut events = store.events_after(*at, CAUGHT_UP_AT_A_TIME).await?;
        events.retain(|event| event.position <= to);
        // What is missing has been told, or is by the next run.
        let until = events.last().map_or(to, |event| event.position);
        let known = |event: &StoredEvent| {
            let kind = Kind::named(&event.aggregate_type)?;
            Some((StreamId { kind: kind.name, id: id_of(event.as_ref()).ok()? }, kind.fold))
        };
        let touched: BTreeMap<StreamId, _> = events.iter().filter_map(known).collect();
        let streams: Vec<StreamId> = touched.keys().copied().collect();
        for ((stream, fold), events) in touched.iter().zip(store.load(&streams).await?) {
            match fold(&events, *at).and_then(|before| Ok((before, fold(&events, until)?))) {
                Ok((before, after)) => {
                    totals.sum(&before, -1);
                    totals.sum(&after, 1);
                }
                Err(corrupt) => {
                    let what = corrupt.what.clone();
                    totals.find(Finding::new(corrupt.position, "events", stream.to_string(), what));
                }
            }
        }
        *at = until;
    }
    Ok(())
}

async fn check_head(store: &Store, totals: &mut Totals) -> Result<(), VerifyError> {
    // One instant: the head, its event, and a few of those that lie where nobody who reads by position would meet them.
    // That one within is missing tells the walk of the log.
    let sql = "SELECT CAST(0 AS BIGINT), h.position, h.last_ms, h.epoch,
                 COALESCE((SELECT MAX(position) FROM events WHERE bucket = $1), 0),
                 COALESCE((SELECT recorded_at_ms FROM events e WHERE e.bucket = $1 AND e.position = h.position), h.last_ms)
               FROM log_head h WHERE h.bucket = $1
               UNION ALL SELECT CAST(1 AS BIGINT), f.position, $3, $3, $3, $3 FROM
                 (SELECT position FROM events WHERE bucket = $1 AND position < 1 ORDER BY position LIMIT $2) f
               UNION ALL SELECT CAST(2 AS BIGINT), b.position, b.head, $3, $3, $3 FROM
                 (SELECT e.position, h.position AS head FROM log_head h
                  JOIN events e ON e.bucket = h.bucket AND e.position > h.position
                  WHERE h.bucket = $1 ORDER BY e.position LIMIT $2) b";
    let parameters = [BUCKET, MAX_FINDINGS as i64, 0].map(Cell::from);
    let rows = store.query_whole(Statement::new(sql, parameters)).await?;
    if !rows.iter().any(|row| row.int(0) == 0) {
        totals.find(Finding::new(0, "log_head", "bucket 0", "the row is missing"));
    }
    for row in &rows {
        let position = row.int(1);
        let mut wrong = |table: &str, place: String, what: String| {
            totals.find(Finding::new(position, table, place, what));
        };
        let (event, head) = (format!("position {position}"), "bucket 0".to_owned());
        match row.int(0) {
            1 => wrong("events", event, "there is nothing in front of position 1".to_owned()),
            2 => wrong("events", event, format!("the head stands at {}", row.int(2))),
            _ => {
                let (last_ms, epoch, last, recorded_at_ms) = (row.int(2), row.int(3), row.int(4), row.int(5));
                if last < position {
                    wrong("log_head", head.clone(), "it stands behind the last event".to_owned());
                }
                if recorded_at_ms != last_ms {
                    let what = format!("last_ms is {last_ms}, which is not when its event was recorded");
                    wrong("log_head", head.clone(), what);
                }
                if epoch != EPOCH {
                    wrong("log_head", head, format!("epoch is {epoch}, this program writes {EPOCH}"));
                }
            }
        }
    }
    Ok(())
}

/// The stock of definitions and allotments, and what is issued of it, against the sums of the streams at one instant.
pub(super) async fn check_stock(store: &Store, at: &mut i64, totals: &mut Totals) -> Result<(), VerifyError> {
    let sql = "SELECT CAST(0 AS BIGINT), position, CAST(0 AS BIGINT), CAST(0 AS BIGINT) FROM log_head WHERE bucket = $1
               UNION ALL
               SELECT CAST(1 AS BIGINT), definition_id, stock, issued FROM stock_v1 WHERE bucket = $1";
    let rows = store.query_whole(Statement::new(sql, [BUCKET.into()])).await?;
    let (head, stock): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.int(0) == 0);
    if let Some(head) = head.first() {
        catch_up(store, at, head.int(1), totals).await?;
    }
    let stock: BTreeMap<i64, (i64, i64)> =
        stock.iter().map(|row| (row.int(1), (row.int(2), row.int(3)))).collect();
    let keys: BTreeSet<i64> = totals.stock_at.keys().chain(stock.keys()).copied().collect();
    for key in keys {
        let row =
            if key < 0 { format!("allotment {}", key.unsigned_abs()) } else { format!("definition {key}") };
        let issued = totals.issued_at.get(&key).copied().unwrap_or_default();
        let expected = totals.stock_at.get(&key).map(|stock| (*stock, issued));
        let found = stock.get(&key).copied();
        let what = match (found, expected) {
            (found, expected) if found == expected => continue,
            (None, _) => "the row is missing".to_owned(),
            (Some(_), None) => "no event accounts for it".to_owned(),
            (Some((stock, issued)), Some((own_stock, own_issued))) => {
                format!("stock is {stock} and issued {issued}, the events give {own_stock} and {own_issued}")
            }
        };
        totals.find(Finding::new(0, "stock_v1", row, what));
    }
    Ok(())
}

/// Names the rows of a table that their streams do not give.
async fn find_orphans(
    store: &Store,
    table: &'static LiveTable,
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    let Some((kind, column)) = owner(table) else { return Ok(()) };
    let Some(kind) = Kind::named(kind) else { return Ok(()) };
    let sql = once(table.name, "walk", || {
        let columns = column_list(table);
        let keys = |from: usize| {
            let keys = table.columns.iter().take(table.key_columns).zip(from..);
            let (names, places): (Vec<_>, Vec<_>) =
                keys.map(|(column, place)| (column.name(), format!("${place}"))).unzip();
            (names.join(", "), places.join(", "))
        };
        let (names, places) = keys(3);
        format!(
            "SELECT {columns} FROM {} WHERE bucket = $1 AND ({names}) >= ({places}) ORDER BY bucket, {names} LIMIT $2",
            table.name
        )
    });
    let mut next = Some(vec![i64::MIN; table.key_columns]);
    while let Some(from) = next {
        let parameters = [BUCKET.into(), WALK.into()].into_iter().chain(from.into_iter().map(Cell::from));
        let rows = store.query(Statement::new(sql, parameters)).await?;
        next = rows
            .last()
            .and_then(|last| behind((0..table.key_columns).map(|column| last.int(column)).collect()));
        orphans_of(store, kind, table, column, &rows, totals).await?;
    }
    Ok(())
}

/// The first key behind one; None where there is none.
fn behind(mut key: Vec<i64>) -> Option<Vec<i64>> {
    for part in key.iter_mut().rev() {
        if let Some(next) = part.checked_add(1) {
            *part = next;
            return Some(key);
        }
        *part = i64::MIN;
    }
    None
}

async fn orphans_of(
    store: &Store,
    kind: &Kind,
    table: &'static LiveTable,
    column: usize,
    rows: &[Row],
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    let stream = |row: &Row| StreamId { kind: kind.name, id: row.int(column) };
    let streams: Vec<StreamId> = rows.iter().map(stream).collect();
    for (row, events) in rows.iter().zip(store.load(&streams).await?) {
        // Of a stream that cannot be folded nobody knows what it gives.
        let Ok(written) = (kind.fold)(&events, i64::MAX) else { continue };
        let given = written
            .rows
            .iter()
            .any(|own| std::ptr::eq(own.table, table) && key_of(table, &own.cells) == key_of(table, &row.0));
        if !given {
            let position = events.last().map_or(0, |event| event.position);
            let what = "no event accounts for it";
            totals.find(Finding::new(position, table.name, key_words(table, &row.0), what));
        }
    }
    Ok(())
}

/// Rows in a bucket that is none.
pub(super) async fn check_strays(store: &Store, totals: &mut Totals) -> Result<(), VerifyError> {
    const OTHERS: [&str; 11] = [
        "events",
        "receipts",
        "log_head",
        "stock_v1",
        "member_counts_v1",
        "id_blocks",
        "checkpoints",
        "tlog_tiles",
        "tlog_checkpoints",
        "followers",
        "messages",
    ];
    for table in OTHERS.into_iter().chain(LIVE_TABLES.iter().map(|table| table.name)) {
        let sql = once(table, "strays", || {
            format!(
                "SELECT COUNT(*) FROM (SELECT 1 FROM {table} WHERE bucket < $1 UNION ALL
                                       SELECT 1 FROM {table} WHERE bucket > $1) AS strays"
            )
        });
        let rows = match store.query_whole(Statement::new(sql, [BUCKET.into()])).await {
            // That it is gone tells the schema.
            Err(error) if error.is_about_data() => continue,
            rows => rows?,
        };
        let strays = rows.first().map_or(0, |row| row.int(0));
        if strays > 0 {
            let what = format!("{strays} rows lie in a bucket that this ledger does not have");
            totals.find(Finding::new(0, table, "other buckets", what));
        }
        if strays > 0 && table == "events" {
            name_stray_events(store, totals).await?;
        }
    }
    Ok(())
}

async fn name_stray_events(store: &Store, totals: &mut Totals) -> Result<(), VerifyError> {
    let sql = "SELECT bucket, position, aggregate_type, aggregate_id, sequence FROM events WHERE bucket < $1
               UNION ALL
               SELECT bucket, position, aggregate_type, aggregate_id, sequence FROM events WHERE bucket > $1
               ORDER BY 1, 2 LIMIT $2";
    let parameters = [BUCKET.into(), (MAX_FINDINGS as i64).into()];
    for row in store.query(Statement::new(sql, parameters)).await? {
        let (bucket, position) = (row.int(0), row.int(1));
        let what =
            format!("{} {} event {} lies in no bucket of this ledger", row.text(2), row.text(3), row.int(4));
        let row = format!("bucket {bucket}, position {position}");
        totals.find(Finding::new(position, "events", row, what));
    }
    Ok(())
}

/// No stream or redemption has an id that was never handed out: the next one could be handed out again.
pub(super) async fn check_ids(store: &Store, totals: &mut Totals) -> Result<(), VerifyError> {
    let sql = "SELECT kind, next_id FROM id_blocks WHERE bucket = $1";
    let mut next: BTreeMap<String, i64> = BTreeMap::new();
    for row in store.query(Statement::new(sql, [BUCKET.into()])).await? {
        let kind = row.text(0).strip_prefix("imported ").unwrap_or(row.text(0)).to_owned();
        let known = next.entry(kind).or_default();
        *known = row.int(1).max(*known);
    }
    for (kind, highest) in totals.highest.clone() {
        let row = format!("kind {kind}");
        match next.get(&kind) {
            // Their ids are somebody else's, or there is one only.
            None if [Member::TYPE, Appointment::TYPE, Provenance::TYPE].contains(&kind.as_str()) => {}
            None => {
                let what = format!("the row is missing, and {kind} {highest} is there");
                totals.find(Finding::new(0, "id_blocks", row, what));
            }
            Some(next) if *next < next_behind(highest) => {
                let what = format!("next_id is {next}, and {kind} {highest} is there");
                totals.find(Finding::new(0, "id_blocks", row, what));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Cuts what is ordered by a number into pieces, all numbers that there are.
pub(super) async fn cut(store: &Store, sql: &'static str) -> Result<Vec<(i64, i64)>, StoreError> {
    let mut pieces = Vec::new();
    let mut from = i64::MIN;
    loop {
        let parameters = [BUCKET, from, PIECE].map(Cell::from);
        let found = store.query(Statement::new(sql, parameters)).await?;
        let until = found.first().map_or(i64::MAX, |row| row.int(0));
        pieces.push((from, until));
        match until.checked_add(1) {
            Some(next) => from = next,
            None => return Ok(pieces),
        }
    }
}

pub(super) async fn member_pieces(store: &Store) -> Result<Vec<Piece>, StoreError> {
    let sql = "SELECT member_id FROM wallet_v1 WHERE bucket = $1 AND member_id >= $2
               ORDER BY bucket, member_id LIMIT 1 OFFSET $3";
    let pieces = cut(store, sql).await?;
    Ok(pieces.into_iter().map(|(from, until)| Piece::Members { from, until }).collect())
}

/// Each member's counters are what his own rows of the wallet come to, which are held against their streams elsewhere; and
/// the directory has him.
pub(super) async fn check_members(store: &Store, from: i64, until: i64) -> Result<Totals, VerifyError> {
    // One statement is one instant.
    let sql = "SELECT CAST(0 AS BIGINT), member_id, definition_id, issued FROM member_counts_v1
               WHERE bucket = $1 AND member_id >= $2 AND member_id <= $3
               UNION ALL
               SELECT CAST(1 AS BIGINT), issued_to, definition_id, COUNT(*) FROM wallet_v1
               WHERE bucket = $1 AND member_id >= $2 AND member_id <= $3 AND member_id = issued_to AND voided = 0
               GROUP BY issued_to, definition_id";
    let range = [BUCKET, from, until].map(Cell::from);
    let mut counts: BTreeMap<(i64, i64), [i64; 2]> = BTreeMap::new();
    for row in store.query(Statement::new(sql, range.clone())).await? {
        let both = counts.entry((row.int(1), row.int(2))).or_default();
        if let Some(count) = both.get_mut(row.int(0) as usize) {
            *count = row.int(3);
        }
    }
    let mut totals = Totals::default();
    for ((member_id, definition_id), [counter, own]) in counts {
        if counter != own {
            let row = format!("member_id {member_id}, definition_id {definition_id}");
            let what = format!("issued is {counter}, his coupons come to {own}");
            totals.find(Finding::new(0, "member_counts_v1", row, what));
        }
    }
    let sql = "SELECT DISTINCT w.member_id FROM wallet_v1 w
               WHERE w.bucket = $1 AND w.member_id >= $2 AND w.member_id <= $3 AND w.issued_to = w.member_id
                 AND NOT EXISTS (SELECT 1 FROM members m WHERE m.member_id = w.member_id)
               ORDER BY w.member_id";
    for row in store.query(Statement::new(sql, range)).await? {
        let what = "coupons were issued to him, and the directory does not have him";
        totals.find(Finding::new(0, "members", format!("member_id {}", row.int(0)), what));
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::KINDS;

    #[test]
    fn every_live_table_has_an_owner_among_the_kinds_of_streams() {
        for table in LIVE_TABLES {
            let owner = owner(table);
            assert!(owner.is_some_and(|(kind, _)| KINDS.contains(&kind)), "{}: {owner:?}", table.name);
        }
    }
}
